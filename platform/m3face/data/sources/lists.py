"""The lists beside published faces: attributes, landmarks, identities, splits, poses; as text or as CSV.

Odd here: the published files do not agree on a head. Some begin with the number of rows, some with the columns' names,
some with neither; each is told by what stands in it. A wrong line condemns the list: half of one labels faces wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.data.pictures import SUFFIXES
from m3face.data.sources.archive import Archive
from m3face.errors import BadInput, DataError


@dataclass(frozen=True, kw_only=True)
class PublishedList:
    """`values[rows[key]]` is what `file` says of the picture `key`; `columns` is empty where the file names none."""

    file: str
    columns: tuple[str, ...]
    rows: dict[str, int]
    values: NDArray[Any]

    def of(self, key: str) -> NDArray[Any]:
        """The values of one picture. Raises BadInput where the list lacks it."""
        if key not in self.rows:
            raise BadInput(self.file, f"has no line for {key}", "a line for every picture", "copy the list again")
        return self.values[self.rows[key]]


_LABELS = {"1": 1, "-1": 0, "0": 0}


def yes_or_no(token: str) -> int:
    """1 for "1", 0 for "-1" and for the "0" of some copies. Raises ValueError for anything else."""
    if token not in _LABELS:
        raise ValueError(token)
    return _LABELS[token]


def _reads(number: Callable[[str], float], token: str) -> bool:
    try:
        number(token)
    except ValueError:
        return False
    return True


def _is_head(tokens: list[str]) -> bool:
    return not tokens[0].lower().endswith(SUFFIXES) and not any(_reads(float, token) for token in tokens)


def read_list(
    archive: Archive,
    file: str,
    *,
    width: int,
    allowed: str,
    number: Callable[[str], float] = int,
    dtype: str = "int32",
) -> PublishedList:
    """The list `file`: lines of a key and `width` values, split at commas in a CSV and at blanks elsewhere.

    `number` reads a value; what it refuses with ValueError is named with its line and `allowed`. Raises DataError for
    such a line, one with more or fewer values, a key that comes twice, and a count on top that is not kept.
    """
    remedy = "mend the line or copy the list again"
    comma = "," if file.lower().endswith(".csv") else None
    count = -1
    columns: tuple[str, ...] = ()
    rows: dict[str, int] = {}
    values: list[list[float]] = []
    for position, line in enumerate(archive.text(file).splitlines(), start=1):
        where = f"{file}, line {position}"
        tokens = [token.strip() for token in line.split(comma)]
        if not any(tokens):
            continue
        if not rows and len(tokens) == 1 and tokens[0].isdecimal():
            count = int(tokens[0])
            continue
        if not rows and not columns and _is_head(tokens):
            if len(tokens) not in (width, width + 1):  # one more where the key has a name too
                raise DataError(where, f"names {len(tokens)} columns", f"{width} columns", remedy)
            columns = tuple(tokens[-width:])
            continue
        key, *rest = tokens
        if len(rest) != width:
            raise DataError(where, f"has {len(rest)} values", f"a name and {width} values", remedy)
        if key in rows:
            raise DataError(where, f"names {key} a second time", "one line a picture", remedy)
        try:
            values.append([number(token) for token in rest])
        except ValueError:
            wrong = next(token for token in rest if not _reads(number, token))
            raise DataError(where, f"says {wrong!r} of {key}", allowed, remedy) from None
        rows[key] = len(rows)
    if count >= 0 and count != len(rows):
        raise DataError(file, f"promises {count} lines and has {len(rows)}", "a whole list", "copy the list again")
    return PublishedList(
        file=file, columns=columns, rows=rows, values=np.array(values, dtype=dtype).reshape(len(rows), width)
    )
