"""The judges that need no network: true renders are faultless, each kind of fault is caught, figures are right."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from m3face.evaluation.held_out import stranger
from m3face.evaluation.metrics import (
    Rate,
    cosine,
    kernel_distance,
    landmark_error,
    laplacian_energy,
    mean_iou,
    points_on_map,
    rate,
)
from m3face.faces import CLASSES, ID, LabelMap, Mention, absence
from m3face.faces.anatomy import anatomy_faults, largest_piece
from m3face.faces.signs import SIGNS, asked_signs, hair_colour, map_signs
from m3face.synthetic import Sample, make_sample

SIZE = 128


@pytest.fixture(scope="module")
def renders() -> list[Sample]:
    """Held-out people (seed 0), as the evaluation meets them."""
    return [make_sample(0, index, size=SIZE) for index in range(60)]


def test_true_renders_are_faultless(renders: list[Sample]) -> None:
    faults = {index: found for index, s in enumerate(renders) if (found := anatomy_faults(s.label_map))}
    assert len(faults) <= 0.05 * len(renders), faults


def test_landmarks_of_true_renders_lie_on_their_parts(renders: list[Sample]) -> None:
    off = [index for index, s in enumerate(renders) if not points_on_map(s.landmarks, s.label_map)]
    assert len(off) <= 0.02 * len(renders), off


# ------------------------------------------------------------------------------------------------ faults are caught


def _numbers(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def plain_face() -> LabelMap:
    """A made-up map with every part in its place; column 64 is the middle."""
    face = np.zeros((SIZE, SIZE), dtype=np.uint8)
    face[20:110, 30:98] = ID["skin"]
    face[45:51, 40:54] = ID["r_eye"]  # the person's right is on our left
    face[45:51, 74:88] = ID["l_eye"]
    face[50:75, 58:70] = ID["nose"]
    face[82:86, 52:76] = ID["u_lip"]
    face[86:90, 52:76] = ID["l_lip"]
    return face


def _gone(*names: str) -> Callable[[LabelMap], None]:
    def spoil(face: LabelMap) -> None:
        face[np.isin(face, [ID[name] for name in names])] = ID["skin"]

    return spoil


def _swapped(one: str, other: str) -> Callable[[LabelMap], None]:
    def spoil(face: LabelMap) -> None:
        first, second = face == ID[one], face == ID[other]
        face[first], face[second] = ID[other], ID[one]

    return spoil


def _split(name: str) -> Callable[[LabelMap], None]:
    def spoil(face: LabelMap) -> None:
        columns = np.nonzero(face == ID[name])[1]
        middle = int(np.median(columns))
        part = face[:, middle - 1 : middle + 2]
        part[part == ID[name]] = ID["skin"]

    return spoil


def _split_mouth(face: LabelMap) -> None:
    face[82:90, 62:66] = ID["skin"]


def _moved(name: str, rows: int) -> Callable[[LabelMap], None]:
    def spoil(face: LabelMap) -> None:
        part = face == ID[name]
        face[part] = ID["skin"]
        face[np.roll(part, rows, axis=0)] = ID[name]

    return spoil


def _mouth_on_the_forehead(face: LabelMap) -> None:
    mouth = face[82:90].copy()
    face[82:90][np.isin(mouth, [ID["u_lip"], ID["l_lip"]])] = ID["skin"]
    face[25:33] = mouth


def _no_skin(face: LabelMap) -> None:
    face[face == ID["skin"]] = ID["hair"]


def test_the_plain_face_is_faultless() -> None:
    assert anatomy_faults(plain_face()) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_no_skin, "no skin"),
        (_gone("nose"), "no nose"),
        (_gone("u_lip", "l_lip"), "no mouth"),
        (_gone("l_eye"), "no l_eye"),
        (_gone("r_eye"), "no r_eye"),
        (_split("nose"), "nose in pieces"),
        (_split("l_eye"), "l_eye in pieces"),
        (_split("r_eye"), "r_eye in pieces"),
        (_split_mouth, "mouth in pieces"),
        (_mouth_on_the_forehead, "mouth above nose"),
        (_moved("l_eye", 30), "l_eye below nose"),
        (_moved("r_eye", 30), "r_eye below nose"),
        (_swapped("l_eye", "r_eye"), "eyes swapped"),
        (_swapped("u_lip", "l_lip"), "lips swapped"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else "",
)
def test_each_fault_is_caught(spoil: Callable[[LabelMap], None], fault: str) -> None:
    face = plain_face()
    spoil(face)
    assert anatomy_faults(face) == [fault]


def test_an_eye_may_be_missing_behind_glasses_or_on_the_far_side_only() -> None:
    behind = plain_face()
    behind[42:54, 36:92] = ID["eye_g"]
    assert anatomy_faults(behind) == []
    for side, far in (("l_eye", 1), ("r_eye", -1)):
        turned = plain_face()
        _gone("nose")(turned)
        turned[50:75, 58 + far * 12 : 70 + far * 12] = ID["nose"]
        hidden, near = turned.copy(), turned.copy()
        _gone(side)(hidden)
        assert anatomy_faults(hidden) == []
        other_side = "r_eye" if side == "l_eye" else "l_eye"
        _gone(other_side)(near)
        assert anatomy_faults(near) == [f"no {other_side}"]


def test_largest_piece_counts_corners_as_touching() -> None:
    mask = np.zeros((6, 6), dtype=bool)
    assert largest_piece(mask) == 0
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True
    mask[5, 5] = True
    assert largest_piece(mask) == 3


# ---------------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [  # published tables of the 95 % Wilson score interval
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (216, 240, 0.8555, 0.9318),
    ],
)
def test_wilson_interval(hits: int, count: int, low: float, high: float) -> None:
    found = Rate(hits=hits, count=count)
    assert found.value == hits / count
    assert found.interval == pytest.approx((low, high), abs=1e-4)


def test_a_rate_of_nothing_is_not_a_number() -> None:
    assert rate([True, False, True]) == Rate(hits=2, count=3)
    empty = rate([])
    assert math.isnan(empty.value)
    assert all(math.isnan(bound) for bound in empty.interval)


def test_mean_iou_by_hand() -> None:
    true = np.array([[0, 0], [1, 1]], dtype=np.uint8)
    predicted = np.array([[0, 1], [1, 2]], dtype=np.uint8)
    mean, by_class = mean_iou([predicted], [true])
    # background 1 of 2; skin 1 of 3; the third class is in no true map, so it has no figure of its own
    assert by_class == {CLASSES[0]: 0.5, CLASSES[1]: pytest.approx(1 / 3)}
    assert mean == pytest.approx((0.5 + 1 / 3) / 2)
    assert mean_iou([true, true], [true, true])[0] == 1.0


def test_mean_iou_sums_over_maps_before_it_divides() -> None:
    ones, zeros = np.ones((2, 2), dtype=np.uint8), np.zeros((2, 2), dtype=np.uint8)
    mean, by_class = mean_iou([ones, ones], [ones, zeros])
    assert by_class == {CLASSES[0]: 0.0, CLASSES[1]: 0.5}
    assert mean == 0.25


def test_landmark_error_is_in_eye_distances(renders: list[Sample]) -> None:
    points = renders[0].landmarks
    between = float(np.linalg.norm(points[36] - points[45]))
    assert landmark_error(points, points) == 0
    assert landmark_error(points + _numbers(3, 4), points) == pytest.approx(5 / between, rel=1e-5)


def test_points_off_their_parts_are_seen(renders: list[Sample]) -> None:
    sample = renders[0]
    assert points_on_map(sample.landmarks, sample.label_map)
    assert not points_on_map(sample.landmarks + _numbers(0, 25), sample.label_map)
    assert not points_on_map(sample.landmarks[:, ::-1], sample.label_map)
    assert points_on_map(sample.landmarks, np.zeros_like(sample.label_map))  # a map without parts contradicts nothing


def test_cosine() -> None:
    one = _numbers(1, 2, 3)
    assert cosine(one, 2 * one) == pytest.approx(1)
    assert cosine(one, -one) == pytest.approx(-1)
    assert cosine(_numbers(1, 0), _numbers(0, 5)) == 0


def test_laplacian_energy_knows_soft_from_sharp(renders: list[Sample]) -> None:
    assert laplacian_energy(np.full((8, 8, 3), 77, dtype=np.uint8)) == 0
    dot = np.zeros((5, 5, 3), dtype=np.uint8)
    dot[2, 2] = 10  # the nine inner answers are 40, four times -10 and four zeros
    assert laplacian_energy(dot) == pytest.approx((40**2 + 4 * 10**2) / 9)
    sharp = renders[0].image
    soft = sharp.reshape(64, 2, 64, 2, 3).mean((1, 3)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    assert laplacian_energy(soft) != laplacian_energy(sharp)


def test_kernel_distance_by_hand_and_in_order() -> None:
    one, other = np.array([[1.0, 0.0]], dtype=np.float32), np.array([[0.0, 1.0]], dtype=np.float32)
    assert kernel_distance(one, other) == pytest.approx(2 * 1.5**3 - 2)
    assert kernel_distance(one, one) == pytest.approx(0)
    rng = np.random.default_rng(0)
    near, also_near, far = (rng.normal(m, 1, (200, 8)).astype(np.float32) for m in (0, 0, 1))
    assert 0 < kernel_distance(near, also_near) < 0.2 * kernel_distance(near, far)


def test_a_stranger_shares_what_is_named_and_is_somebody_else(renders: list[Sample]) -> None:
    person = renders[0]
    named = [Mention(name, person.attributes[name]) for name in ("gender", "hair_colour", "hat", "smile")]
    others = [stranger(person, named, seed) for seed in range(8)]
    assert all(o.attributes[m.attribute] == m.value for o in others for m in named)
    assert len({o.identity for o in others} | {person.identity}) == 9
    assert len({o.attributes["face_shape"] for o in others}) > 1


# ------------------------------------------------------------------------------------------------------------ rules


def test_rules_are_right_on_true_renders(renders: list[Sample]) -> None:
    for index, sample in enumerate(renders):
        found = sample.attributes
        assert map_signs(sample.label_map) == {
            "glasses": found["glasses"] != "none",
            "hat": found["hat"] == "yes",
            "earrings": found["earrings"] == "yes",
            "bald": found["hair_length"] == "bald",
            "long hair": found["hair_length"] == "long",
        }, index
    colours = [(hair_colour(s.image, s.label_map), s.attributes["hair_colour"]) for s in renders]
    sure = [(said, true) for said, true in colours if said is not None]
    assert len(sure) > 0.8 * len(renders)
    assert sum(said == true for said, true in sure) >= 0.93 * len(sure)


def test_what_words_ask_of_a_map() -> None:
    assert asked_signs([Mention("glasses", "sunglasses")]) == {"glasses": True}
    assert asked_signs([Mention("glasses", "sunglasses", negated=True)]) == {}  # eyeglasses may still be there
    assert asked_signs(absence("glasses")) == {"glasses": False}
    assert asked_signs([Mention("hair_length", "long")]) == {"bald": False, "long hair": True}
    assert asked_signs([Mention("hair_length", "bald", negated=True)]) == {"bald": False}
    assert asked_signs([Mention("hat", "yes"), *absence("earrings")]) == {"hat": True, "earrings": False}
    assert asked_signs([Mention("age", "young")]) == {}


def test_an_empty_map_shows_a_bald_head_and_nothing_else() -> None:
    assert map_signs(np.zeros((SIZE, SIZE), dtype=np.uint8)) == {sign: sign == "bald" for sign in SIGNS}
    assert hair_colour(np.zeros((SIZE, SIZE, 3), dtype=np.uint8), np.zeros((SIZE, SIZE), dtype=np.uint8)) is None
