"""Memory-mapped arrays with an index: random access, resumable writing, keyed by what they were made from.

Odd here: the key (a plain dict: the input's and the encoder's content) decides the folder's name, is written inside
it, and is compared on opening; arrays made by other weights are refused, by name. Writing goes chunk by chunk with a
mark for each, so an interrupted build goes on where it stopped. Of two processes that want one store, one waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.errors import DataError

Fields = Mapping[str, tuple[str, tuple[int, ...]]]
"""Array name to (numpy dtype, shape of one sample)."""

Produce = Callable[[int, int], Mapping[str, NDArray[Any]]]
"""(first, last) sample to the arrays of that range."""

_INDEX = "index.json"


def key_digest(key: Mapping[str, Any]) -> str:
    """Twelve hex digits that name this key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]


def _open_arrays(folder: Path, fields: Fields, count: int, mode: str) -> dict[str, NDArray[Any]]:
    return {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode=mode, dtype=np.dtype(dtype), shape=(count, *shape) if mode == "w+" else None
        )
        for name, (dtype, shape) in fields.items()
    }


class ArrayStore:
    """A finished store, read only: `store["image"][i]`, `len(store)`, `store.key`."""

    def __init__(self, folder: Path) -> None:
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise DataError("cache", f"{folder} has no readable {_INDEX}", "a finished cache", "build it") from None
        self.folder, self.key, self.count = folder, index["key"], int(index["count"])
        self._arrays = _open_arrays(folder, index["fields"], self.count, "r")

    def __len__(self) -> int:
        return self.count

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


def _write(folder: Path, fields: Fields, produce: Produce, first: int, last: int) -> int:
    arrays = _open_arrays(folder, fields, 0, "r+")
    for name, values in produce(first, last).items():
        arrays[name][first:last] = values
        arrays[name].flush()  # type: ignore[attr-defined]
    return first


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


def build_store(
    root: Path,
    name: str,
    *,
    key: Mapping[str, Any],
    count: int,
    fields: Fields,
    produce: Produce,
    chunk: int = 256,
    processes: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> ArrayStore:
    """The store `name` for `key` under `root`, built (or finished) if need be.

    `produce` must be picklable when `processes` > 0. `on_progress(done, count)` is called after each chunk.
    """
    folder = root / f"{name}-{key_digest(key)}"
    if (folder / _INDEX).is_file():
        return ArrayStore(folder).require(key)
    aside = folder.with_name(folder.name + ".building")
    with _alone(aside):
        if not (folder / _INDEX).is_file():  # else whom we waited for has finished it
            _build(aside, fields, produce, count=count, chunk=chunk, processes=processes, on_progress=on_progress)
            index = {"key": dict(key), "count": count, "fields": {k: [d, list(s)] for k, (d, s) in fields.items()}}
            (aside / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
            os.replace(aside, folder)
    return ArrayStore(folder).require(key)


def _build(
    aside: Path,
    fields: Fields,
    produce: Produce,
    *,
    count: int,
    chunk: int,
    processes: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Every chunk of `aside` that has no mark yet."""
    marks = aside / "done.npy"
    chunks: Sequence[int] = range(0, count, chunk)
    if not marks.is_file():
        _open_arrays(aside, fields, count, "w+")
        np.save(marks, np.zeros(len(chunks), dtype=np.bool_))
    done = np.lib.format.open_memmap(marks, mode="r+")
    todo = [first for mark, first in zip(done, chunks, strict=True) if not mark]

    def finish(first: int) -> None:
        done[first // chunk] = True
        done.flush()
        if on_progress is not None:
            on_progress(min(count, int(done.sum()) * chunk), count)

    if processes:
        with ProcessPoolExecutor(processes) as pool:
            jobs = [pool.submit(_write, aside, fields, produce, f, min(f + chunk, count)) for f in todo]
            for job in as_completed(jobs):
                finish(job.result())
    else:
        for first in todo:
            finish(_write(aside, fields, produce, first, min(first + chunk, count)))
    marks.unlink()
