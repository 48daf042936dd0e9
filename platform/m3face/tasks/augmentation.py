"""The published augmentation of ControlNets: a face in another light, conditions as a network draws them.

Odd here: numbers are those of the authors' code (its higher level where there are two), in pixels of the picture as it
is. A field of displacements says where each pixel comes from; a point moves the other way, to the pixel that comes from
it, so it stays on its label. Colours of conditions are not jittered: ours are class indices.
"""

# S side in pixels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch.nn import functional as F

from m3face.faces import LabelMap, Landmarks

_SHARPER, _SHARPNESS = 0.2, 1.5
_TINTED, _BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = 0.25, (0.9, 1.2), 0.05, 0.08, 0.02
_BENT, _STRENGTH, _SMOOTH = 0.2, (50, 100), 5.0
_ROUNDS = 100  # of the search for the pixel that comes from a point


def relit(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The face [S, S, 3], now and then sharper, now and then with other brightness, contrast, saturation and hue."""
    sharper, tinted = rng.random() < _SHARPER, rng.random() < _TINTED
    image = Image.fromarray(picture)
    if sharper:
        image = ImageEnhance.Sharpness(image).enhance(_SHARPNESS)
    if tinted:
        brightness, contrast, saturation, hue = (
            float(rng.uniform(*span))
            for span in (_BRIGHTNESS, (1 - _CONTRAST, 1 + _CONTRAST), (1 - _SATURATION, 1 + _SATURATION), (-_HUE, _HUE))
        )
        for which in rng.permutation(4):
            if which == 0:
                image = ImageEnhance.Brightness(image).enhance(brightness)
            elif which == 1:
                image = ImageEnhance.Contrast(image).enhance(contrast)
            elif which == 2:
                image = ImageEnhance.Color(image).enhance(saturation)
            else:
                image = _turned(image, hue)
    return np.asarray(image, dtype=np.uint8)


def _turned(image: Image.Image, hue: float) -> Image.Image:
    """Every hue turned by a share of the circle."""
    values = np.asarray(image.convert("HSV")).copy()
    values[..., 0] += np.uint8(round(hue * 255) % 256)
    return Image.fromarray(values, "HSV").convert("RGB")


@dataclass(frozen=True)
class Displacement:
    """A smooth field: the pixel at p comes from p + field[:, p]. fp32 [2, S, S], x then y, in pixels."""

    field: NDArray[np.float32]

    @classmethod
    def drawn(cls, size: int, rng: np.random.Generator, *, strength: float) -> Displacement:
        """White noise in -1..1 under a Gaussian, times half of `strength` (torchvision's ElasticTransform)."""
        reach = int(4 * _SMOOTH)
        at = torch.arange(-reach, reach + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (at / _SMOOTH) ** 2)
        kernel = kernel / kernel.sum()
        noise = torch.from_numpy(rng.uniform(-1, 1, (2, 1, size, size)).astype(np.float32))
        noise = F.pad(noise, (reach,) * 4, mode="reflect")
        noise = F.conv2d(F.conv2d(noise, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
        return cls((noise[:, 0] * (strength / 2)).numpy())

    def of_map(self, label_map: LabelMap) -> LabelMap:
        """The label map [S, S], each pixel the nearest one to where it comes from; beyond the border the border."""
        size = len(label_map)
        rows, columns = np.mgrid[0:size, 0:size]
        columns = np.rint(columns + self.field[0]).astype(np.intp).clip(0, size - 1)
        rows = np.rint(rows + self.field[1]).astype(np.intp).clip(0, size - 1)
        return np.ascontiguousarray(label_map[rows, columns])

    def of_points(self, points: Landmarks) -> Landmarks:
        """Points [n, 2] where they then lie."""
        found = points.copy()
        for _ in range(_ROUNDS):  # found + field(found) = points; half steps, since a field may be steep
            found += 0.5 * (points - self._at(found) - found)
        return found

    def _at(self, points: Landmarks) -> NDArray[np.float32]:
        """The displacement at points [n, 2], between pixel centres in proportion."""
        last = self.field.shape[-1] - 1
        place = (points - 0.5).clip(0, last)
        low = np.minimum(place.astype(np.intp), last - 1)
        right, down = (place - low).T
        column, row = low.T
        upper = self.field[:, row, column] * (1 - right) + self.field[:, row, column + 1] * right
        lower = self.field[:, row + 1, column] * (1 - right) + self.field[:, row + 1, column + 1] * right
        return (upper * (1 - down) + lower * down).T.astype(np.float32)


def bent(label_map: LabelMap, points: Landmarks, rng: np.random.Generator) -> tuple[LabelMap, Landmarks]:
    """Both conditions of a face, now and then under one field of displacements."""
    if rng.random() >= _BENT:
        return label_map, points
    by = Displacement.drawn(len(label_map), rng, strength=float(rng.integers(_STRENGTH[0], _STRENGTH[1] + 1)))
    return by.of_map(label_map), by.of_points(points)
