"""Small convolutional networks that look at a face: parser, landmark detector, attribute classifier, identity embedder.

Odd here: none has attention or batch statistics, so an answer for one face does not depend on its neighbours in the
batch. All take fp32 pictures [B, 3, S, S] in [-1, 1]; any S that eight divides will do.
"""

# B batch, S side, A attributes

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional as F

from m3face.faces import ATTRIBUTES, CLASSES, COUNT
from m3face.models.vq import soft_argmax


class Block(nn.Module):
    """Two 3x3 convolutions with group norm and a residual path."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm_first, self.norm_second = nn.GroupNorm(2, outputs), nn.GroupNorm(2, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.silu(self.norm_first(self.first(x)))
        return F.silu(self.norm_second(self.second(hidden)) + self.skip(x))


class Tower(nn.Module):
    """Stem of stride 2, then a block a width with halving between: features at 1/2, 1/4, 1/8, 1/16 of the side."""

    def __init__(self, widths: Sequence[int], *, inputs: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, widths[0], 4, stride=2, padding=1)
        before = (widths[0], *widths[:-1])
        self.blocks = nn.ModuleList(Block(i, o) for i, o in zip(before, widths, strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        features = []
        for level, block in enumerate(self.blocks):
            x = block(F.avg_pool2d(x, 2) if level else x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From a tower's features back up to its finest level (half the side), with skips."""

    def __init__(self, widths: Sequence[int], *, levels: int) -> None:
        super().__init__()
        pairs = list(zip(widths[-2::-1], widths[:0:-1], strict=True))[:levels]
        self.blocks = nn.ModuleList(Block(low + high, low) for low, high in pairs)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for block, skip in zip(self.blocks, features[-2::-1], strict=False):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skip], dim=1))
        return x


class Parser(ModelMixin, ConfigMixin):
    """Picture to class logits [B, 19, S, S]."""

    @register_to_config
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.tower = Tower(widths)
        self.decoder = Decoder(widths, levels=len(widths) - 1)
        self.head = nn.Conv2d(widths[0], len(CLASSES) * 4, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        return F.pixel_shuffle(self.head(self.decoder(self.tower(pictures))), 2)


class Pointer(nn.Module):
    """The 68 points [B, 68, 2], as shares of the side, from features at a quarter of it.

    The heat maps go three cells beyond the features at each border, cell for cell: a map stretched over picture and
    margin would have to show every point beside the place where the features see it.
    """

    _MARGIN = 3

    def __init__(self, width: int) -> None:
        super().__init__()
        self.maps = nn.Conv2d(width, COUNT, 3, padding=1 + self._MARGIN)

    def forward(self, features: Tensor) -> Tensor:
        return soft_argmax(self.maps(features), reach=self._MARGIN / features.shape[-1])


class LandmarkDetector(ModelMixin, ConfigMixin):
    """Picture to 68 points [B, 68, 2] as shares of the side (multiply by S for pixels)."""

    @register_to_config
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.tower = Tower(widths)
        self.decoder = Decoder(widths, levels=len(widths) - 2)
        self.head = Pointer(widths[1])

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.decoder(self.tower(pictures)))


class AttributeClassifier(ModelMixin, ConfigMixin):
    """Picture to the values of every attribute: `forward` gives all logits [B, sum of values], `split` by name.

    It first finds the 68 points and reads features there (shape-indexed features): what a face is like is a matter of
    a few pixels at eyes, nose and lips, and of where these lie. Glances elsewhere (hair, cheeks, neck) are learned.
    """

    _READ, _GLANCES = 24, 16  # channels read at a point; maps of where else to look

    @register_to_config
    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        width = widths[1]
        self.tower = Tower(widths)
        self.decoder = Decoder(widths, levels=len(widths) - 2)
        self.pointer = Pointer(width)
        self.read = nn.Conv2d(width, self._READ, 1)
        self.glances = nn.Conv2d(width, self._GLANCES, 3, padding=1)
        self.inner = nn.Linear(COUNT * (self._READ + 2) + self._GLANCES * width, 256)
        self.outer = nn.Linear(256, sum(len(a.values) for a in ATTRIBUTES.values()))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.outer(self.look(pictures)[0])

    def look(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """(features [B, 256], points [B, 68, 2] as shares of the side)."""
        features = self.decoder(self.tower(pictures))
        points = self.pointer(features)
        at = (points.detach() * 2 - 1).unsqueeze(1)  # where to read is learned from the points alone
        read = F.grid_sample(self.read(features).float(), at, padding_mode="border", align_corners=False)
        weight = self.glances(features).float().flatten(2).softmax(-1)
        seen = weight @ features.float().flatten(2).transpose(1, 2)
        centred = points.detach() - points.detach().mean(1, keepdim=True)
        shape = centred / centred.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-3)
        found = torch.cat([read.flatten(1), shape.flatten(1), seen.flatten(1)], dim=1)
        return F.silu(self.inner(found)), points

    @staticmethod
    def split(logits: Tensor) -> dict[str, Tensor]:
        """Logits by attribute name, each [B, number of values] in the order of `ATTRIBUTES[name].values`."""
        sizes = [len(a.values) for a in ATTRIBUTES.values()]
        return dict(zip(ATTRIBUTES, logits.split(sizes, dim=-1), strict=True))


class IdentityEmbedder(ModelMixin, ConfigMixin):
    """Picture to a unit vector [B, dimensions]; the cosine of two says whether they show one person."""

    @register_to_config
    def __init__(self, widths: tuple[int, ...], dimensions: int) -> None:
        super().__init__()
        self.tower = Tower(widths)
        self.squeeze = nn.Conv2d(widths[-1], 32, 1)
        self.outer = nn.Linear(32 * 8 * 8, dimensions)

    def forward(self, pictures: Tensor) -> Tensor:
        features = F.adaptive_avg_pool2d(F.silu(self.squeeze(self.tower(pictures)[-1])), 8)
        return F.normalize(self.outer(features.flatten(1)), dim=-1)
