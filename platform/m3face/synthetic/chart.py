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


def length_of(vectors: Floats) -> Floats:
    """The length of each row of [points, 3]."""
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    out: Floats = np.sqrt(x * x + y * y + z * z)
    return out


def scale_rows(rows: Floats, by: Floats) -> None:
    """`rows *= by[:, None]` for [points, 3], several times as fast."""
    for channel in range(rows.shape[1]):
        rows[:, channel] *= by


@lru_cache(maxsize=1)
def axis() -> Floats:
    """The chart coordinate of each grid row or column."""
    return np.linspace(-REACH, REACH, GRID, dtype=np.float32)


@lru_cache(maxsize=1)
def lines() -> tuple[Floats, Floats]:
    """The grid's s as one row and its t as one column: what depends on one of them alone is made on these."""
    return axis()[None, :], axis()[:, None]


@lru_cache(maxsize=1)
def grid() -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """For each grid cell: s, t, and the direction's x, y, z. Rows run with t."""
    s, t = np.meshgrid(axis(), axis())
    x, y, z = to_direction(s, t)
    return s, t, x, y, z


def smooth(low: float | Floats, high: float | Floats, value: Floats) -> Floats:
    """0 below `low`, 1 above `high`, smooth between; `low` > `high` turns it round."""
    at = (value - low) / (high - low)
    np.clip(at, 0.0, 1.0, out=at)
    out: Floats = at * -2.0
    out += 3.0
    at *= at
    out *= at
    return out


def add_bump(field: Floats, s: float, t: float, width: float, height: float, amount: float) -> None:
    """Add a Gaussian hill of `amount` at (s, t), in place, touching only the cells it reaches."""
    first = [max(0, int((c - 3.2 * w + REACH) / STEP)) for c, w in ((s, width), (t, height))]
    last = [min(GRID, int((c + 3.2 * w + REACH) / STEP) + 2) for c, w in ((s, width), (t, height))]
    if last[0] <= first[0] or last[1] <= first[1]:
        return
    line = axis()
    across = np.exp(-(((line[first[0] : last[0]] - s) / width) ** 2) / 2.0)
    along = np.exp(-(((line[first[1] : last[1]] - t) / height) ** 2) / 2.0)
    field[first[1] : last[1], first[0] : last[0]] += np.float32(amount) * along[:, None] * across[None, :]


def add_bumps(field: Floats, s: float, t: float, width: float, height: float, amount: float) -> None:
    """The same hill on both sides of the face."""
    add_bump(field, s, t, width, height, amount)
    add_bump(field, -s, t, width, height, amount)


def sample(stack: Floats, s: Floats, t: Floats) -> Floats:
    """Bilinear lookup of a [GRID, GRID, channels] stack at chart points, [points, channels]."""
    at, across, along = cell_of(s, t)
    flat = stack.reshape(GRID * GRID, -1)
    rows = [flat.take(at + corner, axis=0) for corner in (0, 1, GRID, GRID + 1)]
    out: Floats = np.empty(rows[0].shape, dtype=np.float64)
    for channel in range(out.shape[1]):
        a, b, c, d = (row[:, channel] for row in rows)
        out[:, channel] = between(a, b, c, d, across, along)
    return out


def cell_of(s: Floats, t: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """For chart points: the flat grid cell at their lower left, and their place in it across and along (double)."""
    column = np.clip((s + REACH) * (1.0 / STEP), 0.0, GRID - 1.001)
    row = np.clip((t + REACH) * (1.0 / STEP), 0.0, GRID - 1.001)
    left, low = np.floor(column), np.floor(row)
    at = (low * GRID + left).astype(np.intp)
    return at, (column - left).astype(np.float64), (row - low).astype(np.float64)


def between(a: Floats, b: Floats, c: Floats, d: Floats, across: Floats, along: Floats) -> Floats:
    """Bilinear mean of four corners: `a` and `b` below, `c` and `d` above."""
    rest = 1.0 - across
    below, above = a * rest, c * rest
    below += b * across
    above += d * across
    out: Floats = below * (1.0 - along)
    return out + above * along


def corners(field: Floats) -> Floats:
    """Each cell of a [rows, columns] field with its neighbours right, above and right above, [rows * columns, 4].

    One lookup in it finds all four corners of a cell; the field is continued periodically.
    """
    out: Floats = np.empty((*field.shape, 4), dtype=field.dtype)
    out[:, :, 0] = field
    out[:, :-1, 1], out[:, -1, 1] = field[:, 1:], field[:, 0]
    out[:-1, :, 2:], out[-1, :, 2:] = out[1:, :, :2], out[0, :, :2]
    return out.reshape(-1, 4)


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
    left, low = np.floor(across), np.floor(along)
    at = low.astype(np.int32) & 255
    at <<= 8
    at |= left.astype(np.int32) & 255
    four = _tile_corners(kind).take(at, axis=0)
    return between(four[:, 0], four[:, 1], four[:, 2], four[:, 3], across - left, along - low)


@lru_cache(maxsize=8)
def _tile_corners(kind: str) -> Floats:
    return corners(tile(kind))
