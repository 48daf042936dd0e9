"""Training by several workers under Ray Train: who goes where, who is told what, and what is done when one is lost.

Odd here: Ray Train starts workers and starts them again; it is shown no checkpoint and asked for none. A worker looks
into the storage for the newest complete one, which is there whatever Ray's controller had noticed. An error that a
user can cure travels through an actor on this node, since Ray would take it for a lost worker and try again.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from m3face.config import RunConfig
from m3face.data.storage import S3, open_storage
from m3face.distributed.cluster import cluster, worker_environment
from m3face.engines import World
from m3face.errors import Cancelled, ConfigError, M3FaceError, TrainingError
from m3face.training.run import Report, run_address, train
from m3face.training.stopping import told_to_stop

_LOOK_S = 0.25  # between looks at what the other side said
_TELL_S = 1.0  # between lines about caches
_LINGER_S = 10.0  # for workers to end after an error that all of them met
_PROBE_S = 60.0
_FORWARDED = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS")


class Post:
    """Between the driver and the first worker: lines one way, "stop" the other, and the error that ended it."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, int, int, Mapping[str, float]]] = []
        self._error: M3FaceError | None = None
        self._stop = False

    def tell(self, *line: Any) -> None:
        self._lines.append(line)

    def fail(self, error: M3FaceError) -> None:
        self._error = self._error or error

    def failed(self) -> bool:
        return self._error is not None

    def stop(self) -> None:
        self._stop = True

    def stopped(self) -> bool:
        return self._stop

    def take(self) -> tuple[list[Any], M3FaceError | None]:
        lines, self._lines = self._lines, []
        return lines, self._error


def train_by_workers(config: RunConfig, report: Report) -> None:
    """Train with `config.train.workers` workers on the cluster of RAY_ADDRESS, or on this machine.

    A SIGTERM keeps a checkpoint first. Raises what `train` raises, and TrainingError when workers are lost for good.
    """
    with cluster(held=0), told_to_stop() as told, tempfile.TemporaryDirectory(prefix="m3face-ray-train-") as scratch:
        device = _device(config)
        refuse_unshared(run_address(config))
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        placed = {"num_cpus": 0, "scheduling_strategy": here, "runtime_env": worker_environment({})}
        post = ray.remote(Post).options(**placed).remote()
        running = _Fit(_trainer(config, post, device, scratch))
        asked = False
        while True:
            ended = not running.is_alive()
            lines, error = ray.get(post.take.remote())
            for line in lines:
                report(*line)
            if error is not None:
                if not isinstance(error, Cancelled):  # `ray job stop` does not wait
                    running.join(_LINGER_S)
                raise error
            if ended:
                break
            if told() and not asked:
                asked = True
                post.stop.remote()
            running.join(_LOOK_S)
        if running.error is not None:
            last = str(running.error).strip().splitlines()[-1][:300]
            allowed = f"at most {config.train.max_failures} failures"
            remedy = "start the same again: it goes on from the last checkpoint"
            raise TrainingError("train", f"workers were lost: {last}", allowed, remedy) from running.error


class _Fit(threading.Thread):
    """`TorchTrainer.fit`, which waits, beside a main thread that hears signals."""

    def __init__(self, trainer: Any) -> None:
        super().__init__(daemon=True)
        self._trainer = trainer
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._trainer.fit()
        except Exception as error:
            self.error = error


def _trainer(config: RunConfig, post: Any, device: str, scratch: str) -> Any:
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    settings = config.train
    variables = {"OMP_NUM_THREADS": str(max(1, int(settings.cpus)))}
    if device == "cpu":
        variables["DS_ACCELERATOR"] = "cpu"
    variables |= {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    return TorchTrainer(
        _work,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "post": post,
            "device": device,
            "folder": os.getcwd(),
        },
        torch_config=TorchConfig(backend="nccl" if device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=device == "cuda",
            resources_per_worker={"CPU": settings.cpus, **({"GPU": 1} if device == "cuda" else {})},
        ),
        run_config=RayRunConfig(
            name=f"m3face-{uuid4().hex[:8]}",
            storage_path=scratch,  # Ray's own notes; ours are elsewhere
            failure_config=FailureConfig(max_failures=settings.max_failures),
            worker_runtime_env=worker_environment(variables),
        ),
    )


def _work(given: dict[str, Any]) -> None:
    """What every worker does."""
    import ray.train

    post = given["post"]
    if ray.get(post.failed.remote()):  # an error that trying again does not cure
        return
    if os.path.isdir(given["folder"]):
        os.chdir(given["folder"])  # what is relative is so to where the job was started
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size(), given["device"])
    try:
        config = RunConfig.model_validate(given["config"])
        train(config, report=_Letters(post), device=given["device"], world=world, stop=_asked(post, world))
    except M3FaceError as error:
        ray.get(post.fail.remote(error))  # raised here, Ray would take it for a lost worker


class _Letters:
    """`report` of a worker: to the driver, and of caches not too often."""

    def __init__(self, post: Any) -> None:
        self._post, self._told = post, 0.0

    def __call__(self, what: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if metrics or done == total or time.monotonic() - self._told > _TELL_S:
            self._told = time.monotonic()
            self._post.tell.remote(what, done, total, dict(metrics))


def _asked(post: Any, world: World) -> Callable[[], bool]:
    """Whether the driver was told to stop; the first worker asks for all."""
    looked = [0.0, False]

    def asked() -> bool:
        if world.leads and not looked[1] and time.monotonic() - looked[0] > _LOOK_S:
            looked[:] = [time.monotonic(), ray.get(post.stopped.remote())]
        return bool(looked[1])

    return asked


def _device(config: RunConfig) -> str:
    """Where the workers train. ConfigError where the cluster has not enough for all of them."""
    settings, there = config.train, ray.cluster_resources()
    cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
    if settings.workers * settings.cpus > cpus:
        got = f"{settings.workers} workers of {settings.cpus:g} CPUs"
        remedy = "lower train.workers or train.cpus, or add nodes"
        raise ConfigError("train.workers", got, f"the {cpus:g} CPUs of the cluster", remedy)
    if settings.device == "cuda" and gpus < settings.workers:
        got = f"{settings.workers} workers with a GPU each"
        raise ConfigError("train.workers", got, f"the {gpus:g} GPUs of the cluster", "lower train.workers or add nodes")
    return "cuda" if settings.device != "cpu" and gpus >= settings.workers else "cpu"


def refuse_unshared(address: str) -> None:
    """ConfigError where a node does not see what this one writes at `address`: it would resume from nothing."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if address.startswith(S3) or len(nodes) < 2:
        return
    storage, name = open_storage(address, field="storage"), f".seen-{uuid4().hex[:8]}"
    storage.publish(name, b"")
    try:
        blind = [node["NodeManagerAddress"] for node in nodes if not _sees(node["NodeID"], Path(address, name))]
    finally:
        storage.remove(name)
    if blind:
        got = f"{address} is not shared: node {blind[0]} does not see it"
        remedy = "set storage to a folder that is mounted on every node, or to s3://BUCKET/FOLDER"
        raise ConfigError("storage", got, "a folder that all nodes share, or s3://", remedy)


def _sees(node: str, path: Path) -> bool:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    look = ray.remote(os.path.exists).options(num_cpus=0, scheduling_strategy=there)
    return bool(ray.get(look.remote(str(path)), timeout=_PROBE_S))
