"""Archives in every published layout: what is read equals what was drawn, and every fault is named."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from m3face.config.dataset import Layout, SourceConfig
from m3face.data.rows import Row, Source
from m3face.data.sources import LABEL_ORDERS, Archive, detect, open_source
from m3face.data.sources.orders import likelier_order, to_ids
from m3face.errors import BadInput, ConfigError, DataError, M3FaceError
from m3face.faces import CELEBA_NAMES, CLASSES, ID, flip_map, from_celeba, resize_map, to_celeba, to_colours
from m3face.synthetic import Sample
from tests import archives

# the publisher's list and rule: a part paints its place in this list plus one over what is there
PAINTED = [
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip",
    "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
]  # fmt: skip

BUILDERS: dict[str, Callable[..., list[Sample]]] = {
    "celebamask-hq": archives.celebamask_hq,
    "celeba": archives.celeba,
    "m3celeba": archives.m3celeba,
    "ffhq": archives.ffhq,
    "imagefolder": archives.imagefolder,
    "webdataset": archives.webdataset,
    "parquet": archives.parquet,
}
COUNT = 5


def opened(layout: str, path: Path | str, **settings: Any) -> Source:
    return open_source(SourceConfig.model_validate({"layout": layout, "path": str(path), **settings}))


def read_all(source: Source) -> list[Row]:
    return source.read(range(len(source)))


def good(rows: list[Row]) -> list[Row]:
    assert [row.error for row in rows] == [None] * len(rows)
    return rows


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One archive of each layout, to be read only."""
    root = tmp_path_factory.mktemp("archives")
    for name, build in BUILDERS.items():
        build(root / name, COUNT)
    return {name: root / name for name in BUILDERS}


@pytest.fixture
def copied(built: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an archive, to be spoilt."""

    def copy(layout: str) -> Path:
        return Path(shutil.copytree(built[layout], tmp_path / layout))

    return copy


def same(one: Any, other: Any) -> bool:
    """Whether two arrays are equal; None equals None only."""
    return bool(np.array_equal(one, other))


def order_of(layout: str) -> str | None:
    return "merged" if layout == "webdataset" else None


# ------------------------------------------------------------------------------------------------ what is read


@pytest.mark.parametrize("layout", BUILDERS)
def test_every_layout_gives_back_its_faces(layout: str, built: dict[str, Path]) -> None:
    samples = BUILDERS[layout](built[layout].with_name(f"{layout}-again"), COUNT)
    source = opened(layout, built[layout], label_order=order_of(layout))
    rows = good(read_all(source))
    assert source.name == layout
    assert len({row.id for row in rows}) == COUNT
    margin = (64 - 52) // 2 if layout == "celeba" else 0
    for row, sample in zip(rows, samples, strict=True):
        expected = sample.image[:, margin : 64 - margin].astype(int)
        assert row.image is not None
        off = np.abs(row.image - expected).mean()
        assert off == 0 if layout not in ("celebamask-hq", "celeba", "m3celeba") else off < 4  # JPEG
        if layout in ("m3celeba", "imagefolder", "webdataset", "parquet"):
            assert row.label_map is not None
            assert row.label_map.dtype == np.uint8
            assert same(row.label_map, sample.label_map)
            assert row.landmarks is not None
            tolerance = 0.5 * 64 / 512 if layout == "m3celeba" else 0.0006  # whole pixels of 512; three decimals
            assert np.abs(row.landmarks - sample.landmarks).max() <= tolerance
        if layout in ("imagefolder", "webdataset", "parquet"):
            assert row.attributes == sample.attributes
            assert (row.identity, row.source, row.licence) == (sample.identity, "synthetic", "CC0-1.0")
            assert len(row.captions["en"]) == 1


@pytest.mark.parametrize("layout", BUILDERS)
def test_a_layout_is_recognised_and_another_process_reads_the_same(layout: Layout, built: dict[str, Path]) -> None:
    assert detect(Archive(str(built[layout]))) == layout
    source = opened(layout, built[layout], label_order=order_of(layout), count=3)
    assert len(source) == 3
    sent = pickle.loads(pickle.dumps(source))
    assert len(sent) == 3
    for ours, theirs in zip(sent.read([2, 0, 2]), source.read([2, 0, 2]), strict=True):
        assert ours.id == theirs.id
        assert same(ours.image, theirs.image)
        assert (ours.attributes, ours.captions, ours.split) == (theirs.attributes, theirs.captions, theirs.split)


def test_synthetic_people_are_those_of_synth(built: dict[str, Path]) -> None:
    source = opened("synthetic", "", count=4, seed=archives.SEED, size=64)
    rows = good(source.read([1, 0]))
    assert len(source) == 4
    assert [row.id for row in rows] == ["synthetic-3-000001", "synthetic-3-000000"]
    written = opened("imagefolder", built["imagefolder"]).read([0])[0]  # made from person 0 in look 0 too
    for name in ("id", "attributes", "captions", "source", "licence", "identity", "split", "error"):
        assert getattr(rows[1], name) == getattr(written, name)
    for name in ("image", "label_map", "landmarks"):
        assert same(getattr(rows[1], name), getattr(written, name))
    with pytest.raises(ConfigError, match=r"data.source.count: is not set"):
        opened("synthetic", "")


def test_a_licence_of_the_settings_wins(built: dict[str, Path]) -> None:
    assert opened("celeba", built["celeba"]).read([0])[0].licence.startswith("CelebA: non-commercial")
    for layout in ("celeba", "imagefolder", "ffhq"):
        source = opened(layout, built[layout], licence="mine")
        assert (source.licence, source.read([0])[0].licence) == ("mine", "mine")


# ------------------------------------------------------------------------------------------- CelebAMask-HQ, CelebA


def test_parts_are_merged_by_the_publishers_rule(built: dict[str, Path]) -> None:
    rows = good(read_all(opened("celebamask-hq", built["celebamask-hq"])))
    assert PAINTED == list(CLASSES[1:])
    overlaps = 0
    for index, row in enumerate(rows):
        base = np.zeros((32, 32), dtype=np.uint8)
        for place, part in enumerate(PAINTED):
            file = built["celebamask-hq"] / "CelebAMask-HQ-mask-anno" / "0" / f"{index:05d}_{part}.png"
            if file.exists():
                mask = np.asarray(Image.open(file))[:, :, 0]
                overlaps += int((base[mask != 0] != 0).sum())
                base[mask != 0] = place + 1
        assert row.label_map is not None
        assert same(row.label_map, resize_map(base, 64))
        assert same(base, resize_map(archives.face(index).label_map, 32))
    assert overlaps > 100  # or any order would do


def test_lists_of_celebamask_hq_reach_their_faces(copied: Callable[[str], Path]) -> None:
    path = copied("celebamask-hq")
    for with_lists in (False, True):
        if with_lists:
            archives.celeba_lists(path, COUNT)
        for index, row in enumerate(good(read_all(opened("celebamask-hq", path)))):
            sample = archives.face(index)
            assert row.id == f"celebamask-hq-{index:05d}"
            assert row.attributes == from_celeba({**to_celeba(sample.attributes), "Attractive": False})
            assert np.allclose(row.notes["pose"], [sample.yaw, sample.pitch, 0], atol=1e-5)
            assert row.split == archives.celeba_split(index)  # by the published bounds where no list is there
            assert row.identity == (f"celeba-{archives.identity(index)}" if with_lists else "")


def test_pictures_go_by_number_and_folders_hold_two_thousand(copied: Callable[[str], Path]) -> None:
    path = copied("celebamask-hq")
    (path / "CelebA-HQ-img" / "4.jpg").rename(path / "CelebA-HQ-img" / "12345.jpg")
    parts = path / "CelebAMask-HQ-mask-anno"
    (parts / "6").mkdir()
    for file in (parts / "0").glob("00004_*.png"):
        file.rename(parts / "6" / file.name.replace("00004", "12345"))
    for name in ("CelebAMask-HQ-attribute-anno.txt", "CelebAMask-HQ-pose-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"):
        (path / name).unlink()
    rows = good(read_all(opened("celebamask-hq", path)))
    assert [row.id[-5:] for row in rows] == ["00000", "00001", "00002", "00003", "12345"]
    assert same(rows[4].label_map, resize_map(resize_map(archives.face(4).label_map, 32), 64))
    assert (rows[4].attributes, rows[4].split, rows[4].notes) == ({}, "", {})


def test_a_face_without_any_part_is_named_alone(copied: Callable[[str], Path]) -> None:
    path = copied("celebamask-hq")
    for file in (path / "CelebAMask-HQ-mask-anno" / "0").glob("00002_*.png"):
        file.unlink()
    rows = read_all(opened("celebamask-hq", path))
    assert [row.error is None for row in rows] == [True, True, False, True, True]
    assert str(rows[2].error).startswith("the masks of celebamask-hq-00002: are not there; allowed: CelebAMask-HQ-mask")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("CelebA-HQ-img/1.jpg", archives.jpeg(archives.face(1).image)[:700], "CelebA-HQ-img/1.jpg: is cut off"),
        ("CelebA-HQ-img/1.jpg", archives.jpeg(np.zeros((9, 20000, 3), np.uint8)), "is 20000 x 9 pixels"),
        (
            "CelebA-HQ-img/1.jpg",
            archives.jpeg(np.zeros((32, 64, 3), np.uint8)),
            "32 x 32 pixels and the picture 64 x 32",
        ),
        ("CelebAMask-HQ-mask-anno/0/00001_nose.png", b"", "00001_nose.png: is not a picture"),
        (
            "CelebAMask-HQ-mask-anno/0/00001_nose.png",
            archives.png(np.zeros((8, 8), np.uint8)),
            "00001_nose.png: is 8 x 8 pixels; allowed: 32 x 32",
        ),
    ],
)
def test_a_bad_file_spoils_its_row_only(name: str, data: bytes, says: str, copied: Callable[[str], Path]) -> None:
    path = copied("celebamask-hq")
    (path / name).write_bytes(data)
    rows = read_all(opened("celebamask-hq", path))
    assert [row.error is None for row in rows] == [True, False, True, True, True]
    assert says in str(rows[1].error)
    assert rows[1].id == "celebamask-hq-00001"


def test_merged_maps_need_their_order_by_name(copied: Callable[[str], Path]) -> None:
    path = copied("celebamask-hq")
    shutil.rmtree(path / "CelebAMask-HQ-mask-anno")
    (path / "CelebAMask-HQ-mask").mkdir()
    for index in range(COUNT):
        numbers = _in_order(archives.face(index).label_map, "face-parsing")
        (path / "CelebAMask-HQ-mask" / f"{index}.png").write_bytes(archives.png(numbers))
    with pytest.raises(ConfigError, match=r"label_order: is not named.*allowed: merged, raw, face-parsing"):
        opened("celebamask-hq", path)
    for index, row in enumerate(good(read_all(opened("celebamask-hq", path, label_order="face-parsing")))):
        assert same(row.label_map, archives.face(index).label_map)
    (path / "CelebAMask-HQ-mask" / "3.png").unlink()
    assert "CelebAMask-HQ-mask/3.png" in str(
        opened("celebamask-hq", path, label_order="face-parsing").read([3])[0].error
    )


def test_an_order_is_refused_where_files_name_their_class(built: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"label_order: is raw, and each part has a file.*leave it out"):
        opened("celebamask-hq", built["celebamask-hq"], label_order="raw")


def test_two_spellings_of_the_mask_folder_are_refused(copied: Callable[[str], Path]) -> None:
    path = copied("celebamask-hq")
    shutil.copytree(path / "CelebAMask-HQ-mask-anno", path / "CelebAMaskHQ-mask-anno")
    with pytest.raises(DataError, match="has CelebAMask-HQ-mask-anno and CelebAMaskHQ-mask-anno"):
        opened("celebamask-hq", path)
    shutil.rmtree(path / "CelebAMask-HQ-mask-anno")  # either alone is fine
    good(read_all(opened("celebamask-hq", path)))


@pytest.mark.parametrize(
    "name", ["0/00001_eyeglass.png", "1/00001_skin.png", "00001_skin.png", "0/1_skin.png", "0/00001_background.png"]
)
def test_a_mask_file_that_is_not_as_published_is_refused(name: str, copied: Callable[[str], Path]) -> None:
    path = copied("celebamask-hq")
    file = path / "CelebAMask-HQ-mask-anno" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(archives.png(np.zeros((32, 32), np.uint8)))
    with pytest.raises(DataError, match=f"CelebAMask-HQ-mask-anno/{name}: is no mask file as published"):
        opened("celebamask-hq", path)


def test_lists_of_celeba_reach_their_pictures(built: dict[str, Path], tmp_path: Path) -> None:
    samples = archives.celeba(tmp_path / "again", COUNT)
    order = sorted(range(COUNT), key=archives.celeba_number)
    for index, row, sample in zip(order, read_all(opened("celeba", built["celeba"])), samples, strict=True):
        assert row.id == f"celeba-{archives.celeba_number(index):06d}"
        assert row.attributes == from_celeba(to_celeba(sample.attributes))
        assert (row.identity, row.split) == (f"celeba-{archives.identity(index)}", archives.celeba_split(index))
        moved = archives.five_points(sample) - np.array([6, 0], dtype=np.float32)
        assert same(row.notes["five_points"], moved)
        assert row.label_map is None


def test_lists_as_csv_and_in_the_publishers_folders_say_the_same(copied: Callable[[str], Path]) -> None:
    path = copied("celeba")
    before = read_all(opened("celeba", path))
    (path / "Img").mkdir()
    (path / "img_align_celeba").rename(path / "Img" / "img_align_celeba")
    (path / "Anno").mkdir()
    for name in ("list_attr_celeba", "list_landmarks_align_celeba", "identity_CelebA", "list_eval_partition"):
        lines = (path / f"{name}.txt").read_text().splitlines()
        (path / f"{name}.txt").unlink()
        rows = [",".join(line.split()) for line in lines if len(line.split()) > 1]
        if name.startswith("list_attr") or name.startswith("list_land"):
            rows[0] = f"image_id,{rows[0]}"
        (path / "Anno" / f"{name}.csv").write_text("\n".join(rows) + "\n")
    for old, new in zip(before, good(read_all(opened("celeba", path))), strict=True):
        for name in ("id", "attributes", "identity", "split", "error"):
            assert getattr(old, name) == getattr(new, name)
        assert same(old.notes["five_points"], new.notes["five_points"])
        assert same(old.image, new.image)


LINE = "000001.jpg " + " ".join(["1", "-1"] * 20)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{LINE} 1\n", r"line 1: has 41 values; allowed: a name and 40 values"),
        (f"2\n{' '.join(CELEBA_NAMES)}\n{LINE}\n000002.jpg\n", r"line 4: has 0 values"),
        (f"{LINE}\n\n{LINE.replace('-1', 'x', 1)}\n", r"line 3: names 000001.jpg a second time"),
        (f"{LINE.replace('-1', '2', 1)}\n", r"line 1: says '2' of 000001.jpg; allowed: 1 or -1; mend the line"),
        (f"{LINE.replace('-1', 'yes', 1)}\n", r"line 1: says 'yes' of 000001.jpg"),
        (f"7\n{LINE}\n", r"list_attr_celeba.txt: promises 7 lines and has 1"),
        (f"{' '.join(CELEBA_NAMES[:39])}\n{LINE}\n", r"line 1: names 39 columns; allowed: 40 columns"),
        (f"{' '.join(['Bold', *CELEBA_NAMES[1:]])}\n{LINE}\n", r"names the column 'Bold'"),
        ("000001.jpg \xff", r"is not UTF-8 at byte 11"),
    ],
)
def test_a_wrong_line_condemns_the_list_by_name(text: str, says: str, copied: Callable[[str], Path]) -> None:
    path = copied("celeba")
    (path / "list_attr_celeba.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=says) as caught:
        opened("celeba", path)
    assert "list_attr_celeba.txt" in caught.value.field
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("list_eval_partition.txt", "000002.jpg 0", "000002.jpg 3", r"line 2: says '3'.*allowed: 0, 1 or 2"),
        ("identity_CelebA.txt", "000002.jpg 1", "000002.jpg Ann", r"line 2: says 'Ann'"),
        ("list_landmarks_align_celeba.txt", "000002.jpg  ", "000002.jpg  ? ", r"line 4: has 11 values"),
    ],
)
def test_the_other_lists_are_held_to_theirs(
    file: str, old: str, new: str, says: str, copied: Callable[[str], Path]
) -> None:
    path = copied("celeba")
    text = (path / file).read_text()
    assert old in text
    (path / file).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=says):
        opened("celeba", path)


def test_a_picture_without_its_line_is_a_bad_row(copied: Callable[[str], Path]) -> None:
    path = copied("celeba")
    lines = (path / "list_eval_partition.txt").read_text().splitlines()
    (path / "list_eval_partition.txt").write_text("\n".join(lines[1:]) + "\n")
    rows = read_all(opened("celeba", path))
    assert "list_eval_partition.txt: has no line for 000001.jpg" in str(rows[0].error)
    good(rows[1:])


@pytest.mark.parametrize("name", ["face.jpg", "1.jpg"])
def test_a_picture_that_is_no_number_or_one_twice_is_refused(name: str, copied: Callable[[str], Path]) -> None:
    path = copied("celeba")
    shutil.copy(path / "img_align_celeba" / "000001.jpg", path / "img_align_celeba" / name)
    with pytest.raises(DataError, match=f"{name}.*allowed: one picture a number"):
        opened("celeba", path)


# --------------------------------------------------------------------------------------------------- label orders


def _in_order(label_map: Any, order: str) -> Any:
    """The ids of `label_map` as the numbers that `order` has for them."""
    numbers = np.array([LABEL_ORDERS[order].index(name) for name in CLASSES], dtype=np.uint8)
    return numbers[label_map]


def test_the_three_orders_hold_the_same_classes() -> None:
    assert list(LABEL_ORDERS) == ["merged", "raw", "face-parsing"]
    for names in LABEL_ORDERS.values():
        assert sorted(names) == sorted(CLASSES)
        assert names[:2] == ("background", "skin")
    assert LABEL_ORDERS["raw"].index("hair") == 5
    assert LABEL_ORDERS["face-parsing"].index("hair") == 17


@pytest.mark.parametrize("true", LABEL_ORDERS)
def test_a_map_in_another_order_is_named_and_the_right_one_never(true: str) -> None:
    caught = 0
    for index in range(0, 40, 2):
        label_map = archives.face(index).label_map
        numbers = _in_order(label_map, true)
        assert same(to_ids(numbers, true, field="x"), label_map)
        assert likelier_order(_in_order(flip_map(label_map), true), true) is None
        for named in LABEL_ORDERS:
            if named != true:
                found = likelier_order(numbers, named)
                assert found in (true, None)
                caught += found is not None
    assert caught >= 36  # of 40: one broken fact is let pass, for the sake of turned heads


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_on_its_side_is_not_blamed_on_the_order(turns: int) -> None:
    for index in range(0, 20, 2):
        assert likelier_order(np.rot90(archives.face(index).label_map, turns), "merged") is None


def test_two_orders_mixed_in_one_archive_are_told_row_by_row(copied: Callable[[str], Path]) -> None:
    path = copied("imagefolder")
    numbers = _in_order(archives.face(2).label_map, "raw")
    (path / "label_maps" / "000002.png").write_bytes(archives.png(numbers))
    rows = read_all(opened("imagefolder", path))
    assert [row.error is None for row in rows] == [True, True, False, True, True]
    assert "is no face in the label order merged and one in the order raw" in str(rows[2].error)
    assert "sort the two kinds of maps apart" in str(rows[2].error)


@pytest.mark.parametrize("layout", ["webdataset", "m3celeba"])
def test_numbers_of_strangers_need_an_order_and_colours_none(layout: str, tmp_path: Path) -> None:
    if layout == "m3celeba":
        archives.m3celeba(tmp_path / "a", 4, coloured=False)
    else:
        archives.webdataset(tmp_path / "a", 4)
    with pytest.raises(ConfigError, match=r"label_order: is not named, and the label maps hold numbers"):
        opened(layout, tmp_path / "a")
    rows = good(read_all(opened(layout, tmp_path / "a", label_order="merged")))
    assert same(rows[-1].label_map, archives.face(2 if layout == "m3celeba" else 3).label_map)
    assert "one in the order merged" in str(opened(layout, tmp_path / "a", label_order="raw").read([0])[0].error)


# --------------------------------------------------------------------------------- imagefolder, tars, parquet, folders


def _line(path: Path, number: int, **changes: Any) -> None:
    """Change the row `number` of a metadata.jsonl; None takes a key away."""
    lines = path.read_text("utf-8").splitlines()
    record = {**json.loads(lines[number]), **changes}
    lines[number] = json.dumps({key: value for key, value in record.items() if value is not None})
    path.write_text("\n".join(lines) + "\n", "utf-8")


def test_foreign_columns_of_an_imagefolder_are_understood(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    (folder / "masks").mkdir(parents=True)
    (folder / "a.png").write_bytes(archives.png(archives.face(0).image))
    (folder / "masks" / "a.png").write_bytes(archives.png(to_colours(archives.face(0).label_map)))
    record = {
        "image_file_name": "a.png",
        "conditioning_image_file_name": "masks/a.png",
        "text": "a face",
        "text_es": "una cara",
        "captions_fra": ["un visage"],
        "landmarks": archives.face(0).landmarks.ravel().tolist(),
        "aesthetic": 5.5,
    }
    (folder / "metadata.jsonl").write_text(f"\n{json.dumps(record)}\n")
    (row,) = good(read_all(opened("imagefolder", tmp_path)))
    assert (row.id, row.split) == ("imagefolder-train-a", "train")
    assert row.captions == {"en": ["a face"], "es": ["una cara"], "fr": ["un visage"]}
    assert same(row.label_map, archives.face(0).label_map)
    assert same(row.landmarks, archives.face(0).landmarks)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"file_name": "none.png"}, "none.png: No such file"),
        ({"file_name": "../secret.png"}, "../secret.png: leads out of the archive"),
        ({"file_name": "/etc/hostname"}, "/etc/hostname: leads out of the archive"),
        ({"label_map": "none.png"}, "none.png: No such file"),
        ({"label_map": 7}, "label_map: is 7"),
        ({"landmarks": [[1, 2]]}, "landmarks: has 1 points"),
        ({"landmarks": "left"}, "landmarks: is not a list of numbers"),
        ({"attributes": {"hair": "red"}}, "attributes: names 'hair'"),
        ({"attributes": {"gender": "cat"}}, "attributes: gender: 'cat'; allowed: female, male"),
        ({"attributes": "red"}, "attributes: is not JSON"),
        ({"captions": {"xx": ["?"]}}, "captions: the language 'xx'; allowed: en, fr"),
        ({"text_klingon": "?"}, "text_klingon: the language 'klingon'"),
        ({"captions": {"en": 3}}, "captions: is 3"),
        ({"qa": [{"question": "who?"}]}, "qa: lacks answer, kind, language"),
        ({"split": "dev"}, "split: 'dev'; allowed: train, validation, test"),
        ({"error": "blurred"}, "blurred"),
    ],
)
def test_a_wrong_value_of_a_line_spoils_its_row_only(
    changes: dict[str, Any], says: str, copied: Callable[[str], Path]
) -> None:
    path = copied("imagefolder")
    (path.parent / "secret.png").write_bytes(archives.png(archives.face(0).image))
    _line(path / "metadata.jsonl", 3, **changes)
    rows = read_all(opened("imagefolder", path))
    assert [row.error is None for row in rows] == [True, True, True, False, True]
    assert says in str(rows[3].error)
    assert rows[3].id == "synthetic-3-000003"


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}', '{"file_name": 7}', "\xff"])
def test_a_line_that_is_no_row_condemns_the_list(line: str, copied: Callable[[str], Path]) -> None:
    path = copied("imagefolder") / "metadata.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line.encode("latin-1") + b"\n", *lines[2:]]))
    with pytest.raises(DataError, match=r"metadata.jsonl, line 3: is .*allowed: a JSON object with one of file_name"):
        opened("imagefolder", path.parent)


def _repack(tar: Path, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> None:
    """The tar with each member changed, or left out."""
    with tarfile.open(tar) as old:
        members = [(m.name, old.extractfile(m).read()) for m in old]  # type: ignore[union-attr]
    with tarfile.open(tar, "w") as new:
        for name, data in filter(None, (change(name, data) for name, data in members)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))


def test_samples_of_tars_that_say_their_order_or_nothing_at_all(copied: Callable[[str], Path]) -> None:
    path = copied("webdataset")

    def change(name: str, data: bytes) -> tuple[str, bytes] | None:
        if name.endswith(".json"):
            return name, json.dumps({"label_order": "merged"}).encode()
        return name, data

    for tar in path.glob("*.tar"):
        _repack(tar, change)
    rows = good(read_all(opened("webdataset", path)))
    assert rows[4].id == "webdataset-faces-000001-000004"
    assert same(rows[4].label_map, archives.face(4).label_map)
    assert len(rows[4].captions["en"]) == 1
    bad = opened("webdataset", path, label_order="raw").read([0])[0]
    assert "label_order: 'merged'; allowed: raw" in str(bad.error)
    for tar in path.glob("*.tar"):
        _repack(tar, lambda name, data: (name, data) if name.endswith(".png") and "mask" not in name else None)
    row = good(read_all(opened("webdataset", path)))[4]
    assert same(row.image, archives.face(4).image)
    assert (row.label_map, row.captions, row.attributes) == (None, {}, {})


def test_what_may_be_wrong_in_a_tar(copied: Callable[[str], Path]) -> None:
    path = copied("webdataset")
    first = path / "faces-000000.tar"
    _repack(first, lambda name, data: None if name == "000001.png" else (name, data))
    row = opened("webdataset", path, label_order="merged").read([1])[0]
    assert "holds mask.png, txt, json; allowed: a picture" in str(row.error)
    _repack(first, lambda name, data: (name, b"{") if name == "000000.json" else (name, data))
    row = opened("webdataset", path, label_order="merged").read([0])[0]
    assert "faces-000000-000000.json: is no JSON object" in str(row.error)
    whole = first.read_bytes()
    for data, says in ((whole[: len(whole) // 2], "is cut off|is no whole tar"), (b"PK\3\4" * 500, "is no whole tar")):
        first.write_bytes(data)
        with pytest.raises(DataError, match=f"faces-000000.tar: ({says}).*allowed: a plain tar"):
            opened("webdataset", path, label_order="merged")


def test_what_may_be_wrong_in_parquet(copied: Callable[[str], Path], tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = copied("parquet")
    table = pq.read_table(path / "part-00001.parquet")
    records = table.to_pylist()
    records[0]["image"] = None
    records[1]["error"] = "no face: found by another"
    pq.write_table(pa.Table.from_pylist(records, schema=table.schema), path / "part-00001.parquet")
    rows = read_all(opened("parquet", path))
    assert [row.error is None for row in rows] == [True, True, True, False, False]
    assert "synthetic-3-000003: image: is empty" in str(rows[3].error)
    assert rows[4].error == "no face: found by another"
    pq.write_table(table.drop_columns(["split"]), path / "part-00001.parquet")
    with pytest.raises(DataError, match="part-00001.parquet: has the columns .* one set of columns"):
        opened("parquet", path)
    (path / "part-00001.parquet").write_bytes((path / "part-00000.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="part-00001.parquet: is no whole parquet file"):
        opened("parquet", path)


def test_splits_of_m3celeba_are_its_files(tmp_path: Path) -> None:
    archives.m3celeba(tmp_path / "a", 4)
    rows = good(read_all(opened("m3celeba", tmp_path / "a")))
    assert [row.split for row in rows] == ["test", "train", "train", "train"]
    assert rows[0].captions["es"] == ["spa 3 0", "spa 3 1", "spa 3 2"]
    assert list(rows[0].captions) == ["en", "fr", "de", "it", "es"]


def test_names_of_a_folder_make_ids_that_differ(copied: Callable[[str], Path]) -> None:
    path = copied("ffhq")
    assert opened("ffhq", path).read([1])[0].id == "ffhq-00000-00001"
    (path / ".thumbs").mkdir()
    shutil.copy(path / "00000" / "00001.png", path / ".thumbs" / "00001.png")  # hidden: no face
    assert len(opened("ffhq", path)) == COUNT
    shutil.copy(path / "00000" / "00001.png", path / "00000-00001.png")
    with pytest.raises(DataError, match=r"has 00000-00001.png and 00000/00001.png; allowed: one picture a name"):
        opened("ffhq", path)


def test_a_link_to_a_folder_is_followed_once(copied: Callable[[str], Path], tmp_path: Path) -> None:
    path = copied("ffhq")
    (path / "loop").symlink_to(path)
    assert len(opened("ffhq", path)) == COUNT
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "faces").symlink_to(path / "00000")
    assert len(opened("ffhq", tmp_path / "elsewhere")) == COUNT


# -------------------------------------------------------------------------------------------------- opening, places


def test_what_is_not_there_is_named_with_what_should_be(tmp_path: Path, built: dict[str, Path]) -> None:
    cases: list[tuple[type[M3FaceError], str, str, str]] = [
        (ConfigError, "celeba", "", "data.source.path: is empty; allowed: a folder"),
        (DataError, "celeba", str(tmp_path / "none"), "none does not exist"),
        (DataError, "celeba", str(tmp_path), r"lacks img_align_celeba/000001.jpg …; allowed: celeba: .*another folder"),
        (DataError, "celebamask-hq", str(built["celeba"]), "lacks CelebA-HQ-img/0.jpg …; .*is it celeba?"),
        (DataError, "imagefolder", str(built["ffhq"]), "lacks metadata.jsonl; .*is it ffhq?"),
        (DataError, "webdataset", str(built["ffhq"]), "lacks any file ending in .tar"),
        (DataError, "parquet", str(built["ffhq"]), "lacks any file ending in .parquet"),
        (DataError, "m3celeba", str(built["parquet"]), "lacks the column mask; .*is it parquet?"),
        (DataError, "ffhq", str(tmp_path), "lacks any picture"),
        (ConfigError, "ffhq", "ftq://x/y", "data.source.path: ftq://x/y: "),
    ]
    for kind, layout, path, says in cases:
        with pytest.raises(kind, match=says) as caught:
            opened(layout, path)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"in no layout known here; allowed: celebamask-hq \(CelebA-HQ-img/0.jpg"):
        detect(Archive(str(tmp_path)))
    shutil.copytree(built["celeba"] / "img_align_celeba", tmp_path / "img_align_celeba")
    with pytest.raises(DataError, match=r"lacks list_attr_celeba.txt or .csv"):
        opened("celeba", tmp_path)


def test_one_file_is_an_archive_too(built: dict[str, Path]) -> None:
    tar = built["webdataset"] / "faces-000001.tar"
    rows = good(read_all(opened("webdataset", tar, label_order="merged")))
    assert [row.id for row in rows] == ["synthetic-3-000003", "synthetic-3-000004"]
    assert detect(Archive(str(built["parquet"] / "part-00000.parquet"))) == "parquet"


@pytest.mark.parametrize("layout", ["celebamask-hq", "imagefolder", "webdataset", "parquet"])
def test_an_address_is_read_like_a_folder(layout: str, built: dict[str, Path]) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(built[layout]), f"/bucket/{layout}", recursive=True)
    try:
        local = opened(layout, built[layout], label_order=order_of(layout))
        remote = pickle.loads(pickle.dumps(opened(layout, f"memory://bucket/{layout}", label_order=order_of(layout))))
        for here, there in zip(good(read_all(local)), good(read_all(remote)), strict=True):
            assert here.id == there.id
            assert same(here.image, there.image)
            assert same(here.label_map, there.label_map)
        with pytest.raises(DataError, match="memory://bucket/none lacks"):
            opened(layout, "memory://bucket/none", label_order=order_of(layout))
    finally:
        memory.rm("/bucket", recursive=True)


def test_a_place_out_of_reach_is_not_blamed_on_a_row(built: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened("ffhq", built["ffhq"])

    def fail(*_: Any) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("m3face.data.sources.archive.open", fail, raising=False)
    with pytest.raises(DataError, match=r"^data.source.path: .*Input/output error"):
        source.read([0])


def test_local_folders_need_no_packages_of_the_cluster(built: dict[str, Path]) -> None:
    program = (
        "import sys\n"
        "for name in ('fsspec', 's3fs', 'pyarrow', 'ray', 'torch'): sys.modules[name] = None\n"
        "from m3face.config.dataset import SourceConfig\n"
        "from m3face.data.sources import open_source\n"
        "source = open_source(SourceConfig(layout='celebamask-hq', path=sys.argv[1]))\n"
        "assert [row.error for row in source.read([0, 1])] == [None, None]\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(built["celebamask-hq"])], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


# ------------------------------------------------------------------------------------------------- CelebA's labels


def test_what_celeba_says_of_a_face_is_true_of_it() -> None:
    known = 0
    for index in range(30):
        attributes = archives.face(index).attributes
        found = from_celeba(to_celeba(attributes))
        assert found.items() <= attributes.items()
        known += len(found)
    assert known / 30 > 20  # of 39; the open ones are open by nature


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ({}, {}),
        ({"Male": True}, {"gender": "male"}),
        ({"Male": False}, {"gender": "female"}),
        ({"Young": True}, {"age": "young"}),
        ({"Young": False}, {}),
        ({"Eyeglasses": True}, {}),
        ({"Eyeglasses": False}, {"glasses": "none"}),
        ({"Smiling": True}, {}),
        ({"Smiling": False}, {"smile": "none"}),
        ({"Pale_Skin": True}, {}),
        ({"Black_Hair": True}, {"hair_colour": "black"}),
        ({"Black_Hair": True, "Brown_Hair": True}, {}),
        (dict.fromkeys(("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"), False), {}),
        ({"Gray_Hair": True}, {}),
        ({"Straight_Hair": True, "Wavy_Hair": False}, {"hair_type": "straight"}),
        ({"Straight_Hair": True, "Wavy_Hair": True}, {}),
        ({"Straight_Hair": False, "Wavy_Hair": False}, {}),
        ({"Bald": True}, {"hair_length": "bald"}),
        ({"Bald": True, "Bangs": False}, {"hair_length": "bald", "bangs": "no"}),
        ({"Bald": True, "Bangs": True, "Black_Hair": True}, {}),
        ({"Bald": False}, {}),
        ({"No_Beard": True}, {"beard": "none"}),
        ({"No_Beard": True, "Goatee": True}, {}),
        ({"No_Beard": False, "Goatee": True}, {"beard": "goatee"}),
        ({"No_Beard": False, "Goatee": False, "5_o_Clock_Shadow": False}, {}),
        ({"Attractive": True, "Blurry": True}, {}),
        ({"Wearing_Hat": True, "Bangs": False}, {"hat": "yes", "bangs": "no"}),
    ],
)
def test_certain_values_only(labels: dict[str, bool], found: dict[str, str]) -> None:
    assert from_celeba(labels) == found


def test_ids_are_those_of_the_table() -> None:
    with pytest.raises(BadInput, match="is no face in the label order raw"):
        to_ids(archives.face(0).label_map, "raw", field="x")
    assert ID["cloth"] == 18
