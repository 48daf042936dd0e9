"""The benchmarks answer, and refuse what they cannot do in one line, before anything is rendered. No speed is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITH_WORKERS = ("preprocess", "precompute")
BENCHMARKS = (*WITH_WORKERS, "memory")


def benchmark(name: str, *arguments: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *arguments],
        cwd=temporary,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_names_the_options_and_nothing_hidden(name, tmp_path):
    result = benchmark(name, "--help", temporary=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not [option for option in ("--faces", "--rounds", "--out") if option not in result.stdout]
    assert ("--workers" in result.stdout) == (name in WITH_WORKERS)
    assert "--set" not in result.stdout


BAD = [
    *[(name, ["--faces", "31"], 2, ["--faces", "31", "32 or more"]) for name in BENCHMARKS],
    *[(name, ["--rounds", "0"], 2, ["--rounds", "1 or more"]) for name in BENCHMARKS],
    *[(name, ["--workers", "-1"], 2, ["--workers", "-1", "1 or more"]) for name in WITH_WORKERS],
    *[(name, ["--out", "."], 5, ["--out", "cannot be written"]) for name in BENCHMARKS],
    *[(name, ["--out", "file/x.json"], 5, ["--out", "a writable folder"]) for name in BENCHMARKS],
    ("preprocess", ["--size", "63"], 2, ["--size", "63", "64 to 512"]),
    ("preprocess", ["--size", "513"], 2, ["--size", "513", "64 to 512"]),
    ("preprocess", ["--arms", "plain", "spark"], 2, ["--arms", "spark", "plain, ray, datasets"]),
]


@pytest.mark.parametrize(("name", "arguments", "code", "says"), BAD, ids=lambda part: str(part))
def test_bad_input_is_one_line_before_anything_is_made(name, arguments, code, says, tmp_path):
    (tmp_path / "file").touch()
    result = benchmark(name, *arguments, temporary=tmp_path)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not [part for part in says if part not in result.stderr], result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(find_spec("datasets") is not None, reason="datasets is installed")
def test_an_arm_that_is_not_installed_says_what_to_install(tmp_path):
    result = benchmark("preprocess", "--arms", "datasets", temporary=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "pip install datasets" in result.stderr
    assert not list(tmp_path.iterdir())
