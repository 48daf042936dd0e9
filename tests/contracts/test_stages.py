"""One body for every stage: length and order, a bad neighbour, one seed one answer, cancelling."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from m3face import checkpoints
from m3face.errors import BadInput, Cancelled, ConfigError, M3FaceError
from m3face.faces import Mention
from m3face.faces.anatomy import anatomy_faults
from m3face.faces.signs import unasked
from m3face.stages import (
    STAGES,
    ConditionRequest,
    FaceRequest,
    PictureRequest,
    Stage,
    TextRequest,
    TextStates,
    condition_generator,
    open_stage,
)


def _states(seed: int, width: int = 192) -> TextStates:
    states = np.random.default_rng(seed).standard_normal((16, width)).astype(np.float32)
    return TextStates(states=states, pooled=states.mean(0))


def _conditions(seed: int, **changed: Any) -> ConditionRequest:
    fields: dict[str, Any] = {"text": _states(1), "empty": _states(0), "seed": seed, "steps": 3}
    return ConditionRequest(**fields | changed)


_MAP = np.repeat(np.arange(16, dtype=np.uint8), 8)[:, None].repeat(128, 1)


def _face(seed: int, **changed: Any) -> FaceRequest:
    points = np.random.default_rng(3).uniform(30, 100, (68, 2)).astype(np.float32)
    fields: dict[str, Any] = {"text": _states(1), "empty": _states(0), "seed": seed, "steps": 2, "label_map": _MAP}
    said = {"mentions": (Mention("age", "old"),) * (seed % 2), "attribute_guidance": 9.0}
    return FaceRequest(**fields | {"landmarks": points} | said | changed)


def _picture(seed: int) -> PictureRequest:
    return PictureRequest(picture=np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8))


_OBLONG = PictureRequest(picture=np.zeros((20, 30, 3), np.uint8))


@dataclass(frozen=True)
class Subject:
    """A stage's name, a good request by number, and one that it must refuse."""

    name: str
    good: Callable[[int], Any]
    bad: Any
    options: Mapping[str, Any] = field(default_factory=dict)


SUBJECTS = (
    Subject("text", lambda i: TextRequest(prompt=f"a face, number {i}"), TextRequest(prompt="  ")),
    Subject("conditions", _conditions, _conditions(0, text=_states(1, 64))),
    Subject("face", _face, _face(0, text=_states(1, 64))),
    *(Subject(name, _picture, _OBLONG) for name in ("parse", "landmarks", "attributes", "identity")),
)


@pytest.fixture(scope="module")
def opened(random_weights: Path) -> dict[str, Stage]:
    return {s.name: open_stage(s.name, f"dir:{random_weights}", **s.options) for s in SUBJECTS}


def _plain(value: Any) -> Any:
    """Something that compares with ==."""
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name)) for name in type(value).model_fields}
    return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value


subjects = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.name)


def test_every_stage_is_a_subject() -> None:
    assert {s.name for s in SUBJECTS} == set(STAGES)


@subjects
def test_an_empty_list_is_answered_with_one(subject: Subject, opened: dict[str, Stage]) -> None:
    assert opened[subject.name].run([]) == []


@subjects
def test_alone_in_a_batch_and_again_are_one_answer(subject: Subject, opened: dict[str, Stage]) -> None:
    stage, requests = opened[subject.name], [subject.good(i) for i in range(3)]
    together = [_plain(result) for result in stage.run(requests)]
    alone = [_plain(stage.run([request])[0]) for request in reversed(requests)]
    assert together == alone[::-1]
    assert together[0] != together[1], "other requests, other answers"


@subjects
def test_a_bad_request_does_not_spoil_its_neighbours(subject: Subject, opened: dict[str, Stage]) -> None:
    stage, good = opened[subject.name], subject.good(1)
    first, bad, last = stage.run([good, subject.bad, good])
    assert isinstance(bad, BadInput)
    assert _plain(first) == _plain(last) == _plain(stage.run([good])[0])


@pytest.mark.parametrize("subject", SUBJECTS[1:3], ids=lambda s: s.name)
@pytest.mark.parametrize("part", ["states", "pooled"])
def test_words_of_another_shape_are_refused_and_spoil_nothing(
    part: str, subject: Subject, opened: dict[str, Stage]
) -> None:
    good = subject.good(1)
    few = good.empty.model_copy(update={part: getattr(good.empty, part)[:8]})
    first, bad = opened[subject.name].run([good, good.model_copy(update={"empty": few})])
    assert isinstance(bad, BadInput) and bad.field == "empty"
    assert not isinstance(first, M3FaceError)


@pytest.mark.parametrize("subject", SUBJECTS[1:3], ids=lambda s: s.name)
def test_a_group_of_three_gives_the_same_alone_and_full(subject: Subject, random_weights: Path) -> None:
    stage = open_stage(subject.name, f"dir:{random_weights}", micro_batch=3)
    requests = [subject.good(i) for i in range(3)]
    together = [_plain(result) for result in stage.run(requests)]
    assert together == [_plain(stage.run([request])[0]) for request in requests]


@pytest.mark.parametrize("subject", SUBJECTS[1:3], ids=lambda s: s.name)
def test_a_dropped_request_is_cancelled_and_the_others_finish(subject: Subject, opened: dict[str, Stage]) -> None:
    stage, requests, seen = opened[subject.name], [subject.good(i) for i in range(2)], []

    def on_step(step: int, previews: Any) -> list[int]:
        shown = [index for index, preview in enumerate(previews) if preview is not None]
        seen.append((step, shown))
        assert previews[shown[0]]().shape == (128, 128, 3)
        return [0]

    dropped, kept = stage.run(requests, on_step=on_step)
    assert isinstance(dropped, Cancelled)
    assert _plain(kept) == _plain(stage.run([requests[1]])[0])
    assert seen[0] == (0, [0]) and all(shown == [1] for _, shown in seen[1:]) and len(seen) == requests[1].steps + 1


def test_a_long_prompt_is_read_as_far_as_it_goes_with_a_warning(opened: dict[str, Stage]) -> None:
    (result,) = opened["text"].run([TextRequest(prompt="очень " * 90)])
    assert "not read" in result.warnings[0]
    assert result.language == "ru"


def test_a_condition_without_its_network_is_refused(random_weights: Path) -> None:
    stage = open_stage("face", f"dir:{random_weights}", conditions=("mask",))
    with_both, with_mask = stage.run([_face(1), _face(1, landmarks=None)])
    assert isinstance(with_both, BadInput) and with_mask.picture.shape == (128, 128, 3)


def test_each_condition_changes_the_picture(opened: dict[str, Stage]) -> None:
    requests = [_face(1), _face(1, landmarks=None), _face(1, label_map=None), _face(1, landmarks=None, label_map=None)]
    pictures = [result.picture.tobytes() for result in opened["face"].run(requests)]
    assert len(set(pictures)) == 4


def test_what_was_understood_moves_the_face_at_its_landmarks(opened: dict[str, Stage]) -> None:
    said = (Mention("eye_colour", "blue"), Mention("glasses", "eyeglasses", negated=True))
    base = {"steps": 4, "mentions": said}
    requests = [
        _face(1, **base),
        _face(1, **base | {"attribute_guidance": 0.0}),
        _face(1, **base | {"mentions": ()}),
        _face(1, **base, landmarks=None),
        _face(1, **base | {"attribute_guidance": 0.0}, landmarks=None),
    ]
    moved, left, silent, blind, still = (result.picture.tobytes() for result in opened["face"].run(requests))
    assert moved != left and left == silent
    assert blind == still, "without landmarks nobody knows where to look"


def test_attribute_guidance_needs_its_reader(random_weights: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(random_weights, weights, ignore=shutil.ignore_patterns("latent_reader"))
    checkpoints.write_manifest(weights)
    refused, drawn = open_stage("face", f"dir:{weights}").run([_face(1), _face(1, attribute_guidance=0.0)])
    assert isinstance(refused, BadInput) and "latent_reader" in str(refused)
    assert drawn.picture.shape == (128, 128, 3)


def test_a_faulty_map_is_written_again_under_other_seeds_and_the_best_is_kept(opened: dict[str, Stage]) -> None:
    said = (Mention("glasses", "eyeglasses"), Mention("hat", "yes"))
    base = {"mentions": said, "steps": 2}
    stage: Any = opened["conditions"]
    kept = stage.run([_conditions(seed, **base, attempts=4) for seed in range(3)])
    for seed, best in enumerate(kept):
        tries = [_conditions(condition_generator._seed(seed, attempt), **base) for attempt in range(4)]
        maps = [result.label_map for result in stage.run(tries)]
        faults = [len(anatomy_faults(m)) + len(unasked(m, said)) for m in maps]
        assert np.array_equal(best.label_map, maps[faults.index(min(faults))]), faults


def test_a_given_map_is_nobodys_fault(opened: dict[str, Stage]) -> None:
    """What somebody painted stays, whatever the words say, and costs one attempt."""
    seen: list[int] = []
    request = _conditions(1, label_map=_MAP, mentions=(Mention("hat", "yes"),), attempts=4)
    (result,) = opened["conditions"].run([request], on_step=lambda step, previews: seen.append(step))
    assert np.array_equal(result.label_map, _MAP) and seen == sorted(set(seen))


def test_whoever_is_dropped_while_a_map_is_written_again_is_cancelled(opened: dict[str, Stage]) -> None:
    base = {"mentions": (Mention("glasses", "eyeglasses"), Mention("hat", "yes")), "steps": 2, "attempts": 4}
    calls: list[list[int]] = []

    def on_step(step: int, previews: Any) -> list[int]:
        shown = [index for index, preview in enumerate(previews) if preview is not None]
        calls.append(shown)
        return [1] if len(calls) > 4 else []

    first, second = opened["conditions"].run([_conditions(1, **base), _conditions(2, **base)], on_step=on_step)
    assert not isinstance(first, M3FaceError) and isinstance(second, Cancelled)
    assert calls[:4] == [[0], [0], [1], [1]] and all(len(shown) == 1 for shown in calls)


def test_an_unknown_stage_names_the_choices() -> None:
    with pytest.raises(ConfigError, match="conditions"):
        open_stage("painter", "pkg:tiny")
