"""The faces that training reads, as a store, and their captions: rendered people, or one split of a dataset.

Odd here: a dataset's pictures are read by the building process alone and may be decoded anywhere. What every face must
have is looked for, and counted, before the first picture is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m3face.config import DataConfig
from m3face.data.dataset import Dataset
from m3face.data.people import LOOKS, PeopleCaptions, attribute_codes, people
from m3face.data.store import Arrays, ArrayStore, Progress, Spread, build_store, finished_store, in_processes
from m3face.errors import BadInput, DataError
from m3face.faces import ATTRIBUTES, COUNT, LANGUAGES, resize_landmarks, resize_map

NOBODY = -1
"""The number of a person of whom nobody knows who it is."""

_DECODER = 1  # raise it when rows become other arrays, so that old caches are left behind
_DRAWN = 1  # the same for how captions are drawn
_NEEDED = ("image", "label_map", "landmarks", "attributes")


def faces(
    config: DataConfig, caches: Path, *, spread: Spread | None = None, on_progress: Progress = None
) -> ArrayStore:
    """image uint8 [S, S, 3], label_map uint8 [S, S], landmarks fp32 [68, 2] and attribute codes of every face.

    Of a dataset also `person` int32: the same for two pictures of one person, `NOBODY` where it is not known. Raises
    DataError where rows lack any of this.
    """
    size = config.size
    if config.source == "synthetic":
        assert config.count is not None
        return people(caches, count=config.count, seed=config.seed, size=size, spread=spread, on_progress=on_progress)
    dataset = _dataset(config)
    key = {**dataset.key, "decoder": _DECODER, "size": size}
    if (store := finished_store(caches, "faces", key)) is not None:
        return store
    dataset.require(*_NEEDED[1:])
    who = _numbered([row["identity"] for row in dataset.every("identity")])
    return build_store(
        caches,
        "faces",
        key=key,
        count=len(dataset),
        fields={
            "image": ("uint8", (size, size, 3)),
            "label_map": ("uint8", (size, size)),
            "landmarks": ("float32", (COUNT, 2)),
            "attributes": ("uint8", (len(ATTRIBUTES),)),
            "person": ("int32", ()),
        },
        read=lambda first, last: (dataset.read(first, last, ("id", *_NEEDED)), who[first:last]),
        encode=DecodeRows(size),
        chunk=64,
        spread=spread or in_processes(2),
        on_progress=on_progress,
    )


def _dataset(config: DataConfig) -> Dataset:
    return Dataset(config.path, config.split, most=config.count)


def _numbered(identities: Sequence[str | None]) -> NDArray[np.int32]:
    """A number for each person, in the order in which they first come."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(who, len(numbers)) if who else NOBODY for who in identities], dtype=np.int32)


@dataclass(frozen=True)
class DecodeRows:
    """(records of rows, numbers of the people in them) to arrays at `size`; DataError names the row that is wrong."""

    size: int

    def __call__(self, rows: tuple[Sequence[dict[str, Any]], NDArray[np.int32]]) -> Arrays:
        records, who = rows
        faces = [self._face(record) for record in records]
        return {**{name: np.stack([face[name] for face in faces]) for name in _NEEDED}, "person": who}

    def _face(self, record: dict[str, Any]) -> dict[str, NDArray[Any]]:
        from m3face.data.parquet import from_record

        try:
            row = from_record(record)
            image = _shaped("image", row.image, (None, None, 3))
            side = len(image)
            _shaped("image", image, (side, side, 3))
            label_map = _shaped("label_map", row.label_map, (side, side))
            points = _shaped("landmarks", row.landmarks, (COUNT, 2))
            return {
                "image": _resized(image, self.size),
                "label_map": resize_map(label_map, self.size),
                "landmarks": resize_landmarks(points, old=side, new=self.size),
                "attributes": _codes(row.attributes),
            }
        except BadInput as error:
            field = f"row {record['id']!r} of data.path, {error.field}"
            raise DataError(field, error.got, error.allowed, error.remedy) from None


def _shaped(column: str, value: NDArray[Any] | None, shape: tuple[int | None, ...]) -> NDArray[Any]:
    """`value`, if it has this shape; None is any length."""
    there = () if value is None else value.shape
    if value is None or len(there) != len(shape) or any(w not in (None, t) for w, t in zip(shape, there)):
        wanted = " x ".join("any" if side is None else str(side) for side in shape)
        got = "is missing" if value is None else f"is {' x '.join(map(str, there))}"
        raise BadInput(column, got, wanted, "data.align.on=true of jobs/preprocess.py makes square faces")
    return value


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Bilinear, over all that becomes one pixel where it shrinks."""
    if len(image) == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def _codes(attributes: dict[str, str]) -> NDArray[np.uint8]:
    for name, attribute in ATTRIBUTES.items():
        if attributes[name] not in attribute.values:
            raise BadInput(f"attributes.{name}", f"is {attributes[name]!r}", ", ".join(attribute.values))
    return attribute_codes(attributes)


def pictures_of_people(store: ArrayStore) -> list[NDArray[np.int64]]:
    """The numbers of the faces of each person who is seen more than once."""
    if "person" not in store:  # rendered people stand side by side
        return list(np.arange(len(store) // LOOKS * LOOKS).reshape(-1, LOOKS))
    order = np.argsort(store["person"], kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(store["person"][order])) + 1)
    return [group for group in groups if len(group) > 1 and store["person"][group[0]] != NOBODY]


@dataclass(frozen=True)
class RowCaptions:
    """`each` captions a row out of its own, in the languages that we know; all of them before one comes again."""

    dataset: Dataset
    each: int

    @property
    def key(self) -> dict[str, Any]:
        """What decides the texts, beside the faces."""
        return {"captions": ["rows", _DRAWN, self.each]}

    def texts(self, first: int, last: int) -> list[str]:
        """The captions of these faces, face by face. DataError where a row has none."""
        found: list[str] = []
        for index, row in enumerate(self.dataset.read(first, last, ("captions",)), start=first):
            texts = [text for code in LANGUAGES for text in (row["captions"] or {}).get(code) or ()]
            if not texts:
                self.dataset.require("captions")
            order = np.random.default_rng(index).permutation(len(texts))
            found += [texts[order[k % len(texts)]] for k in range(self.each)]
        return found


def captions(config: DataConfig, store: ArrayStore) -> PeopleCaptions | RowCaptions:
    """Where the captions of the faces of `store` come from."""
    if config.source == "synthetic":
        return PeopleCaptions(store, config.captions_per_face)
    return RowCaptions(_dataset(config), config.captions_per_face)
