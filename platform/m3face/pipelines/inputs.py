"""What a user hands in as files: a label map, landmarks. Every way to get them wrong is one line.

Odd here: numbers in a map are taken as ids of our classes; an archive's reader (`m3face.data.sources`) knows others.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from m3face.data.pictures import decode_labels
from m3face.errors import BadInput
from m3face.faces import LabelMap, Landmarks, check_landmarks, check_map, resize_map

_LARGEST = 1e30


def read_map(path: Path, *, size: int, field: str = "--mask") -> tuple[LabelMap, tuple[str, ...]]:
    """The label map of a picture file at `size` (nearest), and warnings.

    Indices (8-bit, 16-bit) are taken as they are; colours are snapped to the nearest class, with a warning up to 2 %
    of the pixels. Raises BadInput.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(field, f"{path}: {error.strerror}", "a readable picture file") from None
    label_map, snapped = decode_labels(data, field=field)
    found: tuple[str, ...] = ()
    if snapped is not None and snapped.off:
        found = (
            f"{field}: {snapped.off} of {snapped.total} pixels ({snapped.share:.2%}) had colours of no class; "
            "snapped to the nearest",
        )
    return resize_map(check_map(label_map, field=field), size), found


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float32(value: int | float) -> float:
    """`value` held to what fp32 can say, so that the check can show it; NaN stays."""
    return float(max(min(value, _LARGEST), -_LARGEST))


def read_landmarks(path: Path, *, size: int, field: str = "--landmarks") -> Landmarks:
    """68 points of a JSON file, [[x, y], …] in pixels of a face of `size`, as fp32 [68, 2]. Raises BadInput."""
    try:
        points = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(field, f"{path}: {error.strerror}", "a readable JSON file") from None
    except (ValueError, RecursionError):
        raise BadInput(
            field, f"{path} is not JSON", "68 pairs [[x, y], …]", "see a landmarks.json that we wrote"
        ) from None
    rows: list[Any] = points if isinstance(points, list) else [None]
    if not all(isinstance(row, list) and len(row) == 2 and all(map(_number, row)) for row in rows):
        raise BadInput(field, f"{path} is not a list of number pairs", "68 pairs [[x, y], …]", "one pair a point")
    array = np.array([[_float32(value) for value in row] for row in rows], dtype=np.float32)
    return check_landmarks(array.reshape(-1, 2), size=size, field=field)
