"""The flow text to face: the same as its stages by hand; what is given stays as it came."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3face.errors import BadInput
from m3face.pipelines import FaceResult, FaceWish, in_process, text_to_face
from m3face.stages import ConditionRequest, FaceRequest, Stage, TextRequest, open_stage

FEW: dict[str, Any] = {"condition_steps": 3, "face_steps": 2}
POINTS = np.random.default_rng(0).uniform(20, 110, (68, 2)).astype(np.float32)
MAP = np.random.default_rng(0).integers(0, 19, (16, 16), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


@pytest.fixture(scope="module")
def stages(random_weights: Path) -> dict[str, Stage]:
    return {name: open_stage(name, f"dir:{random_weights}") for name in ("text", "conditions", "face")}


def _run(stages: dict[str, Stage], **fields: Any) -> FaceResult:
    wish = FaceWish(prompt="a woman", seed=5, **FEW | fields)
    return asyncio.run(text_to_face(wish, in_process(stages)))


def test_the_flow_is_its_stages_by_hand(stages: dict[str, Stage]) -> None:
    result = _run(stages)
    (words,) = stages["text"].run([TextRequest(prompt="a woman")])
    both = {"text": words.text, "empty": words.empty, "seed": 5}
    (conditions,) = stages["conditions"].run([ConditionRequest(**both, steps=3)])
    held = {"label_map": conditions.label_map, "landmarks": conditions.landmarks}
    (face,) = stages["face"].run([FaceRequest(**both, **held, steps=2)])
    assert np.array_equal(result.label_map, conditions.label_map)
    assert np.array_equal(result.landmarks, conditions.landmarks)
    assert np.array_equal(result.picture, face.picture)
    assert set(result.seconds) == {"text", "conditions", "face"}


def test_given_conditions_come_back_untouched_and_the_missing_one_is_completed(stages: dict[str, Stage]) -> None:
    with_map, with_points = _run(stages, label_map=MAP), _run(stages, landmarks=POINTS)
    with_both = _run(stages, label_map=MAP, landmarks=POINTS)
    assert np.array_equal(with_map.label_map, MAP) and np.array_equal(with_both.label_map, MAP)
    assert np.array_equal(with_points.landmarks, POINTS) and np.array_equal(with_both.landmarks, POINTS)
    assert with_map.landmarks.shape == (68, 2) and with_points.label_map.shape == (128, 128)


def test_nothing_outside_the_region_changes(stages: dict[str, Stage]) -> None:
    region = np.zeros((16, 16), bool)
    region[4:8, 4:10] = True
    result = _run(stages, label_map=MAP, landmarks=POINTS, region=region)
    inside = region.repeat(8, 0).repeat(8, 1)
    assert np.array_equal(result.label_map[~inside], MAP[~inside])
    assert not np.array_equal(result.label_map[inside], MAP[inside])
    column, row = (POINTS // 8).astype(int).T
    moved = (result.landmarks != POINTS).any(1)
    assert moved.any() and not moved[~region[row, column]].any()


def test_a_map_of_another_size_is_brought_to_size_by_nearest(stages: dict[str, Stage]) -> None:
    assert np.array_equal(_run(stages, label_map=MAP.repeat(2, 0).repeat(2, 1)).label_map, MAP)


def test_an_error_of_a_stage_is_raised(stages: dict[str, Stage]) -> None:
    with pytest.raises(BadInput, match="prompt"):
        asyncio.run(text_to_face(FaceWish(prompt=" "), in_process(stages)))
