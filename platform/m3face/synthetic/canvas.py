"""The picture under work: one depth buffer with the surface found at each pixel, and the camera that looks at
it.

Odd here: all pixels are one flat row, and a thing is drawn by handing `put` the pixels it may cover with
their depths; what is nearer wins in colour, normal and label at once. The camera is orthographic: view x to
the picture's right, y up, z towards the viewer, in head units.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from m3face.synthetic.chart import GRID, REACH, STEP, Floats, between, cell_of, corners, sample, to_chart

Indices = NDArray[np.intp]
FRAME = 3.22
"""How many head units the picture is wide."""


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    """View-from-head matrix: yaw turns the face to the picture's right, pitch lifts it, roll leans it clockwise."""
    a, b, c = np.radians([yaw, -pitch, -roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    lean = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    out: Floats = (lean @ nod @ turn).astype(np.float32)
    return out


@lru_cache(maxsize=1)
def keep_memory() -> None:
    """Have the C library keep what one picture frees for the next, instead of paging it in anew (a fifth faster).

    glibc raises its limits for this (to at most 32 MiB a block, 64 MiB in all) when a large block is freed; the
    block here is never touched, so it costs nothing. With another C library nothing happens.
    """
    np.empty(31 << 20, dtype=np.uint8)


class Canvas:
    """Buffers of `count` x `count` samples."""

    def __init__(self, count: int, *, centre: tuple[float, float], frame: float) -> None:
        keep_memory()
        self.count, self.frame, self.centre = count, frame, centre
        self.step = frame / count
        line = ((np.arange(count, dtype=np.float32) + 0.5) / count - 0.5) * np.float32(frame)
        self.columns, self.rows = line + np.float32(centre[0]), -line + np.float32(centre[1])
        total = count * count
        self.x: Floats = np.tile(self.columns, count)
        self.y: Floats = np.repeat(self.rows, count)
        self.depth: Floats = np.full(total, -9.0, dtype=np.float32)
        self.albedo: Floats = np.zeros((total, 3), dtype=np.float32)
        self.normal: Floats = np.zeros((total, 3), dtype=np.float32)
        self.gloss: Floats = np.zeros(total, dtype=np.float32)
        self.soft: Floats = np.zeros(total, dtype=np.float32)
        self.label: NDArray[np.uint8] = np.zeros(total, dtype=np.uint8)

    def box(self, low_x: float, high_x: float, low_y: float, high_y: float) -> Indices:
        """The pixels of a box in view coordinates."""
        left, right = np.searchsorted(self.columns, (low_x, high_x))
        top, bottom = self.count - np.searchsorted(self.rows[::-1], (high_y, low_y))
        columns = np.arange(left, right, dtype=np.intp)
        rows = np.arange(top, bottom, dtype=np.intp)
        return (rows[:, None] * self.count + columns[None, :]).reshape(-1)

    def to_pixels(self, x: Floats, y: Floats, size: int) -> tuple[Floats, Floats]:
        """View coordinates as pixels of a `size` picture (centres at +0.5)."""
        scale = size / self.frame
        return (x - self.centre[0]) * scale + size / 2, size / 2 - (y - self.centre[1]) * scale

    def put(
        self,
        at: Indices,
        depth: Floats,
        albedo: Floats,
        normal: Floats,
        label: NDArray[np.uint8] | int,
        *,
        gloss: Floats | float = 0.0,
        soft: Floats | float = 0.0,
    ) -> None:
        """Draw what is nearer than what is there."""
        near = np.flatnonzero(depth > self.depth.take(at))
        to = at.take(near)
        self.depth[to] = depth.take(near)
        put_rows(self.albedo, to, albedo.take(near, axis=0) if albedo.ndim == 2 else albedo)
        put_rows(self.normal, to, normal.take(near, axis=0) if normal.ndim == 2 else normal)
        self.label[to] = label.take(near) if isinstance(label, np.ndarray) else label
        self.gloss[to] = gloss.take(near) if isinstance(gloss, np.ndarray) else gloss
        self.soft[to] = soft.take(near) if isinstance(soft, np.ndarray) else soft


def put_rows(target: Floats, at: Indices, rows: Floats) -> None:
    """`target[at] = rows` for a float32 [points, 3] target (one row is repeated), several times as fast."""
    whole = np.dtype((np.void, 12))
    values = np.ascontiguousarray(rows, dtype=np.float32).reshape(-1, 3)
    if at.size:
        np.put(target.view(whole), at, values.view(whole))


_DEPTHS: Floats = np.concatenate([np.linspace(1.32, 0.3, 18), np.linspace(0.22, -0.75, 9)]).astype(np.float32)
_BLOCK, _WINDOW = 0.08, 10


def _highest(field: Floats, reach: int) -> Floats:
    """The greatest value within `reach` cells of each cell, in rows and columns."""
    wide = 2 * reach + 1
    for _ in range(2):
        run, span = np.pad(field, ((0, 0), (reach, reach)), mode="edge"), 1
        while span * 2 <= wide:
            run, span = np.maximum(run[:, :-span], run[:, span:]), span * 2
        run = np.maximum(run[:, : span - wide], run[:, wide - span :])
        field = run.T
    return np.ascontiguousarray(field)


def _next_steps(field: Floats, rays: tuple[Floats, Floats], turn: Floats) -> tuple[Indices, Indices]:
    """The block of each ray, and a table [steps + 1, blocks]: the next step at which a ray of it may be inside.

    A bound, so that most of the walk is skipped: near a block's middle line no ray is nearer to the centre than
    half a diagonal less, and the relief no higher than the greatest value around.
    """
    x, y = rays
    first = float(x.min()), float(y.min())
    column, row = (((line - low) * (1.0 / _BLOCK)).astype(np.intp) for line, low in zip(rays, first, strict=True))
    wide, high = int(column.max()) + 1, int(row.max()) + 1
    middle_x = np.tile((np.arange(wide) + 0.5) * _BLOCK + first[0], high)
    middle_y = np.repeat((np.arange(high) + 0.5) * _BLOCK + first[1], wide)
    depth = _DEPTHS[:, None]
    half = _BLOCK * 0.7072 + 1e-3
    hx, hy, hz = (
        ((turn[0, i] * middle_x + turn[1, i] * middle_y)[None, :] + turn[2, i] * depth).astype(np.float32)
        for i in range(3)
    )
    s, t, far = to_chart(hx, hy, hz)
    angle = np.arccos(np.clip(hz / np.maximum(far, 1e-3), -1.0, 1.0))
    swing = np.arcsin(np.minimum(half / np.maximum(far, 1e-3), 1.0))
    most = np.minimum(angle + swing, 2.6)
    known = (far > 2.0 * half) & (angle + swing < 2.5) & (swing / np.cos(most / 2.0) < (_WINDOW - 1.5) * STEP)
    at_s = np.clip(s * (1 / STEP) + (REACH / STEP + 0.5), 0, GRID - 1).astype(np.intp)
    at_t = np.clip(t * (1 / STEP) + (REACH / STEP + 0.5), 0, GRID - 1).astype(np.intp)
    near = _highest(field, _WINDOW).reshape(-1).take(at_t * GRID + at_s)
    may = far - half <= np.where(known, near, field.max()) + 1e-3
    table = np.full((len(_DEPTHS) + 1, may.shape[1]), len(_DEPTHS), dtype=np.intp)
    for step in range(len(_DEPTHS) - 1, -1, -1):
        table[step] = np.where(may[step], step, table[step + 1])
    return row * wide + column, table


def trace(stack: Floats, rays: tuple[Floats, Floats], turn: Floats) -> tuple[Indices, Floats, Floats, Floats, Floats]:
    """Where the rays at view (x, y) first meet the relief: which rays, view depth, s, t, and the normal there.

    A coarse walk from the front finds the first cell inside, so a nose hides the cheek behind it; then bisection.
    """
    x, y = rays
    start = [turn[0, i] * x + turn[1, i] * y for i in range(3)]
    field = np.ascontiguousarray(stack[:, :, 0])
    radius = field.reshape(-1)
    toward = turn[2]
    block, table = _next_steps(field, rays, turn)
    found = np.full(x.shape, -1, dtype=np.int8)
    step = table[0].take(block)
    active = np.flatnonzero(step < len(_DEPTHS))
    step, block = step.take(active), block.take(active)
    px, py, pz = (a.take(active) for a in start)
    flat = px * px + py * py + pz * pz
    while active.size:
        depth = _DEPTHS.take(step)
        hx, hz = px + toward[0] * depth, pz + toward[2] * depth
        hy = py + toward[1] * depth
        far = np.sqrt(flat + depth * depth)
        bend = np.sqrt(2.0 / np.maximum(far * (far + hz), 1e-4)) * np.float32(1 / STEP)
        column = np.clip(hx * bend + np.float32(REACH / STEP + 0.5), 0, GRID - 1).astype(np.int32)
        row = np.clip(hy * bend + np.float32(REACH / STEP + 0.5), 0, GRID - 1).astype(np.int32)
        inside = far <= radius.take(row * GRID + column)
        found[active.compress(inside)] = step.compress(inside)
        step = table.reshape(-1).take((step + 1) * table.shape[1] + block)
        keep = np.flatnonzero(~inside & (step < len(_DEPTHS)))
        active, step, block = active.take(keep), step.take(keep), block.take(keep)
        px, py, pz, flat = px.take(keep), py.take(keep), pz.take(keep), flat.take(keep)
    hit = np.flatnonzero(found >= 0)
    px, py, pz = (a.take(hit) for a in start)
    step = found.take(hit).astype(np.intp)
    low = _DEPTHS.take(step)
    high = _DEPTHS.take(np.maximum(step - 1, 0))
    four = corners(field)
    for _ in range(5):
        middle = (low + high) * np.float32(0.5)
        s, t, far = to_chart(px + toward[0] * middle, py + toward[1] * middle, pz + toward[2] * middle)
        at, across, along = cell_of(s, t)
        of = four.take(at, axis=0)
        inside = far <= between(of[:, 0], of[:, 1], of[:, 2], of[:, 3], across, along)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    depth_now = (low + high) * np.float32(0.5)
    s, t, far = to_chart(px + toward[0] * depth_now, py + toward[1] * depth_now, pz + toward[2] * depth_now)
    return hit, depth_now, s, t, sample(np.ascontiguousarray(stack[:, :, 1:4]), s, t)
