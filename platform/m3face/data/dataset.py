"""One split of a finished dataset of parquet shards, by number: what caches are made from.

Odd here: the dataset is known by the hashes in its own report, so to name a cache no shard is opened. A face's number
is its place in the order of the shards. Rows are read a row group at a time, in order: what jumps about is slow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m3face.data.storage import open_storage
from m3face.data.store import key_digest
from m3face.errors import DataError
from m3face.faces import ATTRIBUTES, LANGUAGES

if TYPE_CHECKING:
    import pyarrow as pa

_REMEDY = "jobs/preprocess.py makes such a dataset"
_COLUMNS = {
    "label_map": ("a label map", "data.parser.when=missing of jobs/preprocess.py fills it"),
    "landmarks": ("landmarks", "data.landmarks.when=missing of jobs/preprocess.py fills them"),
    "attributes": (
        f"all {len(ATTRIBUTES)} attributes",
        "data.attributes.when=missing of jobs/preprocess.py fills them",
    ),
    "captions": (
        "captions in a language that m3face knows",
        "data.captions.by=grammar of jobs/preprocess.py writes them",
    ),
}
"""Columns that may lack something: what it is, and the remedy."""


class Dataset:
    """The good rows of one split of a dataset in the row schema; `most` are the first so many.

    Opening it reads the report, or the bytes of all shards where there is none (a dataset that others wrote). `key` is
    what its content is known by. Raises DataError, here or when a shard is first read, for a place that holds no
    finished dataset, no rows of the split, other columns, or a damaged file.
    """

    def __init__(self, path: str, split: str, *, most: int | None = None) -> None:
        self.path, self.split, self._most = path, split, most
        self._storage = open_storage(path, field="data.path", kind=DataError)
        files = self._files()
        if not files:
            self._storage.is_empty()  # a bucket that is not there says so itself
            raise self._wrong(f"has no shards of the split {split!r}", "parquet shards in the row schema", _REMEDY)
        self._names = list(files)
        self.key: dict[str, Any] = {"dataset": key_digest({"shards": list(files.values())}), "split": split}
        if most is not None:
            self.key["count"] = most
        self._group = lru_cache(maxsize=1)(self._read_group)

    def _wrong(self, got: str, allowed: str, remedy: str) -> DataError:
        return DataError("data.path", f"{self.path} {got}", allowed, remedy)

    def _files(self) -> dict[str, str]:
        """Name to SHA-256 of the shards, in their order."""
        try:
            from m3face.data.shards import PLAN, REPORT, SET_ASIDE
        except ModuleNotFoundError:
            missing = "dataset needs pyarrow, which is not installed"
            raise DataError("data.source", missing, "synthetic", "pip install 'm3face[ray]'") from None
        if self._storage.exists(REPORT):
            try:
                files = json.loads(self._storage.read(REPORT))["files"]
                own = {file["name"]: file["sha256"] for file in files if file["split"] == self.split}
            except (ValueError, KeyError, TypeError):
                raise self._wrong(f"has a {REPORT} of another kind", "a dataset in the row schema", _REMEDY) from None
            return {name: own[name] for name in sorted(own) if name.endswith(".parquet")}
        if self._storage.exists(PLAN):
            raise self._wrong("is not finished", "a finished dataset", "start its jobs/preprocess.py again")
        found = [f"{folder}{name}" for folder in ("data/", "") for name in self._storage.names(folder)]
        shards = [n for n in found if n.endswith(".parquet") and not n.rpartition("/")[2].startswith(SET_ASIDE)]
        return {name: hashlib.sha256(self._storage.read(name)).hexdigest() for name in sorted(shards)}

    @contextmanager
    def _shard(self, name: str, columns: Sequence[str]) -> Iterator[Any]:
        """The parquet file `name`, which has these columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self._storage.open(name) as file:
                shard = pq.ParquetFile(file)
                there = shard.schema_arrow.names
                if lacking := [column for column in columns if column not in there]:
                    got = f"has no column {lacking[0]!r} in {name}, only {', '.join(there)}"
                    raise self._wrong(got, "the row schema", "data.shards.format=rows of jobs/preprocess.py writes it")
                yield shard
        except pa.ArrowInvalid as error:
            got = f"has a damaged shard {name} ({error})"
            raise self._wrong(
                got, "whole parquet files", "copy it again, or remove the dataset and make it anew"
            ) from None

    def _read_group(self, file: int, group: int, columns: tuple[str, ...]) -> pa.Table:
        with self._shard(self._names[file], columns) as shard:
            return shard.read_row_group(group, columns=list(columns))

    @cached_property
    def _places(self) -> NDArray[np.int32]:
        """Shard, row group and row of every good row of the split, [n, 3]."""
        found = []
        for file, name in enumerate(self._names):
            with self._shard(name, ("split", "error")) as shard:
                for group in range(shard.num_row_groups):
                    table = shard.read_row_group(group, columns=["split", "error"])
                    facts = zip(table["split"].to_pylist(), table["error"].to_pylist())
                    rows = [row for row, (split, error) in enumerate(facts) if split == self.split and error is None]
                    found.append(np.array([(file, group, row) for row in rows], dtype=np.int32).reshape(-1, 3))
        places = np.concatenate(found)[: self._most]
        if not len(places):
            raise self._wrong(f"has no good rows of the split {self.split!r}", "a split with faces", "see data.split")
        return places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, first: int, last: int, columns: Sequence[str]) -> list[dict[str, Any]]:
        """These columns of rows `first` to `last` - 1 as plain values, pictures as files."""
        places = self._places[first:last]
        records: list[dict[str, Any]] = []
        steps = np.flatnonzero(np.diff(places[:, :2], axis=0).any(1)) + 1
        for run in np.split(places, steps):
            table = self._group(int(run[0, 0]), int(run[0, 1]), tuple(columns))
            records += table.take(run[:, 2]).to_pylist()
        return records

    def every(self, *columns: str) -> Iterator[dict[str, Any]]:
        """These columns of every row, in order."""
        step = 1024
        return (row for first in range(0, len(self), step) for row in self.read(first, first + step, columns))

    def require(self, *columns: str) -> None:
        """DataError unless every row has something in `columns`; it names a column, how many lack it, and the first."""
        lacking: dict[str, list[str]] = {column: [] for column in columns}
        for row in self.every("id", *columns):
            for column in columns:
                if not _known(column, row[column]):
                    lacking[column].append(row["id"])
        for column, rows in lacking.items():
            if rows:
                what, remedy = _COLUMNS[column]
                got = f"has {len(rows)} of {len(self)} {self.split} rows without {what}, {rows[0]!r} the first"
                raise self._wrong(got, f"{column} in every row", remedy)


def _known(column: str, value: Any) -> bool:
    """Whether a cell says all that it should."""
    if value is None:
        return False
    if column == "label_map":
        return value["bytes"] is not None
    if column == "attributes":
        return all(value.get(name) is not None for name in ATTRIBUTES)
    if column == "captions":
        return any(value.get(code) for code in LANGUAGES)
    return True
