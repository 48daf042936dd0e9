"""Pictures and label maps out of bytes that nobody has vouched for.

Odd here: the size is read and judged before a pixel is decoded. Transparent pixels become white, the paper that every
viewer shows them on. 16-bit greys keep their upper eight bits. A label map in colours names its classes by itself; one
in numbers does not say what the numbers mean, so the two come back told apart.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from m3face.errors import BadInput
from m3face.faces import CLASSES, SnapReport, from_colours

MOST_PIXELS = 64_000_000
LARGEST_SIDE = 16_384
MOST_SNAPPED = 0.02
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # no others: Pillow reads EPS by starting a program
_WHOLE = "a whole JPEG, PNG, WebP, TIFF, GIF or BMP file"
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error, zlib.error)


@contextmanager
def _damage_named(field: str) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, of no use for the pixels
            yield
    except UnidentifiedImageError:
        raise BadInput(field, "is not a picture", _WHOLE, "copy the file again or leave it out") from None
    except Image.DecompressionBombError:
        got = f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise BadInput(field, got, f"at most {LARGEST_SIDE} pixels a side", "shrink it first") from None
    except _UNREADABLE:
        raise BadInput(field, "is cut off or damaged", _WHOLE, "copy the file again or leave it out") from None


def _open(data: bytes, field: str, max_pixels: int) -> Image.Image:
    picture = Image.open(io.BytesIO(data), formats=_FORMATS)
    width, height = picture.size
    if max(width, height) > LARGEST_SIDE or width * height > max_pixels:
        allowed = f"at most {LARGEST_SIDE} pixels a side and {max_pixels:,} in all"
        raise BadInput(field, f"is {width} x {height} pixels", allowed, "shrink it first")
    picture.load()
    return picture


def _rgb(picture: Image.Image, field: str) -> Image.Image:
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise BadInput(field, "has 32-bit pixels", "8 or 16 bits a channel", "save it again as PNG")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise BadInput(field, "has fractions for pixels", "8 or 16 bits a channel", "save it again as PNG")
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured).convert("RGB")
    return picture.convert("RGB")


def decode(data: bytes, *, field: str = "image", max_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
    """The picture, RGB uint8 [H, W, 3], upright as its EXIF note says.

    Grey, palette, CMYK and 16-bit pictures are converted, transparent ones laid on white; of an animation the first
    frame counts. Raises BadInput for what is no picture, cut off, damaged, larger than `max_pixels` in all or than
    `LARGEST_SIDE` a side, or of 32-bit values, whose range nobody knows.
    """
    with _damage_named(field):
        upright = ImageOps.exif_transpose(_open(data, field, max_pixels))
        return np.array(_rgb(upright, field), dtype=np.uint8)


def decode_labels(
    data: bytes, *, field: str = "label_map", max_pixels: int = MOST_PIXELS
) -> tuple[NDArray[np.uint8], SnapReport | None]:
    """A label map, uint8 [H, W] of 0..18, and how clean its colours were; None where the file holds numbers.

    Colours, as RGB or as a palette that has the published ones, become the ids of `m3face.faces.CLASSES`, up to 2 % of
    the pixels by the nearest colour. Numbers (grey or palette indices) come back as they are, in whatever order.
    Raises BadInput, also for a JPEG, for other colours and for numbers past 18.
    """
    with _damage_named(field):
        picture = _open(data, field, max_pixels)
    if picture.format in ("JPEG", "MPO"):
        raise BadInput(field, "is a JPEG", "a PNG", "JPEG blurs class indices: save the map as PNG")
    if picture.mode in ("P", "PA"):
        drawn, report = from_colours(np.asarray(picture.convert("RGB")), field=field)
        if not report.off:
            return drawn, report
        values = np.asarray(picture if picture.mode == "P" else picture.getchannel(0))
    elif picture.mode in ("1", "L", "I") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
    elif picture.mode == "LA":
        values = np.asarray(picture.getchannel(0))
    else:
        with _damage_named(field):
            colours = np.asarray(picture.convert("RGB"))
        return from_colours(colours, limit=MOST_SNAPPED, field=field)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= len(CLASSES):
        raise BadInput(
            field,
            f"has the label {low if low < 0 else high}",
            f"labels 0..{len(CLASSES) - 1}",
            "save class indices, not shades of grey",
        )
    return values.astype(np.uint8), None


def decode_part(data: bytes, *, field: str, max_pixels: int = MOST_PIXELS) -> NDArray[np.bool_]:
    """The mask of one part, bool [H, W]: true where the file is not black. Raises BadInput."""
    with _damage_named(field):
        return np.asarray(_open(data, field, max_pixels).convert("L")) > 0
