"""How the annotators see and are taught: points where the features are, views whose parts stay together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from m3face.evaluation.metrics import points_on_map
from m3face.faces import CLASSES, COUNT, FLIP_PAIRS, GROUPS
from m3face.models.annotators import Pointer
from m3face.synthetic import Sample, make_sample
from m3face.tasks import annotators

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 128


@pytest.fixture(scope="module")
def frontal() -> Sample:
    return make_sample(0, 3, size=SIZE)


class FixedDice:
    """Just what `_view` asks of a generator: mirrored or not, this zoom, this shift."""

    def __init__(self, *, mirrored: bool, zoom: float, shift: tuple[float, float]) -> None:
        self.mirrored, self.answers = mirrored, [zoom, np.array(shift)]

    def random(self) -> float:
        return 0.0 if self.mirrored else 0.9

    def uniform(self, *_: Any) -> Any:
        return self.answers.pop(0)


def _seen(sample: Sample, **dice: Any) -> Any:
    face: dict[str, NDArray[Any]] = {
        "image": sample.image,
        "label_map": sample.label_map,
        "landmarks": sample.landmarks,
    }
    return annotators._view(face, FixedDice(**dice))  # type: ignore[arg-type]


@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 7), (3, 12), (15, 15)])
def test_a_point_is_shown_in_the_cell_that_sees_it(row: int, column: int) -> None:
    pointer = Pointer(1)
    with torch.no_grad():
        pointer.maps.weight.zero_()
        pointer.maps.weight[:, :, 1, 1] = 1e4
        pointer.maps.bias.zero_()  # type: ignore[union-attr]
    features = torch.zeros(1, 1, 16, 16)
    features[0, 0, row, column] = 1.0
    expected = torch.tensor([column + 0.5, row + 0.5]) / 16
    assert torch.allclose(pointer(features), expected.expand(1, COUNT, 2), atol=1e-6)


def test_a_view_that_moves_nothing_is_the_face(frontal: Sample) -> None:
    view = _seen(frontal, mirrored=False, zoom=1.0, shift=(0.0, 0.0))
    assert np.abs((view.picture.permute(1, 2, 0).numpy() + 1) * 127.5 - frontal.image).max() < 0.01
    assert np.array_equal(view.label_map.numpy(), frontal.label_map)
    assert np.allclose(view.points.numpy() * SIZE, frontal.landmarks, atol=1e-4)


def test_a_mirrored_view_swaps_left_and_right(frontal: Sample) -> None:
    view = _seen(frontal, mirrored=True, zoom=1.0, shift=(0.0, 0.0))
    twice = view.label_map.numpy()[:, ::-1].copy()
    for left, right in FLIP_PAIRS:
        a, b = twice == left, twice == right
        twice[a], twice[b] = right, left
    assert np.array_equal(twice, frontal.label_map)
    assert view.points[GROUPS["l_eye"]].mean(0)[0] > view.points[GROUPS["r_eye"]].mean(0)[0]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("zoom", "shift"), [(1.15, (0.15, -0.1)), (0.85, (-0.15, 0.15)), (1.0, (0.1, 0.0))])
def test_picture_map_and_points_of_a_view_move_together(
    frontal: Sample, mirrored: bool, zoom: float, shift: tuple[float, float]
) -> None:
    view = _seen(frontal, mirrored=mirrored, zoom=zoom, shift=shift)
    assert points_on_map(view.points.numpy() * SIZE, view.label_map.numpy())
    # the picture is painted with the map's own labels, so that it can be read back as one
    painted = Sample(**{**vars(frontal), "image": np.repeat(frontal.label_map[..., None], 3, axis=2)})
    read = (_seen(painted, mirrored=False, zoom=zoom, shift=shift).picture[0] + 1) * 127.5
    labels = _seen(frontal, mirrored=False, zoom=zoom, shift=shift).label_map
    highest, lowest = F.max_pool2d(read[None], 3, 1, 1)[0], -F.max_pool2d(-read[None], 3, 1, 1)[0]
    flat = highest - lowest < 1e-2  # away from outlines, where bilinear and nearest differ
    assert float(flat.float().mean()) > 0.5
    assert torch.allclose(read[flat], labels.float()[flat], atol=1e-2)
    assert int(labels.max()) < len(CLASSES)
