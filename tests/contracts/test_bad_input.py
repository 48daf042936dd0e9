"""What a user can get wrong with `m3face generate`: one line, an exit code, nothing written, no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3face.cli import run
from m3face.faces import to_colours

MAP = np.zeros((64, 64), np.uint8)
MAP[16:48, 16:48] = 1
POINTS = [[10.0 + i, 60.0] for i in range(68)]


def _mask(folder: Path, array: np.ndarray, name: str = "map.png") -> list[str]:
    Image.fromarray(array).save(folder / name)
    return ["--mask", str(folder / name)]


def _bytes(folder: Path, data: bytes) -> list[str]:
    (folder / "map.png").write_bytes(data)
    return ["--mask", str(folder / "map.png")]


def _cut_off(folder: Path) -> list[str]:
    _mask(folder, np.random.default_rng(0).integers(0, 19, (64, 64), dtype=np.uint8))
    return _bytes(folder, (folder / "map.png").read_bytes()[:700])


def _points(folder: Path, points: object) -> list[str]:
    (folder / "points.json").write_text(json.dumps(points))
    return ["--landmarks", str(folder / "points.json")]


def _foreign(share: float) -> np.ndarray:
    drawing = to_colours(MAP).copy()
    drawing.reshape(-1, 3)[: int(share * MAP.size)] = (10, 10, 10)
    return drawing


def _list_as_manifest(folder: Path) -> list[str]:
    (folder / "manifest.json").write_text("[]")
    return ["--weights", f"dir:{folder}"]


_19 = np.where(MAP == 1, 19, 0).astype(np.uint8)
BAD: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "a map that is not square": (lambda f: _mask(f, MAP[:32]), "--mask: is 64 x 32 pixels"),
    "a label of 19": (lambda f: _mask(f, _19), "--mask: has the label 19"),
    "foreign colours": (lambda f: _mask(f, _foreign(0.03)), "colours of no class"),
    "a cut-off picture": (_cut_off, "is cut off"),
    "no picture": (lambda f: _bytes(f, b"hello"), "is not a picture"),
    "an empty file": (lambda f: _bytes(f, b""), "is not a picture"),
    "a JPEG": (lambda f: _mask(f, MAP, "map.jpg"), "is a JPEG"),
    "a missing map": (lambda f: ["--mask", str(f / "none.png")], "No such file"),
    "a folder as map": (lambda f: ["--mask", str(f)], "--mask"),
    "67 landmarks": (lambda f: _points(f, POINTS[:67]), "--landmarks: has 67 points"),
    "landmarks that are no numbers": (
        lambda f: _points(f, [*POINTS[:67], [float("nan"), 1]]),
        "point 67 is not a number",
    ),
    "landmarks far outside": (lambda f: _points(f, [*POINTS[:67], [1e300, 1]]), "point 67 is at"),
    "landmarks of words": (lambda f: _points(f, [["a", "b"]] * 68), "number pairs"),
    "landmarks in a dictionary": (lambda f: _points(f, {"points": POINTS}), "number pairs"),
    "no steps": (lambda f: ["--steps", "0"], "--steps: is 0"),
    "a negative count": (lambda f: ["--count", "-1"], "--count: is -1"),
    "a negative seed": (lambda f: ["--seed", "-1"], "--seed: is -1"),
    "a guidance that is no number": (lambda f: ["--guidance", "nan"], "--guidance: is nan"),
    "an unknown condition": (lambda f: ["--condition", "pose"], "--condition: is 'pose'"),
    "an unknown preset": (lambda f: ["--preset", "huge"], "preset: 'huge'"),
    "missing weights": (lambda f: ["--weights", "dir:/no/such"], "weights: no folder"),
    "weights without a scheme": (lambda f: ["--weights", "/no/such"], "did you mean"),
    "weights of nobody": (lambda f: ["--weights", "dir:~nobody-at-all/x"], "weights: 'dir:~nobody-at-all/x'"),
    "a name too long": (lambda f: ["--weights", f"dir:/{'x' * 300}"], "weights: "),
    "a list as manifest": (_list_as_manifest, "is no manifest"),
    "weights without a manifest": (lambda f: ["--weights", f"dir:{f}"], "has no manifest.json"),
}


def _refused(arguments: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    code = run(["generate", *arguments, "--out", str(out)])
    printed = capsys.readouterr()
    assert code in (2, 3, 5) and printed.out == ""
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and "allowed: " in printed.err
    assert not out.exists()
    return printed.err


@pytest.mark.parametrize("name", BAD)
def test_is_refused_in_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = BAD[name]
    assert expected in _refused(["a face", *make(tmp_path)], tmp_path / "out", capsys)


@pytest.mark.parametrize("prompt", ["", " \t\n", "long " * 200, "\udcff"])
def test_a_prompt_that_cannot_be_read(prompt: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "prompt: " in _refused([prompt], tmp_path / "out", capsys)


def test_a_damaged_weights_file_is_named(
    random_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "weights"
    shutil.copytree(random_weights, copy)
    file = next((copy / "unet").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-9])
    assert f"{file} is damaged" in _refused(["x", "--weights", f"dir:{copy}"], tmp_path / "out", capsys)
    file.unlink()
    assert f"{file} is missing" in _refused(["x", "--weights", f"dir:{copy}"], tmp_path / "out", capsys)


def test_an_output_folder_that_cannot_be_written(
    random_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    line = _refused(["x", "--weights", f"dir:{random_weights}"], tmp_path / "file" / "out", capsys)
    assert "--out: " in line


def test_the_answer_comes_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from m3face.cli import run; code = run(sys.argv[1:]); "
        "sys.exit(99 if 'torch' in sys.modules else code)"
    )
    mask = _mask(tmp_path, _19)
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "generate", "x", *mask], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2 and "has the label 19" in done.stderr
    assert time.perf_counter() - start < 5, "1.5 s on a machine that does nothing else"
