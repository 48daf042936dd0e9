"""What a user does: a head, `ray job submit -- python jobs/train_controlnet.py`, a head that dies, the job again.

Odd here: heads are processes of these tests, on ports and in a folder of their own, and are ended by their ids.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from m3face.training.run import newest_checkpoint, train
from tests.chain import CONFIGS, silent
from tests.ray.conftest import SMALL

pytestmark = [pytest.mark.ray, pytest.mark.full, pytest.mark.usefixtures("one_thread")]

RAY = str(Path(sys.executable).with_name("ray"))
LONGEST_S = 900
LONG = 200  # steps of a run that is not to end by itself


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


class Node:
    """A node of Ray as a process; `kill` ends all of it at once, as a machine that is switched off."""

    def __init__(self, *command: str, folder: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        quiet = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        self.log = Path(folder) / f"node-{time.time_ns()}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment | quiet, stdout=log, stderr=log)

    def kill(self) -> None:
        with_children = [psutil.Process(self.process.pid)] if psutil.pid_exists(self.process.pid) else []
        with_children += [child for one in with_children for child in one.children(recursive=True)]
        for one in with_children:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(30)
        psutil.wait_procs(with_children[1:], timeout=30)


JOIN = """
import sys, time
from ray._private.node import Node
from ray._private.parameter import RayParams
size = {"num_cpus": 2, "object_store_memory": int(sys.argv[3])}
own = {"node_ip_address": "127.0.0.1", "dashboard_agent_listen_port": int(sys.argv[2])}
Node(RayParams(gcs_address=sys.argv[1], **size, **own), head=False, shutdown_at_exit=True, spawn_reaper=False)
time.sleep(600)
"""  # `ray start` would ask for an address that the network sees


class Head(Node):
    """A head that takes jobs."""

    def __init__(self, folder: str) -> None:
        port, dashboard, client, agent = _free_ports(4)  # two clusters of one machine would share the defaults
        self.port, self.address = port, f"http://127.0.0.1:{dashboard}"
        ports = (f"--port={port}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}")
        listens = f"--dashboard-agent-listen-port={agent}"
        size = ("--num-cpus=2", f"--object-store-memory={SMALL}")
        super().__init__(
            RAY, "start", "--head", "--block", *size, *ports, listens, f"--temp-dir={folder}", folder=folder
        )
        nothing = json.dumps({"entrypoint": "true"}).encode()  # taken only once the agent that runs jobs is there
        asked = urllib.request.Request(f"{self.address}/api/jobs/", nothing, {"Content-Type": "application/json"})
        for _ in range(600):
            try:
                urllib.request.urlopen(asked, timeout=60).close()
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.2)
        raise AssertionError(self.log.read_text())


@pytest.fixture
def folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="m3head")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def head(folder: str) -> Iterator[Head]:
    import ray

    ray.shutdown()  # the small one of other tests: two CPUs are enough for one
    head = Head(folder)
    yield head
    head.kill()


def _settings(home: Path, weights: Path, *more: str) -> list[str]:
    return [
        *(
            "data.count=8",
            "train.batch_size=4",
            "train.log_every=1",
            "train.warmup_steps=0",
            "train.checkpoint_every=2",
        ),
        *("train.precision=fp32", "train.schedule=constant", "train.workers=2", "train.report_to=none"),
        *(f"runs={home}", f"weights=dir:{weights}", f"storage={home}/shared", *more),
    ]


def _submit(address: str, root: Path, settings: Sequence[str], *options: str, **more: Any) -> subprocess.Popen[str]:
    environment = {
        "env_vars": {"PYTHONPATH": "platform", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    }
    command = [RAY, "job", "submit", "--address", address, "--working-dir", ".", *options]
    command += ["--runtime-env-json", json.dumps(environment)]
    job = ["python", "jobs/train_controlnet.py", "--config", "jobs/configs/tiny_controlnet_mask.yaml"]
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.Popen(
        [*command, "--", *job, "--set", *settings], cwd=root, env=own, text=True, stdout=subprocess.PIPE, **more
    )


def _until_step(home: Path, step: int, job: subprocess.Popen[str]) -> None:
    metrics = home / "shared/tiny/controlnet_mask/metrics.jsonl"
    for _ in range(LONGEST_S * 5):
        if metrics.is_file() and len(metrics.read_text().splitlines()) >= step:
            return
        assert job.poll() is None, job.communicate()
        time.sleep(0.2)
    raise AssertionError("the job is too slow")


def _same(one: Path, other: Path) -> None:
    files = sorted(p.relative_to(one) for p in one.rglob("*.safetensors"))
    assert files == sorted(p.relative_to(other) for p in other.rglob("*.safetensors")) != []
    for file in files:
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys() and [n for n in a if not torch.equal(a[n], b[n])] == [], file


def test_submitted_stopped_killed_with_its_head_and_submitted_again(
    head: Head, folder: str, root: Path, tmp_path: Path, random_weights: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    run = home / "shared/tiny/controlnet_mask"

    # ray job stop: it saves first
    job = _submit(head.address, root, _settings(home, random_weights, f"train.steps={LONG}"), "--submission-id=first")
    _until_step(home, 3, job)
    subprocess.run([RAY, "job", "stop", "--address", head.address, "first"], check=True, capture_output=True)
    said, _ = job.communicate(timeout=LONGEST_S)
    stopped = newest_checkpoint(run)
    assert stopped is not None, said
    step = int(stopped.name.removeprefix("step-"))
    assert step >= 3 and f"told to stop; step {step} is kept" in said, said

    # the head dies in the middle of it
    job = _submit(head.address, root, _settings(home, random_weights, f"train.steps={LONG}"))
    seen = len((run / "metrics.jsonl").read_text().splitlines())
    _until_step(home, seen + 3, job)
    head.kill()
    job.kill()
    job.communicate()

    # another head, the same command
    survived = newest_checkpoint(run)
    assert survived is not None
    last = int(survived.name.removeprefix("step-")) + 2
    again = Head(folder)
    try:
        job = _submit(again.address, root, _settings(home, random_weights, f"train.steps={last}"))
        said, _ = job.communicate(timeout=LONGEST_S)
    finally:
        again.kill()
    assert job.returncode == 0, said
    facts = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
    assert facts["steps"] == last and facts["checkpoint"] == f"{run}/step-{last:07d}"
    assert set(facts["metrics"]) >= {"loss", "rate"}
    assert (home / "weights/tiny/controlnet_mask/config.json").is_file()

    # nothing of all that can be seen in the result
    from tests.together import together

    quiet = tmp_path / "quiet"
    quiet.mkdir()
    (quiet / "caches").symlink_to(home / "caches")
    together(2, _train, str(quiet), str(random_weights), last)
    _same(run / f"step-{last:07d}", quiet / f"shared/tiny/controlnet_mask/step-{last:07d}")


def _train(world: Any, home: str, weights: str, steps: int) -> None:
    from m3face.config import load_config

    settings = _settings(Path(home), Path(weights), f"train.steps={steps}")
    train(load_config(CONFIGS / "tiny_controlnet_mask.yaml", settings), report=silent, device="cpu", world=world)


def test_a_folder_that_one_node_does_not_see_is_refused(
    head: Head, folder: str, root: Path, tmp_path: Path, random_weights: Path
) -> None:
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("hiding a folder from a node needs root and unshare")
    home = tmp_path / "home"
    (home / "shared").mkdir(parents=True)
    hidden = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs tmpfs {home}/shared && exec "$@"', "sh"]
    joins = [sys.executable, "-c", JOIN, f"127.0.0.1:{head.port}", str(_free_ports(1)[0]), str(SMALL)]
    other = Node(*hidden, *joins, folder=folder)
    try:
        for _ in range(300):
            with urllib.request.urlopen(f"{head.address}/nodes?view=summary", timeout=5) as answer:
                if len(json.loads(answer.read())["data"]["summary"]) == 2:
                    break
            assert other.process.poll() is None, other.log.read_text()
            time.sleep(0.2)
        else:
            raise AssertionError(other.log.read_text())
        job = _submit(head.address, root, _settings(home, random_weights, "train.steps=2"))
        said, _ = job.communicate(timeout=LONGEST_S)
    finally:
        other.kill()
    assert job.returncode != 0, said
    expected = f"error: storage: {home}/shared/tiny/controlnet_mask is not shared: node 127.0.0.1 does not see it"
    assert expected in said and "set storage to a folder that is mounted on every node, or to s3://" in said, said
    assert not list((home / "shared/tiny/controlnet_mask").iterdir()), "refused before the first step"


@pytest.mark.parametrize("field", ["storage", "runs"])
def test_a_folder_in_the_jobs_own_copy_is_refused(
    field: str, head: Head, root: Path, tmp_path: Path, random_weights: Path
) -> None:
    job = _submit(head.address, root, [*_settings(tmp_path, random_weights, "train.steps=2"), f"{field}=here"])
    said, _ = job.communicate(timeout=LONGEST_S)
    assert job.returncode != 0 and f"error: {field}: 'here' would lie in the submitted job's own copy" in said, said


def test_a_signal_saves_first_without_ray_too(root: Path, tmp_path: Path, random_weights: Path) -> None:
    settings = _settings(tmp_path, random_weights, f"train.steps={LONG}", "train.workers=1")
    job = [sys.executable, "jobs/train_controlnet.py", "--config", "jobs/configs/tiny_controlnet_mask.yaml", "--set"]
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [*job, *settings], cwd=root, env=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    _until_step(tmp_path, 3, process)
    process.send_signal(signal.SIGTERM)
    _, complained = process.communicate(timeout=LONGEST_S)
    newest = newest_checkpoint(tmp_path / "shared/tiny/controlnet_mask")
    assert newest is not None and process.returncode == 130, complained
    step = int(newest.name.removeprefix("step-"))
    assert step >= 3
    errors = [line for line in complained.splitlines() if line.startswith("error")]
    assert errors == [
        f"error: train: told to stop; step {step} is kept; allowed: a training that runs to its end; "
        "start the same again: it goes on from there"
    ]
