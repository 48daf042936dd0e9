"""`m3face evaluate` with fresh networks: every figure is there, within its range, and the same again."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from m3face.cli import run

FREE = Path(__file__).parents[1] / "data" / "free_prompts.jsonl"
RATES = ("map: anatomy right", "map and landmarks agree", "face: attributes named in the prompt right")
LIKENESS = ("face: kernel distance to renders", "face: identity similarity between seeds of one prompt")


def _table(weights: Path, out: Path) -> dict[str, Any]:
    lines = FREE.read_text("utf-8").splitlines()
    free = out.parent.parent / "free.jsonl"
    free.write_text("\n".join([next(line for line in lines if f'"{code}"' in line) for code in ("ja", "en")]), "utf-8")
    command = ["evaluate", "--weights", f"dir:{weights}", "--count", "2", "--prompts", str(free), "--out", str(out)]
    assert run(command) == 0
    facts: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return facts


def test_the_table_is_whole_and_the_same_again(random_weights: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    facts = _table(random_weights, tmp_path / "new" / "one.json")
    rows = {r["name"]: r for r in facts["rows"]}
    assert len(rows) == len(facts["rows"]) > 30
    for name in RATES:
        row = rows[name]
        assert row["interval"][0] <= row["value"] <= row["interval"][1] and 0 <= row["ceiling"] <= 1
    for language in ("ja", "en"):
        read, drawn = rows[f"reader: {language}, free wordings"], rows[f"face: attributes, {language}, free wordings"]
        assert read["count"] == drawn["count"] > 0
    parsed = rows["face: parsed back, mean IoU"]
    assert parsed["through_vae"] is not None and 0 < parsed["ceiling"] < 1  # an untrained parser is no good judge
    share = rows["face: parsed back, share of the parser's own"]
    faces, renders = facts["iou_by_class"]["faces"], facts["iou_by_class"]["renders"]
    both = faces.keys() & renders.keys()
    assert math.isclose(share["value"], sum(faces[c] for c in both) / sum(renders[c] for c in both), rel_tol=1e-6)
    assert share["note"].startswith(f"over {len(both)} classes")
    assert rows["map and landmarks agree"]["ceiling"] == 1.0  # the renderer's own maps and points
    distance, likeness = (rows[name] for name in LIKENESS)
    assert distance["value"] >= 0 and distance["ceiling"] >= 0 and distance["value"] != distance["ceiling"]
    assert -1 <= likeness["value"] <= 1 and -1 <= likeness["ceiling"] <= 1 and likeness["count"] == 2
    assert rows["judge: hair colour as its pixels have it"]["count"] == 2
    again = json.dumps(_table(random_weights, tmp_path / "new" / "two.json"))
    assert again == json.dumps(facts)


def test_an_unwritable_place_is_one_line(
    random_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "table.json", tmp_path):
        assert run(["evaluate", "--weights", f"dir:{random_weights}", "--out", str(out)]) == 5
        error = capsys.readouterr().err
        assert error.startswith("error: --out:") and error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
