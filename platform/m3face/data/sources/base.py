"""What every layout shares: numbers to rows, each bad one with its error, and maps laid on their pictures.

Odd here: only what is wrong with one face (BadInput) becomes that row's error. A list that contradicts itself, a
missing setting or a place out of reach is raised: no other row would fare better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m3face.config.dataset import SourceConfig
from m3face.data.pictures import decode, decode_labels
from m3face.data.rows import Row
from m3face.data.sources.archive import Archive
from m3face.data.sources.orders import to_ids, unnamed_order
from m3face.errors import BadInput, DataError
from m3face.faces import LabelMap

MOST_STRETCHED = 0.02


class ArchiveSource(ABC):
    """A `Source` over an archive. A layout says what it needs, how many faces there are, and fills a row.

    The constructor raises DataError for lists that are wrong and ConfigError for settings that do not fit the archive.
    """

    name: str
    licence: str = ""
    needs: ClassVar[str]
    """What the layout is recognised by, in words."""

    def __init__(self, config: SourceConfig, archive: Archive, max_pixels: int) -> None:
        self.archive = archive
        self.label_order = config.label_order
        self.max_pixels = max_pixels
        self.licence = config.licence or type(self).licence
        self._licensed = bool(config.licence)
        self._most = config.count

    @classmethod
    @abstractmethod
    def missing(cls, archive: Archive) -> str | None:
        """The first thing that the layout needs and `archive` lacks; None where it may be one."""

    @abstractmethod
    def faces(self) -> int:
        """How many faces the archive holds."""

    @abstractmethod
    def fill(self, row: Row, index: int) -> None:
        """Fill `row` with face `index`, its id first. Raises BadInput."""

    def __len__(self) -> int:
        return self.faces() if self._most is None else min(self.faces(), self._most)

    def read(self, indices: Sequence[int]) -> list[Row]:
        """A row for each index, in order; a bad one with its error. DataError: the archive is out of reach."""
        return [self._row(index) for index in indices]

    def _row(self, index: int) -> Row:
        row = Row(id=f"{self.name}-{index}", source=self.name, licence=self.licence)
        try:
            self.fill(row, index)
        except BadInput as error:
            row.error = str(error)
        if self._licensed:
            row.licence = self.licence
        return row

    def check_order(self) -> None:
        """ConfigError where the first map needs a label order that nobody named."""
        if self.label_order is None and len(self):
            with suppress(BadInput, DataError):
                self.fill(Row(id=""), 0)

    def decode(self, path: str) -> NDArray[np.uint8]:
        """The picture file `path`, RGB uint8 [H, W, 3]. Raises BadInput."""
        return decode(self.archive.read(path), field=path, max_pixels=self.max_pixels)

    def lay_map(self, row: Row, data: bytes, *, field: str, order: str | None) -> None:
        """Put the label map of a file on the row's picture; numbers are in `order`. Raises BadInput and ConfigError."""
        values, report = decode_labels(data, field=field, max_pixels=self.max_pixels)
        if report is None:
            if order is None:
                raise unnamed_order()
            values = to_ids(values, order, field=field)
        elif report.off:
            row.notes["snapped"] = report.share
        put_map(row, values, field=field)


def put_map(row: Row, label_map: LabelMap, *, field: str) -> None:
    """`label_map` at the size of the row's picture, by nearest. Raises BadInput where their shapes differ."""
    assert row.image is not None
    height, width = row.image.shape[:2]
    rows, columns = label_map.shape
    if abs(rows * width / (columns * height) - 1) > MOST_STRETCHED:
        raise BadInput(
            field,
            f"is {columns} x {rows} pixels and the picture {width} x {height}",
            "a map of the picture's shape",
            "make the map from this very picture",
        )
    nearest = Image.fromarray(label_map).resize((width, height), Image.Resampling.NEAREST)
    row.label_map = np.asarray(nearest, dtype=np.uint8).copy()
