"""Filling a planned dataset over Ray Data: chunks of source rows become parts, parts become shards.

Odd here: where models run on CPUs an actor does all of a chunk, since to hand rows about only takes time from the
models. A GPU is fed and relieved by others, so that it never waits for a picture. Nothing but a line of counts comes
out of the pipeline: rows are encoded and written by the task that finishes them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.exceptions import ExecutionTimeoutError

from m3face.config.dataset import PlacementConfig
from m3face.data.publishing import publish_shard, read_facts, unfinished_shards
from m3face.data.shards import Errors, Plan, unfinished_chunks
from m3face.data.storage import Storage
from m3face.distributed import chunks
from m3face.distributed.cluster import users_error
from m3face.errors import ConfigError

Say = Callable[[str], None]

_EVERY_S = 10.0


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
    recipe: chunks.Recipe,
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
    if len(missing) < (every := sum(1 for _ in plan.every_chunk())):
        say(f"goes on: {every - len(missing)} of {every} chunks are finished")
    progress = Progress("rows", plan.rows, plan.rows - sum(map(len, todo)), say)
    items, work = (
        _items([{"first": c.start, "stop": c.stop} for c in todo]),
        chunks.Work(ray.put(recipe), storage, plan),
    )
    for made in _results(_worked(items, work, placement if recipe.annotates else None, environment)):
        for index, id, error in json.loads(made["errors"]):
            errors.add(index, id, error)
        progress.add(made["rows"], errors.rows)
        errors.check(plan, max_errors)


def _worked(items: Any, work: chunks.Work, annotators: PlacementConfig | None, environment: Mapping[str, Any]) -> Any:
    """A dataset of counts, a row for each chunk."""
    light = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": 1, "runtime_env": environment}
    given = {"fn_kwargs": {"work": work}}
    if annotators is None:
        return items.map_batches(chunks.make, **given, **light)
    # another environment, beside what it says, keeps Ray from joining the steps: actors would read too
    alone = {"env_vars": {**environment["env_vars"], "OMP_NUM_THREADS": str(annotators.threads)}}
    held = {
        **light,
        "fn_constructor_args": (work, annotators.threads),
        "compute": ray.data.ActorPoolStrategy(size=annotators.workers),
        "num_cpus": annotators.cpus,
        "runtime_env": alone,
    }
    if not annotators.gpus:
        return items.map_batches(chunks.Make, **held)
    ready = items.map_batches(chunks.read, **given, **light)
    seen = ready.map_batches(chunks.Annotate, num_gpus=annotators.gpus, **held)
    return seen.map_batches(chunks.write, **given, **light)


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
        got, allowed = f"nothing moved for {minutes:.0f} min", "CPUs for every annotator, beside GPUs one more"
        raise ConfigError("placement", got, allowed, "look at the cluster, then start again: it goes on") from None
    except Exception as error:
        cured = users_error(error)
        if cured is None:
            raise
        raise cured from None
