"""Training under Ray Train: two workers are one, and a run that something happens to ends as it would have.

Odd here: networks of `tiny` that know nothing, eight faces, four steps. The run that nothing happened to is trained
once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from m3face import checkpoints
from m3face.config import RunConfig, load_config
from m3face.data.storage import open_storage
from m3face.errors import ConfigError, TrainingError
from m3face.training.run import newest_checkpoint, train
from tests.chain import CONFIGS, silent
from tests.ray.test_s3 import endpoint  # noqa: F401 - a fixture

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

Report = Callable[[str, int, int, Mapping[str, float]], None]


class Place:
    """Weights that know nothing, the caches that all runs share, and folders of runs."""

    def __init__(self, folder: Path, weights: Path) -> None:
        self.folder, self.weights = folder, weights
        (folder / "caches").mkdir()

    def home(self, name: str) -> Path:
        home = self.folder / name
        if not home.exists():
            home.mkdir()
            (home / "caches").symlink_to(self.folder / "caches")
        return home

    def config(self, name: str, component: str = "controlnet_mask", *more: str) -> RunConfig:
        return load_config(
            CONFIGS / f"tiny_{component}.yaml",
            [
                *("data.count=8", "train.steps=4", "train.batch_size=4", "train.log_every=1", "train.warmup_steps=0"),
                *("train.checkpoint_every=2", "train.precision=fp32", "train.schedule=constant", "train.workers=2"),
                *("train.report_to=none", f"runs={self.home(name)}", f"weights=dir:{self.weights}", *more),
            ],
        )

    def run(self, name: str, component: str = "controlnet_mask") -> Path:
        return self.folder / name / "runs" / "tiny" / component


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, random_weights: Path) -> Place:
    return Place(tmp_path_factory.mktemp("training"), random_weights)


@pytest.fixture
def spread(small_ray: None) -> Callable[..., None]:
    from m3face.distributed.workers import train_by_workers

    def go(config: RunConfig, report: Report = silent) -> None:
        train_by_workers(config, report)

    return go


@pytest.fixture
def whole(place: Place, spread: Callable[..., None]) -> Path:
    """The run of two workers that nothing happened to."""
    run = place.run("whole")
    if not run.exists():
        spread(place.config("whole"))
    return run


def losses(run: Path) -> list[float]:
    """The last line of each step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    by_step = {line["step"]: line["loss"] for line in lines}
    assert sorted(by_step) == list(range(1, len(by_step) + 1))
    return [by_step[step] for step in sorted(by_step)]


def same_checkpoints(one: Path, other: Path) -> None:
    """Weights and state of two checkpoints, bit for bit."""
    files = sorted(p.relative_to(one) for p in one.rglob("*.safetensors"))
    assert files == sorted(p.relative_to(other) for p in other.rglob("*.safetensors")) != []
    for file in files:
        a, b = load_file(one / file), load_file(other / file)
        assert a.keys() == b.keys() and [n for n in a if not torch.equal(a[n], b[n])] == [], file


def workers() -> list[psutil.Process]:
    """The worker processes of Ray Train under this test."""
    return [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in " ".join(p.cmdline())]


def kills_a_worker_at(step: int) -> tuple[Report, list[int]]:
    killed: list[int] = []

    def report(_what: str, done: int, _total: int, metrics: Mapping[str, float]) -> None:
        if metrics and done == step and not killed:
            found = workers()
            assert len(found) == 2
            killed.append(found[-1].pid)
            os.kill(found[-1].pid, signal.SIGKILL)

    return report, killed


def test_two_workers_are_one(place: Place, whole: Path) -> None:
    alone = place.config("alone", "controlnet_mask", "train.workers=1")
    assert train(alone, report=silent, device="cpu") == place.folder / "alone/weights/tiny"
    assert losses(whole) == pytest.approx(losses(place.run("alone")), abs=1e-5)
    newest = newest_checkpoint(whole)
    assert newest is not None and newest.name == "step-0000004"
    checkpoints.verify(newest)
    checkpoints.load("controlnet_mask", place.folder / "whole/weights/tiny")
    with pytest.raises(ConfigError, match="train.workers: 2; allowed: 1, in this process"):
        train(place.config("whole"), report=silent, device="cpu")


def test_more_workers_than_cpus_are_refused(place: Place, spread: Callable[..., None]) -> None:
    config = place.config("many", "controlnet_mask", "train.workers=4", "train.batch_size=8")
    with pytest.raises(ConfigError, match="train.workers: 4 workers of 1 CPUs; allowed: the 2 CPUs of the cluster"):
        spread(config)
    assert not place.run("many").exists()


@pytest.mark.full
@pytest.mark.parametrize("component", ["controlnet_mask", "transformer"])
def test_a_killed_worker_is_replaced_and_the_end_is_the_same(
    component: str, place: Place, spread: Callable[..., None]
) -> None:
    if not place.run("whole", component).exists():
        spread(place.config("whole", component))
    report, killed = kills_a_worker_at(3)
    spread(place.config("killed", component), report)
    assert killed
    one, other = (place.run(name, component) / "step-0000004" for name in ("whole", "killed"))
    same_checkpoints(one, other)
    assert losses(place.run("whole", component)) == losses(place.run("killed", component))


@pytest.mark.full
def test_workers_come_and_go(place: Place, spread: Callable[..., None]) -> None:
    for count, steps in ((2, 2), (1, 4), (2, 6)):
        config = place.config("changing", "controlnet_mask", f"train.workers={count}", f"train.steps={steps}")
        if count == 1:
            train(config, report=silent, device="cpu")
        else:
            spread(config)
    alone = place.config("six", "controlnet_mask", "train.workers=1", "train.steps=6")
    train(alone, report=silent, device="cpu")
    assert losses(place.run("changing")) == pytest.approx(losses(place.run("six")), abs=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("zero", [1, 3])
def test_deepspeed_is_the_plain_engine(zero: int, place: Place, spread: Callable[..., None], whole: Path) -> None:
    pytest.importorskip("deepspeed")
    name = f"zero{zero}"
    config = place.config(name, "controlnet_mask", "train.engine=deepspeed", f"train.zero={zero}", "train.steps=2")
    spread(config)
    spread(place.config(name))  # the plain engine goes on
    assert losses(place.run(name)) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.full
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
    place: Place, spread: Callable[..., None]
) -> None:
    config = place.config("wild", "controlnet_mask", "train.learning_rate=1e30", "train.clip_norm=1e9")
    with pytest.raises(TrainingError, match=r"train: the (loss is|gradient is not).* at step \d; .*untouched") as error:
        spread(config)
    assert "\n" not in str(error.value)
    newest = newest_checkpoint(place.run("wild"))
    assert newest is not None
    checkpoints.verify(newest)
    state = load_file(newest / "trainer" / "state.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in state.values())


@pytest.fixture
def on_s3(endpoint: str) -> Iterator[str]:  # noqa: F811 - the fixture
    """An empty place on S3, reached as a job reaches it."""
    s3fs = pytest.importorskip("s3fs")
    os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": "4"}
    s3fs.S3FileSystem.clear_instance_cache()
    client = s3fs.S3FileSystem()
    if not client.exists("faces"):
        client.mkdir("faces")
    yield "s3://faces/flaky/runs"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.full
def test_a_run_on_s3_goes_on_where_nothing_is_left_of_it_here(
    on_s3: str, place: Place, spread: Callable[..., None], whole: Path, tmp_path: Path
) -> None:
    spread(place.config("s3", "controlnet_mask", f"storage={on_s3}", "train.steps=2"))
    shutil.rmtree(place.run("s3"))
    storage = open_storage(f"{on_s3}/tiny/controlnet_mask")
    storage.publish("step-0000003/trainer/state.safetensors", b"half of it")  # a worker died while it sent this
    spread(place.config("s3", "controlnet_mask", f"storage={on_s3}"))
    assert storage.folders("") == ["step-0000002", "step-0000004"], "the two newest, and nothing unfinished"
    same_checkpoints(whole / "step-0000004", place.run("s3") / "step-0000004")
    there = storage.read("metrics.jsonl").decode()
    assert [json.loads(line)["step"] for line in there.splitlines()] == [1, 2, 3, 4]
