"""A published dataset as what training reads: the right rows in the right order, and what cannot be used, by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from m3face.config import DataConfig
from m3face.data import encoded
from m3face.data.faces import NOBODY, captions, faces, pictures_of_people
from m3face.data.people import PeopleCaptions, attribute_values, face_caption, people
from m3face.data.rows import Row
from m3face.data.store import here
from m3face.errors import DataError
from m3face.faces import resize_landmarks, resize_map
from tests.written import LANGUAGES, rendered_row, write_dataset

SIZE = 64


def _rows(count: int) -> list[Row]:
    return [rendered_row(index, size=SIZE) for index in range(count)]


def _config(folder: Path, **more: Any) -> DataConfig:
    return DataConfig.model_validate({"source": "dataset", "path": str(folder), "size": SIZE, **more})


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Ten rows of all splits: the third with an error, the fourth of nobody known."""
    rows = _rows(10)
    rows[2] = replace(rows[2], image=None, error="image: is cut off")
    rows[3] = replace(rows[3], identity="")
    rows[6] = replace(rows[6], split="validation")
    rows[9] = replace(rows[9], split="test")
    return rows


@pytest.fixture(scope="module")
def folder(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset") / "faces", rows)


TRAIN = [0, 1, 3, 4, 5, 7, 8]


def test_faces_are_the_rows_of_the_split_in_order(rows: list[Row], folder: Path, tmp_path: Path) -> None:
    store = faces(_config(folder), tmp_path, spread=here)
    assert len(store) == len(TRAIN)
    assert store.key["size"] == SIZE
    for place, number in enumerate(TRAIN):
        row = rows[number]
        for name in ("image", "label_map", "landmarks"):
            assert np.array_equal(store[name][place], getattr(row, name)), (number, name)
        assert attribute_values(store["attributes"][place]) == row.attributes
    assert store["person"].tolist() == [0, 0, NOBODY, 1, 1, 2, 3]
    assert [group.tolist() for group in pictures_of_people(store)] == [[0, 1], [3, 4]]


def test_processes_decode_what_one_process_decodes(folder: Path, tmp_path: Path) -> None:
    alone, together = faces(_config(folder), tmp_path / "one", spread=here), faces(_config(folder), tmp_path / "two")
    for name in ("image", "label_map", "landmarks", "attributes", "person"):
        assert np.array_equal(alone[name], together[name])


def test_another_size_shrinks_picture_map_and_points_alike(rows: list[Row], tmp_path: Path) -> None:
    big = [rendered_row(index, size=128) for index in range(2)]
    store = faces(_config(write_dataset(tmp_path / "faces", big)), tmp_path, spread=here)
    for index, row in enumerate(big):
        assert row.image is not None and row.label_map is not None and row.landmarks is not None
        halved = np.asarray(Image.fromarray(row.image).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        assert np.array_equal(store["image"][index], halved)
        assert np.array_equal(store["label_map"][index], resize_map(row.label_map, SIZE))
        assert np.array_equal(store["landmarks"][index], resize_landmarks(row.landmarks, old=128, new=SIZE))
        # the same person at the smaller size: one pixel, one label
        assert np.abs(store["image"][index].astype(int) - rows[index].image).mean() < 6
        assert (store["label_map"][index] == rows[index].label_map).mean() > 0.95


def test_a_store_is_known_by_the_content_the_split_the_size_and_the_count(folder: Path, tmp_path: Path) -> None:
    first = faces(_config(folder), tmp_path, spread=here)
    others: list[dict[str, Any]] = [{"split": "validation"}, {"split": "test"}, {"count": 3}]
    stores = [faces(_config(folder, **more), tmp_path, spread=here) for more in others]
    assert [len(store) for store in stores] == [1, 1, 3]
    assert np.array_equal(stores[2]["image"], first["image"][:3])
    assert len({store.folder for store in [first, *stores]}) == 4

    def never(*_: Any) -> Any:
        raise AssertionError("is there already")

    assert faces(_config(folder), tmp_path, spread=never).folder == first.folder
    copied = tmp_path / "elsewhere"
    copied.symlink_to(folder)
    assert faces(_config(copied), tmp_path, spread=never).folder == first.folder
    changed = write_dataset(tmp_path / "changed", [replace(row, licence="CC-BY-4.0") for row in _rows(4)])
    assert faces(_config(changed), tmp_path, spread=here).folder != first.folder


def test_shards_of_others_need_no_report(folder: Path, rows: list[Row], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in (folder / "data").glob("*.parquet"):
        (other / file.name).symlink_to(file)
    store = faces(_config(other), tmp_path, spread=here)
    assert len(store) == len(TRAIN)
    assert np.array_equal(store["image"], faces(_config(folder), tmp_path, spread=here)["image"])
    (other / "train-00000-of-00003.parquet").unlink()
    assert len(faces(_config(other), tmp_path, spread=here)) == len(TRAIN) - 3


def test_captions_are_the_rows_own(rows: list[Row], folder: Path, tmp_path: Path) -> None:
    store = faces(_config(folder), tmp_path, spread=here)
    source = captions(_config(folder, captions_per_face=3), store)
    texts = source.texts(0, len(store))
    assert len(texts) == 3 * len(store)
    for place, number in enumerate(TRAIN):
        own = [text for code in LANGUAGES for text in rows[number].captions[code]]
        assert set(texts[3 * place : 3 * place + 3]) <= set(own)
    assert source.texts(2, 4) == texts[6:12]  # whichever rows are asked for together
    all_of_them = captions(_config(folder, captions_per_face=4), store).texts(0, 1)
    assert sorted(all_of_them) == sorted(text for code in LANGUAGES for text in rows[0].captions[code])
    again = captions(_config(folder, captions_per_face=6), store).texts(0, 1)
    assert again == [*all_of_them, *all_of_them[:2]]


def test_the_captions_of_rendered_people_stay_as_they_were(tmp_path: Path) -> None:
    """The texts and the key of caches that exist."""
    store = people(tmp_path, count=2, seed=1, size=64)
    source = captions(DataConfig(count=2, size=64), store)
    assert isinstance(source, PeopleCaptions)
    assert source.key["captions"] == [2, 2] and set(source.key) == {"captions", "wording"}
    assert source.texts(0, 2) == [face_caption(store, i, k).text for i in range(2) for k in range(2)]
    assert faces(DataConfig(count=2, size=64), tmp_path).folder == store.folder
    assert store.key == {"renderer": 1, "seed": 1, "size": 64, "count": 2}


def test_text_states_are_those_of_the_rows_captions(
    folder: Path, random_weights: Path, tmp_path: Path, one_thread: None
) -> None:
    config = _config(folder, count=2)
    store = faces(config, tmp_path, spread=here)
    source = captions(config, store)
    states = encoded.text_states(tmp_path, store, random_weights, captions=source, device="cpu")
    assert states["states"].shape[:2] == (2, 2)
    assert states.key["captions"] == ["rows", 1, 2] and states.key["dataset"] == store.key["dataset"]
    assert len({states["states"][i, k].tobytes() for i in range(2) for k in range(2)}) == len(set(source.texts(0, 2)))


# ------------------------------------------------------------------------------------------------------------ refusals
def _refused(folder: Path, caches: Path, **more: Any) -> str:
    with pytest.raises(DataError) as caught:
        faces(_config(folder, **more), caches, spread=here)
    assert not [p for p in caches.glob("faces-*") if not p.name.endswith(".building")]
    return str(caught.value)


@pytest.mark.parametrize(
    ("column", "nothing", "said"),
    [
        ("label_map", None, "without a label map, 'face-1' the first; allowed: label_map in every row; data.parser"),
        ("landmarks", None, "without landmarks, 'face-1' the first; allowed: landmarks in every row; data.landmarks"),
        ("attributes", {}, "without all 39 attributes, 'face-1' the first"),
        ("attributes", {"age": "young"}, "without all 39 attributes, 'face-1' the first"),
    ],
)
def test_rows_that_lack_something_are_counted(column: str, nothing: Any, said: str, tmp_path: Path) -> None:
    rows = _rows(4)
    folder = write_dataset(
        tmp_path / "faces", [rows[0], *(replace(r, **{column: nothing}) for r in rows[1:3]), rows[3]]
    )
    assert said in _refused(folder, tmp_path)


def test_rows_without_captions_are_counted(tmp_path: Path) -> None:
    rows = _rows(3)
    config = _config(write_dataset(tmp_path / "faces", [*rows[:2], replace(rows[2], captions={})]))
    store = faces(config, tmp_path, spread=here)
    with pytest.raises(DataError, match=r"1 of 3 train rows without captions .*, 'face-2' the first; .*by=grammar"):
        captions(config, store).texts(0, 3)


def test_other_columns_are_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "faces", _rows(2), format="m3celeba")
    said = _refused(folder, tmp_path)
    assert "has no column 'split' in data/train-00000-of-00001.parquet, only id, image, mask, landmark_image" in said


def test_pictures_that_are_not_square_are_named(tmp_path: Path) -> None:
    rows = _rows(2)
    assert rows[1].image is not None and rows[1].label_map is not None
    rows[1] = replace(rows[1], image=rows[1].image[:48], label_map=rows[1].label_map[:48])
    said = _refused(write_dataset(tmp_path / "faces", rows), tmp_path)
    assert said.startswith("row 'face-1' of data.path, image: is 48 x 64 x 3; allowed: 48 x 48 x 3; data.align.on=true")


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "faces", _rows(2))
    (shard,) = (folder / "data").glob("train-*.parquet")
    table = pq.read_table(shard)
    records = table.to_pylist()
    records[1]["image"]["bytes"] = records[1]["image"]["bytes"][:200]
    pq.write_table(type(table).from_pylist(records, schema=table.schema), shard)
    assert "row 'face-1' of data.path, image: is cut off or damaged" in _refused(folder, tmp_path)


def test_a_damaged_shard_is_named(folder: Path, tmp_path: Path) -> None:
    broken = write_dataset(tmp_path / "faces", _rows(2))
    (shard,) = (broken / "data").glob("train-*.parquet")
    shard.write_bytes(shard.read_bytes()[:500])
    assert "has a damaged shard data/train-00000-of-00001.parquet" in _refused(broken, tmp_path)


def test_places_without_a_finished_dataset_are_named(folder: Path, tmp_path: Path) -> None:
    assert "has no shards of the split 'train'" in _refused(tmp_path / "nowhere", tmp_path)
    only_train = write_dataset(tmp_path / "train", _rows(2))
    assert "has no shards of the split 'validation'" in _refused(only_train, tmp_path, split="validation")
    unfinished = tmp_path / "unfinished"
    (unfinished / ".work").mkdir(parents=True)
    (unfinished / ".work" / "plan.json").write_text("{}")
    (unfinished / "data").symlink_to(folder / "data")
    assert "is not finished" in _refused(unfinished, tmp_path)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "report.json").write_text(json.dumps({"files": {"a": 1}}))
    assert "has a report.json of another kind" in _refused(strange, tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "dataset"}, "data.path is empty"),
        ({"path": "faces"}, "are for data.source dataset"),
        ({"split": "test"}, "are for data.source dataset"),
        ({"source": "dataset", "path": "faces", "split": "all"}, "'train', 'validation' or 'test'"),
        ({"source": "dataset", "path": "faces", "folder": "faces"}, "Extra inputs are not permitted"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DataConfig.model_validate(given)


def test_only_rendered_faces_are_counted_by_default() -> None:
    assert DataConfig().count == 16000
    assert DataConfig.model_validate({"source": "dataset", "path": "faces"}).count is None
    assert DataConfig.model_validate(DataConfig(count=5).model_dump()) == DataConfig(count=5)
