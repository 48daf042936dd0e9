"""The 19 classes of CelebAMask-HQ: ids, both published orders, palette, flip.

Odd here: *left* and *right* are the person's, so `l_eye` is on the picture's right side of a frontal face, and a
mirrored picture must swap the ids, not only the columns. A label map is class indices (uint8, [H, W]) from the
first byte to the last; colours exist for people and for networks published with 3-channel drawings.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m3face.errors import BadInput

LabelMap = NDArray[np.uint8]

CLASSES: tuple[str, ...] = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth",
    "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""Class names by id, the order of the merged 512 px masks (CelebAMask-HQ `g_mask.py`)."""

ID: dict[str, int] = {name: i for i, name in enumerate(CLASSES)}

RAW_FOLDER_ORDER: tuple[str, ...] = (
    "skin", "neck", "hat", "eye_g", "hair", "ear_r", "neck_l", "cloth", "l_eye", "r_eye", "l_brow", "r_brow",
    "nose", "l_ear", "r_ear", "mouth", "u_lip", "l_lip",
)  # fmt: skip
"""The other published order: the raw annotation folder's list, which has no background."""

PALETTE: NDArray[np.uint8] = np.array(
    [
        (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204), (0, 255, 255),
        (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0), (0, 0, 153), (0, 0, 204),
        (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51), (0, 204, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip
"""RGB by id (CelebAMask-HQ `g_color.py`)."""

FLIP_PAIRS: tuple[tuple[int, int], ...] = ((4, 5), (6, 7), (8, 9))

_FLIPPED = np.arange(len(CLASSES), dtype=np.uint8)
for _left, _right in FLIP_PAIRS:
    _FLIPPED[_left], _FLIPPED[_right] = _right, _left


def check_map(label_map: NDArray[np.generic], *, field: str = "mask") -> LabelMap:
    """`label_map` as uint8 [H, W] of ids 0..18, or BadInput naming what is wrong. Must be square."""
    if label_map.ndim != 2:
        raise BadInput(field, f"has {label_map.ndim} dimensions", "one class index a pixel, [height, width]")
    height, width = label_map.shape
    if height != width or height == 0:
        raise BadInput(field, f"is {width} x {height} pixels", "a square map", "crop or pad it to a square first")
    low, high = int(label_map.min()), int(label_map.max())
    if low < 0 or high >= len(CLASSES):
        raise BadInput(
            field,
            f"has the label {low if low < 0 else high}",
            f"labels 0..{len(CLASSES) - 1}",
            "map your classes to the CelebAMask-HQ ids (docs/tour.md)",
        )
    return label_map.astype(np.uint8)


def flip_map(label_map: LabelMap) -> LabelMap:
    """The label map of the mirrored face: columns reversed, left and right ids swapped."""
    return np.ascontiguousarray(_FLIPPED[label_map[..., ::-1]])


def resize_map(label_map: LabelMap, size: int) -> LabelMap:
    """Nearest resize of a [H, W] map to [size, size]; pixel centres at +0.5, so no shift."""
    height, width = label_map.shape
    rows = ((np.arange(size) + 0.5) * height / size).astype(np.intp)
    columns = ((np.arange(size) + 0.5) * width / size).astype(np.intp)
    return np.ascontiguousarray(label_map[rows[:, None], columns[None, :]])


def to_colours(label_map: LabelMap) -> NDArray[np.uint8]:
    """The palette drawing, uint8 [H, W, 3]."""
    return PALETTE[label_map]


@dataclass(frozen=True, kw_only=True)
class SnapReport:
    """How clean the colours of a drawing were: `off` of `total` pixels had no exact palette colour."""

    off: int
    total: int

    @property
    def share(self) -> float:
        return self.off / self.total


def from_colours(picture: NDArray[np.uint8], *, limit: float = 1.0, field: str = "mask") -> tuple[LabelMap, SnapReport]:
    """Each RGB pixel's nearest class (Euclidean in RGB), and how many were off the palette.

    `picture` is uint8 [H, W, 3]. Raises BadInput when more than `limit` (a share, 0..1) of the pixels are off.
    """
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise BadInput(field, f"has the shape {picture.shape}", "an RGB picture, [height, width, 3]")
    colours, inverse = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
    distance = ((colours[:, None, :].astype(np.int32) - PALETTE[None].astype(np.int32)) ** 2).sum(-1)
    nearest = distance.argmin(1).astype(np.uint8)
    exact = distance.min(1) == 0
    inverse = inverse.reshape(-1)
    report = SnapReport(off=int((~exact[inverse]).sum()), total=inverse.size)
    if report.share > limit:
        raise BadInput(
            field,
            f"{report.off} of {report.total} pixels ({report.share:.1%}) have colours of no class",
            f"at most {limit:.0%} off the CelebAMask-HQ palette",
            "save the map as 8-bit class indices, or without smoothing and compression",
        )
    return nearest[inverse].reshape(picture.shape[:2]), report
