"""The VAE of the faces, whose decoder is what learns.

Odd here: how much fine texture there is, place by place, is an error of its own, beside where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.data.encoded import pictures
from m3face.models.vae import FaceVae
from m3face.tasks.base import HEAVIEST, Batch, Context, Draw, Task, class_weight, stack

_PYRAMID = (1.0, 2.0, 2.0)  # weight of the Laplacian bands, finest first
_OPPONENT = ((0.5, 0.5, 0.5), (1.0, -1.0, 0.0), (-0.5, -0.5, 1.0))  # brightness, red against green, blue against both
_TINT = 4.0  # weight of the squared error of what is left under the bands
_MEASURED_LATENTS = 512
_FIRST_BATCHES = 64
_ROUGH = 0.25  # largest deviation that the decoder has to bear
_TEXTURE = (15.0, 8.0)  # weight of how much there is in the bands, finest first
_NEAR = 8  # side of what counts as one place


def _laplacian(picture: Tensor, levels: int) -> list[Tensor]:
    bands = []
    for _ in range(levels):
        small = F.avg_pool2d(picture, 2)
        bands.append(picture - F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False))
        picture = small
    return [*bands, picture]


def texture_error(decoded: Tensor, true: Tensor) -> Tensor:
    """How much more or less there is in the finest bands, place by place, whatever it is.

    Where hair or skin goes cannot be told from the latents, and under errors alone the best answer is none: soft
    faces. That there is as much of it as in the true picture is another question, and this is asked here.
    """
    bands, true_bands = (_laplacian(p.mean(1, keepdim=True), len(_TEXTURE)) for p in (decoded, true))
    error = torch.zeros((), device=decoded.device)
    for power, own, other in zip(_TEXTURE, bands, true_bands, strict=False):
        much, should = ((F.avg_pool2d(b.square(), _NEAR, _NEAR // 2) + 1e-6).sqrt() for b in (own, other))
        error = error + power * (much - should).abs().mean()
    return error


class VaeTask(Task):
    """L1 on the picture and on its Laplacian bands, so that strands and lashes count.

    Errors are measured in opponent colours and, on the coarse remainder, squared: in RGB the shared brightness
    outweighs colour so far that a small network leaves green and purple grey for thousands of steps. A pixel weighs
    by the rarity of its label, since an eye is a few pixels and what a face is known by (CodeFormer and its kin
    weigh eyes and mouth likewise).

    The encoder is settled before the first step (`FaceVae.start`), so whatever learns in its latents stays valid. The
    decoder learns from rougher latents than the encoder's, since those that a UNet leaves are not clean.
    """

    module: FaceVae

    def __init__(self, context: Context) -> None:
        self.faces = context.faces
        self.count = len(self.faces)
        network: Any = context.network("vae")
        self.module = network
        self.class_weight = class_weight(self.faces, power=0.5).clamp(max=HEAVIEST)
        side = int(self.faces.key["size"]) // network.downscale
        self.latent = (int(network.config["latent_channels"]), side, side)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        return {
            "picture": pictures(np.stack([self.faces["image"][d.index] for d in draws])),
            "label_map": stack([self.faces["label_map"][d.index] for d in draws]),
            "noise": stack([d.rng.standard_normal(self.latent, dtype=np.float32) for d in draws]),
            "rough": torch.tensor([d.rng.random() for d in draws]).float().view(-1, 1, 1, 1),
        }

    def begin(self, batches: Callable[[int], Batch]) -> None:
        seen = [batches(step) for step in range(_FIRST_BATCHES)]
        maps = torch.cat([b["label_map"] for b in seen]).long()
        self.module.start(torch.cat([b["picture"] for b in seen]), self.class_weight[maps].unsqueeze(1))

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        vae: Any = module
        picture = batch["picture"].contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            posterior = vae.encode(picture).latent_dist
        deviation = posterior.std + _ROUGH * batch["rough"]
        decoded = vae.decode(posterior.mean + deviation * batch["noise"]).sample.float()
        parts = self._errors(decoded, batch)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def _errors(self, decoded: Tensor, batch: Batch) -> dict[str, Tensor]:
        opponent = torch.tensor(_OPPONENT, device=decoded.device)
        error = torch.einsum("oc,bchw->bohw", opponent, decoded - batch["picture"])
        weight = self.class_weight.to(decoded.device)[batch["label_map"].long()].unsqueeze(1)
        plain = (weight * error.abs()).mean()
        *bands, rest = _laplacian(error, len(_PYRAMID))
        sharp = torch.zeros((), device=decoded.device)
        for power, band in zip(_PYRAMID, bands, strict=True):
            sharp = sharp + power * (weight * band.abs()).mean()
            weight = F.avg_pool2d(weight, 2)
        return {
            "plain": plain,
            "sharp": sharp,
            "tint": _TINT * rest.square().mean(),
            "texture": texture_error(decoded, batch["picture"]),
        }

    @torch.no_grad()
    def export(self, root: Path) -> None:
        """Also measures the standard deviation of the latents and stores its inverse as `scaling_factor`."""
        vae = self.module
        found = []
        for first in range(0, min(_MEASURED_LATENTS, self.count), 32):
            last = min(first + 32, self.count)
            found.append(vae.encode(pictures(self.faces["image"][first:last]).to(vae.device)).latent_dist.mean)
        vae.register_to_config(scaling_factor=float(1.0 / torch.cat(found).float().std()))
        checkpoints.save("vae", vae, root)
