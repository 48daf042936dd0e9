"""An `imagefolder`: pictures and one or more metadata.jsonl; what `m3face synth` writes is one.

Odd here: paths are relative to the folder of their metadata.jsonl, which also names the split if it is called train,
validation or test. Opening keeps where each line begins and not what it says, so a list of millions stays small. The
column `label_map` is our row schema's and holds ids; a map in `mask`, `mask_file_name` or
`conditioning_image_file_name` is somebody else's, so numbers in it need a label order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from m3face.config.dataset import SourceConfig
from m3face.data.rows import Row
from m3face.data.sources.archive import Archive
from m3face.data.sources.base import ArchiveSource
from m3face.data.sources.ffhq import id_of
from m3face.data.sources.records import SPLITS, begin_from_record, fill_from_record
from m3face.errors import BadInput, DataError

METADATA = "metadata.jsonl"
PICTURE_KEYS = ("file_name", "image_file_name")
MAP_KEYS = ("mask_file_name", "mask", "conditioning_image_file_name")
OUR_MAP = "label_map"
OUR_ORDER = "merged"


class ImageFolder(ArchiveSource):
    """Whatever of the row schema the lines say, beside the picture and its map."""

    name = "imagefolder"
    needs = f"{METADATA} with a file_name a line, beside the pictures"

    @classmethod
    def missing(cls, archive: Archive) -> str | None:
        return None if _lists(archive) else METADATA

    def __init__(self, config: SourceConfig, archive: Archive, max_pixels: int) -> None:
        super().__init__(config, archive, max_pixels)
        self._lists = _lists(archive)
        lines = [_lines(archive, file, position) for position, file in enumerate(self._lists)]
        self._lines = np.concatenate(lines) if lines else np.zeros((0, 4), dtype=np.int64)

    def faces(self) -> int:
        return len(self._lines)

    def fill(self, row: Row, index: int) -> None:
        which, start, size, position = (int(value) for value in self._lines[index])
        file = self._lists[which]
        record: Mapping[str, Any] = json.loads(self.archive.read(file, start, size))
        field = f"{file}, line {position}"
        folder = PurePosixPath(file).parent
        picture = str(folder / _picture(record))
        row.id, row.split = f"{self.name}-{id_of(picture)}", SPLITS.get(folder.name, "")
        if not begin_from_record(row, record, field=field):
            return
        row.image = self.decode(picture)
        self._lay_named_map(row, record, folder)
        fill_from_record(row, record, field=field)

    def _lay_named_map(self, row: Row, record: Mapping[str, Any], folder: PurePosixPath) -> None:
        key = next((key for key in (OUR_MAP, *MAP_KEYS) if record.get(key)), None)
        if key is None:
            return
        if not isinstance(record[key], str):
            raise BadInput(f"{row.id}: {key}", f"is {record[key]!r:.60}", "the name of a file")
        path = str(folder / record[key])
        order = self.label_order or (OUR_ORDER if key == OUR_MAP else None)
        self.lay_map(row, self.archive.read(path), field=path, order=order)


def _picture(record: Mapping[str, Any]) -> str:
    """The file name that a line gives, "" if none."""
    name = next((record[key] for key in PICTURE_KEYS if record.get(key)), "")
    return name if isinstance(name, str) else ""


def _lists(archive: Archive) -> list[str]:
    return [name for name in archive.below("", (METADATA,)) if PurePosixPath(name).name == METADATA]


def _lines(archive: Archive, file: str, which: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(list, first byte, bytes, line number) of every line, [lines, 4]. Raises DataError for a line that is no row."""
    found: list[tuple[int, int, int, int]] = []
    start = 0
    with archive.open(file) as lines:
        for position, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    record = json.loads(line)
                    good = isinstance(record, dict) and bool(_picture(record))
                except ValueError:
                    good = False
                if not good:
                    raise DataError(
                        f"{file}, line {position}",
                        f"is {line[:60].decode('utf-8', 'replace').strip()!r}",
                        f"a JSON object with one of {', '.join(PICTURE_KEYS)}",
                        "mend the line or write the list again",
                    )
                found.append((which, start, len(line), position))
            start += len(line)
    return np.array(found, dtype=np.int64).reshape(len(found), 4)
