"""Parquet in the row schema, or in any columns of the same names (HF `datasets` writes such files).

Odd here: opening reads the files' footers only. A face is read with the whole row group it lies in, and the last group
is kept, so reading in order reads each group once. pyarrow is imported when something is read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from m3face.config.dataset import SourceConfig
from m3face.data.pictures import decode
from m3face.data.rows import Row
from m3face.data.sources.archive import Archive
from m3face.data.sources.base import ArchiveSource
from m3face.data.sources.ffhq import id_of
from m3face.data.sources.imagefolder import OUR_MAP, OUR_ORDER
from m3face.data.sources.records import SPLITS, begin_from_record, fill_from_record
from m3face.errors import BadInput, ConfigError, DataError

IMAGE, MAPS = "image", (OUR_MAP, "mask", "conditioning_image")


@contextmanager
def open_parquet(archive: Archive, path: str) -> Iterator[Any]:
    """A pyarrow `ParquetFile`. Raises ConfigError without pyarrow and DataError for a damaged file."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        remedy = "pip install -c constraints.txt -e '.[ray]'"
        raise ConfigError("data.source.layout", "parquet needs pyarrow", "installed packages", remedy) from None
    with archive.open(path) as file:
        try:
            found = pyarrow.parquet.ParquetFile(file)
        except pyarrow.ArrowInvalid as error:
            raise DataError(path, f"is no whole parquet file: {error}", "a parquet file", "copy it again") from None
        yield found


def columns_of(archive: Archive) -> list[str]:
    """The columns of the first parquet file below. Raises as `open_parquet`."""
    with open_parquet(archive, archive.below("", (".parquet",))[0]) as found:
        return list(found.schema_arrow.names)


class Parquet(ArchiveSource):
    """Whatever of the row schema the columns hold. The map in `label_map` holds ids; others need a label order."""

    name = "parquet"
    needs = "files ending in .parquet with a column image"
    columns: ClassVar[tuple[str, ...]] = (IMAGE,)

    @classmethod
    def missing(cls, archive: Archive) -> str | None:
        if not archive.below("", (".parquet",)):
            return "any file ending in .parquet"
        names = columns_of(archive)
        return next((f"the column {name}" for name in cls.columns if name not in names), None)

    def __init__(self, config: SourceConfig, archive: Archive, max_pixels: int) -> None:
        super().__init__(config, archive, max_pixels)
        self._files = archive.below("", (".parquet",))
        self._groups: list[tuple[int, int]] = []  # (file, row group in it)
        self._ends: list[int] = []  # faces up to the end of each group
        columns: list[str] | None = None
        for which, path in enumerate(self._files):
            with open_parquet(archive, path) as found:
                names = list(found.schema_arrow.names)
                groups = [found.metadata.row_group(group).num_rows for group in range(found.num_row_groups)]
            if IMAGE not in names or (columns is not None and set(names) != set(columns)):
                other = f" and {self._files[0]} {', '.join(columns)}" if columns else ""
                raise DataError(path, f"has the columns {', '.join(names)}{other}", f"{IMAGE}, and one set of columns")
            columns = names
            for group, faces in enumerate(groups):
                self._groups.append((which, group))
                self._ends.append(faces + (self._ends[-1] if self._ends else 0))
        self._kept: tuple[int, Any] = (-1, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": (-1, None)}

    def faces(self) -> int:
        return self._ends[-1] if self._ends else 0

    def record(self, index: int) -> tuple[str, dict[str, Any]]:
        """The file that row `index` lies in, and the row. Raises BadInput where its group is damaged."""
        group = bisect_right(self._ends, index)
        which, number = self._groups[group]
        path = self._files[which]
        if self._kept[0] != group:
            try:
                with open_parquet(self.archive, path) as found:
                    self._kept = (group, found.read_row_group(number))
            except OSError as error:  # pyarrow's word for damaged pages
                raise BadInput(path, f"row group {number}: {error}", "a whole parquet file", "copy it again") from None
        start = self._ends[group - 1] if group else 0
        return path, self._kept[1].slice(index - start, 1).to_pylist()[0]

    def fill(self, row: Row, index: int) -> None:
        path, record = self.record(index)
        row.id, row.split = f"{self.name}-{id_of(path)}-{index}", split_of_file(path)
        if not begin_from_record(row, record, field=row.id):
            return
        self.lay_picture(row, record)
        key = next((key for key in MAPS if record.get(key) is not None), None)
        if key is not None:
            order = self.label_order or (OUR_ORDER if key == OUR_MAP else None)
            self.lay_map(row, self.cell(record, key, row.id), field=f"{row.id}: {key}", order=order)
        fill_from_record(row, record, field=row.id)

    def lay_picture(self, row: Row, record: Mapping[str, Any]) -> None:
        """Decode the picture of a row. Raises BadInput."""
        row.image = decode(self.cell(record, IMAGE, row.id), field=f"{row.id}: {IMAGE}", max_pixels=self.max_pixels)

    def cell(self, record: Mapping[str, Any], column: str, row_id: str) -> bytes:
        """The bytes of a picture column: bytes, HF's struct of bytes and path, or a path in the archive."""
        value = record.get(column)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return self.archive.read(value)
        if not isinstance(value, bytes):
            raise BadInput(f"{row_id}: {column}", "is empty", "the bytes of a picture", "leave the row out")
        return value


def split_of_file(path: str) -> str:
    """The split that HF's file names begin with (train-00000-of-00042.parquet), "" if none."""
    return SPLITS.get(path.rpartition("/")[2].partition("-")[0], "")
