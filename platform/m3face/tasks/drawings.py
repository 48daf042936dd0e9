"""VQ networks as published, for drawings: three channels in and out (VQGAN; M3Face section 3.1 fine-tunes one).

Odd here: network and discriminator learn in one step under one optimizer, each from its own loss, where the authors
take turns. Codes that nobody chooses stay, as published: a transformer may know them. The perceptual network is a
stranger's and cannot be shipped, so there is that part of the loss where `train.perceptual` names one, and none
elsewhere; the discriminator's weight then follows the plain error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import VQModel
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoBackbone, AutoConfig

from m3face.checkpoints.networks import quiet
from m3face.errors import CheckpointError
from m3face.models.vq import landmark_picture, map_picture
from m3face.presets import weights_folder
from m3face.tasks.base import Batch, Context, Draw, stack, weighed
from m3face.tasks.tokens import Codebook, TokensTask

_LEARNS_FIRST = 100  # steps before the discriminator is heard
_MOST = 1e4  # that it weighs
_PENALTY = 10.0  # weight of how far its slope on real drawings is from 1
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of what backbones are shown


class _Discriminator(nn.Module):
    """Patches of a drawing: real or not. Four layers that halve, as the authors'."""

    def __init__(self, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, width, 5, padding=2), nn.SiLU()]
        for _ in range(layers - 1):
            parts += [nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.GroupNorm(32, 2 * width), nn.SiLU()]
            width *= 2
        self.layers = nn.Sequential(*parts, nn.Conv2d(width, 1, 4, stride=2, padding=1))

    def forward(self, drawings: Tensor) -> Tensor:
        return self.layers(drawings).float()


class _Judged(Codebook):
    """A VQ network with its discriminator, which helps the training and is thrown away."""

    def __init__(self, network: VQModel) -> None:
        super().__init__(network, restarts=False)
        self.discriminator = _Discriminator()


class DrawingTask(TokensTask):
    """L1, features of a perceptual network, codebook and commitment, and a hinge GAN of adaptive weight."""

    def __init__(self, context: Context, network: Any, component: str) -> None:
        self.component = component
        super().__init__(context, network)
        self.perceptual = None if context.train.perceptual is None else _backbone(context.train.perceptual, context)

    def codebook(self, network: VQModel) -> Codebook:
        return _Judged(network)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        if self.component == "map_vq":
            return {"label_map": stack([self.faces["label_map"][d.index] for d in draws])}
        points = np.stack([self.faces["landmarks"][d.index] for d in draws])
        return {"picture": landmark_picture(points, size=self.size, new=self.picture_size)}

    def picture(self, batch: Batch) -> Tensor:
        if self.component == "map_vq":
            return map_picture(batch["label_map"], channels=3, size=self.picture_size)
        return batch["picture"]

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        judged: Any = module
        drawing = self.picture(batch)
        heard = int(judged.age) >= _LEARNS_FIRST
        decoded, codebook, used = self.coded(judged, drawing)
        plain = (decoded - drawing).abs().mean()
        parts = {"plain": plain, "codebook": codebook, "used": used}
        loss, guide = plain + codebook, plain
        if self.perceptual is not None:
            guide = parts["perceptual"] = self._apart(decoded, drawing)
            loss = loss + guide
        if heard:
            parts["please"] = -_opinion(judged.discriminator, decoded).mean()
            last = judged.network.decoder.conv_out.weight
            loss = loss + weighed(parts["please"], guide, last, share=1.0, most=_MOST)
        parts["discriminator"], parts["slope"] = self._told_apart(judged.discriminator, drawing, decoded.detach())
        return {"loss": loss + parts["discriminator"] + _PENALTY * parts["slope"], **parts}

    @staticmethod
    def _told_apart(discriminator: nn.Module, real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
        """The hinge loss, and the squared distance from 1 of the discriminator's slope on real drawings."""
        real = real.detach().requires_grad_()
        of_real, of_made = discriminator(real), discriminator(made)
        hinge = F.relu(1 - of_real).mean() + F.relu(1 + of_made).mean()
        (slope,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
        return hinge, (slope.flatten(1).norm(dim=1) - 1).square().mean()

    def _apart(self, decoded: Tensor, drawing: Tensor) -> Tensor:
        """Mean squared distance of the features of both."""
        assert self.perceptual is not None
        mean, deviation = (torch.tensor(own, device=drawing.device).view(1, 3, 1, 1) for own in _IMAGENET)
        own, true = (self.perceptual((shown - mean) / deviation).feature_maps for shown in (decoded, drawing))
        return torch.stack([F.mse_loss(a.float(), b.float()) for a, b in zip(own, true, strict=True)]).sum()


def _opinion(network: nn.Module, *given: Tensor) -> Tensor:
    """What `network` says, as something to please: it learns nothing from this."""
    fixed = {name: p.detach() for name, p in network.named_parameters()}
    said: Tensor = torch.func.functional_call(network, fixed, given)
    return said


def _backbone(location: str, context: Context) -> nn.Module:
    """The perceptual network at `location`, frozen; its config says which of its features count."""
    folder = weights_folder(location)
    allowed = "a backbone that transformers opens, in safetensors"
    try:
        with quiet(), torch.device("meta"):  # AutoBackbone's own way to open a folder asks the hub first
            kind: Any = type(AutoBackbone.from_config(AutoConfig.from_pretrained(str(folder), local_files_only=True)))
        with quiet():
            backbone, found = kind.from_pretrained(str(folder), use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError("train.perceptual", f"{folder}: {first}", allowed, "leave it out") from None
    if missing := sorted(found["missing_keys"]):
        raise CheckpointError("train.perceptual", f"{folder} lacks {missing[0]}", allowed, "leave it out")
    frozen: nn.Module = backbone.to(context.device).eval().requires_grad_(False)
    return frozen
