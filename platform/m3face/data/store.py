"""Memory-mapped arrays with an index: random access, resumable writing, keyed by what they were made from.

Odd here: the key (a plain dict: the input's and the encoder's content) decides the folder's name, is written inside
it, and is compared on opening; arrays made by other weights are refused, by name. Reading and writing stay in the one
process that builds; what lies between may be done anywhere (a `Spread`). Writing goes chunk by chunk with a mark for
each, so an interrupted build goes on where it stopped. Of two processes that want one store, one waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.errors import DataError, OutputError

Fields = Mapping[str, tuple[str, tuple[int, ...]]]
"""Array name to (numpy dtype, shape of one sample)."""

Arrays = Mapping[str, NDArray[Any]]

Encode = Callable[[Any], Arrays]
"""What was read of some samples to their arrays. Picklable where the work is spread."""

Spread = Callable[[Encode, Iterable[tuple[int, Any]]], Iterator[tuple[int, Arrays]]]
"""(encode, numbered inputs) to numbered arrays, in any order: who does the work. Takes the inputs as it needs them."""

Progress = Callable[[int, int], None] | None
"""`on_progress(done, count)`, in samples."""

_INDEX = "index.json"


def here(encode: Encode, given: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Arrays]]:
    """The `Spread` of one process."""
    return ((number, encode(read)) for number, read in given)


def in_processes(count: int) -> Spread:
    """The `Spread` over `count` processes of this machine, with as many chunks again waiting for them."""

    def spread(encode: Encode, given: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Arrays]]:
        with ProcessPoolExecutor(count) as pool:
            running: dict[Future[Arrays], int] = {}

            def finished(most: int) -> Iterator[tuple[int, Arrays]]:
                while len(running) > most:
                    for job in wait(running, return_when=FIRST_COMPLETED).done:
                        yield running.pop(job), job.result()

            for number, read in given:
                running[pool.submit(encode, read)] = number
                yield from finished(2 * count - 1)
            yield from finished(0)

    return spread


def key_digest(key: Mapping[str, Any]) -> str:
    """Twelve hex digits that name this key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def _open_arrays(folder: Path, fields: Fields, mode: str) -> dict[str, NDArray[Any]]:
    return {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode=mode, dtype=np.dtype(dtype))
        for name, (dtype, _) in fields.items()
    }


def _make_arrays(folder: Path, fields: Fields, count: int) -> None:
    """Arrays of zeros whose place on the disk is taken at once: a write to a memory map on a full disk would kill."""
    try:
        for name, (dtype, shape) in fields.items():
            path = folder / f"{name}.npy"
            np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=(count, *shape))
            if hasattr(os, "posix_fallocate"):
                with path.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    except OSError as error:
        for name in fields:
            (folder / f"{name}.npy").unlink(missing_ok=True)
        size = sum(count * np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in fields.values())
        remedy = "free some or choose another place with runs="
        raise OutputError(
            "cache", f"{folder}: {error.strerror}", f"{size / 1e9:.1f} GB of free space", remedy
        ) from None


class ArrayStore:
    """A finished store, read only: `store["image"][i]`, `len(store)`, `store.key`, `"image" in store`."""

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise DataError("cache", f"{folder} has no readable {_INDEX}", "a finished cache", "build it") from None
        self.folder, self.key, self.count = folder, index["key"], int(index["count"])
        self._arrays = _open_arrays(folder, index["fields"], "r")

    def __len__(self) -> int:
        return self.count

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def require(self, key: Mapping[str, Any]) -> ArrayStore:
        """Itself, if it was made from `key`; DataError names the first part that differs."""
        for part in sorted({*key, *self.key}):
            if key.get(part) != self.key.get(part):
                raise DataError(
                    f"cache {self.folder.name}",
                    f"was made with {part}={self.key.get(part)!r}",
                    f"{part}={key.get(part)!r}",
                    "delete it or let it be built again",
                )
        return self


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold `folder`, made if need be, against every other process; a kill lets go."""
    handle = -1
    while handle < 0:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # renamed by its builder in this very moment
            handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def finished_store(root: Path, name: str, key: Mapping[str, Any]) -> ArrayStore | None:
    """The store `name` for `key` under `root`, if it was built; DataError where other arrays bear its name."""
    folder = root / f"{name}-{key_digest(key)}"
    return ArrayStore(folder).require(key) if (folder / _INDEX).is_file() else None


def build_store(
    root: Path,
    name: str,
    *,
    key: Mapping[str, Any],
    count: int,
    fields: Fields,
    encode: Encode,
    read: Callable[[int, int], Any] = range,
    chunk: int = 256,
    spread: Spread = here,
    on_progress: Progress = None,
) -> ArrayStore:
    """The store `name` for `key` under `root`, built (or finished) if need be.

    `read(first, last)` gets what `encode` needs of those samples (their numbers, if it needs no more). `on_progress`
    is called after each chunk. Raises OutputError where the disk has no room.
    """
    folder = root / f"{name}-{key_digest(key)}"
    aside = folder.with_name(folder.name + ".building")
    if (store := finished_store(root, name, key)) is not None:
        return store
    with _alone(aside):
        if not (folder / _INDEX).is_file():  # else whom we waited for has finished it
            todo = _Marks(aside, fields, count=count, chunk=chunk)
            given = ((first, read(first, min(first + chunk, count))) for first in todo.left())
            for first, values in spread(encode, given):
                todo.finish(first, values)
                if on_progress is not None:
                    on_progress(todo.done(), count)
            todo.forget()
            index = {"key": dict(key), "count": count, "fields": {k: [d, list(s)] for k, (d, s) in fields.items()}}
            (aside / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
            os.replace(aside, folder)
    return ArrayStore(folder).require(key)


class _Marks:
    """The arrays of an unfinished store, and which of its chunks are written."""

    def __init__(self, folder: Path, fields: Fields, *, count: int, chunk: int) -> None:
        self._folder, self._fields, self._count, self._chunk = folder, fields, count, chunk
        self._path = folder / "done.npy"
        if not self._path.is_file():
            _make_arrays(folder, fields, count)
            np.save(self._path, np.zeros(len(range(0, count, chunk)), dtype=np.bool_))
        self._marks = np.lib.format.open_memmap(self._path, mode="r+")

    def left(self) -> list[int]:
        """The first sample of every chunk that is not written."""
        return [int(number) * self._chunk for number in np.flatnonzero(~self._marks)]

    def finish(self, first: int, values: Arrays) -> None:
        last = min(first + self._chunk, self._count)
        arrays = _open_arrays(self._folder, self._fields, "r+")  # anew, so that written pages leave the memory
        for name in self._fields:
            arrays[name][first:last] = values[name]
            arrays[name].flush()  # type: ignore[attr-defined]
        self._marks[first // self._chunk] = True
        self._marks.flush()

    def done(self) -> int:
        short = len(self._marks) * self._chunk - self._count  # the last chunk lacks so many
        return int(self._marks.sum()) * self._chunk - (short if self._marks[-1] else 0)

    def forget(self) -> None:
        self._path.unlink()
