"""A folder, here or on S3, behind one small interface: names in, bytes out, each file published whole.

Odd here: endpoint and retries are environment variables (`s3_environment`), because every S3 client of a process reads
those, in this module, in the sources and in the workers alike. On S3 a put is atomic by itself; a local file is written
elsewhere on the same disk, flushed and renamed.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol
from uuid import uuid4

from m3face.config.dataset import StorageConfig
from m3face.errors import M3FaceError, OutputError

S3 = "s3://"
_PART = ".part"  # a file that is being written; leftovers of a kill lie in the work folder and go with it


class Storage(Protocol):
    """Files under one address. `name` is relative to it, with forward slashes. Picklable."""

    @property
    def address(self) -> str: ...

    def exists(self, name: str) -> bool: ...

    def names(self, folder: str) -> list[str]:
        """The names of the files right in `folder`, sorted; none where there is no such folder."""
        ...

    def folders(self, folder: str) -> list[str]:
        """The names of the folders right in `folder`, sorted; none where there is no such folder."""
        ...

    def is_empty(self) -> bool: ...

    def read(self, name: str) -> bytes: ...

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """For reading, seekable; what goes wrong while it is open is named too."""
        ...

    def publish(self, name: str, data: bytes) -> None:
        """`name` holds `data`, whole, or is as it was before."""
        ...

    def publish_file(self, name: str, file: Path) -> None:
        """The same with a finished file out of a `workspace`, which is gone afterwards."""
        ...

    def workspace(self, folder: str) -> AbstractContextManager[Path]:
        """An empty local folder for files on their way; in `folder` if that is local too. Gone at the end."""
        ...

    def remove(self, name: str) -> None:
        """The file or the whole folder `name`; fine if there is none."""
        ...


@dataclass(frozen=True)
class Failures:
    """Turns what the system says into one line: which setting, which address, what to do."""

    field: str
    kind: type[M3FaceError]

    @contextmanager
    def named(self, place: str) -> Iterator[None]:
        try:
            yield
        except M3FaceError:
            raise
        except OSError as error:
            raise self._explain(error, place) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("botocore", "aiobotocore", "s3fs", "aiohttp"):
                raise
            remedy = "check the address, storage.endpoint, the network and the credentials"
            raise self.kind(self.field, f"{place}: {error}", "a reachable bucket", remedy) from None

    def _explain(self, error: OSError, place: str) -> M3FaceError:
        said = error.strerror or str(error)
        allowed, remedy = "a place that can be read and written", "check the path and its permissions"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            allowed, remedy = "free space", "free some and start again: what was finished is kept"
        elif place.startswith(S3):
            allowed, remedy = "a reachable bucket", "check the address, storage.endpoint and the credentials"
        return self.kind(self.field, f"{place}: {said}", allowed, remedy)


def _flush(file: Path) -> None:
    """On the disk, before a name promises it."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class LocalFolder:
    address: str
    failures: Failures

    def _path(self, name: str) -> Path:
        return Path(self.address, name)

    def exists(self, name: str) -> bool:
        with self.failures.named(str(self._path(name))):
            return self._path(name).exists()

    def names(self, folder: str) -> list[str]:
        path = self._path(folder)
        with self.failures.named(str(path)):
            if not path.is_dir():
                return []
            return sorted(p.name for p in path.iterdir() if p.is_file() and p.suffix != _PART)

    def folders(self, folder: str) -> list[str]:
        path = self._path(folder)
        with self.failures.named(str(path)):
            return sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []

    def is_empty(self) -> bool:
        with self.failures.named(self.address):
            return not Path(self.address).exists() or not any(Path(self.address).iterdir())

    def read(self, name: str) -> bytes:
        with self.failures.named(str(self._path(name))):
            return self._path(name).read_bytes()

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with self.failures.named(str(self._path(name))), self._path(name).open("rb") as file:
            yield file

    def publish(self, name: str, data: bytes) -> None:
        path = self._path(name)
        aside = path.with_name(f".{path.name}.{uuid4().hex[:8]}{_PART}")
        with self.failures.named(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                aside.write_bytes(data)
                _flush(aside)
                os.replace(aside, path)
            finally:
                aside.unlink(missing_ok=True)

    def publish_file(self, name: str, file: Path) -> None:
        path = self._path(name)
        with self.failures.named(str(path)):
            path.parent.mkdir(parents=True, exist_ok=True)
            _flush(file)
            os.replace(file, path)

    @contextmanager
    def workspace(self, folder: str) -> Iterator[Path]:
        with self.failures.named(self.address):
            self._path(folder).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._path(folder)) as scratch:
                yield Path(scratch)

    def remove(self, name: str) -> None:
        path = self._path(name)
        with self.failures.named(str(path)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


@dataclass(frozen=True)
class S3Folder:
    address: str
    failures: Failures

    _TRIES: ClassVar[int] = 2  # s3fs's own; botocore's are AWS_MAX_ATTEMPTS

    @property
    def _client(self) -> Any:
        try:
            import s3fs
        except ModuleNotFoundError:
            got, remedy = f"{self.address} needs s3fs", "pip install 'm3face[ray]'"
            raise self.failures.kind(self.failures.field, got, "installed packages", remedy) from None
        client = s3fs.S3FileSystem(use_listings_cache=False)
        client.retries = self._TRIES
        return client

    def _key(self, name: str) -> str:
        return f"{self.address}/{name}".rstrip("/")

    def exists(self, name: str) -> bool:
        with self.failures.named(self._key(name)):
            return bool(self._client.exists(self._key(name)))

    def names(self, folder: str) -> list[str]:
        with self.failures.named(self._key(folder)):
            try:
                entries = self._client.ls(self._key(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(e["name"].rpartition("/")[2] for e in entries if e["type"] == "file" and e["size"])

    def folders(self, folder: str) -> list[str]:
        with self.failures.named(self._key(folder)):
            try:
                entries = self._client.ls(self._key(folder), detail=True, refresh=True)
            except FileNotFoundError:
                return []
            return sorted(e["name"].rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory")

    def is_empty(self) -> bool:
        bucket = self.address.removeprefix(S3).partition("/")[0]
        with self.failures.named(self.address):
            self._client.call_s3("head_bucket", Bucket=bucket)  # a missing bucket is no empty folder
            try:
                return not self._client.ls(self.address, refresh=True)
            except FileNotFoundError:
                return True

    def read(self, name: str) -> bytes:
        with self.failures.named(self._key(name)):
            return bytes(self._client.cat_file(self._key(name)))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        with self.failures.named(self._key(name)), self._client.open(self._key(name), "rb") as file:
            yield file

    def publish(self, name: str, data: bytes) -> None:
        with self.failures.named(self._key(name)):
            self._client.pipe_file(self._key(name), data)

    def publish_file(self, name: str, file: Path) -> None:
        with self.failures.named(self._key(name)):
            self._client.put_file(str(file), self._key(name))

    @contextmanager
    def workspace(self, folder: str) -> Iterator[Path]:
        with self.failures.named(f"{self.address} (files on their way to {folder})"):
            with tempfile.TemporaryDirectory() as scratch:
                yield Path(scratch)

    def remove(self, name: str) -> None:
        with self.failures.named(self._key(name)):
            try:
                self._client.rm(self._key(name), recursive=True)
            except FileNotFoundError:
                return


def open_storage(address: str, *, field: str = "data.output", kind: type[M3FaceError] = OutputError) -> Storage:
    """The files under `address`, a local path or s3://bucket/folder; nothing is touched yet.

    Whatever fails later comes as a `kind` that names `field`.
    """
    if address.startswith(S3):
        if not address.removeprefix(S3).strip("/"):
            raise kind(field, repr(address), "s3://BUCKET/FOLDER")
        return S3Folder(address.rstrip("/"), Failures(field, kind))
    if not address or "://" in address:
        raise kind(field, repr(address), "a folder or s3://BUCKET/FOLDER", f"for example --set {field}=faces")
    return LocalFolder(str(Path(address).expanduser().absolute()), Failures(field, kind))


def s3_environment(config: StorageConfig) -> dict[str, str]:
    """The environment variables by which every S3 client of a process follows `config`."""
    variables = {"AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": str(config.retries + 1)}
    return variables | ({"AWS_ENDPOINT_URL": config.endpoint} if config.endpoint else {})
