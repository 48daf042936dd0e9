"""What is set aside: pictures too small or too blurred, maps of nothing, and copies.

Odd here: a copy can be told only from the whole dataset. A row just carries its hash; the job asks `set_aside_copies`
once all hashes are known. The usual 64-bit difference hash is too coarse for faces, which are all alike at 8 x 8 places
(of 250 rendered people it took 13 for copies). With 256 bits different people were 24 bits apart or more, and nine in
ten copies saved as JPEG or at half the size 14 or fewer.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m3face.config.dataset import FilterConfig
from m3face.data.rows import Row, Step, each
from m3face.errors import BadInput

HASH = "hash"
"""The note with a row's hash, 64 hex digits: SHA-256 of the picture's pixels, or its difference hash."""

SHARPNESS = "sharpness"

Copies = Literal["keep", "exact", "near"]

_PLACES = 16
_STEP = 2  # grey levels that are no difference, so that noise on a plain background makes no bits
_NEAR = 12  # bits that the difference hashes of one picture, saved twice, may differ in
_BITS = _PLACES**2
# one band of bits more than bits that may differ: two near hashes agree in at least one
_BANDS = tuple(_BITS * band // (_NEAR + 1) for band in range(_NEAR + 2))


def laplacian_energy(picture: NDArray[np.uint8]) -> float:
    """Mean squared response of the 4-neighbour Laplacian on the grey picture [S, S, 3]: how much fine detail."""
    grey = picture.astype(np.float32).mean(2)
    centre = grey[1:-1, 1:-1]
    laplacian = 4 * centre - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float((laplacian**2).mean())


def pixel_hash(picture: NDArray[np.uint8]) -> str:
    """SHA-256 of the size and the pixels, 64 hex digits."""
    digest = hashlib.sha256(repr(picture.shape).encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()


def difference_hash(picture: NDArray[np.uint8]) -> str:
    """64 hex digits: which of 16 x 16 places of the picture, shrunk to 17 x 16, are brighter than that on their left.

    Hardly changes when a picture is resized, compressed or made brighter; changes when it is mirrored.
    """
    shrunk = Image.fromarray(picture).convert("L").resize((_PLACES + 1, _PLACES), Image.Resampling.BOX)
    grey = np.asarray(shrunk, dtype=np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1] + _STEP).tobytes().hex()


def inspect(config: FilterConfig) -> Step:
    """A step on pictures as they came: refuses the small and the huge, and leaves the hash in the notes."""
    hash_of = {"keep": None, "exact": pixel_hash, "near": difference_hash}[config.duplicates]

    def work(row: Row) -> None:
        assert row.image is not None
        height, width = row.image.shape[:2]
        got = f"is {width} x {height} pixels"
        if min(height, width) < config.min_side:
            raise BadInput("image", got, f"at least {config.min_side} a side (data.filter.min_side)")
        if height * width > config.max_pixels:
            raise BadInput("image", got, f"at most {config.max_pixels:,} in all (data.filter.max_pixels)")
        if hash_of is not None:
            row.notes[HASH] = hash_of(row.image)

    return each(work)


def judge(config: FilterConfig) -> Step:
    """A step on finished rows, all of one size: refuses blurred pictures and maps that are background everywhere."""

    def work(row: Row) -> None:
        assert row.image is not None
        if config.min_sharpness > 0:
            row.notes[SHARPNESS] = laplacian_energy(row.image)
            if row.notes[SHARPNESS] < config.min_sharpness:
                raise BadInput(
                    "image",
                    f"has a Laplacian energy of {row.notes[SHARPNESS]:.1f}",
                    f"at least {config.min_sharpness:g} (data.filter.min_sharpness)",
                )
        if row.label_map is not None and not row.label_map.any():
            raise BadInput("label_map", "is background everywhere", "a map with at least one part of a face")

    return each(work)


def set_aside_copies(hashes: Sequence[str | None], mode: Copies) -> dict[int, int]:
    """{index of a copy: index of the first that it copies}, for hashes in the order of the source.

    `exact` compares whole hashes, `near` difference hashes with up to 12 of 256 bits apart; None is nobody's copy. Near
    is measured from what stays, so that a chain of small changes does not set aside its far end.
    """
    if mode == "keep":
        return {}
    first: dict[str, int] = {}
    copies: dict[int, int] = {}
    kept: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for index, text in enumerate(hashes):
        if text is None:
            continue
        original = first.setdefault(text, index)
        if original != index:
            copies[index] = copies.get(original, original)
        elif mode == "near":
            value = int(text, 16)
            bands = [(low, value >> low & (1 << high - low) - 1) for low, high in itertools.pairwise(_BANDS)]
            near = [at for band in bands for at, other in kept.get(band, ()) if (other ^ value).bit_count() <= _NEAR]
            if near:
                copies[index] = min(near)
            else:
                for band in bands:
                    kept.setdefault(band, []).append((index, value))
    return copies
