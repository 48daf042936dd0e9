"""All steps together: what a row is after them, whoever runs them and however rows are batched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3face.config.dataset import DatasetConfig
from m3face.data.rows import Row
from m3face.errors import BadInput, CheckpointError, ConfigError
from m3face.faces import ATTRIBUTES, LabelMap, Landmarks
from m3face.pipelines import preparing
from m3face.pipelines.preparing import Annotate, check_annotator, prepare, steps
from m3face.stages import open_stage
from m3face.stages.requests import AttributeResult, LandmarkResult, PictureRequest
from m3face.synthetic import Sample, make_sample

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64


@pytest.fixture(scope="module")
def people() -> list[Sample]:
    return [make_sample(7, index, size=SIZE) for index in range(5)]


def settings(weights: Path, **change: Any) -> DatasetConfig:
    by = {"by": f"dir:{weights}"}
    tree: dict[str, Any] = {
        "source": {"layout": "synthetic"},
        "align": {"size": SIZE},
        "parser": by,
        "landmarks": by,
        "attributes": by,
        "captions": {"languages": ["en", "ar"], "each": 2},
        "qa": {"each": 3},
    }
    for name, value in change.items():
        tree[name] = tree.get(name, {}) | value
    return DatasetConfig.model_validate(tree)


def bare(people: Sequence[Sample]) -> list[Row]:
    """Rows of which only pictures are known; the first has everything, the second some attributes, one is bad."""
    rows = [Row(id=f"r{n}", image=sample.image, identity=sample.identity) for n, sample in enumerate(people)]
    first = people[0]
    rows[0].label_map, rows[0].landmarks = first.label_map, first.landmarks
    rows[0].attributes = dict(first.attributes)
    rows[1].attributes = {"hat": "yes", "age": "old"}
    rows.insert(3, Row(id="bad", image=people[0].image, error="came so"))
    return rows


def plain(row: Row) -> dict[str, Any]:
    """A row as something that == compares."""
    arrays = {name: getattr(row, name) for name in ("image", "label_map", "landmarks")}
    return vars(row) | {n: None if a is None else (a.shape, a.dtype.str, a.tobytes()) for n, a in arrays.items()}


def all_steps(config: DatasetConfig) -> list[Any]:
    return [step for group in steps(config) for step in group]


def test_missing_columns_are_filled_by_the_stages(people: list[Sample], random_weights: Path) -> None:
    config = settings(random_weights)
    rows = prepare(bare(people), all_steps(config))
    assert [row.error for row in rows] == [None, None, None, "came so", None, None]
    first, second, third = rows[:3]
    assert np.array_equal(first.label_map, people[0].label_map)  # type: ignore[arg-type]
    assert first.attributes == people[0].attributes
    requests = [PictureRequest(picture=people[n].image) for n in (1, 2)]
    location = config.parser.by
    for row, map_, points, said in zip(
        (second, third),
        open_stage("parse", location).run(requests),
        open_stage("landmarks", location).run(requests),
        open_stage("attributes", location).run(requests),
        strict=True,
    ):
        assert np.array_equal(row.label_map, map_.label_map)  # type: ignore[arg-type]
        assert np.array_equal(row.landmarks, points.landmarks)  # type: ignore[arg-type]
        known = {"hat": "yes", "age": "old"} if row is second else {}
        assert row.attributes == said.attributes | known
        assert list(row.attributes) == list(ATTRIBUTES)
    for row in rows:
        if row.error is None:
            assert {code: len(texts) for code, texts in row.captions.items()} == {"en": 2, "ar": 2}
            assert len(row.qa) == 3
            assert row.split in ("train", "validation", "test")
    bad = rows[3]
    assert bad.captions == {}
    assert bad.qa == []
    assert bad.split == ""
    assert bad.image is people[0].image


def test_batches_and_order_change_nothing(people: list[Sample], random_weights: Path) -> None:
    config = settings(random_weights, align={"on": True, "size": SIZE}, landmarks={"when": "always"})
    together = {row.id: plain(row) for row in prepare(bare(people), all_steps(config))}
    anew = all_steps(config)
    alone = {row.id: plain(row) for one in reversed(bare(people)) for row in prepare([one], anew)}
    assert together == alone
    assert len(together) == 6
    assert prepare([], anew) == []


@pytest.mark.parametrize("column", ["parser", "landmarks", "attributes"])
def test_when_always_replaces_and_never_leaves_alone(people: list[Sample], random_weights: Path, column: str) -> None:
    def value(row: Row) -> Any:
        return plain(row)[{"parser": "label_map"}.get(column, column)]

    def done(when: str) -> list[Row]:
        config = settings(random_weights, **{column: {"when": when}})
        return prepare(bare(people)[:2], all_steps(config))

    missing, always, never = done("missing"), done("always"), done("never")
    assert value(always[0]) != value(missing[0]) == value(never[0])
    assert not value(never[1]) or column == "attributes"
    assert column != "attributes" or never[1].attributes == {"hat": "yes", "age": "old"}
    assert value(always[1]) == value(missing[1]) or column == "attributes"


class Pointing:
    """A landmark detector that knows the picture: true points where it sees the whole face, as left in `known`."""

    Request = PictureRequest

    def __init__(self, known: Landmarks) -> None:
        self.known = known
        self.sides: list[int] = []

    def run(self, requests: Sequence[PictureRequest], *, on_step: Any = None) -> list[Any]:
        self.sides += [len(request.picture) for request in requests]
        return [LandmarkResult(landmarks=self.known) for _ in requests]


def test_the_detector_comes_before_alignment_only_where_nothing_is_known(
    people: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wide picture: the detector sees its middle square, and the crop is what the archive's own points would give."""
    person = make_sample(7, 1, size=128)
    border = 31

    def wide(points: Landmarks | None) -> Row:
        image = np.pad(person.image, ((0, 0), (border, border), (0, 0)), mode="edge")
        label_map: LabelMap = np.pad(person.label_map, ((0, 0), (border, border)))
        return Row(id="a", image=image, label_map=label_map, landmarks=points)

    detector = Pointing(person.landmarks)
    monkeypatch.setattr(preparing, "open_annotator", lambda *_, **__: detector)
    never = {"when": "never"}
    tree = {
        "source": {"layout": "synthetic"},
        "align": {"on": True, "size": 96},
        "parser": never,
        "attributes": never,
        "captions": {"by": "none"},
    }
    before, models, after = steps(DatasetConfig.model_validate(tree))
    (known,) = prepare([wide(person.landmarks + np.array([border, 0], dtype=np.float32))], before)
    assert known.image is not None
    assert known.image.shape == (96, 96, 3)
    (unknown,) = prepare([wide(None)], before)
    assert unknown.image is not None
    assert unknown.image.shape == (128, 128 + 2 * border, 3)
    done = prepare([known, unknown], [*models, *after])
    assert detector.sides == [128]
    assert plain(done[0]) == plain(done[1])
    assert done[0].error is None

    config = DatasetConfig.model_validate(tree | {"landmarks": never})
    (refused,) = prepare([wide(None)], all_steps(config))
    assert refused.error == (
        "landmarks: are not known; allowed: points to align by; set data.landmarks.when=missing, or data.align.on=false"
    )


def test_what_an_annotator_refuses_is_that_row_s_error(people: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    class Choosy:
        Request = PictureRequest

        def run(self, requests: Sequence[PictureRequest], *, on_step: Any = None) -> list[Any]:
            good = AttributeResult(attributes={"hat": "no"}, probability={})
            return [BadInput("image", "shows no face", "one") if n == 1 else good for n, _ in enumerate(requests)]

    monkeypatch.setattr(preparing, "open_annotator", lambda *_, **__: Choosy())
    config = DatasetConfig.model_validate({"source": {"layout": "synthetic"}}).attributes
    rows = Annotate("attributes", config)(bare(people)[1:5])
    assert [row.error for row in rows] == [None, "image: shows no face; allowed: one", "came so", None]
    assert rows[0].attributes == {"age": "old", "hat": "yes"}
    assert rows[3].attributes == {"hat": "no"}


def test_nothing_opens_before_a_row_needs_it(people: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def refuse(column: str, *_: Any, **__: Any) -> Any:
        opened.append(column)
        raise AssertionError

    monkeypatch.setattr(preparing, "open_annotator", refuse)
    config = DatasetConfig.model_validate({"source": {"layout": "synthetic"}, "align": {"size": SIZE}})
    (row,) = prepare(bare(people)[:1], all_steps(config))
    assert row.error is None
    assert opened == []


@pytest.mark.parametrize(
    ("column", "by", "error", "named"),
    [
        ("parser", "dir:/nowhere", CheckpointError, "/nowhere"),
        ("landmarks", "segformer:x", ConfigError, "landmarks.by: segformer:x does not fill this column; allowed: pkg:"),
        ("parser", "segformer:/nowhere", ConfigError, "parser.by: /nowhere is none; allowed: a local SegFormer folder"),
        ("landmarks", "mediapipe:/nowhere/python", ConfigError, "landmarks.by: /nowhere/python is no program"),
        ("attributes", "insightface:/nowhere", ConfigError, "non-commercial research only"),
    ],
)
def test_what_is_not_there_is_named_before_any_row(column: Any, by: str, error: type[Exception], named: str) -> None:
    with pytest.raises(error) as caught:
        check_annotator(column, by)
    assert named in str(caught.value)
    tree = {"source": {"layout": "synthetic"}, column: {"by": by}}
    with pytest.raises(error):
        steps(DatasetConfig.model_validate(tree))
    tree[column] = {"by": by, "when": "never"}
    steps(DatasetConfig.model_validate(tree))
