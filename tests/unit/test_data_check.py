"""`m3face data check` and `show`: counts, the first bad row with its remedy, a sheet; or one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3face.cli import run
from m3face.data.checking import TILE, check, draw_sheet
from m3face.data.rows import Row
from m3face.faces import to_colours
from tests import archives

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("check")
    archives.celebamask_hq(root / "hq", 6)
    archives.celeba_lists(root / "hq", 6)
    archives.webdataset(root / "tars", 4)
    (root / "empty").mkdir()
    return root


def test_check_counts_what_is_there(faces: Path, capsys: Captured) -> None:
    assert run(["data", "check", str(faces / "hq")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    found = {line[:10].strip(): line[11:] for line in out.splitlines()}
    licence = found.pop("licences")
    assert found == {
        "layout": "celebamask-hq (recognised)",
        "rows read": "6",
        "good rows": "6",
        "pictures": "64 x 64 (6)",
        "have": "label map (6), attributes (6), identity (6)",
        "splits": "train (2), validation (2), test (2)",
        "people": "3",
    }
    assert licence.startswith("CelebAMask-HQ: non-commercial")


def test_check_names_the_first_bad_row_and_its_remedy(faces: Path, tmp_path: Path, capsys: Captured) -> None:
    path = Path(shutil.copytree(faces / "hq", tmp_path / "hq"))
    for index in (2, 4):
        file = path / "CelebA-HQ-img" / f"{index}.jpg"
        file.write_bytes(file.read_bytes()[:600])
    assert run(["data", "check", str(path), "--all", "--layout", "celebamask-hq"]) == 4
    out, err = capsys.readouterr()
    assert err == (
        "error: row 2 (celebamask-hq-00002): CelebA-HQ-img/2.jpg: is cut off or damaged; "
        "allowed: a whole JPEG, PNG, WebP, TIFF, GIF or BMP file; copy the file again or leave it out; "
        "2 of 6 rows are bad\n"
    )
    assert "layout     celebamask-hq\n" in out
    assert "good rows  4\n" in out


def test_check_reads_some_rows_unless_told_to_read_all(
    faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("m3face.inspect_data.SOME", 2)
    assert run(["data", "check", str(faces / "hq")]) == 0
    assert "rows read  2 of 6 (--all reads the rest)\n" in capsys.readouterr().out
    assert run(["data", "check", str(faces / "hq"), "--all"]) == 0
    assert "rows read  6\n" in capsys.readouterr().out


def test_one_id_twice_is_a_bad_row(tmp_path: Path, capsys: Captured) -> None:
    archives.imagefolder(tmp_path / "a", 3)
    lines = (tmp_path / "a" / "metadata.jsonl").read_text("utf-8").splitlines()
    lines[2] = lines[2].replace("synthetic-3-000002", "synthetic-3-000000")
    (tmp_path / "a" / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    assert run(["data", "check", str(tmp_path / "a")]) == 4
    out, err = capsys.readouterr()
    assert "row 2 (synthetic-3-000000): id: synthetic-3-000000 comes a second time" in err
    assert "have       label map (2), landmarks (2), attributes (2), captions (2), identity (2)\n" in out
    assert "languages  en (2), " in out


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["check", "none"], 4, ["PATH", "none does not exist"]),
        (["check", "hq", "--layout", "coco"], 2, ["--layout", "'coco'", "celebamask-hq", "parquet"]),
        (["check", "hq", "--layout", "celeba"], 4, ["PATH", "lacks img_align_celeba", "is it celebamask-hq?"]),
        (["check", "hq", "--label-order", "bgr"], 2, ["--label-order", "'bgr'", "merged, raw, face-parsing"]),
        (["check", "hq", "--label-order", "raw"], 2, ["--label-order", "leave it out"]),
        (["check", "tars"], 2, ["--label-order", "is not named", "merged, raw, face-parsing"]),
        (["check", "tars", "--label-order", "raw"], 4, ["row 0", "one in the order merged"]),
        (["check", "empty"], 4, ["PATH", "in no layout known here", "imagefolder (metadata.jsonl"]),
        (["show", "hq", "--out", "sheet.jpg"], 5, ["--out", "sheet.jpg"]),
        (["show", "hq", "--out", "hq"], 5, ["--out", "hq"]),
        (["show", "hq", "--out", "tars/faces-000000.tar/a.png"], 5, ["--out", "folder that can be written"]),
        (["show", "hq"], 2, ["--out"]),
        (["look", "hq"], 2, ["look"]),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], code: int, says: list[str], faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(faces)
    before = sorted(faces.rglob("*"))
    assert run(["data", *arguments]) == code
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not [part for part in says if part not in err], err
    assert sorted(faces.rglob("*")) == before


def test_show_draws_the_faces(faces: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "deep" / "sheet.png"
    assert run(["data", "show", str(faces / "tars"), "--label-order", "merged", "--count", "2", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert [file.name for file in out.parent.iterdir()] == ["sheet.png"]
    with Image.open(out) as sheet:
        drawn = np.asarray(sheet)
    for place, index in enumerate((0, 2)):  # spread over the archive
        sample = archives.face(index)
        left = 8 + place * (3 * TILE + 3 * 8)
        colours = Image.fromarray(to_colours(sample.label_map)).resize((TILE, TILE), Image.Resampling.NEAREST)
        assert np.array_equal(drawn[8 : 8 + TILE, left + TILE + 8 : left + 2 * TILE + 8], np.asarray(colours))
        picture = drawn[8 : 8 + TILE, left : left + TILE].astype(int)
        over = drawn[8 : 8 + TILE, left + 2 * (TILE + 8) : left + 3 * TILE + 16]
        x, y = sample.landmarks[33] * (TILE / 64)  # under the nose
        assert over[int(y), int(x), 0] > 100
        assert over[int(y), int(x), 2] < 120  # orange
        touched = (np.abs(over - picture) > 40).any(-1).mean()
        assert 0.01 < touched < 0.3


def test_a_sheet_says_what_is_bad_and_leaves_unknown_tiles_empty() -> None:
    sample = archives.face(0)
    wide = np.ascontiguousarray(sample.image[:32])
    rows = [Row(id="good", image=wide), Row(id="bad", error="x.png: is cut off 文字" * 9)]
    sheet = np.asarray(draw_sheet(rows))
    assert sheet.shape == (8 + TILE + 2 * 14 + 8, 8 + 2 * (3 * TILE + 3 * 8), 3)
    tiles = sheet[8 : 8 + TILE]
    assert len(np.unique(tiles[TILE // 4 : -TILE // 4, 8 : 8 + TILE].reshape(-1, 3), axis=0)) > 50
    for left in (8 + TILE + 8, 8 + 3 * (TILE + 8), 8 + 4 * (TILE + 8)):
        assert (tiles[:, left : left + TILE] == (238, 238, 240)).all()
    red = sheet[8 + TILE :, :, 0] > sheet[8 + TILE :, :, 1].astype(int) + 60
    assert red.any()
    assert not red[:, : 3 * TILE].any()


def test_rows_are_read_in_portions() -> None:
    class Numbers:
        name = licence = "x"
        asked: list[list[int]] = []

        def __len__(self) -> int:
            return 70

        def read(self, indices):
            self.asked.append(list(indices))
            return [Row(id=str(index), error="odd" if index % 2 else None) for index in indices]

    source, told = Numbers(), []
    report = check(source, count=70, on_progress=lambda done, total: told.append((done, total)))
    assert [index for part in source.asked for index in part] == list(range(70))
    assert told == [(32, 70), (64, 70), (70, 70)]
    assert (report.rows, report.bad, report.first_bad) == (70, 35, (1, "1", "odd"))


def test_help_and_mistakes_wait_for_no_network_library() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'ray', 'pyarrow', 'fsspec'): sys.modules[name] = None\n"
        "from m3face.cli import run\n"
        "lines = ([], ['--help'], ['check', '--help'], ['check', '/none'])\n"
        "codes = [run(['data', *line]) for line in lines]\n"
        "assert codes == [0, 0, 0, 4], codes\n"
    )
    began = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage: m3face data check" in result.stdout
    assert time.perf_counter() - began < 10
