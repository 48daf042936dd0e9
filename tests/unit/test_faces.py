"""Labels that cannot be wrong: flips, sizes, colours, names."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from m3face import faces
from m3face.errors import BadInput
from m3face.faces import ATTRIBUTES, CLASSES, COUNT, FLIP, GROUPS, ID, LANGUAGES, PALETTE, Mention


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def label_map(rng: np.random.Generator) -> faces.LabelMap:
    return rng.integers(0, len(CLASSES), (37, 37)).astype(np.uint8)


@pytest.fixture
def points(rng: np.random.Generator) -> faces.Landmarks:
    return rng.uniform(0, 128, (COUNT, 2)).astype(np.float32)


def values_of_all() -> list[dict[str, str]]:
    """Attribute sets that between them have every value of every attribute."""
    longest = max(len(a.values) for a in ATTRIBUTES.values())
    return [{a.name: a.values[i % len(a.values)] for a in ATTRIBUTES.values()} for i in range(longest)]


# -- label maps


def test_both_published_orders_have_the_same_names():
    assert len(CLASSES) == len(set(CLASSES)) == 19
    assert sorted(faces.RAW_FOLDER_ORDER) == sorted(set(CLASSES) - {"background"})
    assert [ID[name] for name in CLASSES] == list(range(19))


def test_flipping_a_map_twice_changes_nothing(label_map):
    assert np.array_equal(faces.flip_map(faces.flip_map(label_map)), label_map)


def test_a_flip_swaps_the_person_s_left_and_right():
    one = np.zeros((4, 4), np.uint8)
    one[1, 0] = ID["l_eye"]
    assert faces.flip_map(one)[1, 3] == ID["r_eye"]
    for left, right in faces.FLIP_PAIRS:
        assert CLASSES[left] == "l_" + CLASSES[right][2:]
        assert CLASSES[right].startswith("r_")


def test_flip_pairs_are_exactly_the_sided_classes():
    sided = {i for i, n in enumerate(CLASSES) if n.startswith("r_") or (n.startswith("l_") and n != "l_lip")}
    assert sided == set(itertools.chain(*faces.FLIP_PAIRS))


def test_colours_there_and_back(label_map):
    again, report = faces.from_colours(faces.to_colours(label_map))
    assert np.array_equal(again, label_map)
    assert (report.off, report.total, report.share) == (0, 37 * 37, 0.0)


def test_the_palette_has_no_colour_twice():
    assert PALETTE.shape == (19, 3)
    assert len(np.unique(PALETTE, axis=0)) == 19


def test_unclean_colours_snap_to_the_nearest_class_and_are_counted():
    picture = faces.to_colours(np.full((10, 10), ID["skin"], np.uint8))
    picture[0, :3] = (200, 4, 3)
    label_map, report = faces.from_colours(picture, limit=0.03)
    assert (label_map == ID["skin"]).all()
    assert (report.off, report.total) == (3, 100)
    with pytest.raises(BadInput, match=r"^drawing: 3 of 100 pixels .*allowed: at most 2%"):
        faces.from_colours(picture, limit=0.02, field="drawing")


@pytest.mark.parametrize(("old", "new"), [(2, 4), (4, 2), (64, 128), (128, 64), (512, 128), (5, 15)])
def test_resizing_a_map_keeps_pixel_centres(old, new):
    grid = (np.arange(old * old) % 19).reshape(old, old).astype(np.uint8)
    resized = faces.resize_map(grid, new)
    for row, column in [(0, 0), (new // 2, new - 1), (new - 1, 0)]:
        assert resized[row, column] == grid[int((row + 0.5) * old / new), int((column + 0.5) * old / new)]


def test_resizing_up_and_back_changes_nothing(label_map):
    assert np.array_equal(faces.resize_map(faces.resize_map(label_map, 37 * 3), 37), label_map)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((4, 5), np.uint8), "5 x 4 pixels; allowed: a square map"),
        (np.zeros((0, 0), np.uint8), "allowed: a square map"),
        (np.zeros((4, 4, 3), np.uint8), "3 dimensions; allowed"),
        (np.full((4, 4), 19), "label 19; allowed: labels 0..18"),
        (np.full((4, 4), -1), "label -1; allowed: labels 0..18"),
    ],
)
def test_a_bad_map_is_named(bad, says):
    with pytest.raises(BadInput) as caught:
        faces.check_map(bad, field="--mask")
    assert str(caught.value).startswith("--mask: ")
    assert says in str(caught.value)


def test_a_good_map_comes_back_as_bytes():
    checked = faces.check_map(np.array([[0, 18], [3, 4]], dtype=np.int64))
    assert checked.dtype == np.uint8
    assert checked.tolist() == [[0, 18], [3, 4]]


# -- landmarks


def test_the_groups_cover_all_points_once():
    assert sorted(itertools.chain(*GROUPS.values())) == list(range(COUNT))


def test_the_flip_is_an_involution():
    assert sorted(FLIP) == list(range(COUNT))
    assert np.array_equal(FLIP[FLIP], np.arange(COUNT))


def test_the_flip_sends_each_group_to_its_namesake():
    other = {"r_brow": "l_brow", "l_brow": "r_brow", "r_eye": "l_eye", "l_eye": "r_eye"}
    for name, group in GROUPS.items():
        assert {int(FLIP[i]) for i in group} == set(GROUPS[other.get(name, name)])


def test_flipping_points_twice_changes_nothing(points):
    twice = faces.flip_landmarks(faces.flip_landmarks(points, size=128), size=128)
    np.testing.assert_allclose(twice, points, atol=1e-4)


def test_points_flip_with_the_picture():
    """The centre of pixel (row, column) stays that pixel's centre after the columns are reversed."""
    points = np.full((COUNT, 2), 10.5, np.float32)
    points[36] = (3.5, 7.5)  # outer corner of the right eye
    assert faces.flip_landmarks(points, size=32)[45].tolist() == [28.5, 7.5]


def test_points_resize_with_the_picture(points):
    doubled = faces.resize_landmarks(points, old=128, new=256)
    np.testing.assert_allclose(doubled, points * 2)
    assert doubled.dtype == np.float32
    np.testing.assert_allclose(faces.resize_landmarks(doubled, old=256, new=128), points)


def with_point(index: int, value: tuple[float, float]) -> list[list[float]]:
    points = [[10.0, 10.0] for _ in range(COUNT)]
    points[index] = list(value)
    return points


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([[1, 2]] * 67, "has 67 points; allowed: 68 pairs"),
        ([[1, 2, 3]] * 68, "has the shape (68, 3)"),
        ("nonsense", "is not a list of number pairs"),
        ([[1, 2], [3]], "is not a list of number pairs"),
        (with_point(5, (float("nan"), 1)), "point 5 is not a number; allowed: finite"),
        (with_point(7, (1, float("inf"))), "point 7 is not a number"),
        (with_point(9, (400, 1)), "point 9 is at (400, 1); allowed: x and y between -64 and 192"),
        (with_point(0, (1, -65)), "point 0 is at (1, -65)"),
    ],
)
def test_bad_landmarks_are_named(bad, says):
    with pytest.raises(BadInput) as caught:
        faces.check_landmarks(bad, size=128, field="--landmarks")
    assert str(caught.value).startswith("--landmarks: ")
    assert says in str(caught.value)


def test_points_a_little_outside_are_kept():
    checked = faces.check_landmarks(with_point(0, (-60, 190)), size=128)
    assert checked.dtype == np.float32
    assert checked[0].tolist() == [-60, 190]


def spread_out() -> faces.Landmarks:
    """Each group in a corner of its own of a 512 px picture, so that no colour covers another."""
    points = np.zeros((COUNT, 2), np.float32)
    for place, group in enumerate(GROUPS.values()):
        centre = np.array([100 + 150 * (place % 3), 100 + 150 * (place // 3)])
        angle = np.linspace(0, 2 * np.pi, len(group), endpoint=False)
        points[list(group)] = centre + 40 * np.stack([np.cos(angle), np.sin(angle)], 1)
    return points


def test_the_drawing_has_the_paper_s_colours_where_the_points_are():
    points = spread_out()
    drawing = faces.draw_landmarks(points, size=512)
    assert drawing.shape == (512, 512, 3)
    assert drawing.dtype == np.uint8
    expected = {
        "jaw": (0, 255, 0), "r_brow": (255, 255, 0), "nose_base": (255, 165, 0), "l_eye": (255, 0, 255),
        "outer_lips": (0, 255, 255), "inner_lips": (0, 0, 255),
    }  # fmt: skip
    for group, colour in expected.items():
        on_line = (points[GROUPS[group][1]] + points[GROUPS[group][2]]) / 2
        filled = group in ("l_eye", "outer_lips", "inner_lips")
        x, y = points[list(GROUPS[group])].mean(0) if filled else on_line
        assert tuple(drawing[int(y), int(x)]) == colour, group
    assert tuple(drawing[5, 5]) == (0, 0, 0)


def test_the_drawing_of_another_size_shows_the_same_points():
    small = faces.draw_landmarks(spread_out(), size=512, new=128)
    assert small.shape == (128, 128, 3)
    large = faces.draw_landmarks(spread_out(), size=512).reshape(128, 4, 128, 4, 3).mean((1, 3))
    assert np.abs(small - large).mean() < 8


def test_a_fraction_of_a_pixel_moves_the_drawing():
    moved = faces.draw_landmarks(spread_out() + np.float32(0.5), size=512)
    assert not np.array_equal(moved, faces.draw_landmarks(spread_out(), size=512))


# -- attributes and languages


def test_celeba_has_its_38_names_in_the_published_spelling():
    assert len(faces.CELEBA_NAMES) == 40
    assert sorted(faces.CELEBA_NAMES) == list(faces.CELEBA_NAMES)
    for attributes in values_of_all():
        assert set(faces.to_celeba(attributes)) == set(faces.CELEBA_NAMES) - {"Attractive", "Blurry"}


def test_every_celeba_label_can_be_both_true_and_false():
    seen: dict[str, set[bool]] = {}
    for base in values_of_all():
        for attribute in ATTRIBUTES.values():
            for value in attribute.values:
                for name, yes in faces.to_celeba(base | {attribute.name: value}).items():
                    seen.setdefault(name, set()).add(yes)
    assert all(values == {True, False} for values in seen.values()), seen


def test_a_bald_head_has_no_hair_labels():
    labels = faces.to_celeba(values_of_all()[0] | {"hair_length": "bald", "hair_colour": "black", "bangs": "yes"})
    assert labels["Bald"]
    assert not any(labels[n] for n in ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Bangs", "Wavy_Hair"))


def test_every_mention_holds_exactly_for_its_value():
    for attributes in values_of_all():
        for name, value in faces.PAIRS:
            has = attributes[name] == value
            assert Mention(name, value).holds(attributes) is has
            assert Mention(name, value, negated=True).holds(attributes) is not has


def test_absence_holds_exactly_where_nothing_is_present():
    for attribute in ATTRIBUTES.values():
        if attribute.absent is None:
            continue
        mentions = faces.absence(attribute.name)
        assert len(mentions) == len(attribute.values) - 1
        for value in attribute.values:
            said = all(m.holds({attribute.name: value}) for m in mentions)
            assert said == (value == attribute.absent)


def test_attribute_values_are_unique_and_absent_is_one_of_them():
    for name, attribute in ATTRIBUTES.items():
        assert name == attribute.name
        assert len(set(attribute.values)) == len(attribute.values) >= 2
        assert attribute.absent is None or attribute.absent in attribute.values
    assert set(faces.WITHOUT_HAIR) <= set(ATTRIBUTES)


def test_twelve_languages_with_both_codes():
    assert len(LANGUAGES) == len(faces.CODE_BY_CODE3) == 12
    assert {code for code, language in LANGUAGES.items() if language.rtl} == {"ar", "fa"}
    assert all(faces.CODE_BY_CODE3[language.code3] == code for code, language in LANGUAGES.items())
