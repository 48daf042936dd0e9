"""CelebAMask-HQ as published: pictures of 1024, a mask file of 512 for each part of each face, and lists.

Odd here: the parts are painted one over the other in the order of the publisher's g_mask.py, which is the order of the
class ids, so a later id wins a pixel that two parts claim. Folders of maps that were merged before are read only where
their label order is named. A part that no mask file shows is absent from the face; a face without any is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from m3face.config.dataset import SourceConfig
from m3face.data.pictures import decode_part
from m3face.data.rows import Row
from m3face.data.sources.archive import Archive
from m3face.data.sources.base import ArchiveSource, put_map
from m3face.data.sources.celeba import LICENCE, People, attributes_of, numbered, read_attributes
from m3face.data.sources.lists import PublishedList, read_list
from m3face.data.sources.orders import FIELD, unnamed_order
from m3face.errors import BadInput, ConfigError, DataError
from m3face.faces import CLASSES, ID

PICTURES = "CelebA-HQ-img"
PARTS = ("CelebAMask-HQ-mask-anno", "CelebAMaskHQ-mask-anno")  # as published, and as g_mask.py spells it
MERGED = ("CelebAMask-HQ-mask", "CelebAMaskHQ-mask")
ATTRIBUTES = "CelebAMask-HQ-attribute-anno.txt"
POSES = "CelebAMask-HQ-pose-anno.txt"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
A_FOLDER = 2000

_PART = re.compile(r"(\d+)/(\d{5})_(\w+)\.png")


class CelebaMaskHq(ArchiveSource):
    """Pictures and label maps; attributes, pose, identity and split where their lists are there."""

    name = "celebamask-hq"
    licence = f"CelebAMask-HQ: non-commercial research and education only; {LICENCE}"
    needs = f"{PICTURES}/0.jpg … and {PARTS[0]}/0/00000_skin.png …"

    @classmethod
    def missing(cls, archive: Archive) -> str | None:
        if not archive.below(PICTURES, (".jpg", ".png")):
            return f"{PICTURES}/0.jpg …"
        maps = any(archive.below(folder, (".png",)) for folder in (*PARTS, *MERGED))
        return None if maps else f"{PARTS[0]}/0/00000_skin.png …"

    def __init__(self, config: SourceConfig, archive: Archive, max_pixels: int) -> None:
        super().__init__(config, archive, max_pixels)
        self._paths = numbered(archive, archive.below(PICTURES, (".jpg", ".png")), f"{PICTURES}/0.jpg")
        parts, merged = _only(archive, PARTS), _only(archive, MERGED)
        self._folder, self._maps = parts, {}
        if self.label_order is not None:
            if not merged:
                got = f"is {self.label_order}, and each part has a file that names its class"
                raise ConfigError(FIELD, got, f"no order, or maps in {MERGED[0]}", "leave it out")
            self._maps = {_number(path): path for path in archive.below(merged, (".png",))}
        elif not parts:
            raise unnamed_order()
        self._parts = _parts(self._paths, archive.below(parts, (".png",)) if parts else (), parts)
        attributes, poses, mapping = archive.first(ATTRIBUTES), archive.first(POSES), archive.first(MAPPING)
        self._attributes = read_attributes(archive, attributes) if attributes else None
        self._poses = _poses(archive, poses) if poses else None
        self._mapping = _mapping(archive, mapping) if mapping else None
        self._people = People(archive) if mapping else None

    def faces(self) -> int:
        return len(self._paths)

    def fill(self, row: Row, index: int) -> None:
        path = self._paths[index]
        number = _number(path)
        row.id = f"{self.name}-{number:05d}"
        row.image = self.decode(path)
        if self._maps:
            self._read_map(row, number)
        else:
            self._merge(row, index, number)
        if self._attributes is not None:
            row.attributes = attributes_of(self._attributes, f"{number}.jpg")
        if self._poses is not None:
            row.notes["pose"] = self._poses.of(f"{number}.jpg")
        if self._mapping is not None and self._people is not None:
            self._people.fill(row, f"{int(self._mapping.of(str(number))[1]):06d}.jpg")

    def _read_map(self, row: Row, number: int) -> None:
        if number not in self._maps:
            raise BadInput(f"the map of {row.id}", "is not there", f"{MERGED[0]}/{number}.png", "leave the face out")
        path = self._maps[number]
        self.lay_map(row, self.archive.read(path), field=path, order=self.label_order)

    def _merge(self, row: Row, index: int, number: int) -> None:
        start = f"{self._folder}/{number // A_FOLDER}/{number:05d}_"
        present = [name for name in CLASSES[1:] if self._parts[index] >> ID[name] & 1]
        if not present:
            raise BadInput(
                f"the masks of {row.id}", "are not there", f"{start}skin.png and others", "leave the face out"
            )
        label_map: NDArray[np.uint8] | None = None
        for name in present:
            path = f"{start}{name}.png"
            part = decode_part(self.archive.read(path), field=path, max_pixels=self.max_pixels)
            if label_map is None:
                label_map = np.zeros(part.shape, dtype=np.uint8)
            if part.shape != label_map.shape:
                (h, w), (height, width) = part.shape, label_map.shape
                raise BadInput(path, f"is {w} x {h} pixels", f"{width} x {height}, as {start}{present[0]}.png")
            label_map[part] = ID[name]
        assert label_map is not None
        put_map(row, label_map, field=f"the masks of {row.id}")


def _number(path: str) -> int:
    return int(path.rpartition("/")[2].split(".")[0])


def _only(archive: Archive, spellings: tuple[str, str]) -> str:
    """The one of two spellings of a folder that is there, "" if none. Raises DataError for both."""
    found = [folder for folder in spellings if archive.below(folder, (".png",))]
    if len(found) > 1:
        raise DataError(archive.location, f"has {found[0]} and {found[1]}", "one of them", "move the other out")
    return found[0] if found else ""


def _parts(pictures: list[str], files: Iterable[str], folder: str) -> NDArray[np.uint32]:
    """Which parts each picture has, a bit for each class id: all names would be 372,767. Raises DataError."""
    place = {_number(path): index for index, path in enumerate(pictures)}
    bits = np.zeros(len(pictures), dtype=np.uint32)
    for file in files:
        match = _PART.fullmatch(file[len(folder) + 1 :])
        if match is None or match[3] not in CLASSES[1:] or int(match[1]) != int(match[2]) // A_FOLDER:
            allowed = f"{folder}/NUMBER // {A_FOLDER}/NUMBER_PART.png, where a part is one of {', '.join(CLASSES[1:])}"
            raise DataError(file, "is no mask file as published", allowed, "move it out or name it so")
        if int(match[2]) in place:
            bits[place[int(match[2])]] |= np.uint32(1 << ID[match[3]])
    return bits


def _poses(archive: Archive, file: str) -> PublishedList:
    """Yaw, pitch and roll in degrees."""
    return read_list(archive, file, width=3, allowed="degrees", number=float, dtype="float32")


def _mapping(archive: Archive, file: str) -> PublishedList:
    """The index and the number of the CelebA picture that a picture was made from."""
    return read_list(
        archive, file, width=2, allowed="a number and NUMBER.jpg", number=lambda token: int(token.removesuffix(".jpg"))
    )
