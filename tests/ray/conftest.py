"""One small Ray on this machine for all tests that need one; it joins nobody else's and is ended by who started it.

Odd here: a test may shut it down to start two nodes of its own; the next that asks for it gets another.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.pop("RAY_ADDRESS", None)
importlib.import_module("m3face.distributed")  # sets what Ray reads while it is imported
pytest.importorskip("ray")

# workers import the tests' own recipes, and each test folder is short enough for a socket's name
os.environ["PYTHONPATH"] = os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[2])])

# nobody's keys, for the S3 server of the tests; workers take them over from the process that started them
os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
os.environ.pop("AWS_PROFILE", None)

SMALL = 160 * 2**20  # bytes of object store


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="m3ray")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def _ended() -> Iterator[None]:
    yield
    import ray

    ray.shutdown()


@pytest.fixture
def small_ray(ray_folder: str, _ended: None) -> None:
    """Two CPUs: one for the annotators, one for reading and writing."""
    import ray

    if not ray.is_initialized():
        quiet: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        ray.init(address="local", num_cpus=2, object_store_memory=SMALL, _temp_dir=ray_folder, **quiet)


@pytest.fixture
def after_chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """`after_chunks(n, act)`: once n chunks are finished, `act` is called on the driver, in the middle of its work."""
    from m3face.distributed.filling import Progress

    def arrange(count: int, act: Callable[[], None]) -> None:
        plain, done = Progress.add, [0]

        def add(self: Progress, rows: int, errors: int = 0) -> None:
            plain(self, rows, errors)
            done[0] += 1
            if done[0] == count:
                act()

        monkeypatch.setattr(Progress, "add", add)

    return arrange


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """What a job tells its S3 clients ends with the test."""
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    yield
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(before)
