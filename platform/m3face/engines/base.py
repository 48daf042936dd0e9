"""What every engine can do, and the one file that an exact resume needs, whoever wrote it.

Odd here: the file is name -> tensor (`master/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME`, `average/NAME`, `buffer/NAME`,
`steps_done`), whole and in fp32. It does not know how many workers there were or which engine it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from m3face.config import TrainConfig
from m3face.engines.world import World
from m3face.errors import CheckpointError, TrainingError

Batch = Mapping[str, Tensor]
Losses = Callable[[nn.Module, Batch], Mapping[str, Tensor]]
State = dict[str, Tensor]

BETAS = (0.9, 0.99)
_STATE = "state.safetensors"


class Engine(Protocol):
    """One optimizer step at a time around one trainable module. Every worker calls everything, in the same order."""

    module: nn.Module
    steps_done: int

    def step(self, *batches: Batch) -> dict[str, float]:
        """One update from this worker's share of a global batch, in one pass or more; the metrics of all of it.

        A loss or a gradient that is not finite raises `TrainingError` on every worker.
        """
        ...

    def state(self) -> State:
        """On the first worker all that an exact resume needs, on the CPU; nothing on the others."""
        ...

    def load_state(self, folder: Path) -> None:
        """Go on from what `save_state` wrote; CheckpointError if the names differ from this module's."""
        ...

    def finished(self) -> Callable[[], None]:
        """Put the weights to export into the first worker's module; the returned function puts the others back."""
        ...


def save_state(state: State, folder: Path) -> None:
    """Write what `Engine.state` gave."""
    save_file(state, folder / _STATE)


def read_state(folder: Path, parameters: Mapping[str, Tensor], *, device: str | torch.device = "cpu") -> State:
    """What `save_state` wrote; CheckpointError where it is not of these parameters."""
    path = folder / _STATE
    if not path.is_file():
        raise CheckpointError("resume", f"{folder} has no {_STATE}", "a checkpoint of a training", "copy it again")
    state = load_file(path, device=str(device))
    for name, parameter in parameters.items():
        if f"master/{name}" not in state:
            raise CheckpointError("resume", f"{folder} lacks {name}", "state of this network", "start anew")
        if state[f"master/{name}"].numel() != parameter.numel():
            got, allowed = (str(tuple(t.shape)) for t in (state[f"master/{name}"], parameter))
            raise CheckpointError(
                "resume", f"{name} in {folder} is {got}", f"{allowed}, as this network has", "start anew"
            )
    return state


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant or a cosine down to 1 % of the peak at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def average_decay(config: TrainConfig, steps_done: int) -> float:
    """The decay of the moving average after so many steps: short at first."""
    return min(config.ema, (1 + steps_done) / (10 + steps_done))


def common(world: World, losses: Mapping[str, Tensor]) -> dict[str, float]:
    """The losses over all workers."""
    values = world.mean(torch.stack([value.detach().float() for value in losses.values()]))
    return dict(zip(losses, values.tolist(), strict=True))


def mean_of(passes: list[dict[str, float]]) -> dict[str, float]:
    """The metrics of a step that took several passes."""
    return passes[0] if len(passes) == 1 else {n: sum(p[n] for p in passes) / len(passes) for n in passes[0]}


def stop(what: str, step: int) -> NoReturn:
    """The end of a training whose numbers are no longer finite."""
    raise TrainingError(
        "train",
        f"{what} at step {step}",
        "finite numbers",
        "lower train.learning_rate; the last checkpoint is untouched",
    )
