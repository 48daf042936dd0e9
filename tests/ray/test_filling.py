"""Chunks become the same rows whether one process does all of a chunk or three after each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from m3face.config.dataset import PlacementConfig
from m3face.data.storage import open_storage
from tests.made_rows import full_row, publish, same, small_plan
from tests.ray.conftest import SMALL
from tests.ray.recipes import Slow

pytestmark = pytest.mark.ray

COUNT = 6


@pytest.fixture(scope="module")
def counted_gpu(ray_folder: str) -> Iterator[None]:
    """A Ray of its own, with a GPU that is only counted: nothing here computes on it."""
    import ray

    ray.shutdown()
    small = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": SMALL, "_temp_dir": ray_folder}
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR", **small)
    yield
    ray.shutdown()


@pytest.mark.parametrize(("annotates", "gpus"), [(False, 0), (True, 0), (True, 1)])
def test_every_row_once_and_seen(counted_gpu: None, tmp_path: Path, annotates: bool, gpus: int) -> None:
    import pyarrow.parquet as pq

    from m3face.data.parquet import from_table
    from m3face.data.shards import open_output
    from m3face.distributed.cluster import worker_environment
    from m3face.distributed.filling import fill_parts

    plan, storage, recipe = small_plan(COUNT, rows=6, chunk=2), open_storage(str(tmp_path)), Slow(0)
    recipe.annotates = annotates
    open_output(storage, plan)
    placement = PlacementConfig(workers=1, gpus=gpus)
    fill_parts(storage, plan, recipe, placement, worker_environment({}), max_errors=0, say=lambda line: None)
    assert publish(storage, plan)["rows"] == COUNT
    found = [row for file in (tmp_path / "data").iterdir() for row in from_table(pq.read_table(file))]
    rows = {row.id: row for row in found}
    assert len(rows) == len(found) == COUNT
    for index in range(COUNT):
        same(full_row(index, licence="seen") if annotates else full_row(index), rows[f"face-{index}"])
