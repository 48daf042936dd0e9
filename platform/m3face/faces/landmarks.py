"""The 68 iBUG landmarks: groups, flip, resize and the paper's drawing.

Points are (x, y) in pixels of the picture they belong to, float32 [68, 2]; a pixel's centre is at +0.5, so resizing
a picture by s multiplies its points by s and nothing else. The order is fixed by iBUG 300-W: point 0 is the jaw at
the person's right ear, which is the picture's left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from m3face.errors import BadInput

Landmarks = NDArray[np.float32]

COUNT = 68

GROUPS: dict[str, range] = {
    "jaw": range(0, 17),
    "r_brow": range(17, 22),
    "l_brow": range(22, 27),
    "nose_bridge": range(27, 31),
    "nose_base": range(31, 36),
    "r_eye": range(36, 42),
    "l_eye": range(42, 48),
    "outer_lips": range(48, 60),
    "inner_lips": range(60, 68),
}

FLIP = np.array(
    [
        *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
    ],
    dtype=np.intp,
)  # fmt: skip
"""`FLIP[i]` is the point of the original face that becomes point i of the mirrored one."""

DRAWING: tuple[tuple[str, tuple[int, int, int], bool], ...] = (
    ("jaw", (0, 255, 0), False),
    ("r_brow", (255, 255, 0), False),
    ("l_brow", (255, 255, 0), False),
    ("nose_bridge", (255, 165, 0), False),
    ("nose_base", (255, 165, 0), False),
    ("r_eye", (255, 0, 255), True),
    ("l_eye", (255, 0, 255), True),
    ("outer_lips", (0, 255, 255), True),
    ("inner_lips", (0, 0, 255), True),
)
"""Group, colour, closed and filled: the "uncanny faces" drawing that M3Face's landmark pictures follow, in order."""


def check_landmarks(points: Any, *, size: int, field: str = "landmarks") -> Landmarks:
    """`points` as float32 [68, 2] in pixels of a `size` picture, or BadInput naming what is wrong.

    A point may lie outside the picture by up to half its size (a jaw behind the border), no further.
    """
    try:
        array = np.asarray(points, dtype=np.float32)
    except (TypeError, ValueError):
        raise BadInput(field, "is not a list of number pairs", f"{COUNT} pairs [x, y]") from None
    if array.shape != (COUNT, 2):
        got = f"has {len(array)} points" if array.ndim == 2 and array.shape[1] == 2 else f"has the shape {array.shape}"
        raise BadInput(field, got, f"{COUNT} pairs [x, y] in the iBUG order")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise BadInput(field, f"point {bad} is not a number", "finite pixels")
    outside = np.flatnonzero(((array < -size / 2) | (array > size * 1.5)).any(1))
    if outside.size:
        x, y = array[outside[0]]
        raise BadInput(
            field,
            f"point {int(outside[0])} is at ({x:g}, {y:g})",
            f"x and y between {-size // 2} and {size * 3 // 2} for a face of {size} pixels",
            "give pixels of the face, not of another picture",
        )
    return array


def flip_landmarks(points: Landmarks, *, size: int) -> Landmarks:
    """The landmarks of the mirrored face in a picture `size` wide: x mirrored, points renumbered."""
    flipped = points[FLIP].copy()
    flipped[:, 0] = size - flipped[:, 0]
    return flipped


def resize_landmarks(points: Landmarks, *, old: int, new: int) -> Landmarks:
    """The same points in pixels of the picture resized from `old` to `new` pixels a side."""
    return (points * np.float32(new / old)).astype(np.float32)


def draw_landmarks(points: Landmarks, *, size: int, new: int | None = None) -> NDArray[np.uint8]:
    """The paper's drawing on black, uint8 [new, new, 3]; `points` are in pixels of a `size` picture.

    Lines are 4 px wide at 512 px (M3Face) and in proportion below that, drawn at four times the size and averaged
    down so that a point that moves by a fraction of a pixel moves the drawing.
    """
    new = size if new is None else new
    scale = 4
    points = points * (new * scale / size)
    width = max(1, round(4 * new * scale / 512))
    canvas = Image.new("RGB", (new * scale, new * scale))
    pen = ImageDraw.Draw(canvas)
    for group, colour, closed in DRAWING:
        line = [(float(x), float(y)) for x, y in points[GROUPS[group].start : GROUPS[group].stop]]
        if closed:
            pen.polygon(line, fill=colour, outline=colour, width=width)
        else:
            pen.line(line, fill=colour, width=width, joint="curve")
    return np.asarray(canvas.reduce(scale), dtype=np.uint8)
