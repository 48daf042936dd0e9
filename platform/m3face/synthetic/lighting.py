"""Light, shadow, background and tone.

Odd here: shadows are made on a picture of at most 64 samples a side and enlarged smoothly: they are soft at
every size, look the same at every size, and cost next to nothing.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from m3face.synthetic.canvas import Canvas, Indices, put_rows
from m3face.synthetic.chart import Floats, lay, length_of, smooth
from m3face.synthetic.people import Look

SMALL = 64


def _box(picture: Floats, reach: int) -> Floats:
    """Mean over a square of 2 * reach + 1, edges repeated."""
    width = 2 * reach + 1
    for axis in (0, 1):
        last = picture.shape[axis] - 1
        at = np.clip(np.arange(-reach - 1, last + reach + 1), 0, last)
        total = np.cumsum(picture.take(at, axis=axis), axis=axis, dtype=np.float32)
        high, low = (total[width:], total[:-width]) if axis == 0 else (total[:, width:], total[:, :-width])
        picture = (high - low) / np.float32(width)
    return picture


def _enlarge(picture: Floats, count: int) -> Floats:
    """Bilinear enlargement to [count, count]."""
    small = picture.shape[0]
    at = np.clip((np.arange(count) + 0.5) * small / count - 0.5, 0, small - 1.001).astype(np.float32)
    low = at.astype(np.int32)
    share = at - low
    rows = picture[low] * (1 - share)[:, None] + picture[low + 1] * share[:, None]
    out: Floats = rows.take(low, axis=1)
    out *= 1 - share
    right = rows.take(low + 1, axis=1)
    right *= share
    out += right
    return out


def _shrink(picture: Floats, small: int) -> Floats:
    count = picture.shape[0]
    at = ((np.arange(small) + 0.5) * count / small).astype(np.int32)
    out: Floats = picture[at[:, None], at[None, :]]
    return out


def light_direction(look: Look) -> Floats:
    side = (look.shape["light_side"] - 0.5) * 2.1
    up = 0.40 + 0.45 * look.shape["light_up"]
    vector = np.array([side, up, 0.95])
    out: Floats = (vector / np.linalg.norm(vector)).astype(np.float32)
    return out


def _shadow(canvas: Canvas, toward: Floats) -> tuple[Floats, Floats]:
    """How much of the key light reaches each sample (0..1), and how open to all light it is."""
    count, small = canvas.count, SMALL
    depth = _shrink(canvas.depth.reshape(count, count), small)
    solid = np.where(depth < -8.0, np.float32(-1.6), depth)
    cell = canvas.frame / small
    rows, columns = np.mgrid[0:small, 0:small]
    hidden = np.zeros((small, small), np.float32)
    for step in (1.3, 2.2, 3.3, 4.6, 6.2, 8.2, 10.5, 13.0, 16.0):
        far = step * cell / max(float(np.hypot(toward[0], toward[1])), 0.35)
        column = np.clip(np.rint(columns + toward[0] * far / cell).astype(np.int32), 0, small - 1)
        row = np.clip(np.rint(rows - toward[1] * far / cell).astype(np.int32), 0, small - 1)
        above = solid[row, column] - (solid + toward[2] * far)
        blocked = smooth(0.02, 0.14, above - 0.012 * step) * smooth(1.7, 1.0, above)
        hidden = np.maximum(hidden, blocked * (1.0 - 0.03 * step))
    lit = 1.0 - _box(_box(hidden, 1), 1)
    low = np.maximum(solid, -1.0)
    open_ = np.ones((small, small), np.float32)
    for reach, strength in ((2, 3.0), (5, 1.2)):
        below = np.maximum(_box(low, reach) - low, 0.0)
        open_ *= 1.0 - np.clip(strength * below, 0.0, 0.55)
    return _enlarge(lit, count).reshape(-1), _enlarge(_box(open_, 1), count).reshape(-1)


def light(canvas: Canvas, look: Look) -> Floats:
    """Linear colours of every sample that shows a surface."""
    toward = light_direction(look)
    shape = look.shape
    reach, open_ = _shadow(canvas, toward)
    at = np.flatnonzero(canvas.depth > -8.0)
    normal, albedo = canvas.normal.take(at, axis=0), canvas.albedo.take(at, axis=0)
    soft, gloss, reach, open_ = canvas.soft.take(at), canvas.gloss.take(at), reach.take(at), open_.take(at)
    length = length_of(normal) + 1e-6
    for axis in range(3):
        normal[:, axis] /= length
    facing = normal @ toward
    hard = 0.75 + 0.25 * shape["light_hard"]
    lit = 1.0 - (1.0 - reach) * np.float32(0.82 * hard)
    warm = (shape["light_warm"] - 0.45) * 0.22
    key = np.array([1.0 + warm, 1.0, 1.0 - warm], np.float32) * np.float32(1.0 + 0.14 * shape["light_hard"])
    fill = np.array([1.0 - 0.5 * warm, 1.0, 1.0 + 0.6 * warm], np.float32) * np.float32(
        0.31 - 0.10 * shape["light_hard"]
    )
    out = np.empty_like(albedo)
    sky = (0.72 + 0.28 * normal[:, 1]) * open_
    # light from behind on the far edge
    edge = np.power(np.clip(1.0 - normal[:, 2], 0.0, 1.0), 3.0) * smooth(0.0, 0.8, -normal[:, 0] * np.sign(toward[0]))
    # the edge of a shadow on what is soft reddens
    tinted = np.flatnonzero((soft > 0.5) & (lit < 1.0))
    red, other = lit.copy(), lit.copy()
    red[tinted], other[tinted] = np.power(lit.take(tinted), 0.75), np.power(lit.take(tinted), 1.15)
    edge = 0.16 * edge
    for channel, (wrap, shaded) in enumerate(((0.34, red), (0.16, other), (0.11, other))):
        bend = wrap * soft + 0.10
        diffuse = np.clip((facing + bend) / (1.0 + bend), 0.0, 1.0)
        out[:, channel] = albedo[:, channel] * (key[channel] * diffuse * shaded + fill[channel] * sky + edge)
    half = toward + np.array([0.0, 0.0, 1.0], np.float32)
    half /= np.linalg.norm(half)
    shine = np.clip(normal @ half, 0.0, 1.0)
    tight = np.where(gloss > 0.45, np.float32(48.0), np.float32(18.0))
    spark = np.power(shine, tight) * gloss * lit * np.float32(0.55)
    metal = np.flatnonzero(gloss > 0.85)
    for channel in range(3):
        own = albedo[:, channel]
        tint = np.float32(0.62) + 0.38 * np.minimum(own * 3.0, 1.0)
        tint[metal] = own[metal] + 0.35
        out[:, channel] += spark * tint
    lit_all = np.zeros_like(canvas.albedo)
    put_rows(lit_all, at, out)
    return lit_all


def background(canvas: Canvas, look: Look, at: Indices) -> Floats:
    """A wall, a gradient or far-off blurred lights, at the samples `at`."""
    shape = look.shape
    kind, hue, bright = shape["back_kind"], shape["back_hue"], 0.10 + 0.62 * shape["back_light"]
    saturation = 0.08 + 0.42 * (shape["back_shift"] * 3.7 % 1.0)
    first = np.array(colorsys.hsv_to_rgb(hue, saturation, bright), np.float32) ** np.float32(1.8)
    second = np.array(colorsys.hsv_to_rgb((hue + 0.12) % 1.0, saturation, bright * 0.55), np.float32) ** np.float32(1.8)
    x, y = canvas.x.take(at), canvas.y.take(at)
    offset = 256.0 * shape["back_shift"]
    if kind < 0.34:
        share = 0.25 + 0.5 * smooth(0.2, 2.3, np.hypot(x - 0.8 * (shape["light_side"] - 0.5), y - 0.2))
    elif kind < 0.62:
        share = smooth(-1.8, 1.7, y * 0.8 + x * (shape["back_shift"] - 0.5)) * 0.9
    else:
        share = np.clip(0.5 + 0.28 * lay("cloud", x * 17.0 + offset, y * 17.0 + offset), 0.0, 1.0)
    share = share.astype(np.float32)
    out: Floats = np.empty((at.size, 3), np.float32)
    for channel in range(3):
        out[:, channel] = first[channel] + (second - first)[channel] * share
    if kind > 0.84:
        blobs = np.clip(lay("spots", x * 16.0 + offset, y * 16.0 + 2 * offset) * 1.6, 0.0, 1.0)
        glow = smooth(0.25, 0.6, blobs)
        for channel in range(3):
            out[:, channel] += (first * 0.9 + 0.05)[channel] * glow
    return out


def to_bytes(lit: Floats, size: int, factor: int) -> NDArray[np.uint8]:
    """Average the samples of each pixel, bend the bright end, encode as sRGB."""
    picture = lit.reshape(size, factor, size, factor, 3)
    mean = picture[:, 0, :, 0].copy()
    for part in range(1, factor * factor):
        mean += picture[:, part // factor, :, part % factor]
    mean /= factor * factor
    np.maximum(mean, 0.0, out=mean)
    bright = mean > 0.6
    mean[bright] = 0.6 + 0.4 * (1.0 - np.exp(-(mean[bright] - 0.6) / 0.4))
    encoded = 1.055 * np.power(mean, 1.0 / 2.4) - 0.055
    encoded = np.where(mean < 0.0031308, mean * 12.92, encoded)
    out: NDArray[np.uint8] = np.clip(encoded * 255.0 + 0.5, 0, 255).astype(np.uint8)
    return out
