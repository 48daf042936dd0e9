"""What the UNet and the ControlNets share: noisy latents, what they predict, what a condition looks like.

Odd here: whether velocity or noise is predicted says the scheduler, which comes with a finished UNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from m3face.faces import flip_map
from m3face.models.controlnet import condition_side
from m3face.models.vq import landmark_picture, map_picture
from m3face.tasks.augmentation import bent
from m3face.tasks.base import Batch, Context, Draw, stack
from m3face.tasks.latents import LatentTask
from m3face.tasks.prompts import words


class DenoisingTask(LatentTask):
    """What the UNet and the ControlNets share: noisy latents, words, target."""

    _EARLY, _EARLY_FROM = 0.0, 0.8  # share of samples drawn from the noisiest time steps alone, and where those begin

    def __init__(self, context: Context, scheduler: DDIMScheduler) -> None:
        super().__init__(context)
        self.scheduler = scheduler
        self.words = words(context, for_faces=True)
        self.timesteps = int(self.scheduler.config["num_train_timesteps"])

    def batch(self, draws: Sequence[Draw]) -> Batch:
        mirrored = self.context.mirrors(draws)
        latents = self.shown_latents(draws, mirrored)
        noise, times = [], []
        for draw in draws:
            noise.append(draw.rng.standard_normal(self.shape, dtype=np.float32))
            first = int(self._EARLY_FROM * self.timesteps) if draw.rng.random() < self._EARLY else 0
            times.append(int(draw.rng.integers(first, self.timesteps)))
        return {
            **latents,
            "noise": stack(noise),
            "time": torch.tensor(times),
            **self.words.given(draws),
            "mirrored": torch.tensor(mirrored),
        }

    def _drawn_conditions(self, draws: Sequence[Draw], mirrored: Tensor, landmarks: Any | None) -> dict[str, Tensor]:
        """The label maps, and where there is a ControlNet for landmarks the drawings that it is shown."""
        maps = [self.faces["label_map"][d.index] for d in draws]
        maps = [flip_map(own) if m else own for own, m in zip(maps, mirrored, strict=True)]
        points = list(self.points(draws, mirrored.tolist()))
        if self.context.data.augment:
            pairs = [bent(*both, draw.rng) for both, draw in zip(zip(maps, points), draws, strict=True)]
            maps, points = [own for own, _ in pairs], [own for _, own in pairs]
        batch = {"label_map": stack(maps)}
        if landmarks is not None:
            side = condition_side(landmarks, self.shape[-1])
            batch["drawing"] = landmark_picture(np.stack(points), size=int(self.faces.key["size"]), new=side)
        return batch

    def _noisy(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Noisy latents, and what is to be predicted of them: their velocity or noise, as the scheduler says."""
        noisy = self.scheduler.add_noise(batch["clean"], batch["noise"], batch["time"])
        if self._predicts_noise:
            return noisy, batch["noise"]
        return noisy, self.scheduler.get_velocity(batch["clean"], batch["noise"], batch["time"])

    @property
    def _predicts_noise(self) -> bool:
        return bool(self.scheduler.config["prediction_type"] == "epsilon")

    def _step_weight(self, batch: Batch) -> Tensor:
        """What the errors of each sample weigh by its time step, [B, 1, 1, 1] (`train.min_snr`: Hang et al. 2023).

        An error of the clean latents weighs min(SNR, limit); an error of the noise is SNR times as large as that, one
        of the velocity SNR + 1 times. A last step without any signal weighs nothing where velocities are predicted.
        """
        limit = self.context.train.min_snr
        if not limit:
            return batch["clean"].new_ones(1)
        signal = self.scheduler.alphas_cumprod.to(batch["clean"].device)[batch["time"]]
        ratio = signal / (1 - signal)
        weight = (limit / ratio).clamp(max=1) if self._predicts_noise else ratio.clamp(max=limit) / (ratio + 1)
        return weight.view(-1, 1, 1, 1)


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


def new_controlnet(unet: UNet2DConditionModel, context: Context, condition: str) -> ControlNetModel:
    """A ControlNet to train: that of `train.start` where there is one, or one made from the UNet."""
    component = f"controlnet_{condition}"
    if context.start is not None and (context.start / component).is_dir():
        begun: Any = context.network(component)
        return begun
    torch.manual_seed(context.seed)
    controlnet: ControlNetModel = ControlNetModel.from_unet(unet, **context.preset.networks[component])
    _make_felt(controlnet)
    return controlnet.requires_grad_(True)


def condition_picture(controlnet: Any, batch: Batch, condition: str) -> Tensor:
    """What a ControlNet is shown of a batch."""
    if condition == "landmarks":
        return batch["drawing"]
    channels = int(controlnet.config["conditioning_channels"])
    return map_picture(batch["label_map"], channels=channels, size=condition_side(controlnet, batch["clean"].shape[-1]))
