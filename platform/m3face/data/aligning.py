"""Every face square and of one size: turned and cropped by its eyes and mouth, or only cropped and resized.

Odd here: the rule of alignment is FFHQ's, which CelebA-HQ's faces follow too. It fixes a square around the face, not
each point in it: the square's axis lies between the line of the eyes and the normal of the line from eyes to mouth, its
half side is the larger of 2 eye distances and 1.8 times the way from eyes to mouth, and its middle lies a tenth of that
way below the eyes. What lies outside the picture is its mirror image, with the label 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m3face.config.dataset import AlignConfig
from m3face.data.rows import Row, Step, each
from m3face.errors import BadInput
from m3face.faces import GROUPS, LabelMap, check_landmarks, resize_landmarks, resize_map

FIVE_POINTS = "five_points"
"""The note with five points [5, 2] where no 68 are known: eyes, nose and mouth corners, those on the picture's left
first, as in CelebA."""

FITTED = "fitted"
"""The note that a row's picture is square and of the final size."""

_MARGIN = 4  # pixels around a crop, so that the bicubic kernel sees what is there
_LARGEST = 4.0  # a crop of so many longer sides is not around a face in this picture


@dataclass(frozen=True)
class Similarity:
    """Points p of the picture to `matrix` p + `shift` in the crop; both in pixels with centres at +0.5."""

    matrix: NDArray[np.float64]
    shift: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """Pixels of the crop for one of the picture."""
        return float(np.hypot(*self.matrix[:, 0]))

    def __call__(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """The points [n, 2] in the crop."""
        return np.asarray(points, dtype=np.float64) @ self.matrix.T + self.shift

    def inverse(self) -> Similarity:
        """From the crop back to the picture."""
        back = self.matrix.T / self.scale**2
        return Similarity(back, -back @ self.shift)


def eyes_and_mouth(row: Row) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The two eyes and the two mouth corners, each [2, 2] with the picture's left one first; None if not known."""
    if row.landmarks is not None:
        points = row.landmarks.astype(np.float64)
        eyes = [points[list(GROUPS[name])].mean(0) for name in ("r_eye", "l_eye")]
        return np.stack(eyes), points[[48, 54]]
    if FIVE_POINTS in row.notes:
        points = np.asarray(row.notes[FIVE_POINTS], dtype=np.float64)
        return points[:2], points[3:]
    return None


def crop_transform(eyes: NDArray[np.float64], mouth: NDArray[np.float64], *, size: int) -> Similarity:
    """From the picture to the aligned crop of `size` pixels a side. BadInput where the points make no face."""
    across, middle = eyes[1] - eyes[0], eyes.mean(0)
    down = mouth.mean(0) - middle
    axis = across + np.array([down[1], -down[0]])
    length, half = np.hypot(*axis), max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    if not np.isfinite(half) or half < 1 or length < 1e-3 * half:
        raise BadInput(
            "landmarks", "show eyes and mouth in one place", "a face upright enough to align", "leave the face out"
        )
    cos, sin = axis / length
    matrix = np.array([[cos, sin], [-sin, cos]]) * (size / (2 * half))
    return Similarity(matrix, size / 2 - matrix @ (middle + 0.1 * down))


def warp_picture(image: NDArray[np.uint8], to_crop: Similarity, *, size: int) -> NDArray[np.uint8]:
    """The crop of an RGB picture: brought to the crop's scale (antialiased), then turned (bicubic)."""
    back = to_crop.inverse()
    corners = back(np.array([[0, 0], [size, 0], [0, size], [size, size]]))
    height, width = image.shape[:2]
    margin = _MARGIN * max(1.0, back.scale)
    low = np.clip(np.floor(corners.min(0) - margin), 0, (width, height)).astype(int)
    high = np.clip(np.ceil(corners.max(0) + margin), 0, (width, height)).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    wide, tall = high - low
    if to_crop.scale < 1:
        small = (max(1, round(wide * to_crop.scale)), max(1, round(tall * to_crop.scale)))
        part = np.asarray(Image.fromarray(np.ascontiguousarray(part)).resize(small, Image.Resampling.LANCZOS))
    # the way back from the crop, now to the part; beyond the part there is only the picture's border
    factor = np.array([part.shape[1] / wide, part.shape[0] / tall])
    back = Similarity(back.matrix * factor[:, None], (back.shift - low) * factor)
    corners = back(np.array([[0, 0], [size, 0], [0, size], [size, size]]))
    low, high = (np.floor(corners.min(0)) - _MARGIN).astype(int), (np.ceil(corners.max(0)) + _MARGIN).astype(int)
    rows, columns = (_mirrored(np.arange(low[axis], high[axis]), part.shape[1 - axis]) for axis in (1, 0))
    window = np.ascontiguousarray(part[rows[:, None], columns[None, :]])
    shift = back.shift - low
    turned = Image.fromarray(window).transform(
        (size, size),
        Image.Transform.AFFINE,
        [float(n) for n in (*back.matrix[0], shift[0], *back.matrix[1], shift[1])],
        Image.Resampling.BICUBIC,
    )
    return np.array(turned, dtype=np.uint8)


def _mirrored(indices: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    """Indices beyond 0 .. `length` - 1 reflected at the border, as often as it takes."""
    indices = np.mod(indices, 2 * length)
    return np.minimum(indices, 2 * length - 1 - indices)


def warp_map(label_map: LabelMap, to_crop: Similarity, *, size: int) -> LabelMap:
    """The crop of a label map, nearest; 0 outside."""
    centres = np.arange(size) + 0.5
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    columns, rows = np.floor(to_crop.inverse()(grid)).astype(np.intp).T
    height, width = label_map.shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    crop = np.zeros(size * size, dtype=np.uint8)
    crop[inside] = label_map[rows[inside], columns[inside]]
    return crop.reshape(size, size)


def align(row: Row, *, size: int) -> None:
    """The row turned and cropped by its points. BadInput where there are none or they show no face here."""
    points = eyes_and_mouth(row)
    if points is None:
        raise BadInput(
            "landmarks",
            "are not known",
            "points to align by",
            "set data.landmarks.when=missing, or data.align.on=false",
        )
    assert row.image is not None
    to_crop = crop_transform(*points, size=size)
    height, width = row.image.shape[:2]
    x, y = to_crop.inverse()(np.array([[size / 2, size / 2]]))[0]
    if not (0 <= x <= width and 0 <= y <= height) or size / to_crop.scale > _LARGEST * max(height, width):
        raise BadInput(
            "landmarks",
            f"show a face of {size / to_crop.scale:.0f} pixels around ({x:.0f}, {y:.0f})",
            f"a face inside the picture of {width} x {height}",
            "give pixels of this picture",
        )
    row.image = warp_picture(row.image, to_crop, size=size)
    if row.label_map is not None:
        row.label_map = warp_map(row.label_map, to_crop, size=size)
    if row.landmarks is not None:
        row.landmarks = to_crop(row.landmarks).astype(np.float32)
    if FIVE_POINTS in row.notes:
        row.notes[FIVE_POINTS] = to_crop(row.notes[FIVE_POINTS])


def square(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int, int]:
    """The largest square in the middle of a picture or map, with the column and row where it begins."""
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return image[top : top + side, left : left + side], left, top


def resize_picture(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square RGB picture at `size` pixels a side (Lanczos, antialiased); the very same one at its own size."""
    if len(image) == size:
        return np.ascontiguousarray(image)
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS), dtype=np.uint8)


def crop_and_resize(row: Row, *, size: int) -> None:
    """The row cut to the square in its middle (bars at the sides would be learned as part of faces) and resized."""
    assert row.image is not None
    image, left, top = square(row.image)
    side = len(image)
    row.image = resize_picture(image, size)
    if row.label_map is not None:
        row.label_map = resize_map(square(row.label_map)[0], size)
    corner = np.array([left, top], dtype=np.float32)
    if row.landmarks is not None:
        row.landmarks = resize_landmarks(row.landmarks - corner, old=side, new=size)
    if FIVE_POINTS in row.notes:
        row.notes[FIVE_POINTS] = (np.asarray(row.notes[FIVE_POINTS]) - corner) * (size / side)


def fit(config: AlignConfig, *, waiting: bool = False) -> Step:
    """A step that makes every row square and of the final size, once.

    With `waiting`, rows that are to be aligned and have no points yet are left for a later `fit`, after the landmark
    detector. Raises BadInput (as the row's error) also for landmarks far outside the crop.
    """

    def work(row: Row) -> None:
        if row.notes.get(FITTED):
            return
        assert row.image is not None
        if row.label_map is not None and row.label_map.shape != row.image.shape[:2]:
            (rows, columns), (height, width) = row.label_map.shape, row.image.shape[:2]
            raise BadInput("label_map", f"is {columns} x {rows} pixels", f"{width} x {height}, as the picture")
        if not config.on:
            crop_and_resize(row, size=config.size)
        elif not waiting or eyes_and_mouth(row) is not None:
            align(row, size=config.size)
        else:
            return
        if row.landmarks is not None:
            row.landmarks = check_landmarks(row.landmarks, size=config.size)
        row.notes[FITTED] = True

    return each(work)
