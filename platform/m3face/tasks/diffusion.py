"""Latents: the diffusion UNet and its two ControlNets (M3Face section 3.1, ControlNet).

Odd here: the landmark ControlNet trains with the frozen mask ControlNet beside it half the time, so that their sum,
which the user gets who gives both, has been seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.models.latent_reader import LatentReader, surprise
from m3face.tasks.base import HEAVIEST, Batch, Context, Draw, class_weight, weighed
from m3face.tasks.denoising import DenoisingTask, condition_picture, new_controlnet

_LEGIBLE = 1.0  # share of the gradient of what the reader says in that of the errors
_LEAST_SIGNAL = 0.01  # of what the UNet is given; from less it predicts the mean of all faces, which has no attributes


def _scheduler(context: Context) -> DDIMScheduler:
    """What a UNet predicts, and under which noise: that of the weights it begins with, or the preset's."""
    if context.start is not None and (context.start / "scheduler").is_dir():
        begun: DDIMScheduler = checkpoints.load("scheduler", context.start)
        return begun
    fresh: DDIMScheduler = checkpoints.build("scheduler", context.preset.networks["scheduler"])
    return fresh


class UNetTask(DenoisingTask):
    """Velocity of the latents under the words, alone or with ControlNets that learn at the same time.

    A ControlNet as published learns under a frozen UNet, to keep what that knows. Where both are new there is nothing
    to keep, and a UNet that has met conditions from the start need not spend itself on guessing what they say. Each
    sample sees each condition with probability 0.7, so one in eleven sees words alone and every other one sees both.

    Where the map is shown, a cell of the latents weighs by the rarity of the labels in it, as in the VAE: background
    and clothes are half of all cells and hold the least of a face. A weight that is a function of what the network is
    shown leaves its best answer what it was.

    Three samples in ten get a time step from the noisiest fifth. The colour of hair or skin spreads over dozens of
    cells, so a trace of it outlives nearly all noise (at step 850 of 1000 it is plain to see). Only beyond that have
    the words a say in it, and of time steps drawn evenly that is a seventh.

    With conditions, the clean latents that are predicted shall also read as the face does, to the finished reader of
    latents (an auxiliary classifier: Odena et al. 2017; here on the prediction of every step but the noisiest). Age is
    some wrinkles and the colour of eyes a few pixels: the mean error of a face hardly tells whether they are there. The
    judges of the evaluation are other networks, which look at pictures.
    """

    _SHOWN = 0.7
    _EARLY = 0.3

    def __init__(self, context: Context) -> None:
        super().__init__(context, _scheduler(context))
        self.conditions = context.train.conditions
        self.class_weight = class_weight(self.faces, power=0.5).clamp(max=HEAVIEST)
        unet: Any = context.network("unet")
        held: dict[str, nn.Module] = {name: new_controlnet(unet, context, name) for name in self.conditions}
        self.reader: LatentReader | None = context.frozen("latent_reader") if held else None
        self.module = nn.ModuleDict({"unet": unet, **held})

    def batch(self, draws: Sequence[Draw]) -> Batch:
        batch = dict(super().batch(draws))
        if not self.conditions:
            return batch
        for name in self.conditions:
            batch[f"with_{name}"] = torch.tensor([d.rng.random() < self._SHOWN for d in draws])
        batch["attributes"] = self.attributes(draws)
        points = self.points(draws, batch["mirrored"].tolist())
        batch["points"] = torch.from_numpy(points) / int(self.faces.key["size"])
        networks: Any = self.module
        landmarks = networks["landmarks"] if "landmarks" in self.conditions else None
        return batch | self._drawn_conditions(draws, batch["mirrored"], landmarks)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        networks: Any = module
        batch = self.with_latents(batch)
        noisy, target = self._noisy(batch)
        time, (states, _) = batch["time"], self.words.read(batch)
        residuals: list[Tensor] | None = None
        for name in self.conditions:
            rows = batch[f"with_{name}"].nonzero().flatten()
            share = float(len(rows) > 0)  # a network that nobody's turn it is takes part with nothing to say
            rows = rows if share else rows.new_zeros(1)
            shown = condition_picture(networks[name], batch, name)[rows]
            down, mid = networks[name](noisy[rows], time[rows], states[rows], controlnet_cond=shown, return_dict=False)
            if residuals is None:
                residuals = [r.new_zeros(len(noisy), *r.shape[1:]) for r in (*down, mid)]
            residuals = [
                all_.index_add(0, rows, share * own) for all_, own in zip(residuals, (*down, mid), strict=True)
            ]
        more: dict[str, Any] = {}
        if residuals is not None:
            more["down_block_additional_residuals"] = residuals[:-1]
            more["mid_block_additional_residual"] = residuals[-1]
        predicted = networks["unet"](noisy, time, states, **more).sample.float()
        error = (predicted - target).square()
        by_step = self._step_weight(batch)
        if not self.conditions:
            return {"loss": (by_step * error).mean()}
        each = error.detach().flatten(1).mean(1)
        held = torch.stack([batch[f"with_{name}"] for name in self.conditions]).all(0).float()
        errors = (self._weight(batch, error.shape[-1]) * by_step * error).mean()
        parts = {"plain": each.mean(), "held": (each * held).sum() / held.sum().clamp(min=1)}
        parts["read"] = self._surprise(batch, noisy, predicted)
        return {
            "loss": errors + weighed(parts["read"], errors, predicted, share=_LEGIBLE),
            "errors": errors.detach(),
            **parts,
        }

    def _surprise(self, batch: Batch, noisy: Tensor, predicted: Tensor) -> Tensor:
        """How little the clean latents that are predicted read as the face does: the reader's loss on them."""
        assert self.reader is not None
        signal = self.scheduler.alphas_cumprod.to(noisy.device)[batch["time"]]
        kept, lost = (share.sqrt().view(-1, 1, 1, 1) for share in (signal, 1 - signal))
        if self._predicts_noise:
            clean = (noisy - lost * predicted) / kept.clamp(min=_LEAST_SIGNAL**0.5)
        else:
            clean = kept * noisy - lost * predicted
        read = surprise(self.reader(clean, batch["points"]), batch["attributes"])
        return ((signal > _LEAST_SIGNAL) * read).mean()

    def _weight(self, batch: Batch, side: int) -> Tensor:
        """What the cells of the latents weigh, [B, 1, side, side]: 1 where the map is not shown."""
        if "mask" not in self.conditions:
            return batch["clean"].new_ones(1)
        of_pixel = self.class_weight.to(batch["clean"].device)[batch["label_map"].long()].unsqueeze(1)
        of_cell = F.adaptive_avg_pool2d(of_pixel, side)
        return torch.where(batch["with_mask"].view(-1, 1, 1, 1), of_cell, torch.ones_like(of_cell))

    def export(self, root: Path) -> None:
        networks: Any = self.module
        self.context.save("unet", networks["unet"], root)
        checkpoints.save("scheduler", self.scheduler, root)
        for name in self.conditions:
            checkpoints.save(f"controlnet_{name}", networks[name], root)

    def resume(self, model: Path) -> None:
        self.context.resume("unet", model)


class ControlNetTask(DenoisingTask):
    """A ControlNet for the label map or for the landmarks, under a frozen UNet."""

    def __init__(self, context: Context, *, condition: str) -> None:
        super().__init__(context, context.frozen("scheduler"))
        self.component = f"controlnet_{condition}"
        self.condition = condition
        self.unet: UNet2DConditionModel = context.frozen("unet")
        self.module = new_controlnet(self.unet, context, condition)
        self.beside: ControlNetModel | None = None if condition == "mask" else context.frozen("controlnet_mask")

    def batch(self, draws: Sequence[Draw]) -> Batch:
        batch = dict(super().batch(draws))
        if self.condition == "landmarks":
            batch["both"] = torch.tensor([d.rng.random() < 0.5 for d in draws]).float()
        landmarks = self.module if self.condition == "landmarks" else None
        return batch | self._drawn_conditions(draws, batch["mirrored"], landmarks)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        batch = self.with_latents(batch)
        noisy, target = self._noisy(batch)
        time, (states, _) = batch["time"], self.words.read(batch)
        condition = condition_picture(module, batch, self.condition)
        down, mid = module(noisy, time, states, controlnet_cond=condition, return_dict=False)
        if self.beside is not None:
            with torch.no_grad():
                shown = condition_picture(self.beside, batch, "mask")
                more_down, more_mid = self.beside(noisy, time, states, controlnet_cond=shown, return_dict=False)
            both = batch["both"].view(-1, 1, 1, 1)
            down = [d + both * m for d, m in zip(down, more_down, strict=True)]
            mid = mid + both * more_mid
        predicted = self.unet(
            noisy, time, states, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
        return {"loss": (self._step_weight(batch) * (predicted.float() - target).square()).mean()}

    def export(self, root: Path) -> None:
        self.context.save(self.component, self.module, root)

    def resume(self, model: Path) -> None:
        self.context.resume(self.component, model)
