"""The picture under work: one depth buffer with the surface found at each pixel, and the camera that looks at
it.

Odd here: all pixels are one flat row, and a thing is drawn by handing `put` the pixels it may cover with
their depths; what is nearer wins in colour, normal and label at once. The camera is orthographic: view x to
the picture's right, y up, z towards the viewer, in head units.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from m3face.synthetic.chart import GRID, REACH, STEP, Floats, sample, to_chart

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


class Canvas:
    """Buffers of `count` x `count` samples."""

    def __init__(self, count: int, *, centre: tuple[float, float], frame: float) -> None:
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
        near = np.flatnonzero(depth > self.depth[at])
        to = at[near]
        self.depth[to] = depth[near]
        self.albedo[to] = albedo[near] if albedo.ndim == 2 else albedo
        self.normal[to] = normal[near] if normal.ndim == 2 else normal
        self.label[to] = label[near] if isinstance(label, np.ndarray) else label
        self.gloss[to] = gloss[near] if isinstance(gloss, np.ndarray) else gloss
        self.soft[to] = soft[near] if isinstance(soft, np.ndarray) else soft


def trace(stack: Floats, rays: tuple[Floats, Floats], turn: Floats) -> tuple[Indices, Floats, Floats, Floats, Floats]:
    """Where the rays at view (x, y) first meet the relief: which rays, view depth, s, t, and the stack there.

    A coarse walk from the front finds the first cell inside, so a nose hides the cheek behind it; then bisection.
    """
    x, y = rays
    start = [turn[0, i] * x + turn[1, i] * y for i in range(3)]
    radius = np.ascontiguousarray(stack[:, :, 0]).reshape(-1)
    toward = turn[2]
    depths = np.concatenate([np.linspace(1.32, 0.3, 18), np.linspace(0.22, -0.75, 9)]).astype(np.float32)
    found = np.full(x.shape, -1, dtype=np.int8)
    active = np.arange(x.size)
    px, py, pz = start
    flat = px * px + py * py + pz * pz
    for step, depth in enumerate(depths):
        hx, hz = px + toward[0] * depth, pz + toward[2] * depth
        hy = py + toward[1] * depth
        far = np.sqrt(flat + depth * depth)
        bend = np.sqrt(2.0 / np.maximum(far * (far + hz), 1e-4)) * np.float32(1 / STEP)
        column = np.minimum(np.maximum(hx * bend + np.float32(REACH / STEP + 0.5), 0), GRID - 1).astype(np.int32)
        row = np.minimum(np.maximum(hy * bend + np.float32(REACH / STEP + 0.5), 0), GRID - 1).astype(np.int32)
        inside = far <= radius[row * GRID + column]
        found[active[inside]] = step
        keep = ~inside
        active, px, py, pz, flat = active[keep], px[keep], py[keep], pz[keep], flat[keep]
    hit = np.flatnonzero(found >= 0)
    px, py, pz = (a[hit] for a in start)
    step_of = found[hit].astype(np.int32)
    low = depths[step_of]
    high = depths[np.maximum(step_of - 1, 0)]
    single = np.ascontiguousarray(stack[:, :, :1])
    for _ in range(5):
        middle = (low + high) * np.float32(0.5)
        s, t, far = to_chart(px + toward[0] * middle, py + toward[1] * middle, pz + toward[2] * middle)
        inside = far <= sample(single, s, t)[:, 0]
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    depth_now = (low + high) * np.float32(0.5)
    s, t, far = to_chart(px + toward[0] * depth_now, py + toward[1] * depth_now, pz + toward[2] * depth_now)
    values = sample(stack, s, t)
    return hit, depth_now, s, t, values
