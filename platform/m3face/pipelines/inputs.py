"""What a user hands in as files: a label map, landmarks. Every way to get them wrong is one line.

Odd here: a palette picture may be a drawing in colours or class indices with any colours beside them. If its colours
are the published ones it is read as a drawing, else by its indices.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from m3face.errors import BadInput
from m3face.faces import LabelMap, Landmarks, check_landmarks, check_map, from_colours, resize_map

LARGEST_SIDE = 8192
MOST_SNAPPED = 0.02
_LARGEST = 1e30

_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error, zlib.error)
_INDEX_MODES = ("1", "L", "I", "I;16")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")


def _open(path: Path, field: str) -> Image.Image:
    """The whole picture in memory; BadInput for what is missing, no picture, cut off or far too large."""
    remedy = "save it again as PNG"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(path.read_bytes()))
        if max(picture.size) > LARGEST_SIDE:
            width, height = picture.size
            raise BadInput(field, f"{path} is {width} x {height} pixels", f"at most {LARGEST_SIDE} a side", "shrink it")
        picture.load()
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise BadInput(field, f"{path}: {error.strerror}", "a readable picture file") from None
    except UnidentifiedImageError:
        raise BadInput(field, f"{path} is not a picture", "a PNG of class indices or colours", remedy) from None
    except Image.DecompressionBombError:
        raise BadInput(
            field, f"{path} is far too large", f"at most {LARGEST_SIDE} pixels a side", "shrink it"
        ) from None
    except _UNREADABLE:
        raise BadInput(field, f"{path} is cut off or damaged", "a whole picture file", remedy) from None
    return picture


def read_map(path: Path, *, size: int, field: str = "--mask") -> tuple[LabelMap, tuple[str, ...]]:
    """The label map of a picture file at `size` (nearest), and warnings.

    Indices (8-bit, 16-bit) are taken as they are; colours are snapped to the nearest class, with a warning up to 2 %
    of the pixels. Raises BadInput.
    """
    picture = _open(path, field)
    if picture.format == "JPEG":
        raise BadInput(field, f"{path} is a JPEG", "a PNG", "JPEG blurs class indices: save the map as PNG")
    found: tuple[str, ...] = ()
    if picture.mode in ("P", "PA"):
        label_map = _from_palette(picture)
    elif picture.mode in _INDEX_MODES:
        label_map = np.asarray(picture)
    elif picture.mode == "LA":
        label_map = np.asarray(picture.getchannel(0))
    elif picture.mode in _COLOUR_MODES:
        label_map, report = from_colours(np.asarray(picture.convert("RGB")), limit=MOST_SNAPPED, field=field)
        if report.off:
            found = (
                f"{field}: {report.off} of {report.total} pixels ({report.share:.2%}) had colours of no class; "
                "snapped to the nearest",
            )
    else:
        raise BadInput(
            field, f"{path} has the mode {picture.mode}", "8-bit class indices or RGB", "save it again as PNG"
        )
    return resize_map(check_map(label_map, field=field), size), found


def _from_palette(picture: Image.Image) -> NDArray[np.uint8]:
    drawn, report = from_colours(np.asarray(picture.convert("RGB")))
    indices = np.asarray(picture if picture.mode == "P" else picture.getchannel(0))
    return indices if report.off else drawn


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
