"""`jobs/preprocess.py` as a user runs it: alone, stopped and started again, and submitted to a cluster."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray.conftest import SMALL

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def command(output: Path, count: int) -> list[str]:
    return [
        *("jobs/preprocess.py", "--config", "jobs/configs/preprocess_synthetic.yaml"),
        *("--set", f"data.output={output}", f"data.source.count={count}", "data.shards.chunk=4", "data.shards.rows=32"),
        *("data.source.size=64", "data.align.size=64", "data.captions.languages=[en]"),
    ]


def test_stopped_and_started_again(root: Path, tmp_path: Path) -> None:
    output, count = tmp_path / "faces", 64
    job = subprocess.Popen(
        [sys.executable, *command(output, count)], cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    parts = output / ".work/parts"
    for _ in range(600):
        if parts.is_dir() and any(path.suffix == ".parquet" for path in parts.iterdir()):
            break
        assert job.poll() is None, job.communicate()
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    said, complained = job.communicate(timeout=60)
    assert job.returncode == 130, (said, complained)
    lines = [line for line in complained.splitlines() if "logging.cc" not in line]
    assert lines == [
        "error: SIGTERM: told to stop; allowed: a job that runs to its end; "
        "start the same job again: it goes on from what is finished"
    ]
    assert not (output / "data").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert kept

    again = subprocess.run([sys.executable, *command(output, count)], cwd=root, text=True, capture_output=True)
    assert again.returncode == 0, again.stderr
    assert f"{count} rows, 0 bad and 0 copies among them" in again.stdout
    report = json.loads((output / "report.json").read_text())
    assert report["rows"] == count == sum(file["rows"] for file in report["files"])
    assert not (output / ".work").exists()


def test_a_mistake_is_one_line_at_once(root: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    job = [sys.executable, *command(tmp_path / "faces", 0)]
    done = subprocess.run(job, cwd=root, text=True, capture_output=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        "error: data.source.count: got 0; allowed: Input should be greater than or equal to 1"
    )
    assert done.stderr.count("\n") == 1
    assert time.monotonic() - start < 10, "neither torch nor Ray was loaded"
    assert not (tmp_path / "faces").exists()


@pytest.fixture
def cluster_with_jobs(ray_folder: str) -> Iterator[str]:
    """The address of a cluster that takes jobs; ended with this process."""
    import ray

    ray.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=SMALL,
        include_dashboard=True,
        dashboard_port=port,
        log_to_driver=False,
        logging_level="ERROR",
        _temp_dir=ray_folder,
    )
    yield f"http://127.0.0.1:{port}"
    ray.shutdown()


def test_submitted(root: Path, tmp_path: Path, cluster_with_jobs: str) -> None:
    submit = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--address", cluster_with_jobs]
    job = [*submit, "--working-dir", ".", "--", sys.executable, *command(tmp_path / "faces", 8)]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for _ in range(60):  # on a busy machine the cluster takes jobs some time after it is there
        done = subprocess.run(job, cwd=root, text=True, capture_output=True, env=environment)
        if "No available agent" not in done.stderr:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 rows, 0 bad and 0 copies among them" in done.stdout
    assert json.loads((tmp_path / "faces/report.json").read_text())["rows"] == 8

    refused = subprocess.run(
        [*job[:-1], "data.output=faces"], cwd=root, text=True, capture_output=True, env=environment
    )
    assert refused.returncode != 0
    assert "error: data.output: 'faces' would lie in the submitted job's own copy" in refused.stdout
