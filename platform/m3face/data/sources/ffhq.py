"""Folders of faces and nothing else, flat or nested as FFHQ's 00000/00012.png."""

from __future__ import annotations

from m3face.config.dataset import SourceConfig
from m3face.data.pictures import SUFFIXES
from m3face.data.rows import Row
from m3face.data.sources.archive import Archive
from m3face.data.sources.base import ArchiveSource
from m3face.errors import DataError


def id_of(path: str) -> str:
    """A path as one word: without its ending, "-" between the parts."""
    return path.rpartition(".")[0].replace("/", "-")


class Ffhq(ArchiveSource):
    """Pictures; the id is the path."""

    name = "ffhq"
    needs = f"pictures ({' '.join(SUFFIXES)}), at any depth"

    @classmethod
    def missing(cls, archive: Archive) -> str | None:
        return None if archive.below("", SUFFIXES) else "any picture"

    def __init__(self, config: SourceConfig, archive: Archive, max_pixels: int) -> None:
        super().__init__(config, archive, max_pixels)
        self._paths = archive.below("", SUFFIXES)
        seen: dict[str, str] = {}
        for path in self._paths:
            other = seen.setdefault(id_of(path), path)
            if other is not path:
                raise DataError(archive.location, f"has {other} and {path}", "one picture a name", "rename one of them")

    def faces(self) -> int:
        return len(self._paths)

    def fill(self, row: Row, index: int) -> None:
        path = self._paths[index]
        row.id = f"{self.name}-{id_of(path)}"
        row.image = self.decode(path)
