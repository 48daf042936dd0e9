"""The published augmentation: labels stay labels, points stay on them, and every draw is the sample's own."""

from __future__ import annotations

import numpy as np
import pytest

from m3face.faces import CLASSES
from m3face.synthetic import make_sample
from m3face.tasks.augmentation import Displacement, bent, relit

SIZE = 128


def _field(seed: int, strength: float = 100) -> Displacement:
    return Displacement.drawn(SIZE, np.random.default_rng(seed), strength=strength)


def test_a_field_is_smooth_and_as_strong_as_torchvisions() -> None:
    field = np.stack([_field(seed).field for seed in range(8)])
    assert field.shape == (8, 2, SIZE, SIZE)
    wanted = 50 / 3**0.5 / (2 * 5 * np.pi**0.5)  # half the strength; uniform noise; what a Gaussian of 5 leaves of it
    assert float(field.std()) == pytest.approx(wanted, rel=0.1)
    steps = np.diff(field, axis=-1)
    assert float(steps.std()) == pytest.approx(wanted / (5 * 2**0.5), rel=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_a_labelled_point_stays_on_its_label(seed: int) -> None:
    """Labels in blocks of 8 pixels, a point in the middle of each: it is still on its block, which moved."""
    blocks = (np.add.outer(np.arange(16) * 5, np.arange(16)) % 19).astype(np.uint8)
    label_map = blocks.repeat(8, 0).repeat(8, 1)
    middle = np.stack(np.meshgrid(np.arange(1, 15), np.arange(1, 15)), -1).reshape(-1, 2) * 8 + 4.0
    points, field = middle.astype(np.float32), _field(seed)
    moved, there = field.of_map(label_map), field.of_points(points)
    assert np.allclose(there + field._at(there), points, atol=1e-2)  # it comes from where it was
    assert float(np.abs(there - points).max()) > 3
    column, row = there.astype(int).T
    before = label_map[points[:, 1].astype(int), points[:, 0].astype(int)]
    assert np.array_equal(moved[row, column], before)
    assert not np.array_equal(moved, label_map)


def test_no_label_is_invented_and_no_displacement_changes_nothing() -> None:
    sample = make_sample(5, 0, size=SIZE)
    moved = _field(0).of_map(sample.label_map)
    assert moved.dtype == np.uint8 and set(np.unique(moved)) <= set(np.unique(sample.label_map)) < set(range(20))
    assert 0.01 < float((moved != sample.label_map).mean()) < 0.2
    still = Displacement(np.zeros((2, SIZE, SIZE), np.float32))
    assert np.array_equal(still.of_map(sample.label_map), sample.label_map)
    assert np.array_equal(still.of_points(sample.landmarks), sample.landmarks)
    assert len(CLASSES) == 19


def test_points_beyond_the_border_move_with_it() -> None:
    points = np.array([[-20.0, 64.0], [140.0, 300.0]], np.float32)
    moved = _field(1).of_points(points)
    assert np.isfinite(moved).all() and float(np.abs(moved - points).max()) < 8


def test_a_face_is_relit_now_and_then_and_stays_the_face() -> None:
    image = make_sample(5, 0, size=SIZE).image
    changed, apart = 0, []
    for seed in range(200):
        seen = relit(image, np.random.default_rng(seed))
        assert seen.dtype == np.uint8 and seen.shape == image.shape
        changed += not np.array_equal(seen, image)
        apart.append(float(np.abs(seen.astype(int) - image.astype(int)).mean()))
    assert changed / 200 == pytest.approx(1 - 0.8 * 0.75, abs=0.1)  # sharper, tinted or both
    assert 1 < max(apart) < 40


def test_conditions_are_bent_together_now_and_then() -> None:
    sample = make_sample(5, 0, size=SIZE)
    bends = 0
    for seed in range(200):
        label_map, points = bent(sample.label_map, sample.landmarks, np.random.default_rng(seed))
        other = not np.array_equal(label_map, sample.label_map)
        assert other == (not np.array_equal(points, sample.landmarks))
        bends += other
    assert bends / 200 == pytest.approx(0.2, abs=0.09)
    again = [bent(sample.label_map, sample.landmarks, np.random.default_rng(7)) for _ in range(2)]
    assert all(np.array_equal(one, other) for one, other in zip(*again, strict=True))
