"""One face of a dataset, from the first job to the last: the row.

Odd here: a row that went wrong is still a row. Its `error` says what was wrong, every later step leaves it alone, and
it is written down too, so that nothing disappears in silence and the rows of a shard are fixed in advance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from m3face.errors import M3FaceError
from m3face.faces import LabelMap, Landmarks


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a face with its answer. `kind` is appearance, expression, emotion or reasoning (UniF2aceD)."""

    question: str
    answer: str
    kind: str
    language: str


@dataclass(kw_only=True)
class Row:
    """`image` is RGB uint8 [H, W, 3]; map and landmarks lie in its pixels. None or empty is "not known (yet)".

    `attributes` may name some of `m3face.faces.ATTRIBUTES` only, each with one of its values. `captions` are texts by
    ISO 639-1 code. `identity` is the same for two pictures of one person; empty where nobody knows. `notes` are what
    steps leave for the report (a hash of the picture, how sharp it is) and are not part of the schema.
    """

    id: str
    image: NDArray[np.uint8] | None = None
    label_map: LabelMap | None = None
    landmarks: Landmarks | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    captions: dict[str, list[str]] = field(default_factory=dict)
    qa: list[Question] = field(default_factory=list)
    source: str = ""
    licence: str = ""
    identity: str = ""
    split: str = ""
    error: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """An archive of faces behind numbers 0 to `len - 1`. Picklable; opening it reads lists, never pictures."""

    name: str
    licence: str

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> list[Row]:
        """A row for each index, in order. A bad one comes back with `error` filled and never spoils its neighbours."""
        ...


Step = Callable[[Sequence[Row]], list[Row]]
"""Rows in, the same rows out, in order. A step leaves rows with an error alone, and fills `error` where it fails."""


def each(work: Callable[[Row], None]) -> Step:
    """A step that does `work` on each row without an error; an `M3FaceError` that it raises becomes the row's error."""

    def step(rows: Sequence[Row]) -> list[Row]:
        for row in rows:
            if row.error is None:
                try:
                    work(row)
                except M3FaceError as error:
                    row.error = str(error)
        return list(rows)

    return step
