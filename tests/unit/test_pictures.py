"""Bytes of strangers to pixels: what is converted and how, and what is refused in one line."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from m3face.data.pictures import LARGEST_SIDE, decode, decode_labels, decode_part
from m3face.errors import BadInput
from m3face.faces import PALETTE, to_colours
from tests.archives import face, jpeg, png

ORIENTATION = 0x0112


def _file(picture: Image.Image, form: str, **more: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **more)
    return buffer.getvalue()


def _noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _header(width: int, height: int) -> bytes:
    """A PNG of RGB that promises a size and holds no pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


COLOURS = _noise(5, 7, 3)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF"])
def test_colours_come_back_as_they_are(form: str) -> None:
    decoded = decode(_file(Image.fromarray(COLOURS), form))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, COLOURS)


def test_grey_is_three_equal_channels() -> None:
    grey = _noise(5, 7)
    assert np.array_equal(decode(png(grey)), np.repeat(grey[..., None], 3, axis=-1))
    assert np.array_equal(decode(_file(Image.fromarray(grey > 99), "PNG"))[..., 1], (grey > 99) * 255)


def test_sixteen_bit_grey_keeps_its_upper_bits() -> None:
    deep = np.array([[0, 255, 256], [0x7FFF, 0xFF00, 0xFFFF]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        assert np.array_equal(decode(_file(Image.fromarray(deep), form))[..., 0], [[0, 0, 1], [127, 255, 255]])


def test_a_palette_gives_its_colours() -> None:
    picture = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    assert np.array_equal(decode(_file(picture, "PNG"))[0], [[10, 20, 30], [200, 100, 50]])


def test_what_is_transparent_lies_on_white() -> None:
    clear, half, solid = (10, 20, 30, 0), (0, 100, 200, 51), (10, 20, 30, 255)
    coloured = np.array([[clear, half, solid]], dtype=np.uint8)
    expected = [[[255, 255, 255], [204, 224, 244], [10, 20, 30]]]
    assert np.array_equal(decode(png(coloured)), expected)
    grey = np.array([[(10, 0), (10, 255)]], dtype=np.uint8)
    assert np.array_equal(decode(png(grey))[..., 0], [[255, 10]])
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    assert np.array_equal(decode(_file(picture, "PNG", transparency=0)), [[[255, 255, 255], [200, 100, 50]]])


def test_ink_becomes_light() -> None:
    cyan = np.zeros((8, 8, 4), dtype=np.uint8)
    cyan[..., 0] = 255
    decoded = decode(_file(Image.frombytes("CMYK", (8, 8), cyan.tobytes()), "JPEG"))
    assert decoded.shape == (8, 8, 3)
    assert np.abs(decoded.astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_turned_picture_stands_upright(orientation: int, form: str) -> None:
    # what a camera held that way stores: the upright picture moved by the inverse of what the note asks for
    stored = {
        1: COLOURS,
        2: COLOURS[:, ::-1],
        3: COLOURS[::-1, ::-1],
        4: COLOURS[::-1],
        5: COLOURS.transpose(1, 0, 2),
        6: np.rot90(COLOURS, 1),
        7: COLOURS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOURS, -1),
    }[orientation]
    plain = Image.fromarray(np.ascontiguousarray(np.kron(stored, np.ones((8, 8, 1), np.uint8))))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    more: dict[str, Any] = {"exif": exif, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {})}
    decoded = decode(_file(plain, form, **more))[4::8, 4::8]
    assert decoded.shape == COLOURS.shape
    assert np.abs(decoded.astype(int) - COLOURS).max() <= (0 if form == "PNG" else 8)


def test_of_an_animation_the_first_frame_counts() -> None:
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    data = _file(first, "GIF", save_all=True, append_images=[second])
    assert np.array_equal(decode(data), np.broadcast_to([255, 0, 0], (4, 4, 3)))


REFUSED = {
    "empty": (b"", "is not a picture"),
    "text": (b"<html>not found</html>", "is not a picture"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not a picture"),
    "half a PNG": (png(_noise(64, 64, 3))[:6000], "is cut off or damaged"),
    "half a JPEG": (jpeg(_noise(64, 64, 3))[:3000], "is cut off or damaged"),
    "half a WebP": (_file(Image.fromarray(_noise(64, 64, 3)), "WEBP")[:1000], "is cut off or damaged"),
    "a header": (_header(64, 64), "is cut off or damaged"),
    "30,000 a side": (_header(30_000, 30_000), "pixels"),
    "30,000 wide": (_header(30_000, 10), "is 30000 x 10 pixels"),
    "many pixels": (_header(8001, 8001), "is 8001 x 8001 pixels"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("read", [decode, decode_labels, decode_part])
def test_what_is_no_picture_is_refused(what: str, read: Any) -> None:
    data, says = REFUSED[what]
    with pytest.raises(BadInput) as caught:
        read(data, field="a.png")
    text = str(caught.value)
    assert text.startswith("a.png: ")
    assert says in text
    assert "\n" not in text
    assert caught.value.remedy


def test_pixels_without_a_known_range_are_refused() -> None:
    for pixels, says in ((np.ones((4, 4), np.float32), "fractions"), (np.full((4, 4), 1 << 20, np.int32), "32-bit")):
        with pytest.raises(BadInput, match=f"^image: has {says}"):
            decode(_file(Image.fromarray(pixels), "TIFF"))


def test_the_caller_may_allow_less() -> None:
    with pytest.raises(BadInput, match="is 7 x 5 pixels; allowed: at most 16384 pixels a side and 34 in all"):
        decode(png(COLOURS), max_pixels=34)
    assert decode(png(COLOURS), max_pixels=35).shape == (5, 7, 3)
    assert LARGEST_SIDE == 16384


def test_numbers_of_a_map_come_back_in_whatever_file() -> None:
    label_map = face(0).label_map
    palette = Image.fromarray(label_map).convert("P")
    palette.putpalette(_noise(19, 3).tobytes())  # any colours
    with_alpha = np.stack([label_map, np.full_like(label_map, 255)], axis=-1)
    for data in (
        png(label_map),
        _file(palette, "PNG"),
        png(with_alpha),
        _file(Image.fromarray(label_map.astype(np.uint16)), "PNG"),
    ):
        values, report = decode_labels(data)
        assert report is None
        assert values.dtype == np.uint8
        assert np.array_equal(values, label_map)


def test_colours_of_a_map_name_their_classes() -> None:
    label_map = face(0).label_map
    drawn = to_colours(label_map)
    palette = Image.fromarray(label_map[::-1] * 2).convert("P")  # indices that mean nothing without the colours
    table = np.zeros((40, 3), np.uint8)
    table[0:38:2] = PALETTE
    palette.putpalette(table.tobytes())
    for data, expected in ((png(drawn), label_map), (_file(palette, "PNG"), label_map[::-1])):
        values, report = decode_labels(data)
        assert report is not None
        assert report.off == 0
        assert np.array_equal(values, expected)
    slightly = drawn.copy()
    slightly[0, :4] ^= 3
    values, report = decode_labels(png(slightly))
    assert report is not None
    assert report.off == 4
    assert np.array_equal(values, label_map)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (png(np.full((4, 4), 19, np.uint8)), "has the label 19"),
        (png(np.full((4, 4), 255, np.uint8)), "has the label 255"),
        (jpeg(np.zeros((8, 8), np.uint8)), "is a JPEG"),
        (png(np.repeat(face(0).label_map[..., None], 3, axis=-1)), "colours of no class"),
        (png(_noise(8, 8, 3)), "colours of no class"),
        (_file(Image.fromarray(np.full((4, 4), -1, np.int32)), "TIFF"), "has the label -1"),
    ],
)
def test_what_is_no_label_map_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=f"^map.png: .*{says}") as caught:
        decode_labels(data, field="map.png")
    assert caught.value.remedy


def test_a_part_is_where_the_file_is_not_black() -> None:
    mask = _noise(6, 6) > 128
    for data in (png(mask * np.uint8(255)), png(np.repeat(mask[..., None] * np.uint8(9), 3, axis=-1))):
        assert np.array_equal(decode_part(data, field="x"), mask)
