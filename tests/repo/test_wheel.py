"""What others install: the wheel, not the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the source, so that nothing is built inside the checkout."""
    base = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "platform", base / "source" / "platform", ignore=leave)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, base / "source" / name)
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", str(base / "dist"), str(base / "source"))
    (built,) = (base / "dist").glob("m3face-*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_source_and_data_file(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("m3face/")}
        others = {name.split("/")[0] for name in archive.namelist()} - {"m3face"}
    package = ROOT / "platform" / "m3face"
    wanted = {
        "m3face/" + p.relative_to(package).as_posix()
        for p in package.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and not p.name.startswith(".")
    }
    assert len(wanted) > 40
    assert inside == wanted
    assert len(others) == 1  # the metadata


@pytest.mark.slow
def test_the_installed_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path):
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", str(target), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], cwd=elsewhere, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(python("-c", "import m3face; print(m3face.__file__)").strip()).is_relative_to(target)
    assert "Usage: m3face" in python("-m", "m3face.cli", "--help")
    assert "stdlib" not in python("-c", "import platform; print(platform.system())")
    captions = "from m3face.captions import available_languages as a; print(len(a()))"
    assert int(python("-c", captions)) == len(list((ROOT / "platform/m3face/captions/lexicons").glob("*.yaml")))
    questions = "import m3face.captions as c; p = c.__path__[0]; import os; print(len(os.listdir(p + '/questions')))"
    assert int(python("-c", questions)) == len(list((ROOT / "platform/m3face/captions/questions").glob("*.yaml")))
