"""What a dataset holds, counted: splits, sources, languages, attributes by skin tone, age and gender, kinds of error.

Odd here: counts are sums over shards, so a shard counts itself where it is put together and no row is read twice. The
skin tones of the tables are three bands of the Monk scale; the full counts are in the report.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from m3face.faces import ATTRIBUTES

Counts = Counter[tuple[str, ...]]

GROUPS = ("gender", "age", "skin_tone")
UNKNOWN = "unknown"
BANDS = {"light (Monk 1-3)": (1, 2, 3), "medium (Monk 4-6)": (4, 5, 6), "dark (Monk 7-10)": (7, 8, 9, 10)}

_FIELDS = ("attributes", "captions", "qa", "source", "licence", "split", "error")
_MESSAGE = re.compile(r"^(?P<field>.+?): .*?; allowed: (?P<allowed>.+?)(; .*)?$")
_NAMES = re.compile(r"\S*[/.]\S*\w|\d+")


def kind_of(message: str) -> str:
    """The part of an error's line that is the same for every row with that error."""
    found = _MESSAGE.match(message)
    text = f"{found['field']}; allowed: {found['allowed']}" if found else message
    return _NAMES.sub("#", text)


def tally(table: Any) -> Counts:
    """The counts of a table of the row schema. Of rows with an error only their kind is counted."""
    counts: Counts = Counter()
    for row in table.select(list(_FIELDS)).to_pylist():
        if row["error"] is not None:
            counts["error", kind_of(row["error"])] += 1
        else:
            counts.update(_keys(row))
    return counts


def _keys(row: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    yield "split", row["split"]
    yield "source", row["source"] or UNKNOWN
    yield "licence", row["licence"] or UNKNOWN
    for language, texts in row["captions"].items():
        for _ in texts or ():
            yield "captions", language
    for question in row["qa"]:
        yield "qa", question["kind"]
        yield "qa language", question["language"]
    known = row["attributes"]
    groups = tuple(known[name] or UNKNOWN for name in GROUPS)
    yield "people", *groups
    for name, value in known.items():
        if value is not None:
            yield "attribute", name, value, *groups


def merged(reports: Iterable[Sequence[Sequence[Any]]]) -> Counts:
    """The sum of what shards wrote down: lists of keys with their count last."""
    counts: Counts = Counter()
    for report in reports:
        for *key, count in report:
            counts[tuple(key)] += count
    return counts


def below(counts: Counts, *start: str) -> dict[str, int]:
    """The counts whose key begins with `start`, by the next part of the key, in the order of their size."""
    sums: Counter[str] = Counter()
    for key, count in counts.items():
        if key[: len(start)] == start and len(key) > len(start):
            sums[key[len(start)]] += count
    return dict(sums.most_common())


def _band(tone: str) -> str:
    number = int(tone.removeprefix("monk_")) if tone.startswith("monk_") else 0
    return next((name for name, tones in BANDS.items() if number in tones), UNKNOWN)


def columns() -> tuple[tuple[str, str], ...]:
    """The groups that the audit compares: (which attribute, value or band)."""
    named = [(name, value) for name in ("gender", "age") for value in ATTRIBUTES[name].values]
    return (*named, *(("skin_tone", band) for band in BANDS))


def shares(counts: Counts) -> list[tuple[str, str, int, list[float | None]]]:
    """(attribute, value, faces, its share among the faces of each group of `columns` that have the attribute known).

    A group of which nobody is known has None. Values that mean "not there" are left out.
    """
    faces: Counter[tuple[str, ...]] = Counter()
    for key, count in counts.items():
        if key[0] == "attribute":
            _, name, value, gender, age, tone = key
            for group in (("", ""), ("gender", gender), ("age", age), ("skin_tone", _band(tone))):
                faces[*group, name, value] += count
                faces[*group, name] += count
    table = []
    for name, attribute in ATTRIBUTES.items():
        for value in attribute.present:
            if every := faces["", "", name, value]:
                of = [(faces[*group, name, value], faces[*group, name]) for group in columns()]
                table.append((name, value, every, [some / known if known else None for some, known in of]))
    return table
