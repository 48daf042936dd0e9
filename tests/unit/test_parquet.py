"""A row goes into a table of the schema and comes out as it was; others find pictures in it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from m3face.data.imagefolder import NOTICE
from m3face.faces import ATTRIBUTES, LANGUAGES, PALETTE
from tests.made_rows import bare_row, full_row, same

pa = pytest.importorskip("pyarrow")

from m3face.data.containers import GROUP, M3CelebA, Rows, WebDataset, m3celeba_schema  # noqa: E402
from m3face.data.parquet import SCHEMA, for_datasets, from_table, to_table  # noqa: E402


def test_rows_come_back_as_they_went() -> None:
    rows = [full_row(), bare_row(), full_row(1, attributes={"gender": "female"}, captions={}, qa=[])]
    table = to_table(rows, "png")
    assert table.schema == SCHEMA
    for row, back in zip(rows, from_table(table), strict=True):
        same(row, back)


def test_a_jpeg_keeps_the_face_and_the_map_stays_exact() -> None:
    row = full_row()
    (back,) = from_table(to_table([row], "jpeg"))
    assert row.image is not None and back.image is not None
    assert 0 < np.abs(back.image.astype(int) - row.image).mean() < 2
    np.testing.assert_array_equal(back.label_map, row.label_map)


def test_every_file_of_a_rendered_face_says_so_and_no_other_does() -> None:
    for pictures in ("jpeg", "png"):
        made, real = to_table([full_row(), full_row(source="ffhq")], pictures).to_pylist()
        for name in ("image", "label_map"):
            info = Image.open(io.BytesIO(made[name]["bytes"])).info
            assert NOTICE in (info.get("Description"), info.get("comment", b"").decode())
            info = Image.open(io.BytesIO(real[name]["bytes"])).info
            assert not info.get("Description") and not info.get("comment")


def test_the_note_for_datasets_names_pictures_and_every_column() -> None:
    note = json.loads(for_datasets(SCHEMA).metadata[b"huggingface"])["info"]["features"]
    text = {"dtype": "string", "_type": "Value"}
    assert list(note) == SCHEMA.names
    assert note["image"] == note["label_map"] == {"_type": "Image"}
    assert note["landmarks"] == [[{"dtype": "float32", "_type": "Value"}]]
    assert note["attributes"] == dict.fromkeys(ATTRIBUTES, text)
    assert note["captions"] == {code: [text] for code in LANGUAGES}
    assert note["qa"] == [dict.fromkeys(("question", "answer", "kind", "language"), text)]


def test_row_groups_stay_small_and_keep_the_order(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    row, file = full_row(), Rows(tmp_path / "x.parquet")
    for first in range(0, 150, 30):
        file.add(to_table([replace(row, id=str(first + k)) for k in range(30)], "png"))
    file.close()
    written = pq.ParquetFile(tmp_path / "x.parquet")
    sizes = [written.metadata.row_group(k).num_rows for k in range(written.num_row_groups)]
    assert sum(sizes) == 150 and max(sizes) < 2 * GROUP
    assert written.read(["id"])["id"].to_pylist() == [str(k) for k in range(150)]
    assert b"huggingface" in written.schema_arrow.metadata


def test_m3celebas_columns(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    row = full_row(0, captions={"en": ["a", "b", "c", "d"], "de": ["e"], "fa": ["f"]})
    file = M3CelebA(tmp_path / "x.parquet", m3celeba_schema(("en", "fa")))
    file.add(to_table([row, full_row(1, landmarks=None, label_map=None)], "png"))
    file.close()
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == [
        *("id", "image", "mask", "landmark_image", "landmark"),
        *("captions_eng", "captions_fra", "captions_deu", "captions_ita", "captions_spa", "captions_pes"),
    ]
    first, second = table.to_pylist()
    assert (
        first["captions_eng"] == ["a", "b", "c"] and first["captions_deu"] == ["e"] and first["captions_pes"] == ["f"]
    )
    assert first["captions_fra"] == []
    assert row.landmarks is not None and row.label_map is not None
    assert first["landmark"] == np.rint(row.landmarks).astype(int).ravel().tolist() and len(first["landmark"]) == 136
    mask = Image.open(io.BytesIO(first["mask"]["bytes"]))
    np.testing.assert_array_equal(np.asarray(mask), row.label_map)
    np.testing.assert_array_equal(np.asarray(mask.convert("RGB")), PALETTE[row.label_map])
    assert Image.open(io.BytesIO(first["landmark_image"]["bytes"])).size == (64, 64)
    assert second["mask"] is second["landmark"] is second["landmark_image"] is None


def test_a_webdataset_tar(tmp_path: Path) -> None:
    import tarfile

    row = full_row()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        file = WebDataset(tmp_path / name / "train-00000-of-00001.tar")
        file.add(to_table([row, full_row(1, captions={})], "jpeg"))
        file.close()
    one = (tmp_path / "a" / "train-00000-of-00001.tar").read_bytes()
    assert one == (tmp_path / "b" / "train-00000-of-00001.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        names = tar.getnames()
        key = "train-00000-of-00001-000000"
        assert names[:4] == [f"{key}.jpg", f"{key}.mask.png", f"{key}.txt", f"{key}.json"]
        assert names[4:] == [f"{key[:-1]}1.jpg", f"{key[:-1]}1.mask.png", f"{key[:-1]}1.json"]
        facts = json.load(tar.extractfile(f"{key}.json"))  # type: ignore[arg-type]
        text = tar.extractfile(f"{key}.txt")
        assert text is not None and text.read() == b"Face 0."
    assert facts["id"] == "face-0" and facts["attributes"] == row.attributes and facts["captions"] == row.captions
    assert facts["landmarks"] == np.asarray(row.landmarks).tolist() and "image" not in facts
