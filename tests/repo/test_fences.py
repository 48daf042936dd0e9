"""Rules that matter, made executable. Each proves that it looked at something."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "platform" / "m3face"
HEAVY = ("torch", "numpy", "diffusers", "transformers", "ray", "PIL", "pandas", "scipy", "deepspeed")


def sources() -> list[Path]:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 30, "a fence that sees nothing is no fence"
    return files


def own_files() -> list[Path]:
    """Every text file that people write here."""
    folders = ("platform", "tests", "jobs", "serve_deployments", "benchmarks", "docs", ".ci", "kubernetes")
    kinds = {".py", ".yaml", ".yml", ".toml", ".md", ".txt", ".json", ".js", ".html", ".css", ""}
    files = [p for p in ROOT.iterdir() if p.is_file()]
    for folder in folders:
        files += [p for p in (ROOT / folder).rglob("*") if p.is_file()]
    hidden = ("__pycache__", ".egg-info", ".git/", "presets/tiny/")
    return [p for p in files if p.suffix in kinds and not any(word in p.as_posix() for word in hidden)]


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


# -- the source root


def test_platform_is_a_source_root_and_no_package():
    assert PACKAGE.is_dir()
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert not (ROOT / "platform.py").exists()
    code = "import platform, m3face; platform.system(); print(platform.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    ).stdout.strip()
    assert Path(where).name == "platform.py"
    assert ROOT not in Path(where).parents or ".venv" in where


def test_no_module_is_called_utils():
    banned = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert not [p for p in sources() if p.name in banned]


# -- who imports what


def test_only_distributed_imports_ray():
    outside = [p for p in sources() if p.relative_to(PACKAGE).parts[0] != "distributed"]
    assert not [p for p in outside if any(name.split(".")[0] == "ray" for name in imported(parsed(p)))]


def test_the_package_serves_no_http():
    web = {"fastapi", "starlette", "gradio", "uvicorn"}
    assert not [p for p in sources() if any(name.split(".")[0] in web for name in imported(parsed(p)))]


def test_faces_and_config_are_free_of_torch():
    files = [p for p in sources() if p.relative_to(PACKAGE).parts[0] in ("faces", "config", "captions", "presets")]
    assert len(files) > 10
    assert not [p for p in files if any(name.split(".")[0] == "torch" for name in imported(parsed(p)))]


def test_nobody_outside_presets_asks_which_preset_it_is():
    from m3face import presets

    names = set(presets.rows._PRESETS)
    assert names
    found = []
    for path in sources():
        if path.relative_to(PACKAGE).parts[0] == "presets":
            continue
        for node in ast.walk(parsed(path)):
            compared: list[ast.expr] = []
            if isinstance(node, ast.Compare):
                compared = [node.left, *node.comparators]
            elif isinstance(node, ast.MatchValue):
                compared = [node.value]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                compared = list(node.args) if node.func.attr in ("startswith", "endswith") else []
            for part in compared:
                literals = {n.value for n in ast.walk(part) if isinstance(n, ast.Constant)}
                if literals & names:
                    found.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', '?')}")
    assert not found


# -- names and words


def all_packages() -> list[str]:
    import m3face

    names = [m.name for m in pkgutil.iter_modules(m3face.__path__, "m3face.") if m.ispkg]
    return [n for n in names if (PACKAGE / n.split(".")[1] / "__init__.py").is_file()]


@pytest.mark.parametrize("name", all_packages())
def test_all_is_sorted_and_true(name):
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert len(set(public)) == len(public)
    assert not [entry for entry in public if not hasattr(module, entry)]
    # constants, then classes, then functions: the order ruff (RUF022) keeps
    kind = [0 if n.isupper() else 1 if n[:1].isupper() else 2 for n in public]
    assert kind == sorted(kind)
    for group in range(3):
        names = [n for n, k in zip(public, kind, strict=True) if k == group]
        assert names == sorted(names)
    if name == "m3face.faces":
        assert len(public) > 25


def test_no_file_names_the_machine_it_was_written_on():
    banned = re.compile(
        "/" + r"work/(main|shared|\.)|\." + r"library\b|/opt/" + r"(wheels|pypi)|/home/\w+/|/Users/\w+/"
    )
    files = own_files()
    assert len(files) > 50
    found = [p.relative_to(ROOT).as_posix() for p in files if banned.search(p.read_text("utf-8", errors="ignore"))]
    assert not found


def test_no_local_version_of_torch_is_asked_for():
    files = [ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / "Makefile"]
    assert not [p.name for p in files if re.search(r"torch[^\n]*\+(cpu|cu\d+)", p.read_text())]


# -- what is promised in text


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_make_target_in_the_documents_exists():
    targets = makefile_targets()
    assert {"demo", "test", "check", "tiny", "tiny-gpu", "clean"} <= targets
    documents = [p for p in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")) if p.is_file()]
    assert documents
    named = {
        name for p in documents for name in re.findall(r"(?:`|^\s*|\$ )make ([a-z][\w-]*)", p.read_text(), re.MULTILINE)
    }
    if (ROOT / "README.md").is_file():
        assert {"demo", "test"} <= named
    assert not named - targets


def test_every_run_file_is_valid():
    from m3face.config import COMPONENTS, Closed, load_config, load_settings
    from m3face.config.dataset import PreprocessConfig
    from m3face.config.generate import GenerateConfig
    from m3face.config.precompute import PrecomputeConfig

    jobs: dict[str, type[Closed]] = {
        "preprocess": PreprocessConfig,
        "precompute": PrecomputeConfig,
        "generate": GenerateConfig,
    }
    files = sorted((ROOT / "jobs" / "configs").glob("*.yaml"))
    trained = {path.stem.removeprefix("tiny_"): path for path in files if path.stem.startswith("tiny_")}
    assert set(trained) == set(COMPONENTS)
    assert all(load_config(path).train.component == component for component, path in trained.items())
    others = [path for path in files if path not in trained.values()]
    assert {path.stem.split("_")[0] for path in others} == set(jobs)
    for path in others:
        load_settings(jobs[path.stem.split("_")[0]], path)


def test_make_tiny_finds_a_file_for_every_network():
    from m3face.config import COMPONENTS, load_config

    missing = [c for c in COMPONENTS if not (ROOT / "jobs" / "configs" / f"tiny_{c}.yaml").is_file()]
    assert not missing
    recipe = (ROOT / "Makefile").read_text().split("\ntiny:", 1)[1].split(";", 2)[1]
    trained = re.findall(r"\b[a-z_]+\b", recipe.split(" in ", 1)[1])
    with_the_unet = [f"controlnet_{c}" for c in load_config(ROOT / "jobs/configs/tiny_unet.yaml").train.conditions]
    assert trained == [c for c in COMPONENTS if c not in with_the_unet]


def test_every_pattern_of_package_data_finds_a_file():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert tool["package-dir"] == {"": "platform"}
    patterns = [(package, glob) for package, globs in tool["package-data"].items() for glob in globs]
    assert len(patterns) >= 3
    for package, glob in patterns:
        folder = PACKAGE if package == "*" else ROOT / "platform" / package.replace(".", "/")
        assert [p for p in folder.glob(glob) if p.is_file()], f"{package}: {glob}"


def test_every_direct_dependency_is_pinned_in_the_constraints():
    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    wanted = {plain(re.split(r"[^\w.-]", line, maxsplit=1)[0]) for line in lines}
    rows = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(rows) > 50
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", row) for row in rows)
    assert not wanted - {plain(row.split("==")[0]) for row in rows}


# -- how fast it answers


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "platform")}


def test_the_command_line_is_light_to_import():
    code = "import sys, m3face.cli; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    ).stdout.split()
    assert "m3face" in loaded
    assert not set(loaded) & set(HEAVY)
