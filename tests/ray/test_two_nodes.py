"""A node dies in the middle of the job: nothing is lost, nothing is there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from m3face.config.dataset import PlacementConfig
from m3face.data.storage import open_storage
from tests.made_rows import full_row, publish, same, small_plan
from tests.ray.conftest import SMALL
from tests.ray.recipes import Slow

pytestmark = [pytest.mark.ray, pytest.mark.slow]

COUNT = 40


@pytest.fixture
def two_nodes(ray_folder: str) -> Iterator[tuple[Any, Any]]:
    """A cluster of its own, and the node of it that may go: what is left has room for two annotators and a reader."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    head = {"num_cpus": 3, "object_store_memory": SMALL, "include_dashboard": False, "temp_dir": ray_folder}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        other = cluster.add_node(num_cpus=2, object_store_memory=SMALL)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        cluster.wait_for_nodes()
        yield cluster, other
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_a_node_dies(
    two_nodes: tuple[Any, Any], tmp_path: Path, after_chunks: Callable[[int, Callable[[], None]], None]
) -> None:
    import pyarrow.parquet as pq
    import ray

    from m3face.data.parquet import from_table
    from m3face.data.shards import open_output
    from m3face.distributed.cluster import worker_environment
    from m3face.distributed.filling import fill_parts

    cluster, other = two_nodes
    alive: list[int] = []

    def kill() -> None:
        cluster.remove_node(other, allow_graceful=False)
        alive.append(sum(node["Alive"] for node in ray.nodes()))

    plan, storage = small_plan(COUNT, rows=20, chunk=2), open_storage(str(tmp_path))
    open_output(storage, plan)
    after_chunks(4, kill)
    fill_parts(
        storage,
        plan,
        Slow(0.25),
        PlacementConfig(workers=2),
        worker_environment({}),
        max_errors=0,
        say=lambda line: None,
    )
    assert alive, "the node was killed before the job was done"
    facts = publish(storage, plan)
    assert facts["rows"] == COUNT
    found = [row for file in (tmp_path / "data").iterdir() for row in from_table(pq.read_table(file))]
    assert len(found) == COUNT
    rows = {row.id: row for row in found}
    for index in range(COUNT):
        same(full_row(index, licence="seen"), rows[f"face-{index}"])
