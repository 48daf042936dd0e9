"""WebDataset tars: what belongs to one face lies side by side under one key, KEY.jpg, KEY.mask.png, KEY.txt, KEY.json.

Odd here: opening walks the tars' heads and keeps where each member begins, so faces are read in any order without
unpacking. A key is everything before the first dot of the name, as WebDataset has it. KEY.label_map.png holds ids of
our row schema; the numbers of KEY.mask.png need a label order, from the settings or from the JSON's `label_order`.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.config.dataset import SourceConfig
from m3face.data.pictures import SUFFIXES, decode
from m3face.data.rows import Row
from m3face.data.sources.archive import Archive
from m3face.data.sources.base import ArchiveSource
from m3face.data.sources.ffhq import id_of
from m3face.data.sources.imagefolder import OUR_MAP, OUR_ORDER
from m3face.data.sources.orders import LABEL_ORDERS
from m3face.data.sources.records import begin_from_record, fill_from_record
from m3face.errors import BadInput, DataError

_PICTURES = tuple(suffix[1:] for suffix in SUFFIXES)
_OUR_MAP, _MAPS = f"{OUR_MAP}.png", ("mask.png", "seg.png")


class WebDataset(ArchiveSource):
    """Picture, map and whatever of the row schema KEY.json says; KEY.txt is an English caption if it says none."""

    name = "webdataset"
    needs = "files ending in .tar"

    @classmethod
    def missing(cls, archive: Archive) -> str | None:
        return None if archive.below("", (".tar",)) else "any file ending in .tar"

    def __init__(self, config: SourceConfig, archive: Archive, max_pixels: int) -> None:
        super().__init__(config, archive, max_pixels)
        self._tars = archive.below("", (".tar",))
        self._keys: list[str] = []
        self._endings: list[str] = []
        members: list[tuple[int, int, int, int]] = []
        starts: list[int] = []
        number: dict[str, int] = {}
        for which, tar in enumerate(self._tars):
            last = None
            for name, offset, size in _walk(archive, tar):
                folder, slash, base = name.rpartition("/")
                stem, _, ending = base.partition(".")
                key = f"{folder}{slash}{stem}"
                if key != last:
                    last = key
                    starts.append(len(members))
                    self._keys.append(f"{id_of(tar)}-{key.replace('/', '-')}")
                members.append((which, number.setdefault(ending.lower(), len(number)), offset, size))
        self._endings = list(number)
        self._members: NDArray[np.int64] = np.array(members, dtype=np.int64).reshape(len(members), 4)
        self._starts: NDArray[np.int64] = np.array([*starts, len(members)], dtype=np.int64)

    def faces(self) -> int:
        return len(self._keys)

    def fill(self, row: Row, index: int) -> None:
        key = self._keys[index]
        row.id = f"{self.name}-{key}"
        parts = {
            self._endings[ending]: (self._tars[which], int(offset), int(size))
            for which, ending, offset, size in self._members[self._starts[index] : self._starts[index + 1]]
        }
        record = _record(self.archive.read(*parts["json"]), key) if "json" in parts else {}
        if not begin_from_record(row, record, field=f"{key}.json"):
            return
        picture = next((ending for ending in _PICTURES if ending in parts), None)
        if picture is None:
            raise BadInput(key, f"holds {', '.join(parts)}", f"a picture ({', '.join(_PICTURES)})", "leave it out")
        row.image = decode(self.archive.read(*parts[picture]), field=f"{key}.{picture}", max_pixels=self.max_pixels)
        ending = next((ending for ending in (_OUR_MAP, *_MAPS) if ending in parts), None)
        if ending is not None:
            order = self._order(record, key) or (OUR_ORDER if ending == _OUR_MAP else None)
            self.lay_map(row, self.archive.read(*parts[ending]), field=f"{key}.{ending}", order=order)
        fill_from_record(row, record, field=f"{key}.json")
        if "txt" in parts and not row.captions:
            text = self.archive.read(*parts["txt"]).decode("utf-8", "replace").strip()
            row.captions = {"en": [text]} if text else {}

    def _order(self, record: Mapping[str, Any], key: str) -> str | None:
        """The label order that the settings or the sample name. Raises BadInput where they disagree."""
        own = record.get("label_order")
        if own is not None and (own not in LABEL_ORDERS or self.label_order not in (None, own)):
            raise BadInput(f"{key}.json: label_order", repr(own), self.label_order or ", ".join(LABEL_ORDERS))
        return self.label_order or own


def _walk(archive: Archive, tar: str) -> list[tuple[str, int, int]]:
    """(name, first byte, bytes) of every file in a tar. Raises DataError where it is cut off or packed."""
    remedy = "copy the tar again, unpacked (.tar, not .tar.gz)"
    with archive.open(tar) as file:
        end = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as members:
                found = [(m.name, m.offset_data, m.size) for m in members if m.isfile()]
        except tarfile.TarError as error:
            raise DataError(tar, f"is no whole tar: {error}", "a plain tar", remedy) from None
    found = [member for member in found if not member[0].rpartition("/")[2].startswith(".")]
    for name, offset, size in found:
        if offset + size > end:
            raise DataError(tar, f"is cut off inside {name}", "a plain tar", remedy)
    return found


def _record(data: bytes, key: str) -> Mapping[str, Any]:
    try:
        record = json.loads(data)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise BadInput(f"{key}.json", "is no JSON object", "an object of the row schema", "write it again")
    return record
