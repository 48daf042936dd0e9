"""The head's map: an equal-area chart of directions, centred on the face, and smooth noise to lay on it.

Odd here: a surface is a radius over *directions* from the middle of the head, and the chart (Lambert's
azimuthal) has its only seam behind the head, where no camera of ours looks. Everything on a face (eye
corners, lips, moles) is drawn in chart coordinates (s to the picture's right, t up), so picture, label and
landmark of a feature are one curve. Head coordinates: x to the person's left, y up, z out of the face; the
head is about 2 high.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

REACH = 1.9
"""The chart covers -REACH..REACH in s and t (just over 140 degrees from the nose at the sides)."""
GRID = 232
STEP = 2 * REACH / (GRID - 1)


def to_chart(x: Floats, y: Floats, z: Floats) -> tuple[Floats, Floats, Floats]:
    """Chart coordinates (s, t) of points, and their distance from the middle."""
    distance = np.sqrt(x * x + y * y + z * z)
    bend = np.sqrt(2.0 / np.maximum(distance * (distance + z), 1e-6))
    return x * bend, y * bend, distance


def to_direction(s: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
    """The unit direction of a chart point."""
    square = np.minimum(s * s + t * t, 3.96)
    bend = np.sqrt(1.0 - square / 4.0)
    return s * bend, t * bend, 1.0 - square / 2.0


@lru_cache(maxsize=1)
def axis() -> Floats:
    """The chart coordinate of each grid row or column."""
    return np.linspace(-REACH, REACH, GRID, dtype=np.float32)


@lru_cache(maxsize=1)
def grid() -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """For each grid cell: s, t, and the direction's x, y, z. Rows run with t."""
    s, t = np.meshgrid(axis(), axis())
    x, y, z = to_direction(s, t)
    return s, t, x, y, z


def smooth(low: float | Floats, high: float | Floats, value: Floats) -> Floats:
    """0 below `low`, 1 above `high`, smooth between; `low` > `high` turns it round."""
    at = np.clip((value - low) / (high - low), 0.0, 1.0)
    out: Floats = at * at * (3.0 - 2.0 * at)
    return out


def add_bump(field: Floats, s: float, t: float, width: float, height: float, amount: float) -> None:
    """Add a Gaussian hill of `amount` at (s, t), in place, touching only the cells it reaches."""
    first = [max(0, int((c - 3.2 * w + REACH) / STEP)) for c, w in ((s, width), (t, height))]
    last = [min(GRID, int((c + 3.2 * w + REACH) / STEP) + 2) for c, w in ((s, width), (t, height))]
    if last[0] <= first[0] or last[1] <= first[1]:
        return
    lines = axis()
    across = np.exp(-(((lines[first[0] : last[0]] - s) / width) ** 2) / 2.0)
    along = np.exp(-(((lines[first[1] : last[1]] - t) / height) ** 2) / 2.0)
    field[first[1] : last[1], first[0] : last[0]] += np.float32(amount) * along[:, None] * across[None, :]


def add_bumps(field: Floats, s: float, t: float, width: float, height: float, amount: float) -> None:
    """The same hill on both sides of the face."""
    add_bump(field, s, t, width, height, amount)
    add_bump(field, -s, t, width, height, amount)


def sample(stack: Floats, s: Floats, t: Floats) -> Floats:
    """Bilinear lookup of a [GRID, GRID, channels] stack at chart points, [points, channels]."""
    column = np.clip((s + REACH) * (1.0 / STEP), 0.0, GRID - 1.001)
    row = np.clip((t + REACH) * (1.0 / STEP), 0.0, GRID - 1.001)
    left, low = column.astype(np.int32), row.astype(np.int32)
    across, along = (column - left)[:, None], (row - low)[:, None]
    flat = stack.reshape(GRID * GRID, -1)
    at = low * GRID + left
    below = flat[at] * (1.0 - across) + flat[at + 1] * across
    above = flat[at + GRID] * (1.0 - across) + flat[at + GRID + 1] * across
    out: Floats = below * (1.0 - along) + above * along
    return out


def _blur(field: Floats, sigma: float, axes: tuple[int, ...]) -> Floats:
    for one in axes:
        frequency = np.fft.fftfreq(field.shape[one])
        pass_band = np.exp(-2.0 * (np.pi * frequency * sigma) ** 2)
        shape = [1] * field.ndim
        shape[one] = -1
        field = np.fft.ifft(np.fft.fft(field, axis=one) * pass_band.reshape(shape), axis=one).real.astype(np.float32)
    return field


@lru_cache(maxsize=8)
def tile(kind: str) -> Floats:
    """A tiling [256, 256] noise picture of mean 0 and deviation 1: cloud, grain, strand or spots (0..1)."""
    rng = np.random.default_rng([256, sum(map(ord, kind))])
    noise: Floats = rng.standard_normal((256, 256)).astype(np.float32)
    if kind == "cloud":
        noise = _blur(noise, 9.0, (0, 1)) * 9.0 + _blur(noise[::-1], 3.0, (0, 1)) * 1.5
    elif kind == "grain":
        noise = _blur(noise, 1.0, (0, 1))
    elif kind == "strand":
        fine, broad = _blur(noise, 0.8, (1,)), _blur(noise[::-1], 4.0, (1,)) * 2.2
        noise = _blur(fine, 26.0, (0,)) + _blur(broad, 40.0, (0,))
    else:
        noise = np.zeros((256, 256), dtype=np.float32)
        rows, columns = np.mgrid[0:256, 0:256]
        for y, x, radius in rng.uniform((0, 0, 2.2), (256, 256, 4.2), (300, 3)):
            far = (
                np.minimum(abs(rows - y), 256 - abs(rows - y)) ** 2
                + np.minimum(abs(columns - x), 256 - abs(columns - x)) ** 2
            )
            noise = np.maximum(noise, np.exp(-far / radius**2)).astype(np.float32)
        return noise
    out: Floats = ((noise - noise.mean()) / noise.std()).astype(np.float32)
    return out


def lay(kind: str, across: Floats, along: Floats) -> Floats:
    """The tiling noise at continuous positions (256 is one period), bilinear."""
    picture = tile(kind)
    left, low = np.floor(across), np.floor(along)
    right_share, high_share = across - left, along - low
    column, row = left.astype(np.int32) & 255, low.astype(np.int32) & 255
    next_column, next_row = (column + 1) & 255, (row + 1) & 255
    below = picture[row, column] * (1.0 - right_share) + picture[row, next_column] * right_share
    above = picture[next_row, column] * (1.0 - right_share) + picture[next_row, next_column] * right_share
    out: Floats = below * (1.0 - high_share) + above * high_share
    return out
