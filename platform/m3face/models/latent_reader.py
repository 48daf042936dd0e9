"""A reader of latents: what a face is like, said of the place where diffusion happens.

Odd here: it reads at the 68 points that it is given and is not told where these lie, so that whatever it answers is in
the latents, and a gradient through it (attribute guidance) changes the picture.
"""

# B batch, C latent channels, h latent side, A attributes, V values of all attributes

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from m3face.faces import ATTRIBUTES, COUNT, Mention
from m3face.models.annotators import Block

VALUES = tuple(len(attribute.values) for attribute in ATTRIBUTES.values())
"""How many values each attribute has, in the order of `ATTRIBUTES`."""


class LatentReader(ModelMixin, ConfigMixin):
    """`forward(latents [B, C, h, h], points [B, 68, 2] as shares of the side) -> logits [B, V]`.

    `latents` are as the UNet denoises them (scaled). They are unfolded to twice their side first: an iris is a quarter
    of a latent cell wide. Glances elsewhere (hair, cheeks, neck) are learned.
    """

    _READ, _GLANCES = 48, 12  # channels read at a point; maps of where else to look

    @register_to_config
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.unfold = nn.Conv2d(channels, 4 * width, 3, padding=1)
        self.blocks = nn.Sequential(Block(width, width), Block(width, width))
        self.read = nn.Linear(width, self._READ)
        self.glances = nn.Conv2d(width, self._GLANCES, 1)
        self.say = nn.Linear(COUNT * self._READ + self._GLANCES * width, sum(VALUES))

    def forward(self, latents: Tensor, points: Tensor) -> Tensor:
        features = self.blocks(F.pixel_shuffle(self.unfold(latents), 2)).float()
        at = (points * 2 - 1).unsqueeze(2)
        there = F.grid_sample(features, at, padding_mode="border", align_corners=False).squeeze(-1).transpose(1, 2)
        weight = self.glances(features).float().flatten(2).softmax(-1)
        seen = weight @ features.flatten(2).transpose(1, 2)
        return self.say(torch.cat([F.silu(self.read(there)).flatten(1), seen.flatten(1)], dim=1))


def surprise(logits: Tensor, attributes: Tensor) -> Tensor:
    """Mean cross-entropy [B] over all attributes of logits [B, V] against codes [B, A]."""
    parts = logits.float().split(VALUES, dim=1)
    each = [F.cross_entropy(part, code, reduction="none") for part, code in zip(parts, attributes.T, strict=True)]
    return torch.stack(each).mean(0)


def agreement(logits: Tensor, said: Sequence[Sequence[Mention]]) -> Tensor:
    """Log probability [B] of what was said of each face, under logits [B, V]: the sum over its mentions."""
    chances = [part.log_softmax(1) for part in logits.float().split(VALUES, dim=1)]
    by_name = dict(zip(ATTRIBUTES, chances, strict=True))
    rows = []
    for row, mentions in enumerate(said):
        total = logits[row, :0].sum()  # nothing yet, but a function of the logits
        for mention in mentions:
            own = by_name[mention.attribute][row, ATTRIBUTES[mention.attribute].values.index(mention.value)]
            total = total + (torch.log1p(-own.exp().clamp(max=1 - 1e-5)) if mention.negated else own)
        rows.append(total)
    return torch.stack(rows)
