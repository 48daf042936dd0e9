"""What a training says of itself: `metrics.jsonl`, and curves in a tracker that is asked for by name.

Odd here: only the first worker writes. TensorBoard is taken if it is there and passed over if not, since it is what
a run has unless told otherwise; the other trackers were asked for, so one that is missing is an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from m3face.config import RunConfig
from m3face.errors import ConfigError

FILE = "metrics.jsonl"
_CURVES = "tensorboard"


def check_tracker(name: str) -> None:
    """ConfigError where the tracker that was asked for is not installed."""
    if name in ("wandb", "mlflow") and find_spec(name) is None:
        raise ConfigError("train.report_to", f"{name} is not installed", "an installed tracker", f"pip install {name}")


class Metrics:
    """Lines and curves of one run, in `folder`."""

    def __init__(self, folder: Path, config: RunConfig) -> None:
        self._file: TextIO = (folder / FILE).open("a", encoding="utf-8")
        self._tracker: Any = None
        self._kind = config.train.report_to
        name = f"{config.preset}-{config.train.component}"
        if self._kind == "tensorboard":
            self._tracker = _tensorboard(folder / _CURVES)
        elif self._kind == "wandb":
            self._tracker = import_module("wandb").init(
                project="m3face", name=name, dir=str(folder), config=config.model_dump()
            )
        elif self._kind == "mlflow":
            self._tracker = import_module("mlflow")
            self._tracker.set_experiment("m3face")
            self._tracker.start_run(run_name=name)

    def add(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """The metrics of one step."""
        line = {"step": step, "seconds": round(seconds, 1), **metrics}
        self._file.write(json.dumps({k: round(v, 6) for k, v in line.items()}) + "\n")
        self._file.flush()
        curves = {f"train/{name}": value for name, value in metrics.items()}
        if self._tracker is None:
            return
        if self._kind == "tensorboard":
            for name, value in curves.items():
                self._tracker.add_scalar(name, value, step)
        elif self._kind == "wandb":
            self._tracker.log(curves, step=step)
        else:
            self._tracker.log_metrics(curves, step=step)

    def close(self) -> None:
        self._file.close()
        if self._tracker is None:
            return
        end = {"tensorboard": "close", "wandb": "finish", "mlflow": "end_run"}[self._kind]
        getattr(self._tracker, end)()


def _tensorboard(folder: Path) -> Any:
    """A writer of event files, if there is one: torch's, or the one that comes with Ray."""
    for needs, module in (("tensorboard", "torch.utils.tensorboard"), ("tensorboardX", "tensorboardX")):
        if find_spec(needs) is not None:
            return import_module(module).SummaryWriter(str(folder))
    return None
