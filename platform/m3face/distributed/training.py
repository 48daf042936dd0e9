"""A job that trains: in this process, or by workers under Ray Train, through the same `train`.

Odd here: one worker and no cluster need no Ray, so then there is none, and a laptop without it trains by the same
command. Where RAY_ADDRESS names a cluster, as in every submitted job, even one worker is placed by Ray: the driver
may sit on a head without a GPU.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from m3face import presets
from m3face.config import RunConfig
from m3face.data.storage import S3
from m3face.engines.deepspeed_config import deepspeed_config
from m3face.errors import ConfigError
from m3face.training.keeping import RunFolder
from m3face.training.run import home, run_address, train
from m3face.training.stopping import told_to_stop

Say = Callable[[str], None]


def train_network(config: RunConfig, components: Sequence[str], say: Say = print) -> None:
    """Train one of `components`, going on from its newest complete checkpoint, and say how far it is.

    Raises ConfigError, CheckpointError (weights, another run), DataError, OutputError, TrainingError and Cancelled.
    """
    settings = config.train
    if settings.component not in components:
        raise ConfigError("train.component", repr(settings.component), ", ".join(components), "use its own job")
    presets.get(config.preset)
    _check_places(config)
    if settings.engine == "deepspeed":
        deepspeed_config(settings)
    told = _Told(say)
    if settings.workers == 1 and not os.environ.get("RAY_ADDRESS"):
        with told_to_stop() as stopped:
            train(config, report=told, stop=lambda: bool(stopped()))
    else:
        if find_spec("ray") is None:
            got, remedy = "is not installed", "pip install -e '.[ray]' in a checkout, or --set train.workers=1"
            raise ConfigError("ray", got, "the extra ray for more than one worker", remedy)
        from m3face.distributed.workers import train_by_workers

        train_by_workers(config, told)
    _say_result(config, told.metrics, say)


def _check_places(config: RunConfig) -> None:
    """Refuse what would vanish with a submitted job's own copy of the working folder."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return
    for field, place in (("storage", config.storage), ("runs", config.runs)):
        if place and not place.startswith(S3) and not Path(place).expanduser().is_absolute():
            got = f"{place!r} would lie in the submitted job's own copy of the working folder"
            raise ConfigError(field, got, "an absolute path that all nodes share, or s3://")


def _say_result(config: RunConfig, metrics: Mapping[str, float], say: Say) -> None:
    """Where everything is; the last line is JSON for scripts."""
    local = home(config) / "runs" / config.preset / config.train.component
    run = RunFolder(run_address(config), local)
    newest = run.newest()
    facts = {
        "component": config.train.component,
        "steps": config.train.steps,
        "run": run.address,
        "checkpoint": f"{run.address}/{newest}",
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
    }
    say(f"{config.train.component}: {facts['checkpoint']}/model")
    say(json.dumps(facts))


class _Told:
    """What training reports, as plain lines; keeps the last metrics."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.metrics: Mapping[str, float] = {}

    def __call__(self, what: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if metrics:
            self.metrics = metrics
        facts = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
        if facts or done == total:
            self._say(f"{what} {done}/{total} {facts}".rstrip())
