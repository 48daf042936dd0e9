"""A dataset in the making: what is planned and which parts of it are finished. No Ray here.

    OUT/data/train-00003-of-00012.parquet     one file for each split that shard 3 has rows of
    OUT/data/set_aside-00003-of-00012.parquet rows with an error, copies among them; loaders of a split never meet them
    OUT/sheet.png  OUT/report.json  OUT/README.md
    OUT/.work/plan.json  parts/  decision.json  shards/     while it is being made; a leading dot hides it from loaders

Odd here: the state is the files. A part (a chunk of source rows, all steps done) or a shard is finished when its name
is there, because a name appears by rename or by one put. `m3face.data.publishing` makes shards of parts.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from m3face.config.dataset import ShardConfig
from m3face.data.audit import kind_of
from m3face.data.containers import parquet_writer
from m3face.data.filtering import HASH
from m3face.data.parquet import to_table
from m3face.data.rows import Row
from m3face.data.storage import Storage
from m3face.errors import DataError, OutputError

SPLITS = ("train", "validation", "test")
SET_ASIDE = "set_aside"  # stands where a split stands in the name of a file

WORK = ".work"
PLAN, PARTS, DECISION = f"{WORK}/plan.json", f"{WORK}/parts", f"{WORK}/decision.json"
REPORT = "report.json"


@dataclass(frozen=True)
class Plan:
    """`rows` source rows, cut beforehand. `settings` is everything that decides what comes out, as plain JSON."""

    rows: int
    shards: ShardConfig
    settings: Mapping[str, Any]
    languages: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many shards."""
        return -(-self.rows // self.shards.rows)

    def shard(self, number: int) -> range:
        first = number * self.shards.rows
        return range(first, min(first + self.shards.rows, self.rows))

    def chunks(self, number: int) -> list[range]:
        """The chunks of a shard; no chunk reaches into two."""
        rows, step = self.shard(number), self.shards.chunk
        return [range(first, min(first + step, rows.stop)) for first in range(rows.start, rows.stop, step)]

    def chunk_of(self, index: int) -> range:
        """The chunk that row `index` is in."""
        number = index // self.shards.rows
        return self.chunks(number)[(index - self.shard(number).start) // self.shards.chunk]

    def every_chunk(self) -> Iterator[range]:
        return (chunk for number in range(self.count) for chunk in self.chunks(number))


def open_output(storage: Storage, plan: Plan) -> bool:
    """Begin the plan in a new output or take up an unfinished one; True where the dataset is finished already.

    Raises OutputError for an output that holds anything else, naming the first setting that differs.
    """
    if storage.exists(PLAN):
        _require_same(storage, storage.read(PLAN), plan)
        return False
    if storage.exists(REPORT):
        _require_same(storage, storage.read(REPORT), plan)
        return True
    if not storage.is_empty():
        raise OutputError("data.output", f"{storage.address} is not empty", "a new or unfinished folder", _OTHER)
    storage.publish(PLAN, json.dumps({"settings": plan.settings}, indent=1).encode())
    return False


_OTHER = "give another folder, or remove this one first"


def _require_same(storage: Storage, stored: bytes, plan: Plan) -> None:
    try:
        there = _flat(json.loads(stored)["settings"])
    except (ValueError, KeyError, TypeError):
        raise OutputError("data.output", f"{storage.address} is no dataset of ours", "a new folder", _OTHER) from None
    here = _flat(json.loads(json.dumps(plan.settings)))
    for name in sorted({*there, *here}):
        if there.get(name) != here.get(name):
            got = f"{storage.address} holds another dataset, made with {name}={there.get(name)!r}"
            raise OutputError("data.output", got, f"one made with {name}={here.get(name)!r}", _OTHER)


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {k: v for name, branch in tree.items() for k, v in _flat(branch, f"{path}.{name}".lstrip(".")).items()}


def part_name(chunk: range) -> str:
    return f"{PARTS}/{chunk.start:010d}.parquet"


def unfinished_chunks(storage: Storage, plan: Plan) -> list[range]:
    """The chunks whose part is not there yet; none once the copies are decided on."""
    if storage.exists(DECISION):
        return []
    there = set(storage.names(PARTS))
    return [chunk for chunk in plan.every_chunk() if part_name(chunk).rpartition("/")[2] not in there]


def write_part(storage: Storage, plan: Plan, chunk: range, rows: Sequence[Row]) -> None:
    """The finished rows of `chunk`, encoded, under a name of their own. Raises OutputError, leaving nothing."""
    if not storage.exists(PLAN):
        got = f"{storage.address} is not to be seen from every node"
        raise OutputError("data.output", got, "a folder that all nodes share, or s3://", "mount it everywhere")
    if len(rows) != len(chunk):
        raise DataError("steps", f"made {len(rows)} rows of {len(chunk)}", "a row for each", "this is an error of ours")
    hashes = pa.array([row.notes.get(HASH) for row in rows], pa.string())
    table = to_table(rows, plan.shards.pictures).append_column("hash", hashes)
    buffer = io.BytesIO()
    with parquet_writer(buffer, table.schema) as writer:
        writer.write_table(table)
    storage.publish(part_name(chunk), buffer.getvalue())


def read_part(storage: Storage, chunk: range, columns: Sequence[str] | None = None) -> pa.Table:
    """Raises DataError where the part is damaged."""
    try:
        with storage.open(part_name(chunk)) as file:
            return pq.read_table(file, columns=columns)
    except pa.ArrowInvalid as error:
        name, remedy = f"{storage.address}/{part_name(chunk)}", "remove it and start again: it is made anew"
        raise DataError(name, f"is damaged ({error})", "a whole file", remedy) from None


@dataclass
class Errors:
    """Bad rows by the kind of their error, with the first message of each kind; copies are counted apart."""

    rows: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    first: tuple[int, str, str] | None = None

    def add(self, index: int, id: str, message: str) -> None:
        self.rows += 1
        self.kinds[kind_of(message)] += 1
        self.examples.setdefault(kind_of(message), f"{id}: {message}")
        if self.first is None or index < self.first[0]:
            self.first = (index, id, message)

    def summary(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        kinds = {kind: {"rows": n, "example": self.examples[kind]} for kind, n in self.kinds.most_common()}
        return {"rows": self.rows, "kinds": kinds, "first": self.first}

    @staticmethod
    def of(summary: Mapping[str, Any]) -> Errors:
        """The inverse of `summary`."""
        kinds = summary["kinds"]
        first = tuple(summary["first"]) if summary["first"] else None
        counts, examples = ({k: v[name] for k, v in kinds.items()} for name in ("rows", "example"))
        return Errors(summary["rows"], Counter(counts), dict(examples), first)

    def check(self, plan: Plan, limit: float) -> None:
        """DataError as soon as `limit` (a share of all rows) is passed, whatever the rest may bring."""
        if self.first is not None and self.rows > limit * plan.rows:
            got = f"{self.rows} of {plan.rows} rows are bad ({self.rows / plan.rows:.1%}); the first is row "
            got += f"{self.first[0]} ({self.first[1]}): {self.first[2]}"
            allowed = f"at most {limit:.1%}"
            raise DataError("data.max_errors", got, allowed, "cure the archive in a new run, or raise data.max_errors")
