"""A reader of latents: what a face is like, said of the place where diffusion happens.

Odd here: it is no part of the product. It learns beside the UNet, helps it, and is thrown away.
"""

# B batch, C latent channels, h w latent side, A attributes

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3face.faces import ATTRIBUTES, COUNT
from m3face.models.annotators import Block

_VALUES = [len(attribute.values) for attribute in ATTRIBUTES.values()]


class LatentReader(nn.Module):
    """What a face is like, read from its clean latents at the 68 points: it helps the UNet and is thrown away.

    `forward(latents [B, C, h, w], points [B, 68, 2] as shares of the side) -> [B, sum of values]`. The points
    themselves are not told, so what it answers is in the features there. `age` is the steps that it has learned.
    """

    _WIDTH, _READ = 96, 64
    age: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(channels, self._WIDTH, 3, padding=1),
            Block(self._WIDTH, self._WIDTH),
            Block(self._WIDTH, self._WIDTH),
        )
        self.read = nn.Linear(self._WIDTH, self._READ)
        self.say = nn.Linear(COUNT * self._READ + self._WIDTH, sum(_VALUES))
        self.register_buffer("age", torch.zeros((), dtype=torch.long))

    def forward(self, latents: Tensor, points: Tensor) -> Tensor:
        features = self.look(latents).float()
        at = (points * 2 - 1).unsqueeze(2)
        there = F.grid_sample(features, at, padding_mode="border", align_corners=False).squeeze(-1).transpose(1, 2)
        return self.say(torch.cat([F.silu(self.read(there)).flatten(1), features.mean((2, 3))], dim=1))


def surprise(logits: Tensor, attributes: Tensor) -> Tensor:
    """Mean cross-entropy [B] over all attributes of logits [B, sum of values] against codes [B, A]."""
    parts = logits.float().split(_VALUES, dim=1)
    each = [F.cross_entropy(part, code, reduction="none") for part, code in zip(parts, attributes.T, strict=True)]
    return torch.stack(each).mean(0)
