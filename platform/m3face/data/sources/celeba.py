"""CelebA as published: aligned pictures of 178 x 218 and the lists beside them.

Odd here: the lists may lie beside the pictures or in the publisher's folders Anno and Eval, as text or as CSV. Without
the split list the published bounds decide (they never change), because that split keeps every person in one part.
"""

from __future__ import annotations

from collections.abc import Iterable

from m3face.config.dataset import SourceConfig
from m3face.data.rows import Row
from m3face.data.sources.archive import Archive
from m3face.data.sources.base import ArchiveSource
from m3face.data.sources.lists import PublishedList, read_list, yes_or_no
from m3face.errors import DataError
from m3face.faces import CELEBA_NAMES, from_celeba

LICENCE = "CelebA: non-commercial research only, no redistribution"
PICTURES = "img_align_celeba"
FIVE_POINTS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")
"""CelebA's landmarks in order; left and right are the picture's."""

_FOLDERS = ("", "Anno/", "Eval/", "anno/", "eval/")
_SPLITS = ("train", "validation", "test")
_LAST = (162_770, 182_637)  # the last pictures of train and of validation


def find_list(archive: Archive, stem: str) -> str | None:
    """Where the list `stem` is, as text or CSV."""
    return archive.first(*(f"{folder}{stem}{suffix}" for suffix in (".txt", ".csv") for folder in _FOLDERS))


def read_attributes(archive: Archive, file: str) -> PublishedList:
    """CelebA's 40 labels, 0 or 1. Raises DataError."""
    found = read_list(archive, file, width=len(CELEBA_NAMES), allowed="1 or -1", number=yes_or_no, dtype="int8")
    unknown = [name for name in found.columns if name not in CELEBA_NAMES]
    if unknown:
        raise DataError(file, f"names the column {unknown[0]!r}", "CelebA's 40 names", "copy the list again")
    return found


def attributes_of(found: PublishedList, key: str) -> dict[str, str]:
    """What the labels say for certain of our attributes. Raises BadInput where the list lacks the picture."""
    names = found.columns or CELEBA_NAMES
    return from_celeba({name: bool(value) for name, value in zip(names, found.of(key))})


class People:
    """Who is on CelebA's pictures and in which split, by the published name ("000001.jpg")."""

    def __init__(self, archive: Archive) -> None:
        who, part = find_list(archive, "identity_CelebA"), find_list(archive, "list_eval_partition")
        self._who = read_list(archive, who, width=1, allowed="a number") if who else None
        self._part = read_list(archive, part, width=1, allowed="0, 1 or 2", number=_part) if part else None

    def fill(self, row: Row, picture: str) -> None:
        """Identity and split of a row. Raises BadInput where a list lacks the picture."""
        if self._who is not None:
            row.identity = f"celeba-{int(self._who.of(picture)[0])}"
        number = int(picture.split(".")[0])
        part = sum(number > last for last in _LAST) if self._part is None else int(self._part.of(picture)[0])
        row.split = _SPLITS[part]


def _part(token: str) -> int:
    return range(len(_SPLITS)).index(int(token))


def numbered(archive: Archive, paths: Iterable[str], example: str) -> list[str]:
    """`paths` by the number that is their name. Raises DataError for another name."""
    numbers: dict[int, str] = {}
    for path in paths:
        stem = path.rpartition("/")[2].split(".")[0]
        if not stem.isdecimal() or int(stem) in numbers:
            got = f"is {path}" if not stem.isdecimal() else f"has {numbers[int(stem)]} and {path}"
            raise DataError(archive.location, got, f"one picture a number, as {example}", "move it out")
        numbers[int(stem)] = path
    return [numbers[number] for number in sorted(numbers)]


class Celeba(ArchiveSource):
    """Pictures, attributes, five points, identities and splits."""

    name = "celeba"
    licence = LICENCE
    needs = f"{PICTURES}/000001.jpg … and list_attr_celeba.txt or .csv"

    @classmethod
    def missing(cls, archive: Archive) -> str | None:
        if not _pictures(archive):
            return f"{PICTURES}/000001.jpg …"
        return None if find_list(archive, "list_attr_celeba") else "list_attr_celeba.txt or .csv"

    def __init__(self, config: SourceConfig, archive: Archive, max_pixels: int) -> None:
        super().__init__(config, archive, max_pixels)
        self._paths = numbered(archive, _pictures(archive), f"{PICTURES}/000001.jpg")
        self._attributes = read_attributes(archive, find_list(archive, "list_attr_celeba") or "")
        points = find_list(archive, "list_landmarks_align_celeba")
        self._points = (
            read_list(archive, points, width=10, allowed="pixels", number=float, dtype="float32") if points else None
        )
        self._people = People(archive)

    def faces(self) -> int:
        return len(self._paths)

    def fill(self, row: Row, index: int) -> None:
        path = self._paths[index]
        stem = path.rpartition("/")[2].split(".")[0]
        published = f"{stem}.jpg"  # the lists say .jpg of the PNG edition too
        row.id = f"{self.name}-{stem}"
        row.image = self.decode(path)
        row.attributes = attributes_of(self._attributes, published)
        self._people.fill(row, published)
        if self._points is not None:
            row.notes["five_points"] = self._points.of(published).reshape(5, 2)


def _pictures(archive: Archive) -> list[str]:
    """The aligned pictures, also in the folder of the same name inside, and in the publisher's Img."""
    for folder in (PICTURES, f"Img/{PICTURES}"):
        found = archive.below(folder, (".jpg", ".png"))
        if found:
            return found
    return []
