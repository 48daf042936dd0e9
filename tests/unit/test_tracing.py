"""The drawing of the landmarks, undone."""

from __future__ import annotations

import numpy as np
import pytest

from m3face.errors import BadInput
from m3face.faces import GROUPS, draw_landmarks, landmarks, trace_landmarks
from m3face.synthetic import make_sample

SIZE = 128


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    drawn, again = (picture.max(-1) > 127 for picture in (one, other))
    return float((drawn & again).sum() / (drawn | again).sum())


@pytest.mark.parametrize("side", [256, 512])
def test_a_traced_drawing_is_drawn_again_much_as_it_was(side: int) -> None:
    for index in range(12):
        points = make_sample(3, index, size=SIZE).landmarks
        drawing = draw_landmarks(points, size=SIZE, new=side)
        traced = trace_landmarks(drawing, size=SIZE)
        assert traced.dtype == np.float32
        error = np.hypot(*(traced - points).T)
        assert error.mean() < 0.015 * SIZE
        fixed = [
            *GROUPS["r_brow"],
            *GROUPS["l_brow"],
            *GROUPS["r_eye"],
            *GROUPS["l_eye"],
        ]  # short parts: little to slide
        assert error[fixed].mean() < 0.006 * SIZE
        assert _overlap(drawing, draw_landmarks(traced, size=SIZE, new=side)) > 0.7


def test_noise_as_of_a_network_moves_points_little() -> None:
    points = make_sample(3, 5, size=SIZE).landmarks
    drawing = draw_landmarks(points, size=SIZE, new=256).astype(int)
    noisy = (drawing + np.random.default_rng(0).normal(0, 20, drawing.shape)).clip(0, 255).astype(np.uint8)
    clean, traced = (trace_landmarks(d.astype(np.uint8), size=SIZE) for d in (drawing, noisy))
    assert np.hypot(*(traced - clean).T).mean() < 0.01 * SIZE


def test_a_turned_head_keeps_its_own_left_and_right() -> None:
    points = make_sample(3, 5, size=SIZE).landmarks
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = ((points - SIZE / 2) @ turn + SIZE / 2).astype(np.float32)
    traced = trace_landmarks(draw_landmarks(turned, size=SIZE, new=256), size=SIZE)
    assert np.hypot(*(traced - turned).T).mean() < 0.02 * SIZE


@pytest.mark.parametrize("part", ["jaw", "r_brow", "l_eye", "nose_base", "outer_lips"])
def test_a_drawing_without_a_part_is_refused_by_its_name(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = {part, "inner_lips"} if part == "outer_lips" else {part}
    monkeypatch.setattr(landmarks, "DRAWING", [stroke for stroke in landmarks.DRAWING if stroke[0] not in left_out])
    drawing = draw_landmarks(make_sample(3, 5, size=SIZE).landmarks, size=SIZE, new=256)
    with pytest.raises(BadInput, match="the drawing has no ") as refused:
        trace_landmarks(drawing, size=SIZE)
    assert part[-4:] in str(refused.value)  # of two brows or eyes that look alike either may be missed


def test_a_blank_drawing_is_refused() -> None:
    with pytest.raises(BadInput, match="the drawing has no l_eye"):
        trace_landmarks(np.zeros((64, 64, 3), np.uint8), size=SIZE)
