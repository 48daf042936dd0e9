"""From finished parts to published shards.

Odd here: which copies are set aside can be known only when every part is there; that is decided once and written down,
so a shard may let go of its parts as soon as it is published. A shard is one file for each split that it has rows of,
and its report, written last, is what says that it is there.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from m3face.data.audit import tally
from m3face.data.containers import Container, M3CelebA, Rows, WebDataset, m3celeba_schema
from m3face.data.shards import DECISION, PLAN, SET_ASIDE, SPLITS, WORK, Errors, Plan, part_name, read_part
from m3face.data.storage import Storage
from m3face.errors import DataError

SHOWN = 24  # faces of the contact sheet

_SHARDS, _SCRATCH = f"{WORK}/shards", f"{WORK}/scratch"
_FACTS = ("id", "identity", "split", "error", "hash")
_READERS = 16

Copies = Callable[[Sequence[str | None]], Mapping[int, int]]
"""Hashes in source order to {row that is a copy: the first such row}."""


def read_facts(storage: Storage, chunks: Sequence[range]) -> Iterator[tuple[range, dict[str, list[Any]]]]:
    """What deciding needs of each part, in the order of `chunks`: id, identity, split, error and hash of every row."""
    with ThreadPoolExecutor(_READERS) as pool:
        columns = list(_FACTS)
        for start in range(0, len(chunks), 1024):
            some = chunks[start : start + 1024]
            for chunk, table in zip(some, pool.map(lambda c: read_part(storage, c, columns), some), strict=True):
                yield chunk, table.to_pydict()


def decide(storage: Storage, plan: Plan, find_copies: Copies) -> dict[str, Any]:
    """What only the whole dataset can tell, written down once: copies, errors, people. Every part must be there."""
    if storage.exists(DECISION):
        decision: dict[str, Any] = json.loads(storage.read(DECISION))
        return decision
    errors, hashes, ids = Errors(), [], []
    good = bytearray()
    splits: dict[str, set[bytes]] = {}
    for chunk, facts in read_facts(storage, list(plan.every_chunk())):
        for index, id, who, split, error, hash in zip(chunk, *(facts[name] for name in _FACTS), strict=True):
            ids.append(id)
            hashes.append(None if error else hash)
            good.append(error is None)
            if error:
                errors.add(index, id, error)
            elif who:
                splits.setdefault(split, set()).add(hashlib.sha256(who.encode()).digest()[:8])
    copies = find_copies(hashes)
    people = set().union(*splits.values())
    shown = [i for i, fine in enumerate(good) if fine and i not in copies]
    decision = {
        "copies": {str(index): ids[first] for index, first in copies.items()},
        "errors": errors.summary(),
        "people": len(people),
        "people_in_two_splits": sum(map(len, splits.values())) - len(people),
        "shown": [shown[place * len(shown) // SHOWN] for place in range(SHOWN)] if len(shown) > SHOWN else shown,
    }
    storage.publish(DECISION, json.dumps(decision, ensure_ascii=False).encode())
    return decision


def unfinished_shards(storage: Storage, plan: Plan) -> list[int]:
    there = set(storage.names(_SHARDS))
    return [number for number in range(plan.count) if f"{number:05d}.json" not in there]


def shard_reports(storage: Storage, plan: Plan) -> list[dict[str, Any]]:
    """What each shard wrote down: `files` with rows, bytes and hashes, and `counts` (`m3face.data.audit`)."""
    return [json.loads(storage.read(f"{_SHARDS}/{number:05d}.json")) for number in range(plan.count)]


def publish_shard(storage: Storage, plan: Plan, number: int, copies: Mapping[int, str]) -> None:
    """Put the parts of a shard together, a file for each split, then let go of the parts. Memory: one part.

    `copies` are the rows of this shard that show what another row shows, with that row's id.
    """
    files: dict[str, _Growing] = {}
    counts: Counter[tuple[str, ...]] = Counter()
    with storage.workspace(_SCRATCH) as scratch, ExitStack() as opened:
        for chunk in plan.chunks(number):
            table = _with_copies(read_part(storage, chunk).drop_columns(["hash"]), chunk, copies)
            counts += tally(table)
            bad = pc.is_valid(table["error"])
            for split in (*SPLITS, SET_ASIDE):
                mask = bad if split == SET_ASIDE else pc.and_(pc.equal(table["split"], split), pc.invert(bad))
                if (some := table.filter(mask)).num_rows:
                    if split not in files:
                        name = f"{split}-{number:05d}-of-{plan.count:05d}"
                        files[split] = opened.enter_context(_Growing(scratch, name, plan, split))
                    files[split].add(some)
        _require_every_row(plan, number, files)
        report: dict[str, Any] = {"files": [files[split].publish(storage) for split in files]}
    report["counts"] = [[*key, count] for key, count in sorted(counts.items())]
    storage.publish(f"{_SHARDS}/{number:05d}.json", json.dumps(report, ensure_ascii=False).encode())
    for chunk in plan.chunks(number):
        storage.remove(part_name(chunk))


def _require_every_row(plan: Plan, number: int, files: Mapping[str, _Growing]) -> None:
    written, planned = sum(file.rows for file in files.values()), len(plan.shard(number))
    if written != planned:
        got = f"{planned - written} good rows of shard {number} have no split"
        raise DataError("split", got, ", ".join(SPLITS), "this is an error of ours")


def _with_copies(table: pa.Table, chunk: range, copies: Mapping[int, str]) -> pa.Table:
    errors = table["error"].to_pylist()
    for place, index in enumerate(chunk):
        if index in copies:
            copy = DataError("image", f"is a copy of {copies[index]}", "one row a picture", "see filter.duplicates")
            errors[place] = str(copy)
    return table.set_column(table.schema.get_field_index("error"), "error", pa.array(errors, pa.string()))


class _Growing:
    """A published file in the making."""

    def __init__(self, scratch: Path, name: str, plan: Plan, split: str) -> None:
        kind = "rows" if split == SET_ASIDE else plan.shards.format  # other columns have no place for an error
        self.split, self.rows = split, 0
        self._path = scratch / f"{name}.{WebDataset.suffix if kind == 'webdataset' else Rows.suffix}"
        self._file: Container
        if kind == "webdataset":
            self._file = WebDataset(self._path)
        elif kind == "m3celeba":
            self._file = M3CelebA(self._path, m3celeba_schema(plan.languages))
        else:
            self._file = Rows(self._path)

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self._file.add(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def publish(self, storage: Storage) -> dict[str, Any]:
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name, size = f"data/{self._path.name}", self._path.stat().st_size
        storage.publish_file(name, self._path)
        return {"name": name, "split": self.split, "rows": self.rows, "bytes": size, "sha256": digest}


def close_work(storage: Storage) -> None:
    """Drop what the finished dataset was made from; the plan first, for where there is none nothing is left to do."""
    for name in (PLAN, WORK):
        storage.remove(name)
