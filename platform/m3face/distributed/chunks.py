"""What workers do with a chunk of source rows: read, annotate, write; all at once or one after the other.

Odd here: a chunk that travels is one cell of one row of one block, so Ray Data neither cuts nor joins chunks, and what
is in flight is counted by its true size. Models are loaded with an actor's first chunk, where an error arrives as the
user's own.
"""

from __future__ import annotations

import gc
import json
import pickle
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray

from m3face.data.rows import Row, Step
from m3face.data.shards import Plan, write_part
from m3face.data.storage import Storage

_STEP = 8  # rows that are raw at one time: archives hold pictures many times the final size


class Recipe(Protocol):
    """How the rows of a dataset come about. Picklable, without models; every process keeps one copy."""

    annotates: bool
    """Whether there is anything for `annotator` to do."""

    def begin(self, indices: range) -> list[Row]:
        """The source rows, made ready for the models."""
        ...

    def annotator(self) -> Step:
        """The step that needs models, loaded now."""
        ...

    def end(self, rows: list[Row]) -> list[Row]:
        """What is left to do."""
        ...


_kept: dict[str, Any] = {}


@dataclass(frozen=True)
class Work:
    """The recipe, as a reference that every process follows once, and where its rows go."""

    reference: Any
    storage: Storage
    plan: Plan

    @property
    def recipe(self) -> Recipe:
        key = self.reference.hex()
        if key not in _kept:
            _kept.clear()
            _kept[key] = ray.get(self.reference)
        recipe: Recipe = _kept[key]
        return recipe

    def begin(self, chunk: range) -> list[Row]:
        rows: list[Row] = []
        for first in range(chunk.start, chunk.stop, _STEP):
            rows += self.recipe.begin(range(first, min(first + _STEP, chunk.stop)))
        return rows

    def end(self, chunk: range, rows: list[Row]) -> pa.Table:
        """Encode and write the rows; what comes back is how many there are, and the bad ones."""
        rows = self.recipe.end(rows)
        write_part(self.storage, self.plan, chunk, rows)
        errors = [[index, row.id, row.error] for index, row in zip(chunk, rows, strict=True) if row.error is not None]
        return pa.table({"rows": [len(rows)], "errors": [json.dumps(errors)]})


class _Annotator:
    """An actor with one copy of every model."""

    def __init__(self, work: Work, threads: int) -> None:
        self._work, self._threads = work, threads
        self._step: Step | None = None

    def annotate(self, rows: list[Row]) -> list[Row]:
        if self._step is not None:
            return self._step(rows)
        import torch

        torch.set_num_threads(self._threads)
        self._step = self._work.recipe.annotator()
        rows = self._step(rows)
        gc.freeze()  # what is loaded stays: else it is looked through again and again
        return rows


# -------------------------------------------------------------------------------------------------- all at once
def make(table: pa.Table, work: Work) -> pa.Table:
    """For a recipe without models."""
    chunk = _chunk(table)
    return work.end(chunk, work.begin(chunk))


class Make(_Annotator):
    """The same around models."""

    def __call__(self, table: pa.Table) -> pa.Table:
        chunk = _chunk(table)
        return self._work.end(chunk, self.annotate(self._work.begin(chunk)))


# ---------------------------------------------------------------------------------------- one after the other
def read(table: pa.Table, work: Work) -> pa.Table:
    chunk = _chunk(table)
    return _pack(chunk, work.begin(chunk))


class Annotate(_Annotator):
    def __call__(self, table: pa.Table) -> pa.Table:
        return _pack(_chunk(table), self.annotate(_rows(table)))


def write(table: pa.Table, work: Work) -> pa.Table:
    return work.end(_chunk(table), _rows(table))


def _chunk(table: pa.Table) -> range:
    return range(table["first"][0].as_py(), table["stop"][0].as_py())


def _pack(chunk: range, rows: list[Row]) -> pa.Table:
    data = pa.array([pickle.dumps(rows, protocol=5)], pa.large_binary())
    return pa.table({"first": [chunk.start], "stop": [chunk.stop], "rows": data})


def _rows(table: pa.Table) -> list[Row]:
    rows: list[Row] = pickle.loads(table["rows"][0].as_buffer())
    return rows
