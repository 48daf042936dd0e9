"""Rows for tests that are about Ray and not about faces: made, slowly looked at, finished."""

from __future__ import annotations

import os
import time

from m3face.data.rows import Row, Step
from tests.made_rows import full_row


class Slow:
    """Rows of `tests.made_rows`; each takes a moment in the annotator."""

    annotates = True

    def __init__(self, moment_s: float) -> None:
        self._moment_s = moment_s

    def begin(self, indices: range) -> list[Row]:
        return [full_row(index) for index in indices]

    def annotator(self) -> Step:
        def step(rows: object) -> list[Row]:
            assert isinstance(rows, list)
            for row in rows:
                time.sleep(self._moment_s)
                row.licence = "seen"
            return rows

        return step

    def end(self, rows: list[Row]) -> list[Row]:
        return rows


def process() -> int:
    return os.getpid()
