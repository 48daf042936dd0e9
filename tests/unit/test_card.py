"""The card counts what is there, tells loaders where it is, and the sheet shows it."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from m3face.data.imagefolder import NOTICE
from m3face.data.storage import open_storage
from m3face.faces import to_colours
from tests.made_rows import bare_row, fill, full_row, publish, small_plan

pytest.importorskip("pyarrow")

from m3face.data.audit import below, kind_of, merged, shares, tally
from m3face.data.card import contact_sheet
from m3face.data.parquet import to_table
from m3face.data.shards import open_output


def test_counts_are_those_of_the_rows() -> None:
    rows = [full_row(index) for index in range(6)] + [bare_row()]
    halves = [tally(to_table(rows[:3], "png")), tally(to_table(rows[3:], "png"))]
    counts = merged([[[*key, n] for key, n in half.items()] for half in halves])
    assert below(counts, "split") == {"train": 4, "validation": 1, "test": 1}
    assert below(counts, "captions") == {"en": 12, "fa": 6}
    assert below(counts, "qa") == {"appearance": 6} and below(counts, "licence") == {"CC0-1.0": 6}
    assert below(counts, "error") == {"#; allowed: a whole file": 1}
    for name in ("hair_colour", "gender"):
        values = [row.attributes[name] for row in rows[:6]]
        assert below(counts, "attribute", name) == {value: values.count(value) for value in set(values)}


def test_shares_are_of_the_faces_of_a_group_that_are_known() -> None:
    def row(**attributes: str) -> dict[str, object]:
        return {"attributes": attributes}

    rows = [
        full_row(0, **row(gender="female", skin_tone="monk_2", lipstick="yes")),
        full_row(1, **row(gender="female", skin_tone="monk_9", lipstick="no")),
        full_row(2, **row(gender="female", skin_tone="monk_9")),
        full_row(3, **row(gender="male", skin_tone="monk_9", lipstick="no")),
    ]
    table = {(name, value): (faces, parts) for name, value, faces, parts in shares(tally(to_table(rows, "png")))}
    faces, parts = table["lipstick", "yes"]
    assert faces == 1
    female, male, young, middle, old, light, medium, dark = parts
    assert (female, male, light, medium, dark) == (0.5, 0.0, 1.0, None, 0.0)
    assert young is middle is old is None
    assert ("lipstick", "no") not in table


def test_kinds_forget_names_and_numbers() -> None:
    one = kind_of("a/b.png: has the label 19; allowed: labels 0..18; save class indices")
    assert one == kind_of("c.png: has the label 77; allowed: labels 0..18; something else")
    assert kind_of("no message of ours 17") == "no message of ours #"


def test_the_card_of_a_dataset(tmp_path: Path) -> None:
    plan = small_plan(20)
    rows = [full_row(index) for index in range(20)]
    rows[1] = bare_row(1)
    rows[3].identity = rows[0].identity
    storage = open_storage(str(tmp_path))
    open_output(storage, plan)
    fill(storage, plan, rows)
    facts = publish(storage, plan)
    for file in facts["files"]:
        data = (tmp_path / file["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"] and len(data) == file["bytes"]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {Path(f["name"]).name for f in facts["files"]}
    assert facts["people"] == 18 and facts["people_in_two_splits"] == 1  # rows 0 and 3 are one person
    assert facts["settings"] == plan.settings
    assert sum(group[-1] for group in facts["groups"]) == 19

    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, front, body = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert front["language"] == ["en", "fa"]
    default, aside = front["configs"]
    assert {f["split"]: f["path"] for f in default["data_files"]} == {
        split: f"data/{split}-*.parquet" for split in ("train", "validation", "test")
    }
    assert aside == {
        "config_name": "set_aside",
        "data_files": [{"split": "set_aside", "path": "data/set_aside-*.parquet"}],
    }
    for text in (
        "19 faces for use, 1 rows set aside",
        "CC0-1.0",
        "| English | 38 |",
        "1 skin",
        "18 cloth",
        "is cut off",
    ):
        assert text in body, text
    assert all(file["sha256"] in body for file in facts["files"])


def test_a_dataset_without_a_good_row_still_has_a_card(tmp_path: Path) -> None:
    plan = small_plan(2)
    storage = open_storage(str(tmp_path))
    open_output(storage, plan)
    fill(storage, plan, [bare_row(0), bare_row(1)])
    facts = publish(storage, plan)
    assert facts["rows"] == facts["errors"]["rows"] == 2
    assert "0 faces for use, 2 rows set aside" in (tmp_path / "README.md").read_text()


def test_the_sheet_shows_face_map_and_landmarks() -> None:
    row = full_row(0)
    data = contact_sheet([row, full_row(1, label_map=None, landmarks=None, source="ffhq")])
    sheet = Image.open(io.BytesIO(data))
    assert sheet.size == (4 * 3 * 128, 128) and sheet.info["Description"] == NOTICE
    pixels = np.asarray(sheet)
    assert row.label_map is not None
    np.testing.assert_array_equal(pixels[::2, 128:256:2], to_colours(row.label_map))
    assert (pixels[:, 256:384].reshape(-1, 3) == (0, 255, 0)).all(1).any(), "the jaw is green"
    assert (pixels[:, 4 * 128 : 6 * 128] == 255).all(), "what is not known stays white"
    assert "Description" not in Image.open(io.BytesIO(contact_sheet([full_row(source="ffhq")]))).info
