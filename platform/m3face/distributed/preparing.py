"""`jobs/preprocess.py`: an archive of faces in, a dataset out.

Odd here: everything that decides the content is the plan, written into the output and compared when the job is started
again; where the output lies, how many errors are borne and how the work is spread are not part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from m3face import __version__
from m3face.config.dataset import DatasetConfig, PlacementConfig, PreprocessConfig
from m3face.data.rows import Row, Source, Step
from m3face.data.shards import Plan
from m3face.data.sources import open_source
from m3face.distributed.filling import Say
from m3face.distributed.making import make_dataset, open_target
from m3face.pipelines.preparing import prepare, steps

_NOT_CONTENT = {"output", "max_errors"}


class Preprocess:
    """The recipe of `jobs/preprocess.py`: the steps of `m3face.pipelines.preparing` around an open source."""

    may_ask: Callable[[], bool] | None = None
    """Takes one request off the budget of an endpoint."""

    def __init__(self, config: DatasetConfig, source: Source, placement: PlacementConfig) -> None:
        self._config, self._source = config, source
        self._device = "cuda" if placement.gpus else "cpu"
        self.annotates = bool(steps(config, device=self._device)[1])  # and tells what is missing, before Ray starts

    @cached_property
    def _steps(self) -> tuple[list[Step], list[Step], list[Step]]:
        """Made anew in every process, so nothing that holds a model travels."""
        return steps(self._config, device=self._device, may_ask=self.may_ask)

    def begin(self, indices: range) -> list[Row]:
        return prepare(self._source.read(indices), self._steps[0])

    def annotator(self) -> Step:
        return partial(prepare, steps=self._steps[1])

    def end(self, rows: list[Row]) -> list[Row]:
        return prepare(rows, self._steps[2])


class Budget:
    """So many requests for all processes of the job together, counted where the job was started."""

    def __init__(self, requests: int) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._counter = ray.remote(_Counter).options(num_cpus=0, scheduling_strategy=here).remote(requests)

    def __call__(self) -> bool:
        return bool(ray.get(self._counter.take.remote()))


class _Counter:
    def __init__(self, left: int) -> None:
        self._left = left

    def take(self) -> bool:
        self._left -= 1
        return self._left >= 0


def make_plan(config: DatasetConfig, rows: int) -> Plan:
    settings = {"m3face": __version__, "rows": rows, **config.model_dump(mode="json", exclude=_NOT_CONTENT)}
    return Plan(rows=rows, shards=config.shards, settings=settings, languages=config.captions.languages)


def prepare_dataset(config: PreprocessConfig, say: Say = print) -> dict[str, Any]:
    """Make the dataset, or what is missing of it, and return its report.

    Raises ConfigError, DataError (the source, too many bad rows), OutputError (the target) and Cancelled.
    """
    data = config.data
    storage = open_target(data.output, config.storage)
    source = open_source(data.source, max_pixels=data.filter.max_pixels)
    recipe = Preprocess(data, source, config.placement)

    def joined() -> None:
        if data.captions.by == "endpoint":
            recipe.may_ask = Budget(data.captions.requests)

    return make_dataset(
        storage,
        make_plan(data, len(source)),
        recipe,
        config.placement,
        config.storage,
        copies=data.filter.duplicates,
        max_errors=data.max_errors,
        say=say,
        joined=joined,
    )
