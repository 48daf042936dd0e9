"""Filling a planned dataset over Ray Data: chunks of source rows become parts, parts become shards.

Odd here: a chunk travels as one cell of one row of one block, so Ray Data neither cuts nor joins chunks, and what is in
flight is counted by its true size. Nothing but a line of counts comes out of the pipeline: rows are encoded and written
by the task that finishes them. Models live in actors, one copy each, and are loaded with an actor's first chunk, where
an error arrives as the user's own.
"""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data
from ray.data.exceptions import ExecutionTimeoutError

from m3face.config.dataset import PlacementConfig
from m3face.data.publishing import publish_shard, read_facts, unfinished_shards
from m3face.data.rows import Row, Step
from m3face.data.shards import Errors, Plan, unfinished_chunks, write_part
from m3face.data.storage import Storage
from m3face.distributed.cluster import users_error
from m3face.errors import ConfigError

Say = Callable[[str], None]

_STEP = 8  # rows that are raw at one time: archives hold pictures many times the final size
_EVERY_S = 10.0


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


# -------------------------------------------------------------------------------------------------- in the workers
_kept: dict[str, Any] = {}


def _get(reference: Any) -> Recipe:
    """The recipe, fetched once in a process."""
    key = reference.hex()
    if key not in _kept:
        _kept.clear()
        _kept[key] = ray.get(reference)
    recipe: Recipe = _kept[key]
    return recipe


def _pack(chunk: range, rows: list[Row]) -> pa.Table:
    data = pa.array([pickle.dumps(rows, protocol=5)], pa.large_binary())
    return pa.table({"first": [chunk.start], "stop": [chunk.stop], "rows": data})


def _chunk(table: pa.Table) -> range:
    return range(table["first"][0].as_py(), table["stop"][0].as_py())


def _rows(table: pa.Table) -> list[Row]:
    rows: list[Row] = pickle.loads(table["rows"][0].as_buffer())
    return rows


def _begin(table: pa.Table, recipe: Any) -> pa.Table:
    chunk, rows = _chunk(table), []
    for first in range(chunk.start, chunk.stop, _STEP):
        rows += _get(recipe).begin(range(first, min(first + _STEP, chunk.stop)))
    return _pack(chunk, rows)


class _Annotate:
    """An actor with one copy of every model."""

    def __init__(self, recipe: Any, threads: int) -> None:
        self._recipe, self._threads = recipe, threads
        self._step: Step | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        if self._step is None:
            import torch

            torch.set_num_threads(self._threads)
            self._step = _get(self._recipe).annotator()
        return _pack(_chunk(table), self._step(_rows(table)))


def _end(table: pa.Table, recipe: Any, storage: Storage, plan: Plan) -> pa.Table:
    chunk = _chunk(table)
    rows = _get(recipe).end(_rows(table))
    write_part(storage, plan, chunk, rows)
    errors = [[index, row.id, row.error] for index, row in zip(chunk, rows, strict=True) if row.error is not None]
    return pa.table({"rows": [len(rows)], "errors": [json.dumps(errors)]})


def _publish(table: pa.Table, storage: Storage, plan: Plan) -> pa.Table:
    number = table["shard"][0].as_py()
    publish_shard(storage, plan, number, {int(k): v for k, v in json.loads(table["copies"][0].as_py()).items()})
    return pa.table({"rows": [len(plan.shard(number))]})


# --------------------------------------------------------------------------------------------------- on the driver
class Progress:
    """Plain lines, for a terminal and for `ray job logs` alike: how far, how fast, how many bad, how long to go."""

    def __init__(self, what: str, total: int, done: int, say: Say) -> None:
        self._what, self._total, self._done, self._say = what, total, done, say
        self._start, self._before = time.monotonic(), done
        self._told = self._start

    def add(self, rows: int, errors: int = 0) -> None:
        self._done += rows
        now = time.monotonic()
        if now - self._told >= _EVERY_S or self._done == self._total:
            self._told = now
            rate = (self._done - self._before) / max(now - self._start, 1e-9)
            left = "" if self._done == self._total else f", {(self._total - self._done) / rate / 60:.0f} min left"
            bad = f", {errors} bad" if errors else ""
            self._say(f"{self._what} {self._done}/{self._total} rows, {rate:.1f} rows/s{bad}{left}")


def fill_parts(
    storage: Storage,
    plan: Plan,
    recipe: Recipe,
    placement: PlacementConfig,
    environment: Mapping[str, Any],
    *,
    max_errors: float,
    say: Say,
) -> None:
    """Make the parts that are not there yet. Raises DataError as soon as too many rows are bad."""
    todo = unfinished_chunks(storage, plan)
    if not todo:
        return
    errors, missing = Errors(), set(todo)
    for chunk, facts in read_facts(storage, [chunk for chunk in plan.every_chunk() if chunk not in missing]):
        for index, id, error in zip(chunk, facts["id"], facts["error"], strict=True):
            if error is not None:
                errors.add(index, id, error)
    errors.check(plan, max_errors)
    if len(missing) < (chunks := sum(1 for _ in plan.every_chunk())):
        say(f"goes on: {chunks - len(missing)} of {chunks} chunks are finished")
    progress = Progress("rows", plan.rows, plan.rows - sum(map(len, todo)), say)
    shared = ray.put(recipe)
    light = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": 1, "runtime_env": environment}
    pipeline = _items([{"first": chunk.start, "stop": chunk.stop} for chunk in todo])
    pipeline = pipeline.map_batches(_begin, fn_kwargs={"recipe": shared}, **light)
    if recipe.annotates:
        # another environment, beside what it says, keeps Ray from joining the steps: actors would read too
        alone = {"env_vars": {**environment["env_vars"], "OMP_NUM_THREADS": str(placement.threads)}}
        held = {"num_cpus": placement.cpus, "num_gpus": placement.gpus or None, "runtime_env": alone}
        pipeline = pipeline.map_batches(
            _Annotate,
            fn_constructor_args=(shared, placement.threads),
            compute=ray.data.ActorPoolStrategy(size=placement.workers),
            **{**light, **held},
        )
    pipeline = pipeline.map_batches(_end, fn_kwargs={"recipe": shared, "storage": storage, "plan": plan}, **light)
    for made in _results(pipeline):
        for index, id, error in json.loads(made["errors"]):
            errors.add(index, id, error)
        progress.add(made["rows"], errors.rows)
        errors.check(plan, max_errors)


def publish_shards(
    storage: Storage, plan: Plan, copies: Mapping[str, str], environment: Mapping[str, Any], *, say: Say
) -> None:
    """Publish the shards that are not there yet; `copies` by the row's number."""
    todo = unfinished_shards(storage, plan)
    if not todo:
        return
    progress = Progress("published", plan.rows, plan.rows - sum(len(plan.shard(number)) for number in todo), say)
    mine: dict[int, dict[str, str]] = {number: {} for number in todo}
    for index, first in copies.items():
        mine.get(int(index) // plan.shards.rows, {})[index] = first
    pipeline = _items([{"shard": number, "copies": json.dumps(some)} for number, some in mine.items()]).map_batches(
        partial(_publish, storage=storage, plan=plan),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=1,
        runtime_env=environment,
    )
    for made in _results(pipeline):
        progress.add(made["rows"])


def _items(items: list[dict[str, Any]]) -> Any:
    """A dataset with a block for each item."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True  # else its class is lost on the way here
    context.print_on_execution_start = False
    return ray.data.from_items(items, override_num_blocks=len(items))


def _results(pipeline: Any) -> Iterator[dict[str, Any]]:
    """The rows that come out, as they come; what a user can cure is raised as such."""
    try:
        yield from pipeline.iter_rows()
    except ExecutionTimeoutError:
        minutes = ray.data.DataContext.get_current().execution_no_progress_timeout_s / 60
        got, allowed = f"nothing moved for {minutes:.0f} min", "CPUs for every annotator and one more"
        raise ConfigError("placement", got, allowed, "look at the cluster, then start again: it goes on") from None
    except Exception as error:
        cured = users_error(error)
        if cured is None:
            raise
        raise cured from None
