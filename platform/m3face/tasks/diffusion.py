"""Latents: the diffusion UNet and its two ControlNets (M3Face section 3.1, ControlNet).

Odd here: the landmark ControlNet trains with the frozen mask ControlNet beside it half the time, so that their sum,
which the user gets who gives both, has been seen. Latents are drawn from the cached posterior anew each time. A
mirrored face (`data.flip`) comes with its own latents, map and points.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.faces import flip_landmarks, flip_map
from m3face.models.controlnet import condition_side
from m3face.models.vq import landmark_picture, map_picture
from m3face.tasks.base import HEAVIEST, Batch, Context, Draw, Task, class_weight, opinion, stack, weighed
from m3face.tasks.reader import LatentReader, surprise

_ROUGH = 0.25  # largest deviation of the latents that the reader learns from
_LEGIBLE = 1.0  # share of the gradient of the reader in that of the errors
_LEAST_SIGNAL = 0.01  # of what the UNet is given; from less it predicts the mean of all faces, which has no attributes
_READS_FIRST = 800  # steps before the UNet hears the reader


class _LatentTask(Task):
    """What the UNet and the ControlNets share: noisy latents, words, target."""

    _EARLY, _EARLY_FROM = 0.0, 0.8  # share of samples drawn from the noisiest time steps alone, and where those begin

    def __init__(self, context: Context) -> None:
        self.context, self.faces, self.latents = context, context.faces, context.latents
        self.count = len(self.latents)
        self.scale = float(context.frozen("vae").config["scaling_factor"])
        self.scheduler: DDIMScheduler = checkpoints.build("scheduler", context.preset.networks["scheduler"])
        self.timesteps = int(self.scheduler.config["num_train_timesteps"])

    def batch(self, draws: Sequence[Draw]) -> Batch:
        clean, noise, times = [], [], []
        mirrors = self.context.mirrors(draws)
        for draw, mirrored in zip(draws, mirrors):
            latents = self.context.mirrored_latents if mirrored else self.latents
            mean = latents["mean"][draw.index].astype(np.float32)
            std = latents["std"][draw.index].astype(np.float32)
            clean.append((mean + std * draw.rng.standard_normal(mean.shape, dtype=np.float32)) * self.scale)
            noise.append(draw.rng.standard_normal(mean.shape, dtype=np.float32))
            first = int(self._EARLY_FROM * self.timesteps) if draw.rng.random() < self._EARLY else 0
            times.append(int(draw.rng.integers(first, self.timesteps)))
        return {
            "clean": stack(clean).float(),
            "noise": stack(noise),
            "time": torch.tensor(times),
            "states": self.context.drawn_states(draws),
            "mirrored": torch.tensor(mirrors),
        }

    def _points(self, draws: Sequence[Draw], mirrored: Tensor) -> NDArray[np.float32]:
        """The landmarks [B, 68, 2] of these faces, mirrored where that is so, in pixels."""
        size = int(self.faces.key["size"])
        points = [self.faces["landmarks"][d.index] for d in draws]
        return np.stack([flip_landmarks(p, size=size) if m else p for p, m in zip(points, mirrored)])

    def _drawn_conditions(self, draws: Sequence[Draw], mirrored: Tensor, landmarks: Any | None) -> dict[str, Tensor]:
        """The label maps, and where there is a ControlNet for landmarks the drawings that it is shown."""
        maps = [self.faces["label_map"][d.index] for d in draws]
        batch = {"label_map": stack([flip_map(own) if m else own for own, m in zip(maps, mirrored)])}
        if landmarks is not None:
            side = condition_side(landmarks, self.latents["mean"].shape[-1])
            points = self._points(draws, mirrored)
            batch["drawing"] = landmark_picture(points, size=int(self.faces.key["size"]), new=side)
        return batch

    def _noisy(self, batch: Batch) -> tuple[Tensor, Tensor]:
        noisy = self.scheduler.add_noise(batch["clean"], batch["noise"], batch["time"])
        return noisy, self.scheduler.get_velocity(batch["clean"], batch["noise"], batch["time"])


def _make_felt(controlnet: ControlNetModel) -> None:
    """Initial weights under which the condition reaches the network at full strength.

    The stock ones divide it by about three in each of eight layers and begin with a last layer of zeros, so that 700
    steps taught nothing at all. That a fresh ControlNet changes nothing, the zero convolutions behind it ensure alone.
    """
    for layer in controlnet.controlnet_cond_embedding.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _new_controlnet(unet: UNet2DConditionModel, context: Context, condition: str) -> ControlNetModel:
    """A ControlNet to train: that of `train.start` where there is one, or one made from the UNet."""
    component = f"controlnet_{condition}"
    if context.start is not None and (context.start / component).is_dir():
        begun: Any = context.network(component)
        return begun
    torch.manual_seed(context.seed)
    controlnet: ControlNetModel = ControlNetModel.from_unet(unet, **context.preset.networks[component])
    _make_felt(controlnet)
    return controlnet.requires_grad_(True)


def _condition(controlnet: Any, batch: Batch, condition: str) -> Tensor:
    """What a ControlNet is shown of a batch."""
    if condition == "landmarks":
        return batch["drawing"]
    channels = int(controlnet.config["conditioning_channels"])
    return map_picture(batch["label_map"], channels=channels, size=condition_side(controlnet, batch["clean"].shape[-1]))


class UNetTask(_LatentTask):
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

    With conditions, a reader of clean latents learns beside the networks, and the clean latents that they predict shall
    read as the face does (an auxiliary classifier: Odena et al. 2017; here on the prediction of every step but the
    noisiest). Age is some wrinkles and the colour of eyes a few pixels: the mean
    error of a face hardly tells whether they are there. The judges of the evaluation are other networks, which look at
    pictures.
    """

    _SHOWN = 0.7
    _EARLY = 0.3

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.conditions = context.train.conditions
        self.class_weight = class_weight(self.faces, power=0.5).clamp(max=HEAVIEST)
        unet: Any = context.network("unet")
        held: dict[str, nn.Module] = {name: _new_controlnet(unet, context, name) for name in self.conditions}
        if held:
            torch.manual_seed(context.seed)
            held["reader"] = LatentReader(int(unet.config["in_channels"]))
        self.module = nn.ModuleDict({"unet": unet, **held})

    def batch(self, draws: Sequence[Draw]) -> Batch:
        batch = dict(super().batch(draws))
        if not self.conditions:
            return batch
        for name in self.conditions:
            batch[f"with_{name}"] = torch.tensor([d.rng.random() < self._SHOWN for d in draws])
        batch["attributes"] = stack([self.faces["attributes"][d.index] for d in draws]).long()
        batch["points"] = torch.from_numpy(self._points(draws, batch["mirrored"])) / int(self.faces.key["size"])
        networks: Any = self.module
        landmarks = networks["landmarks"] if "landmarks" in self.conditions else None
        return batch | self._drawn_conditions(draws, batch["mirrored"], landmarks)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        networks: Any = module
        noisy, target = self._noisy(batch)
        time, states = batch["time"], batch["states"]
        residuals: list[Tensor] | None = None
        for name in self.conditions:
            rows = batch[f"with_{name}"].nonzero().flatten()
            share = float(len(rows) > 0)  # a network that nobody's turn it is takes part with nothing to say
            rows = rows if share else rows.new_zeros(1)
            shown = _condition(networks[name], batch, name)[rows]
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
        if not self.conditions:
            return {"loss": error.mean()}
        each = error.detach().flatten(1).mean(1)
        held = torch.stack([batch[f"with_{name}"] for name in self.conditions]).all(0).float()
        loss = (self._weight(batch, error.shape[-1]) * error).mean()
        parts = {"plain": each.mean(), "held": (each * held).sum() / held.sum().clamp(min=1)}
        return {"loss": loss + self._legible(networks["reader"], batch, noisy, predicted, loss, parts), **parts}

    def _legible(
        self,
        reader: LatentReader,
        batch: Batch,
        noisy: Tensor,
        predicted: Tensor,
        loss: Tensor,
        parts: dict[str, Tensor],
    ) -> Tensor:
        """The loss of the reader and, once it can read, of what it makes of the prediction; adds both to `parts`."""
        signal = self.scheduler.alphas_cumprod.to(noisy.device)[batch["time"]]
        rough = _ROUGH * (batch["time"] / self.timesteps).view(-1, 1, 1, 1)
        heard = int(reader.age) >= _READS_FIRST
        reader.age += 1
        said = reader(batch["clean"] + rough * batch["noise"], batch["points"])
        parts["reader"] = surprise(said, batch["attributes"]).mean()
        if not heard:
            return parts["reader"]
        clean = signal.sqrt().view(-1, 1, 1, 1) * noisy - (1 - signal).sqrt().view(-1, 1, 1, 1) * predicted
        read = surprise(opinion(reader, clean, batch["points"]), batch["attributes"])
        parts["read"] = ((signal > _LEAST_SIGNAL) * read).mean()
        return parts["reader"] + weighed(parts["read"], loss, predicted, share=_LEGIBLE)

    def _weight(self, batch: Batch, side: int) -> Tensor:
        """What the cells of the latents weigh, [B, 1, side, side]: 1 where the map is not shown."""
        if "mask" not in self.conditions:
            return batch["clean"].new_ones(1)
        of_pixel = self.class_weight.to(batch["clean"].device)[batch["label_map"].long()].unsqueeze(1)
        of_cell = F.adaptive_avg_pool2d(of_pixel, side)
        return torch.where(batch["with_mask"].view(-1, 1, 1, 1), of_cell, torch.ones_like(of_cell))

    def export(self, root: Path) -> None:
        networks: Any = self.module
        checkpoints.save("unet", networks["unet"], root)
        checkpoints.save("scheduler", self.scheduler, root)
        for name in self.conditions:
            checkpoints.save(f"controlnet_{name}", networks[name], root)


class ControlNetTask(_LatentTask):
    """A ControlNet for the label map or for the landmarks, under a frozen UNet."""

    def __init__(self, context: Context, *, condition: str) -> None:
        super().__init__(context)
        self.component = f"controlnet_{condition}"
        self.condition = condition
        self.unet: UNet2DConditionModel = context.frozen("unet")
        self.module = _new_controlnet(self.unet, context, condition)
        self.beside: ControlNetModel | None = None if condition == "mask" else context.frozen("controlnet_mask")

    def batch(self, draws: Sequence[Draw]) -> Batch:
        batch = dict(super().batch(draws))
        if self.condition == "landmarks":
            batch["both"] = torch.tensor([d.rng.random() < 0.5 for d in draws]).float()
        landmarks = self.module if self.condition == "landmarks" else None
        return batch | self._drawn_conditions(draws, batch["mirrored"], landmarks)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        noisy, target = self._noisy(batch)
        time, states = batch["time"], batch["states"]
        condition = _condition(module, batch, self.condition)
        down, mid = module(noisy, time, states, controlnet_cond=condition, return_dict=False)
        if self.beside is not None:
            with torch.no_grad():
                shown = _condition(self.beside, batch, "mask")
                more_down, more_mid = self.beside(noisy, time, states, controlnet_cond=shown, return_dict=False)
            both = batch["both"].view(-1, 1, 1, 1)
            down = [d + both * m for d, m in zip(down, more_down, strict=True)]
            mid = mid + both * more_mid
        predicted = self.unet(
            noisy, time, states, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
        return {"loss": F.mse_loss(predicted.float(), target)}

    def export(self, root: Path) -> None:
        checkpoints.save(self.component, self.module, root)
