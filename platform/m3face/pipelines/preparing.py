"""From the settings of a dataset to the steps that a row goes through, in order.

Odd here: three groups, because the middle one holds models and runs where they are open. A picture is made square and
of its final size in the first group, aligned by the archive's own points where it has some (also where a detector is to
replace them). Only a row that is to be aligned and has no points waits: it keeps its pixels, the landmark detector
looks at the largest square in its middle, and then it is aligned. Models open with the first row that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from m3face.config.dataset import AnnotatorConfig, DatasetConfig
from m3face.data import filtering
from m3face.data.aligning import fit, square
from m3face.data.endpoint import EndpointCaptions
from m3face.data.rows import Row, Step
from m3face.data.splitting import split
from m3face.data.translating import Seq2Seq, translate_captions
from m3face.data.wording import write_captions, write_questions
from m3face.errors import ConfigError, M3FaceError
from m3face.faces import ATTRIBUTES
from m3face.pipelines import foreign_annotators as foreign
from m3face.presets import weights_folder
from m3face.stages.registry import Stage, open_stage
from m3face.stages.requests import PictureRequest

Column = Literal["parser", "landmarks", "attributes"]

_STAGES: dict[Column, str] = {"parser": "parse", "landmarks": "landmarks", "attributes": "attributes"}
_FOREIGN: dict[str, tuple[Column, ...]] = {
    "segformer": ("parser",),
    "mediapipe": ("landmarks",),
    "insightface": ("landmarks", "attributes"),
}
_GPU_BATCH = 16  # a CPU gains nothing from batches, a GPU most of its speed


def check_annotator(column: Column, by: str) -> None:
    """Raises what opening would raise, as far as it can be told without loading a network."""
    kind, _, place = by.partition(":")
    if kind in ("pkg", "dir"):
        weights_folder(by)
    elif column not in _FOREIGN[kind]:
        fitting = [f"{name}:" for name, columns in _FOREIGN.items() if column in columns]
        raise ConfigError(f"{column}.by", f"{by} does not fill this column", ", ".join(["pkg:", "dir:", *fitting]))
    elif kind == "segformer":
        foreign.segformer_order(place)
    elif kind == "mediapipe":
        foreign.check_mediapipe(place)
    else:
        foreign.check_insightface(place)


def open_annotator(column: Column, by: str, *, device: str = "cpu") -> Stage:
    """The stage that fills `column`, ours or a foreign one."""
    kind, _, place = by.partition(":")
    micro_batch = 1 if device == "cpu" else _GPU_BATCH
    if kind == "segformer":
        return foreign.open_segformer(place, device=device, micro_batch=micro_batch)
    if kind == "mediapipe":
        return foreign.MediaPipe(place)
    if kind == "insightface":
        return foreign.InsightFace(place, column=column, device=device)
    return open_stage(_STAGES[column], by, device=device, micro_batch=micro_batch)


@dataclass
class Annotate:
    """A step that fills one column of the rows that lack it, or of all; the annotator opens with the first of them."""

    column: Column
    config: AnnotatorConfig
    device: str = "cpu"

    @cached_property
    def annotator(self) -> Stage:
        return open_annotator(self.column, self.config.by, device=self.device)

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        mine = [row for row in rows if row.error is None and (self.config.when == "always" or self.lacks(row))]
        if mine:
            squares = [square(row.image) for row in mine if row.image is not None]
            answers = self.annotator.run([PictureRequest(picture=picture) for picture, _, _ in squares])
            for row, (_, left, top), answer in zip(mine, squares, answers, strict=True):
                if isinstance(answer, M3FaceError):
                    row.error = str(answer)
                else:
                    self.put(row, answer, left, top)
        return list(rows)

    def lacks(self, row: Row) -> bool:
        if self.column == "parser":
            return row.label_map is None
        return row.landmarks is None if self.column == "landmarks" else len(row.attributes) < len(ATTRIBUTES)

    def put(self, row: Row, answer: Any, left: int, top: int) -> None:
        """The answer for the square that begins at (`left`, `top`) of the row's picture."""
        if self.column == "parser":
            row.label_map = answer.label_map
        elif self.column == "landmarks":
            row.landmarks = answer.landmarks + np.array([left, top], dtype=np.float32)
        else:
            known, seen = row.attributes, answer.attributes
            both = known | seen if self.config.when == "always" else seen | known
            row.attributes = {name: both[name] for name in ATTRIBUTES if name in both}


def steps(
    config: DatasetConfig, *, device: str = "cpu", may_ask: Callable[[], bool] | None = None
) -> tuple[list[Step], list[Step], list[Step]]:
    """(before, with models, after): all steps of a row. `device` is for the models.

    `may_ask` takes one request off the endpoint's budget and says whether there was one; a job of several processes
    gives one that they share, since by default each counts for itself. Raises ConfigError or CheckpointError for what a
    config names and this machine lacks.
    """
    waiting = config.align.on and config.landmarks.when != "never"
    before = [filtering.inspect(config.filter), fit(config.align, waiting=waiting)]
    models: list[Step] = []
    columns: tuple[tuple[Column, AnnotatorConfig], ...] = (
        ("landmarks", config.landmarks),
        ("parser", config.parser),
        ("attributes", config.attributes),
    )
    for column, annotator in columns:
        if annotator.when != "never":
            check_annotator(column, annotator.by)
            models.append(Annotate(column, annotator, device))
        if column == "landmarks" and waiting:
            models.append(fit(config.align))
    captions: list[Step] = []
    if config.captions.by == "grammar":
        captions.append(write_captions(config.captions, seed=config.seed))
    elif config.captions.by == "endpoint":
        captions.append(EndpointCaptions(config.captions, may_ask=may_ask))
    after = [filtering.judge(config.filter)]
    if config.captions.translate:
        translate = Seq2Seq(config.captions.translate, device=device)
        models += [*captions, translate_captions(config.captions.languages, translate)]
    else:
        after += captions
    if config.qa.each:
        after.append(write_questions(config.qa, seed=config.seed))
    return before, models, [*after, split(config.split)]


def prepare(rows: Sequence[Row], steps: Iterable[Step]) -> list[Row]:
    """The rows after all steps, in this process: what a distributed job must equal."""
    done = list(rows)
    for step in steps:
        done = step(done)
    return done
