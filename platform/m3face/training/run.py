"""One training run on this machine: settings in, checkpoints and a finished network out; stopped and resumed at will.

Odd here: a finished network is placed into the working weights folder, where the next network of the chain finds it,
under a lock, since two runs may finish at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs
import torch

from m3face import __version__, checkpoints, presets
from m3face.config import RunConfig, Workplace
from m3face.data.encoded import weights_key
from m3face.data.store import key_digest
from m3face.engines import TorchEngine
from m3face.errors import CheckpointError, ConfigError, OutputError
from m3face.tasks import NEEDS, Context, make_task
from m3face.training.fit import draws_of_step, fit

Report = Callable[[str, int, int, Mapping[str, float]], None]
"""(what, done, total, metrics): called often; draws nothing itself."""

_KEEP = 2


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
    """The newest finished `step-*` folder of a run."""
    steps = sorted(p for p in run.glob("step-*") if (p / "manifest.json").is_file())
    return steps[-1] if steps else None


def train(
    config: RunConfig, *, report: Report, device: str | None = None, deadline_s: float | None = None
) -> Path | None:
    """Train `config.train.component` to its last step, going on from the newest checkpoint of the run.

    Returns the weights folder that now holds the finished network, or None if `deadline_s` seconds passed first (the
    run then goes on from its checkpoint when called again). On a CPU all of torch's threads work (OMP_NUM_THREADS).
    """
    settings, root = config.train, home(config)
    began = time.monotonic()
    preset = presets.get(config.preset)
    device = _device(device)
    if config.data.size != preset.image_size:
        raise ConfigError("data.size", str(config.data.size), f"{preset.image_size}, that of {preset.name}")
    weights = root / "weights" / preset.name
    frozen = weights if config.weights is None else presets.weights_folder(config.weights)
    if needs := NEEDS[settings.component]:
        checkpoints.verify(frozen, parts=needs)  # before hours of rendering for a network that is not there
    if settings.start is not None:
        checkpoints.verify(presets.weights_folder(settings.start), parts=[settings.component])
    run = root / "runs" / preset.name / settings.component
    newest = newest_checkpoint(run)
    if newest is not None:
        checkpoints.verify(newest)
        _same_run(newest, config)
        _same_frozen(newest, frozen)
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("runs", f"{run}: {error.strerror}", "a folder that can be written") from None
    keys = {component: weights_key(frozen, component) for component in needs}
    context = Context(
        preset=preset,
        weights=frozen,
        caches=root / "caches",
        data=config.data,
        train=settings,
        seed=config.seed,
        device=device,
        progress=lambda what, done, total: report(what, done, total, {}),
    )
    task = make_task(settings.component, context)
    faces = key_digest(task.faces.key) if hasattr(task, "faces") else None
    if newest is not None:
        _same_faces(newest, faces)
    engine = TorchEngine(task.module, task.losses, settings, device=device)

    def batches(step: int) -> Mapping[str, torch.Tensor]:
        return task.batch(draws_of_step(step, batch_size=settings.batch_size, count=task.count, seed=config.seed))

    if newest is None:
        if settings.start is None:
            task.begin(batches)
    else:
        engine.load_state(newest / "trainer")
        task.resume(newest / "model")
    metrics_file = (run / "metrics.jsonl").open("a", encoding="utf-8")

    def keep(step: int) -> Path:
        folder = run / f"step-{step:07d}"
        with checkpoints.publish(
            folder,
            parent=newest.name if newest else None,
            config=config.model_dump(),
            frozen=keys,
            faces=faces,
            version=__version__,
        ) as aside:
            (aside / "trainer").mkdir()
            engine.save_state(aside / "trainer")
            back = engine.finished()
            task.export(aside / "model")
            back()
        for old in sorted(run.glob("step-*"))[:-_KEEP]:
            shutil.rmtree(old, ignore_errors=True)
        return folder

    def on_step(step: int, metrics: Mapping[str, float]) -> bool:
        late = deadline_s is not None and time.monotonic() - began > deadline_s
        if step % settings.log_every == 0 or step == settings.steps:
            line = {"step": step, "seconds": round(time.monotonic() - began, 1), **metrics}
            metrics_file.write(json.dumps({k: round(v, 6) for k, v in line.items()}) + "\n")
            metrics_file.flush()
            report(settings.component, step, settings.steps, metrics)
        if step % settings.checkpoint_every == 0 or step == settings.steps or late:
            keep(step)
        return late

    with metrics_file:
        done = fit(engine, batches, first=engine.steps_done, last=settings.steps, on_step=on_step)
    if done < settings.steps:
        return None
    finished = newest_checkpoint(run)
    if finished is None:
        raise CheckpointError("run", f"{run} has no finished checkpoint", "at least one step", "train again")
    place(finished / "model", weights)
    return weights


def _same_run(checkpoint: Path, config: RunConfig) -> None:
    """Refuse to go on with other settings than the run began with: `steps` and intervals may change."""
    before = RunConfig.model_validate(checkpoints.read_manifest(checkpoint)["config"])
    free = {"steps", "checkpoint_every", "log_every"}
    for part in ("seed", "preset", "data"):
        if getattr(before, part) != getattr(config, part):
            allowed, remedy = str(getattr(before, part)), "use another --set runs="
            raise CheckpointError(part, f"{checkpoint.parent} began with another value", allowed, remedy)
    for name, value in before.train.model_dump().items():
        if name not in free and getattr(config.train, name) != value:
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


def _device(asked: str | None) -> str:
    """The device to train on; ConfigError for one that this machine has not."""
    found = "cuda" if torch.cuda.is_available() else "cpu"
    if asked is None or asked in ("cpu", found):
        return asked or found
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
