"""Where an archive lies: a folder, one file, or an address such as s3://bucket/faces; all read alike.

Odd here: a file that is missing or closed to us is the fault of its row (BadInput); a place that cannot be reached is
nobody's row, so it is a DataError and stops the reader. Names inside an archive come from strangers, so a name that
leads out of it is refused. A copy sent to another process does not take the list of files along.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Any

from m3face.data.storage import Failures
from m3face.errors import BadInput, ConfigError, DataError

FIELD = "data.source.path"


class Archive:
    """Files below `location`, named by their paths in it with "/" between the parts.

    Raises DataError where a local `location` does not exist and ConfigError where what reads the address is missing.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._only = ""  # the one file that the location names
        if "://" in location:
            self._root = ""
            self._remote  # noqa: B018  an unreadable address is told now
        else:
            root = Path(location).expanduser()
            if not root.exists():
                raise DataError(FIELD, f"{location} does not exist", "a folder or a file of faces")
            if root.is_file():
                root, self._only = root.parent, root.name
            self._root = str(root)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("files", "_remote")}

    @cached_property
    def _remote(self) -> tuple[Any, str]:
        """The file system of the address, and the root in its spelling."""
        remedy = "pip install -c constraints.txt -e '.[ray]'"
        try:
            from fsspec.core import url_to_fs

            return url_to_fs(self.location)
        except ImportError as error:
            raise ConfigError(FIELD, f"{self.location} needs {error.name}", "installed packages", remedy) from None
        except ValueError as error:
            raise ConfigError(FIELD, f"{self.location}: {error}", "a folder or an s3:// address") from None

    @contextmanager
    def _reached(self, path: str) -> Iterator[None]:
        with Failures(FIELD, DataError).named(self.location):
            try:
                yield
            except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
                reason = os.strerror(error.errno) if error.errno else "not there, or closed to us"
                raise BadInput(path, reason, f"a readable file of {self.location}", "copy it again") from None

    def _inside(self, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or path.startswith("/") or "://" in path or "\0" in path:
            raise BadInput(path, "leads out of the archive", f"a name of a file below {self.location}")
        return "/".join(parts)

    @cached_property
    def files(self) -> tuple[str, ...]:
        """Every file, sorted, without hidden ones. Raises DataError."""
        try:
            with self._reached(self.location):
                names = [self._only] if self._only else list(self._walk() if self._root else self._find())
        except BadInput as error:
            raise DataError(FIELD, f"{self.location}: {error.got}", "a folder that can be listed") from None
        return tuple(sorted(name for name in names if not any(part.startswith(".") for part in name.split("/"))))

    def _walk(self) -> Iterator[str]:
        seen: set[str] = set()
        for folder, folders, files in os.walk(self._root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link to a folder above
                folders.clear()
                continue
            seen.add(real)
            relative = Path(folder).relative_to(self._root)
            yield from ((relative / name).as_posix() for name in files)

    def _find(self) -> Iterator[str]:
        system, root = self._remote
        if system.isfile(root):
            self._only = PurePosixPath(root).name
            yield self._only
            return
        for name in system.find(root):
            yield name[len(root) :].lstrip("/")

    def _address(self, path: str) -> str:
        """`path` in the spelling of the remote file system."""
        root = self._remote[1]
        return root if self._only else f"{root.rstrip('/')}/{self._inside(path)}"

    def open(self, path: str) -> IO[bytes]:
        """The file, to be closed by the caller; it can be read from any place. Raises BadInput or DataError."""
        with self._reached(path):
            if self._root:
                return open(Path(self._root, self._inside(path)), "rb")
            return self._remote[0].open(self._address(path), "rb")

    def read(self, path: str, start: int = 0, size: int | None = None) -> bytes:
        """The file's bytes, or `size` of them from `start`. Raises BadInput or DataError."""
        with self._reached(path):
            if not self._root:
                return self._remote[0].cat_file(
                    self._address(path), start=start or None, end=None if size is None else start + size
                )
            with self.open(path) as file:
                file.seek(start)
                return file.read() if size is None else file.read(size)

    def text(self, path: str) -> str:
        """The file as UTF-8. Raises DataError."""
        try:
            return self.read(path).decode("utf-8-sig")
        except BadInput as error:
            raise DataError(path, error.got, error.allowed, error.remedy) from None
        except UnicodeDecodeError as error:
            raise DataError(path, f"is not UTF-8 at byte {error.start}", "a text file", "copy it again") from None

    def first(self, *names: str) -> str | None:
        """The first of `names` that is a file here."""
        return next((name for name in names if name in self.files), None)

    def below(self, folder: str, suffixes: tuple[str, ...]) -> list[str]:
        """The files below `folder` ("" is all) that end so, sorted."""
        start = f"{folder}/" if folder else ""
        return [name for name in self.files if name.startswith(start) and name.lower().endswith(suffixes)]
