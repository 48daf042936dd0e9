"""`m3face …` from a shell: quick where it should be, one line where something is wrong, nothing half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
QUICK_S = 1.5


def m3face(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "m3face.cli", *arguments],
        cwd=cwd or ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "platform")},
        capture_output=True,
        text=True,
        timeout=300,
    )


def seconds(*arguments: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """The best of three: other processes share the machine."""
    best, result = float("inf"), None
    for _ in range(3):
        began = time.perf_counter()
        result = m3face(*arguments)
        best = min(best, time.perf_counter() - began)
        if best < QUICK_S:
            break
    assert result is not None
    return best, result


@pytest.mark.parametrize(
    "arguments", [["--help"], ["synth", "--help"], ["train", "--help"], ["doctor", "--help"], ["data", "--help"], []]
)
def test_help_answers_at_once(arguments):
    took, result = seconds(*arguments)
    assert result.returncode == 0, result.stderr
    assert "Usage: m3face" in result.stdout
    assert took < QUICK_S


BAD = [
    (["synth", "--count", "0", "--out", "x"], 2, ["--count", "'0'", "equal to 1", "see m3face synth --help"]),
    (["synth", "--count", "-4", "--out", "x"], 2, ["--count", "'-4'"]),
    (["synth", "--count", "many", "--out", "x"], 2, ["--count", "'many'", "integer"]),
    (["synth", "--size", "63", "--out", "x"], 2, ["--size", "'63'", "64"]),
    (["synth", "--size", "513", "--out", "x"], 2, ["--size", "'513'", "512"]),
    (["synth", "--cuont", "3", "--out", "x"], 2, ["--cuont", "--count"]),
    (["synth"], 2, ["--out"]),
    (["paint"], 2, ["paint"]),
    (["synth", "--out", "Makefile/x"], 5, ["--out", "writable"]),
    (["synth", "--out", "tests"], 5, ["--out", "tests is not empty", "new or empty folder"]),
    (["synth", "--out", "Makefile"], 5, ["--out", "Makefile is a file"]),
    (["train", "--config", "no-such.yaml"], 2, ["no-such.yaml"]),
    (["train", "--config", "Makefile"], 2, ["config", "Makefile"]),
    (["train", "--config", "jobs/configs/tiny_vae.yaml", "--set", "train.stepz=3"], 2, ["train.stepz"]),
    (["train", "--config", "jobs/configs/tiny_vae.yaml", "--set", "train.steps=0"], 2, ["train.steps", "got 0"]),
    (["train", "--config", "jobs/configs/tiny_vae.yaml", "--set", "nonsense"], 2, ["--set", "nonsense"]),
    (["train", "--config", "jobs/configs/tiny_vae.yaml", "--set", "train.steps=["], 2, ["--set", "train.steps=["]),
    (["train", "--config", "jobs/configs/tiny_vae.yaml", "--set", "data.seed=0"], 2, ["data.seed", "got 0"]),
    (["train", "--config", "jobs/configs/tiny_vae.yaml", "--set", "preset=huge"], 2, ["preset", "'huge'", "tiny"]),
    (["data", "check", "nowhere"], 4, ["nowhere"]),
    (["data", "check", "tests", "--layout", "heap"], 2, ["--layout", "'heap'", "celebamask-hq"]),
    (["data", "check", "tests/parity"], 4, ["tests/parity", "in no layout known here"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "says"), BAD, ids=lambda part: " ".join(part) if isinstance(part, list) else ""
)
def test_bad_input_is_one_line_at_once(arguments, code, says):
    before = sorted(ROOT.iterdir())
    took, result = seconds(*arguments)
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not [part for part in says if part not in result.stderr], result.stderr
    assert took < QUICK_S
    assert sorted(ROOT.iterdir()) == before


def test_explain_names_every_setting_without_training():
    took, result = seconds("train", "--config", "jobs/configs/tiny_vae.yaml", "--explain", "--set", "train.steps=7")
    assert result.returncode == 0, result.stderr
    assert "train.steps = 7 " in result.stdout
    assert all("# " in line for line in result.stdout.splitlines())
    assert took < QUICK_S


def test_synth_writes_an_imagefolder_that_agrees_with_itself(tmp_path: Path):
    out = tmp_path / "faces"
    result = m3face("synth", "--count", "4", "--size", "64", "--seed", "5", "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["faces"]
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [row["file_name"] for row in rows] == [f"{i:06d}.png" for i in range(4)]
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*"))
    assert files == sorted(["metadata.jsonl", *(f"{p}{i:06d}.png" for p in ("", "label_maps/") for i in range(4))])
    for row in rows:
        assert list(row) == [
            "file_name", "id", "label_map", "landmarks", "attributes", "captions", "qa", "source", "licence",
            "identity", "split", "error",
        ]  # fmt: skip
        assert np.asarray(row["landmarks"]).shape == (68, 2)
        assert len(row["captions"]) == 2
        assert "en" in row["captions"]
        assert all(texts and all(texts) for texts in row["captions"].values())
        assert (row["source"], row["licence"], row["error"], row["qa"]) == ("synthetic", "CC0-1.0", None, [])
        assert row["split"] in ("train", "validation", "test")
        with Image.open(out / row["file_name"]) as picture, Image.open(out / row["label_map"]) as label_map:
            assert (picture.mode, picture.size, label_map.mode, label_map.size) == ("RGB", (64, 64), "L", (64, 64))
            assert np.asarray(label_map).max() <= 18
            assert "no real person" in str(picture.info["Description"])
    again = m3face("synth", "--count", "4", "--size", "64", "--seed", "5", "--out", str(tmp_path / "again"))
    assert again.returncode == 0, again.stderr
    assert all((out / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)


def test_a_failure_half_way_leaves_nothing_behind(tmp_path: Path):
    from m3face.data.imagefolder import write_imagefolder
    from m3face.synthetic import make_sample

    def faces():
        yield make_sample(0, 0, size=64)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_imagefolder(faces(), tmp_path / "deep" / "faces")
    assert not list((tmp_path / "deep").iterdir())


def test_no_person_is_in_two_splits():
    from m3face.data.splitting import split_of

    splits = [split_of(f"p{i}") for i in range(4000)]
    shares = {name: splits.count(name) / len(splits) for name in ("train", "validation", "test")}
    assert shares["train"] == pytest.approx(0.9, abs=0.02)
    assert shares["validation"] == pytest.approx(0.05, abs=0.015)
    assert sum(shares.values()) == 1
    assert splits == [split_of(f"p{i}") for i in range(4000)]


def test_doctor_reports_and_its_exit_code_agrees():
    result = m3face("doctor")
    required = [line for line in result.stdout.splitlines() if line.startswith("NO")]
    assert result.returncode == (1 if required else 0), result.stderr
    assert "g++" in result.stdout
    assert "torch" in result.stdout
    assert "Traceback" not in result.stderr
