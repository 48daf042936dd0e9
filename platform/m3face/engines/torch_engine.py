"""One optimizer step on plain torch, alone or with other workers.

Odd here: the state that resume needs is name -> (fp32 master, both moments, average), so it does not depend on how the
parameters were wrapped; and gradients are averaged by hand after the last pass, since a loss calls the networks
inside `module` one by one. The learning rate is a function of the step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

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
from m3face.engines.world import World


class TorchEngine:
    """AdamW, autocast, clipping and a moving average around one trainable module."""

    def __init__(
        self, module: nn.Module, losses: Losses, config: TrainConfig, *, device: str, world: World | None = None
    ) -> None:
        self.module = module.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.losses, self.config, self.device = losses, config, torch.device(device)
        self.world = world or World()
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=BETAS
        )
        self.average: dict[str, Tensor] = {}  # begins with the first step, after a task's own beginning
        self.steps_done = 0

    def step(self, *batches: Batch) -> dict[str, float]:
        """One update from this worker's share of a global batch; the metrics of the whole batch.

        A loss or a gradient that is not finite raises `TrainingError`, before anything has changed.
        """
        rate = learning_rate(self.config, self.steps_done)
        if self.config.ema and not self.average:
            self.average = self._copies()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        metrics = mean_of([self._learn(batch, share=1 / len(batches)) for batch in batches])
        self.world.average_gradients(self.parameters.values())
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
        if not torch.isfinite(norm):
            stop("the gradient is not finite", self.steps_done)
        self.optimizer.step()
        self.steps_done += 1
        if self.average:
            pairs = [(self.average[n], p.detach()) for n, p in self.parameters.items()]
            decay = average_decay(self.config, self.steps_done)
            torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], 1 - decay)
        return {**metrics, "gradient_norm": float(norm), "rate": rate}

    def _learn(self, batch: Batch, *, share: float) -> dict[str, float]:
        """Add `share` of the gradient of one pass; the losses of this pass over all workers."""
        moved = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        with attention(self.device), autocast(self.device, self.config):
            losses = self.losses(self.module, moved)
        metrics = common(self.world, losses)
        if not math.isfinite(metrics["loss"]):
            stop(f"the loss is {metrics['loss']}", self.steps_done)
        (losses["loss"] if share == 1 else losses["loss"] * share).backward()
        return metrics

    def state(self) -> State:
        """What an exact resume needs; the other workers have the same and need not say it."""
        if not self.world.leads:
            return {}
        state: State = {"steps_done": torch.tensor(self.steps_done)}
        for name, parameter in self.parameters.items():
            state[f"master/{name}"] = parameter.detach()
            for moment in ("exp_avg", "exp_avg_sq"):
                if parameter in self.optimizer.state:
                    state[f"{moment}/{name}"] = self.optimizer.state[parameter][moment]
        state |= {f"average/{name}": value for name, value in self.average.items()}
        state |= {f"buffer/{name}": value for name, value in self.module.named_buffers()}
        return {n: v.cpu().contiguous().clone() for n, v in state.items()}

    def save_state(self, folder: Path) -> None:
        """Write `state`."""
        save_state(self.state(), folder)

    def load_state(self, folder: Path) -> None:
        """Go on from `save_state`; CheckpointError if the names differ from this module's."""
        state = read_state(folder, self.parameters, device=self.device)
        self.steps_done = int(state["steps_done"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"master/{name}"])
                if f"exp_avg/{name}" in state:  # what never had a gradient has no moments
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(float(state.get("updates_done", state["steps_done"]))),
                        **{
                            moment: state[f"{moment}/{name}"]
                            .clone(memory_format=torch.preserve_format)
                            .to(memory_format=torch.channels_last if parameter.ndim == 4 else torch.contiguous_format)
                            for moment in ("exp_avg", "exp_avg_sq")
                        },
                    }
            if f"average/{next(iter(self.parameters))}" in state:
                self.average = {name: state[f"average/{name}"].view_as(p) for name, p in self.parameters.items()}
            for name, buffer in self.module.named_buffers():
                buffer.copy_(state[f"buffer/{name}"])

    def finished(self) -> Callable[[], None]:
        """Put the averaged weights into the module; the returned function puts the trained ones back."""
        kept = self._copies() if self.average else {}
        self._copy(self.average)
        self.module.eval()

        def back() -> None:
            self._copy(kept)
            self.module.train()

        return back

    def _copies(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self.parameters[name].copy_(value)


def attention(device: torch.device) -> AbstractContextManager[None]:
    """On a CPU the fused backward costs ten times its forward at a few hundred tokens; the plain one does not."""
    return nullcontext() if device.type != "cpu" else sdpa_kernel(SDPBackend.MATH)


def autocast(device: torch.device, config: TrainConfig) -> torch.autocast:
    """The precision of the forward pass."""
    half = torch.float16 if config.precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, half, enabled=config.precision != "fp32")
