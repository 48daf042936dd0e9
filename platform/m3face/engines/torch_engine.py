"""One optimizer step on plain torch.

Odd here: the state that resume needs is name -> (fp32 master, both moments, average), in safetensors, so it does not
depend on how the parameters were wrapped. The learning rate is a function of the step alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from m3face.config import TrainConfig
from m3face.errors import CheckpointError, TrainingError

Batch = Mapping[str, Tensor]
Losses = Callable[[nn.Module, Batch], Mapping[str, Tensor]]

_STATE = "state.safetensors"


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then constant or a cosine down to 1 % of the peak at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class TorchEngine:
    """AdamW, autocast, clipping and a moving average around one trainable module."""

    def __init__(self, module: nn.Module, losses: Losses, config: TrainConfig, *, device: str) -> None:
        self.module = module.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.losses, self.config, self.device = losses, config, torch.device(device)
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        self.average: dict[str, Tensor] = {}  # begins with the first step, after a task's own beginning
        self.steps_done = 0

    def step(self, batch: Batch) -> dict[str, float]:
        """One update from a whole global batch; the metrics of that batch.

        A loss or a gradient that is not finite raises `TrainingError`, before anything has changed.
        """
        rate = learning_rate(self.config, self.steps_done)
        if self.config.ema and not self.average:
            self.average = self._copies()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        moved = {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}
        with (
            self._attention(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"),
        ):
            losses = self.losses(self.module, moved)
        if not torch.isfinite(losses["loss"]):
            self._stop(f"the loss is {losses['loss'].item()}")
        self.optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), self.config.clip_norm)
        if not torch.isfinite(norm):
            self._stop("the gradient is not finite")
        self.optimizer.step()
        self.steps_done += 1
        if self.average:
            decay = min(self.config.ema, (1 + self.steps_done) / (10 + self.steps_done))
            pairs = [(self.average[n], p.detach()) for n, p in self.parameters.items()]
            torch._foreach_lerp_([a for a, _ in pairs], [p for _, p in pairs], 1 - decay)
        return {**{n: float(v.detach()) for n, v in losses.items()}, "gradient_norm": float(norm), "rate": rate}

    def _stop(self, what: str) -> NoReturn:
        raise TrainingError(
            "train",
            f"{what} at step {self.steps_done}",
            "finite numbers",
            "lower train.learning_rate; the last checkpoint is untouched",
        )

    def _attention(self) -> AbstractContextManager[None]:
        """On a CPU the fused backward costs ten times its forward at a few hundred tokens; the plain one does not."""
        return nullcontext() if self.device.type != "cpu" else sdpa_kernel(SDPBackend.MATH)

    def save_state(self, folder: Path) -> None:
        """Write what an exact resume needs."""
        state: dict[str, Tensor] = {"steps_done": torch.tensor(self.steps_done)}
        for name, parameter in self.parameters.items():
            state[f"master/{name}"] = parameter.detach()
            for moment in ("exp_avg", "exp_avg_sq"):
                if parameter in self.optimizer.state:
                    state[f"{moment}/{name}"] = self.optimizer.state[parameter][moment]
        state |= {f"average/{name}": value for name, value in self.average.items()}
        state |= {f"buffer/{name}": value for name, value in self.module.named_buffers()}
        save_file({n: v.cpu().contiguous().clone() for n, v in state.items()}, folder / _STATE)

    def load_state(self, folder: Path) -> None:
        """Go on from `save_state`; CheckpointError if the names differ from this module's."""
        state = load_file(folder / _STATE, device=str(self.device))
        missing = [name for name in self.parameters if f"master/{name}" not in state]
        if missing:
            raise CheckpointError("resume", f"{folder} lacks {missing[0]}", "state of this network", "start anew")
        self.steps_done = int(state["steps_done"])
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"master/{name}"])
                if f"exp_avg/{name}" in state:  # what never had a gradient has no moments
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(float(self.steps_done)),
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
