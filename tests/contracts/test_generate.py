"""`m3face generate` and `m3face demo` with fresh networks: folders, facts, numbers, nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3face.cli import run
from m3face.faces import to_colours
from m3face.pipelines import demonstrating

NAMES = {"face.png", "label_map.png", "label_map_colour.png", "landmarks.json", "result.json"}


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_two_faces_then_one_from_the_first_ones_conditions(
    random_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "out"
    common = ["--weights", f"dir:{random_weights}", "--out", str(out), "--steps", "2"]
    assert run(["generate", "молодая женщина", "--count", "2", "--seed", "7", *common]) == 0
    assert capsys.readouterr().out.splitlines() == [str(out / "0000"), str(out / "0001")]
    first = out / "0000"
    given = ["--mask", str(first / "label_map_colour.png"), "--landmarks", str(first / "landmarks.json")]
    assert run(["generate", "молодая женщина", "--seed", "7", *given, *common]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["0000", "0001", "0002"]
    assert all({p.name for p in folder.iterdir()} == NAMES for folder in out.iterdir())
    facts = [json.loads((out / n / "result.json").read_text("utf-8")) for n in ("0000", "0001", "0002")]
    assert [f["seed"] for f in facts] == [7, 8, 7] and facts[0]["language"] == "ru"
    assert facts[2]["given"] == ["mask", "landmarks"] and set(facts[0]["seconds"]) == {"text", "conditions", "face"}
    maps = [np.asarray(_opened(out / n / "label_map.png")) for n in ("0000", "0001", "0002")]
    assert maps[0].dtype == np.uint8 and maps[0].shape == (128, 128) and maps[0].max() < 19
    assert np.array_equal(maps[0], maps[2]) and not np.array_equal(maps[0], maps[1])
    assert np.array_equal(np.asarray(_opened(first / "label_map_colour.png")), to_colours(maps[0]))
    assert len(json.loads((first / "landmarks.json").read_text())) == 68
    face = _opened(first / "face.png")
    assert json.loads(face.info["m3face"]) == facts[0]
    assert face.info["Comment"] == "made by a model, shows no real person"
    assert "trainedAlgorithmicMedia" in face.info["XML:com.adobe.xmp"] and "женщина" in face.info["Description"]


def test_a_smoothed_drawing_is_snapped_with_a_warning(
    random_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = to_colours(np.ones((128, 128), np.uint8)).copy()
    drawing[0, :100] = (200, 3, 3)
    Image.fromarray(drawing).save(tmp_path / "map.png")
    common = ["--weights", f"dir:{random_weights}", "--out", str(tmp_path / "out"), "--steps", "1"]
    assert run(["generate", "x", "--mask", str(tmp_path / "map.png"), "--condition", "mask", *common]) == 0
    assert capsys.readouterr().err.startswith("warning: --mask: 100 of 16384 pixels")
    facts = json.loads((tmp_path / "out" / "0000" / "result.json").read_text())
    assert facts["conditions"] == ["mask"] and "snapped" in facts["warnings"][0]
    assert (np.asarray(_opened(tmp_path / "out" / "0000" / "label_map.png")) == 1).all()


def test_one_condition_needs_only_its_own_network(random_weights: Path, tmp_path: Path) -> None:
    import shutil

    from m3face import checkpoints

    copy = tmp_path / "weights"
    shutil.copytree(random_weights, copy)
    shutil.rmtree(copy / "controlnet_landmarks")
    checkpoints.write_manifest(copy)
    common = ["generate", "x", "--weights", f"dir:{copy}", "--out", str(tmp_path / "out"), "--steps", "1"]
    assert run([*common, "--condition", "mask"]) == 0
    assert run(common) == 3


def test_the_demo_writes_one_sheet_and_says_where(
    random_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len({language for language, _, _ in demonstrating.PROMPTS}) == 6
    monkeypatch.setattr(demonstrating, "PROMPTS", demonstrating.PROMPTS[2:4])
    assert run(["demo", "--weights", f"dir:{random_weights}", "--out", str(tmp_path / "demo")]) == 0
    sheet, page = tmp_path / "demo" / "contact_sheet.png", tmp_path / "demo" / "contact_sheet.html"
    assert str(sheet) in capsys.readouterr().out
    assert sorted(p.name for p in sheet.parent.iterdir()) == [page.name, sheet.name]
    assert min(_opened(sheet).size) > 400
    assert all(prompt in page.read_text("utf-8") for _, prompt, _ in demonstrating.PROMPTS)
