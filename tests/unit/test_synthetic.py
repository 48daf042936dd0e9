"""The renderer's promises: reproducible, exactly labelled, every attribute value drawn and shown."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

from m3face.errors import BadInput
from m3face.faces import ATTRIBUTES, GROUPS, ID, check_landmarks, check_map, resize_map
from m3face.synthetic import Sample, make_sample, render, sample_attributes, sample_look, sample_person

COUNT = 48


@lru_cache(maxsize=1)
def faces() -> tuple[Sample, ...]:
    return tuple(make_sample(7, index, size=128) for index in range(COUNT))


def near(sample: Sample, names: tuple[str, ...], points: range, reach: float) -> list[bool]:
    """For each visible point of a group: is one of the classes within `reach` pixels of it?"""
    rows, columns = np.nonzero(np.isin(sample.label_map, [ID[name] for name in names]))
    found = []
    for point in points:
        x, y = sample.landmarks[point]
        if sample.visible[point] and rows.size:
            found.append(bool(np.hypot(columns + 0.5 - x, rows + 0.5 - y).min() <= reach))
    return found


def test_the_same_numbers_give_the_same_picture() -> None:
    one, two = make_sample(3, 5, size=96), make_sample(3, 5, size=96)
    assert np.array_equal(one.image, two.image)
    assert np.array_equal(one.label_map, two.label_map)
    assert np.array_equal(one.landmarks, two.landmarks)
    assert one.attributes == two.attributes
    assert one.identity == two.identity
    assert not np.array_equal(one.image, make_sample(3, 6, size=96).image)
    assert not np.array_equal(one.image, make_sample(4, 5, size=96).image)


def test_another_variant_is_another_picture_of_the_same_person() -> None:
    one, two = make_sample(3, 5, size=96), make_sample(3, 5, size=96, variant=1)
    assert one.person == two.person
    assert one.identity == two.identity
    assert one.look != two.look
    assert not np.array_equal(one.image, two.image)
    for name in one.person.traits.keys() & one.attributes.keys():
        assert one.attributes[name] == two.attributes[name]


def test_shapes_and_labels_are_valid() -> None:
    for sample in faces():
        assert sample.image.shape == (128, 128, 3)
        assert sample.image.dtype == np.uint8
        assert sample.label_map.dtype == np.uint8
        assert sample.landmarks.dtype == np.float32
        assert sample.visible.shape == (68,)
        assert sample.visible.dtype == np.bool_
        check_map(sample.label_map)
        check_landmarks(sample.landmarks, size=128)
        assert abs(sample.yaw) <= 35.0
        assert abs(sample.pitch) <= 15.0


def test_attributes_are_all_there_and_in_the_table() -> None:
    for sample in faces():
        assert list(sample.attributes) == list(ATTRIBUTES)
        assert all(value in ATTRIBUTES[name].values for name, value in sample.attributes.items())


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("r_eye", ("r_eye",)),
        ("l_eye", ("l_eye",)),
        ("outer_lips", ("u_lip", "l_lip")),
        ("inner_lips", ("u_lip", "l_lip", "mouth")),
        ("nose_bridge", ("nose",)),
        ("nose_base", ("nose",)),
        ("r_brow", ("r_brow",)),
        ("l_brow", ("l_brow",)),
        ("jaw", ("skin", "r_ear", "l_ear")),
    ],
)
def test_landmarks_lie_on_their_regions(group: str, names: tuple[str, ...]) -> None:
    found: list[bool] = []
    for sample in faces():
        if "eye" in group and sample.attributes["glasses"] == "sunglasses":
            continue
        if group.endswith("brow") and sample.attributes["bangs"] == "yes":
            continue
        found += near(sample, names, GROUPS[group], 1.6)
    assert len(found) > 100
    assert np.mean(found) > 0.985


def test_eye_points_lie_on_the_border_not_inside() -> None:
    for sample in faces():
        if sample.attributes["glasses"] == "none" and abs(sample.yaw) < 20:
            for name in ("r_eye", "l_eye"):
                points = sample.landmarks[list(GROUPS[name])]
                rows, columns = np.nonzero(sample.label_map == ID[name])
                assert rows.size
                assert abs(points[:, 0].min() - columns.min()) < 2.2
                assert abs(points[:, 0].max() - columns.max() - 1) < 2.2


def test_left_is_the_persons_left() -> None:
    for sample in faces():
        for name in ("eye", "brow"):
            left = np.nonzero(sample.label_map == ID[f"l_{name}"])[1]
            right = np.nonzero(sample.label_map == ID[f"r_{name}"])[1]
            if left.size and right.size:
                assert left.mean() > right.mean()
        assert sample.landmarks[45, 0] > sample.landmarks[36, 0]
        assert sample.landmarks[16, 0] > sample.landmarks[0, 0]


@pytest.mark.parametrize(
    ("attribute", "label"),
    [("glasses", "eye_g"), ("hat", "hat"), ("earrings", "ear_r"), ("necklace", "neck_l")],
)
def test_what_is_worn_is_labelled(attribute: str, label: str) -> None:
    for sample in faces():
        worn = sample.attributes[attribute] != ATTRIBUTES[attribute].absent
        assert bool((sample.label_map == ID[label]).any()) == worn, sample.identity


def test_mouth_is_labelled_exactly_when_open() -> None:
    for sample in faces():
        pixels = int((sample.label_map == ID["mouth"]).sum())
        assert (pixels > 0) == (sample.attributes["mouth_open"] == "yes")


def test_bald_heads_have_no_hair() -> None:
    for sample in faces():
        if sample.attributes["hair_length"] == "bald":
            assert not (sample.label_map == ID["hair"]).any()


def test_the_head_fills_the_frame_as_an_aligned_crop() -> None:
    for sample in faces():
        chin = sample.landmarks[8, 1]
        assert 80 < chin < 116
        brows = sample.landmarks[17:27, 1].mean()
        assert 35 < brows < 66


@pytest.mark.parametrize("size", [64, 96, 256, 512])
def test_every_size_shows_the_same_face(size: int) -> None:
    small = make_sample(11, 2, size=128)
    other = make_sample(11, 2, size=size)
    assert other.image.shape == (size, size, 3)
    assert np.abs(other.landmarks / size - small.landmarks / 128).max() < 1e-3
    if size > 128:
        assert (resize_map(other.label_map, 128) == small.label_map).mean() > 0.95
    else:
        assert (resize_map(small.label_map, size) == other.label_map).mean() > 0.93


@pytest.mark.parametrize("size", [0, 63, 513])
def test_sizes_outside_the_range_are_refused(size: int) -> None:
    with pytest.raises(BadInput) as caught:
        make_sample(0, 0, size=size)
    assert caught.value.field == "size"


def test_every_value_of_every_attribute_occurs() -> None:
    rows = [sample_attributes(np.random.default_rng([1, i])) for i in range(3000)]
    for name, attribute in ATTRIBUTES.items():
        counts = Counter(row[name] for row in rows)
        for value in attribute.values:
            assert counts[value] > 40, (name, value, counts)
    share = Counter(row["hair_length"] for row in rows)["bald"] / len(rows)
    assert 0.05 < share < 0.11


def test_values_agree_with_each_other() -> None:
    for i in range(1500):
        row = sample_attributes(np.random.default_rng([2, i]))
        assert (row["emotion"] == "happy") == (row["smile"] != "none")
        assert row["smile"] != "laughing" or row["mouth_open"] == "yes"
        if row["hair_length"] == "bald" or row["hairline"] == "receding":
            assert row["bangs"] == "no"
        if row["gender"] == "female":
            assert (row["beard"], row["mustache"], row["sideburns"]) == ("none", "no", "no")


def test_attributes_come_from_the_same_draws_as_pictures() -> None:
    rng, again = np.random.default_rng(9), np.random.default_rng(9)
    person = sample_person(again)
    assert sample_attributes(rng) == render(person, sample_look(again, person), size=64).attributes


def test_points_behind_the_head_are_not_visible() -> None:
    turned = [sample for sample in faces() if abs(sample.yaw) > 25]
    assert turned
    for sample in turned:
        assert not sample.visible[:17].all()
