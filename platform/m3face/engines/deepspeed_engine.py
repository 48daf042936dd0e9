"""One optimizer step under DeepSpeed (ZeRO 0 to 3), with the same state file as the plain engine.

Odd here: DeepSpeed is started with the first step or with a loaded state, not before, since it takes its masters from
the module as it then is: a task may change the weights before the first step. The moving average is one more state of
the optimizer, so it is divided, gathered and placed like the moments. DeepSpeed needs one call of one module, so the
loss is wrapped into one. The optimizer is torch's own: DeepSpeed's would be compiled first.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from m3face.config import TrainConfig
from m3face.engines.base import (
    BETAS,
    Batch,
    Losses,
    State,
    average_decay,
    common,
    learning_rate,
    mean_of,
    read_state,
    save_state,
    stop,
)
from m3face.engines.deepspeed_config import deepspeed_config
from m3face.engines.torch_engine import attention, autocast
from m3face.engines.world import World
from m3face.errors import ConfigError

_MOMENTS = ("exp_avg", "exp_avg_sq")
_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")  # of fp16's loss


class _Adam(torch.optim.AdamW):
    """AdamW that keeps a moving average of what it updates as one more state; `decay` 0 is none."""

    decay = 0.0
    averages = False

    def step(self, closure: Any = None) -> Any:
        before = [
            (p, p.detach().clone())
            for p in self._all()
            if self.averages and p.grad is not None and "average" not in self.state.get(p, {})
        ]
        result = super().step(closure)
        for p, old in before:
            self.state[p]["average"] = old
        if self.averages:
            for p in self._all():
                if p.grad is not None:
                    self.state[p]["average"].lerp_(p.detach(), 1 - self.decay)
        return result

    def _all(self) -> Iterable[Tensor]:
        return (p for group in self.param_groups for p in group["params"])


class _Loss(nn.Module):
    """A batch to its loss; the other numbers are left in `said`."""

    def __init__(self, module: nn.Module, losses: Losses, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.module, self._losses, self._config, self._device = module, losses, config, device
        self.said: dict[str, Tensor] = {}

    def forward(self, batch: Batch) -> Tensor:
        with attention(self._device), autocast(self._device, self._config):
            losses = self._losses(self.module, batch)
        self.said = {name: value.detach() for name, value in losses.items()}
        return losses["loss"]


class DeepSpeedEngine:
    """AdamW, clipping and a moving average around one trainable module, divided among the workers."""

    def __init__(
        self, module: nn.Module, losses: Losses, config: TrainConfig, *, device: str, world: World | None = None
    ) -> None:
        self.module = module.to(device).train()
        self.config, self.device, self.world = config, torch.device(device), world or World()
        self._library = _import_deepspeed(self.device)
        self._settings = deepspeed_config(config)
        self._loss = _Loss(module, losses, config, self.device)
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.steps_done = 0
        self._adam = _Adam(
            list(self.parameters.values()), lr=config.learning_rate, weight_decay=config.weight_decay, betas=BETAS
        )
        self._adam.averages = config.ema > 0
        self._engine: Any = None

    # -- a step
    def step(self, *batches: Batch) -> dict[str, float]:
        """One update from this worker's share of a global batch; the metrics of the whole batch.

        A loss or a gradient that is not finite raises `TrainingError`; in fp16 a gradient only lowers the loss's scale.
        """
        if self._engine is None:
            self._start()
        rate = learning_rate(self.config, self.steps_done)
        for group in self._engine.optimizer.param_groups:
            group["lr"] = rate
        self._adam.decay = average_decay(self.config, self.steps_done + 1)
        said, norm = [], 0.0
        for batch in batches:
            loss = self._engine({name: value.to(self.device, non_blocking=True) for name, value in batch.items()})
            said.append(common(self.world, self._loss.said))
            if not math.isfinite(said[-1]["loss"]):
                stop(f"the loss is {said[-1]['loss']}", self.steps_done)
            self._engine.backward(loss)
            if not self._divided:  # DeepSpeed tells no norm here
                norm = float(nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None]))
                self._finite(norm)
            self._engine.step()
        if self._divided:
            norm = float(self._engine.get_global_grad_norm())
            self._finite(norm)
        self.steps_done += 1
        return {**mean_of(said), "gradient_norm": norm, "rate": rate}

    def _finite(self, norm: float) -> None:
        if not math.isfinite(norm) and self.config.precision != "fp16":
            stop("the gradient is not finite", self.steps_done)

    # -- DeepSpeed's own
    @property
    def _divided(self) -> bool:
        """Whether masters lie in flat pieces of DeepSpeed's; without ZeRO they are the parameters."""
        return self.config.zero > 0

    def _start(self) -> None:
        self._engine, *_ = self._library.initialize(
            model=self._loss, optimizer=self._adam, config=self._settings, dist_init_required=False
        )

    def _pieces(self) -> list[Tensor]:
        """The masters that this worker holds, flat; the parameters themselves where nothing is divided."""
        if not self._divided:
            return list(self.parameters.values())
        of_stage = "fp32_partitioned_groups_flat" if self.config.zero == 3 else "single_partition_of_fp32_groups"
        return list(getattr(self._engine.optimizer, of_stage))

    def _get(self, parameter: Tensor, kind: str) -> Tensor:
        """The whole of a master or of one of its states, on every worker: a call for all."""
        from deepspeed import utils

        if not self._divided:
            return parameter.detach() if kind == "master" else self._adam.state[parameter][kind]
        if kind == "master":
            return utils.safe_get_full_fp32_param(parameter).detach()
        return utils.safe_get_full_optimizer_state(parameter, kind).detach()

    def _set(self, parameter: Tensor, kind: str, value: Tensor) -> None:
        """This worker's part of a whole that every worker has."""
        from deepspeed import utils

        key = [] if kind == "master" else [kind]
        if not self._divided:
            (self._adam.state[parameter][kind] if key else parameter.data).copy_(value)
        elif self.config.zero < 3:
            (utils.safe_set_full_optimizer_state if key else utils.safe_set_full_fp32_param)(parameter, value, *key)
        else:  # DeepSpeed's own way to divide a whole fails where it cannot be divided evenly
            part = utils.safe_get_local_fp32_param(parameter).numel()
            even = F.pad(value.flatten(), (0, part * self.world.size - value.numel()))
            mine = even[self.world.rank * part :][:part]
            (utils.safe_set_local_optimizer_state if key else utils.safe_set_local_fp32_param)(parameter, mine, *key)

    # -- the state
    def state(self) -> State:
        """Everything by name, gathered on the first worker one tensor at a time."""
        state: State = {"steps_done": torch.tensor(self.steps_done)}
        kinds = ["master"]
        if self.steps_done:
            kinds += [*_MOMENTS, *(["average"] if self._adam.averages else [])]
        for name, parameter in self.parameters.items():
            for kind in kinds:
                value = parameter.detach() if self._engine is None else self._get(parameter, kind)
                if self.world.leads:
                    state[f"{kind}/{name}"] = value.float().cpu().contiguous().clone()
        state |= {f"buffer/{name}": value.cpu().clone() for name, value in self.module.named_buffers()}
        if self.config.precision == "fp16" and self._engine is not None:
            state["updates_done"] = torch.tensor(self.steps_done - self._engine.skipped_steps)
            scaler = self._engine.optimizer.loss_scaler
            state |= {f"scaler/{n}": torch.tensor(float(getattr(scaler, n))) for n in _SCALER if hasattr(scaler, n)}
        return state if self.world.leads else {}

    def save_state(self, folder: Path) -> None:
        """Write `state`, on the first worker; every worker calls it."""
        state = self.state()
        if self.world.leads:
            save_state(state, folder)

    def load_state(self, folder: Path) -> None:
        """Go on from `save_state`; CheckpointError if the names differ from this module's."""
        state = read_state(folder, self.parameters)
        self.steps_done = int(state["steps_done"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"master/{name}"].view_as(parameter))
            for name, buffer in self.module.named_buffers():
                buffer.copy_(state[f"buffer/{name}"])
        self._start()
        updates = int(state.get("updates_done", state["steps_done"]))
        kinds = [*_MOMENTS, *(["average"] if self._adam.averages else [])] if self.steps_done else []
        if kinds:
            for piece in self._pieces():
                own: dict[str, Any] = {kind: torch.zeros_like(piece) for kind in kinds}
                self._adam.state[piece] = {"step": torch.tensor(float(updates)), **own}
            if hasattr(self._engine.optimizer, "_lazy_init_hp_params_optimizer_state"):
                self._engine.optimizer._lazy_init_hp_params_optimizer_state()
        for name, parameter in self.parameters.items():
            for kind in ("master", *kinds):
                if f"{kind}/{name}" in state:
                    self._set(parameter, kind, state[f"{kind}/{name}"].to(self.device))
        if self.config.precision == "fp16":
            self._engine.skipped_steps = self.steps_done - updates
            for name in _SCALER:
                if f"scaler/{name}" in state:
                    number = type(getattr(self._engine.optimizer.loss_scaler, name))
                    setattr(self._engine.optimizer.loss_scaler, name, number(state[f"scaler/{name}"]))

    def finished(self) -> Callable[[], None]:
        """Put the weights to export, in fp32, into the first worker's module; the function puts its own back."""
        kind = "average" if self._adam.averages and self.steps_done else "master"
        kept: list[tuple[Tensor, Tensor]] = []
        for parameter in self.module.parameters() if self._engine is not None else ():
            if parameter.requires_grad:
                whole = self._get(parameter, kind).float().clone()
            elif self.config.zero == 3:  # what never learns is divided too
                with self._library.zero.GatheredParameters([parameter]):
                    whole = parameter.detach().clone()
            else:
                continue
            if self.world.leads:
                kept.append((parameter, parameter.data))
                parameter.data = whole
        self.module.eval()

        def back() -> None:
            for parameter, own in kept:
                parameter.data = own
            self.module.train()

        return back


def _import_deepspeed(device: torch.device) -> Any:
    """DeepSpeed, quiet and joined to the process group; ConfigError where it cannot be had."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        if shutil.which(os.environ.get("CXX", "g++")) is None:
            got = "on a CPU DeepSpeed compiles a small library, and there is no C++ compiler"
            raise ConfigError("train.engine", got, "g++ or the engine torch", "apt-get install g++")
    try:
        import deepspeed
    except ModuleNotFoundError:
        got = "deepspeed is not installed"
        raise ConfigError("train.engine", got, "the extra train or the engine torch", "pip install deepspeed") from None
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")  # its calls, each step
    backend = "gloo" if device.type == "cpu" else "nccl"
    if not distributed.is_initialized():
        distributed.init_process_group(backend, store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1)
    deepspeed.init_distributed(dist_backend=backend)
    return deepspeed
