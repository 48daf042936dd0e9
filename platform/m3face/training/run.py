"""One training run: settings in, checkpoints and a finished network out; stopped and resumed at will.

One worker or several go through the same lines: a worker alone is a world of one.

Odd here: a finished network is placed into the working weights folder, where the next network of the chain finds it,
under a lock, since two runs may finish at once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import torch
from diffusers import ModelMixin
from torch import nn
from transformers import PreTrainedModel

from m3face import __version__, checkpoints, presets
from m3face.config import RunConfig, Workplace
from m3face.data.encoded import weights_key
from m3face.data.store import key_digest
from m3face.engines import Batch, World, make_engine, save_state
from m3face.errors import Cancelled, CheckpointError, ConfigError
from m3face.tasks import NEEDS, Context, Draw, Task, make_task
from m3face.training.fit import draws_of_step, fit
from m3face.training.keeping import RunFolder, begin_from, step_name
from m3face.training.metrics import FILE, Metrics, check_tracker
from m3face.training.stopping import never

Report = Callable[[str, int, int, Mapping[str, float]], None]
"""(what, done, total, metrics): called often; draws nothing itself."""

_FREE = {
    *("steps", "checkpoint_every", "log_every", "report_to"),
    *("workers", "cpus", "device", "max_failures"),
    *("engine", "zero", "offload", "deepspeed", "accumulate", "gradient_checkpointing"),
}
"""Settings of `train` that may differ when a run goes on."""


def home(config: Workplace) -> Path:
    """The folder of runs, caches and working weights."""
    return Path(config.runs).expanduser() if config.runs else Path(platformdirs.user_cache_dir("m3face"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def place(model: Path, weights: Path) -> None:
    """Copy the component folders of a checkpoint's `model/` into a weights folder and renew its manifest.

    Each is copied aside and renamed. A folder that another copy left damaged is told, not blessed by a new manifest.
    """
    with _locked(weights.with_name(weights.name + ".lock")):
        weights.mkdir(parents=True, exist_ok=True)
        placed = sorted(p for p in model.iterdir() if p.is_dir())
        others = {p.name for p in weights.iterdir() if p.is_dir() and not p.name.startswith(".")}
        if others := others - {p.name for p in placed}:
            checkpoints.verify(weights, parts=sorted(others))
        for component in placed:
            aside = weights / f".{component.name}.aside"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(component, aside)
            shutil.rmtree(weights / component.name, ignore_errors=True)
            aside.rename(weights / component.name)
        checkpoints.write_manifest(weights)


def newest_checkpoint(run: Path) -> Path | None:
    """The newest complete `step-*` folder of a run on this machine."""
    name = RunFolder(str(run), run).newest()
    return None if name is None else run / name


def run_address(config: RunConfig) -> str:
    """Where the checkpoints of this run lie: a folder or s3:// address."""
    preset, component = presets.get(config.preset).name, config.train.component
    if config.storage:
        return f"{config.storage.rstrip('/')}/{preset}/{component}"
    return str(home(config) / "runs" / preset / component)


def train(
    config: RunConfig,
    *,
    report: Report,
    device: str | None = None,
    deadline_s: float | None = None,
    world: World | None = None,
    stop: Callable[[], bool] = never,
) -> Path | None:
    """Train `config.train.component` to its last step, going on from the newest complete checkpoint of the run.

    Every worker of `world` calls it; `report` is heard from the first alone. `stop` is asked after each step: True
    keeps a checkpoint and raises `Cancelled` on the worker that said so. Returns the weights folder that now holds the
    finished network, or None if `deadline_s` seconds passed or another worker stopped (the run then goes on from its
    checkpoint when called again). On a CPU all of torch's threads work (OMP_NUM_THREADS).
    """
    settings, root, world = config.train, home(config), world or World()
    began = time.monotonic()
    preset = presets.get(config.preset)
    device = _device(device or settings.device)
    _check(config, world)
    weights = root / "weights" / preset.name
    frozen = weights if config.weights is None else presets.weights_folder(config.weights)
    if needs := NEEDS[settings.component]:
        checkpoints.verify(frozen, parts=needs)  # before hours of rendering for a network that is not there
    if settings.start is not None:
        checkpoints.verify(presets.weights_folder(settings.start), parts=[settings.component])
    run = RunFolder(run_address(config), root / "runs" / preset.name / settings.component)
    newest = _begin_from(config, run, world)
    if newest is not None:
        _same_run(newest, config)
        _same_frozen(newest, frozen)
    run.prepare()
    keys = {component: weights_key(frozen, component) for component in needs}
    context = Context(
        preset=preset,
        weights=frozen,
        caches=root / "caches",
        data=config.data,
        train=settings,
        seed=config.seed,
        device=device,
        progress=lambda what, done, total: report(what, done, total, {}) if world.leads else None,
    )
    task = make_task(settings.component, context)
    faces = key_digest(task.faces.key) if hasattr(task, "faces") else None
    if newest is not None:
        _same_faces(newest, faces)
    if settings.gradient_checkpointing:
        _recompute(task, settings.component)
    engine = make_engine(task.module, task.losses, settings, device=device, world=world)

    def draws(step: int) -> Sequence[Draw]:
        return draws_of_step(step, batch_size=settings.batch_size, count=task.count, seed=config.seed)

    def batches(step: int) -> Sequence[Batch]:
        mine = world.share(draws(step))
        part = len(mine) // settings.accumulate
        return [task.batch(mine[first : first + part]) for first in range(0, len(mine), part)]

    def keep(step: int) -> None:
        state, back = engine.state(), engine.finished()

        def write(folder: Path) -> None:
            (folder / "trainer").mkdir()
            save_state(state, folder / "trainer")
            task.export(folder / "model")

        def publish() -> None:
            run.publish(
                step,
                write,
                parent=newest.name if newest else None,
                config=config.model_dump(),
                frozen=keys,
                faces=faces,
                version=__version__,
            )
            if step:
                run.send_file(FILE)

        world.first(publish)
        back()

    if newest is None:
        if settings.start is None and world.leads:
            task.begin(lambda step: task.batch(draws(step)))
        if world.size > 1:  # all begin alike, whatever each of them drew or trained so far
            keep(0)
            world.first(run.sent)
            newest = run.fetch(step_name(0))
    if newest is not None:
        engine.load_state(newest / "trainer")
        task.resume(newest / "model")
    run.fetch_file(FILE)
    metrics_file = Metrics(run.local, config) if world.leads else None

    def on_step(step: int, metrics: Mapping[str, float]) -> bool:
        late = deadline_s is not None and time.monotonic() - began > deadline_s
        ends = world.any(late or stop())
        if metrics_file is not None and (step % settings.log_every == 0 or step == settings.steps):
            metrics_file.add(step, time.monotonic() - began, metrics)
            report(settings.component, step, settings.steps, metrics)
        if step % settings.checkpoint_every == 0 or step == settings.steps or ends:
            keep(step)
        return ends

    try:
        done = fit(engine, batches, first=engine.steps_done, last=settings.steps, on_step=on_step)
    finally:
        if metrics_file is not None:
            metrics_file.close()
    world.first(run.sent)
    if done < settings.steps:
        if stop():
            got, allowed = f"told to stop; step {done} is kept", "a training that runs to its end"
            raise Cancelled("train", got, allowed, "start the same again: it goes on from there")
        return None
    world.first(lambda: _place_newest(run, weights))
    return weights


def _place_newest(run: RunFolder, weights: Path) -> None:
    finished = run.newest()
    if finished is None:
        raise CheckpointError("run", f"{run.address} has no finished checkpoint", "at least one step", "train again")
    place(run.fetch(finished) / "model", weights)


def _begin_from(config: RunConfig, run: RunFolder, world: World) -> Path | None:
    """The verified checkpoint to go on from, the same for every worker; None begins anew."""
    name = world.first(run.newest)
    if name is not None:
        return run.fetch(name)
    return None if config.resume == "auto" else begin_from(config.resume)


def _check(config: RunConfig, world: World) -> None:
    """What only here can be known of the settings. Raises ConfigError."""
    preset, settings = presets.get(config.preset), config.train
    if config.data.size != preset.image_size:
        raise ConfigError("data.size", str(config.data.size), f"{preset.image_size}, that of {preset.name}")
    if settings.workers != world.size:
        remedy = "python jobs/train_*.py starts them"
        raise ConfigError("train.workers", str(settings.workers), f"{world.size}, in this process", remedy)
    check_tracker(settings.report_to)


def _recompute(task: Task, component: str) -> None:
    """Let every network that gradients pass through forget its activations and compute them again."""
    found = False
    for network in (value for value in vars(task).values() if isinstance(value, nn.Module)):
        for part in network.modules():
            if isinstance(part, ModelMixin) and part._supports_gradient_checkpointing:
                part.enable_gradient_checkpointing()
                found = True
            elif isinstance(part, PreTrainedModel) and part.supports_gradient_checkpointing:
                part.gradient_checkpointing_enable({"use_reentrant": False})
                found = True
    if not found:
        got, allowed = f"{component} keeps what it computes", "false for this network"
        raise ConfigError("train.gradient_checkpointing", got, allowed)


def _same_run(checkpoint: Path, config: RunConfig) -> None:
    """Refuse to go on with other settings than the run began with, but for `_FREE`: how long, and on what."""
    before = RunConfig.model_validate(checkpoints.read_manifest(checkpoint)["config"])
    for part in ("seed", "preset", "data"):
        if getattr(before, part) != getattr(config, part):
            allowed, remedy = str(getattr(before, part)), "use another --set runs="
            raise CheckpointError(part, f"{checkpoint.parent} began with another value", allowed, remedy)
    for name, value in before.train.model_dump().items():
        if name not in _FREE and getattr(config.train, name) != value:
            allowed = f"{value!r} as {checkpoint.parent} began"
            raise CheckpointError(f"train.{name}", repr(getattr(config.train, name)), allowed, "delete it")


def _same_faces(checkpoint: Path, faces: str | None) -> None:
    """Refuse to go on with a dataset that changed under its path since the run began."""
    if checkpoints.read_manifest(checkpoint).get("faces") != faces:
        raise CheckpointError(
            "data",
            f"the faces are others than when {checkpoint.parent} began",
            "the same dataset",
            "delete the run to train it anew",
        )


def _device(asked: str) -> str:
    """The device to train on; ConfigError for one that this machine has not."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    if asked in ("auto", "cpu", found):
        return found if asked == "auto" else asked
    allowed = "cpu or cuda" if found == "cuda" else "cpu; this machine has no CUDA GPU"
    raise ConfigError("--device", repr(asked), allowed)


def _same_frozen(checkpoint: Path, weights: Path) -> None:
    """Refuse to go on under frozen networks that were trained anew since the run began."""
    before = checkpoints.read_manifest(checkpoint)["frozen"]
    for component in sorted(before):
        if before[component] != weights_key(weights, component):
            raise CheckpointError(
                component,
                f"{weights / component} changed since {checkpoint.parent} began",
                "the frozen network that the run began with",
                "delete the run to train it anew",
            )


def publish_weights(weights: Path, target: Path, *, components: Sequence[str] | None = None) -> None:
    """Copy a working weights folder to `target` (a preset's folder, say) with a fresh manifest."""
    with checkpoints.publish(target) as aside:
        for folder in sorted(p for p in weights.iterdir() if p.is_dir()):
            if components is None or folder.name in components:
                shutil.copytree(folder, aside / folder.name)
    os.sync()
