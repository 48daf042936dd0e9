"""How much memory `jobs/preprocess.py` takes: with so many rows, and with four times as many.

    python benchmarks/memory.py

Odd here: nobody annotates, so the rows fly by and no model hides what they leave behind. More rows are the same
pictures under other names, which the job cannot know; copies are looked for, for that is what grows with the rows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import arms
from preprocess import CONFIG, source_folder

TIMES, SIZE = 4, 128
LEAST, MOST_BYTES = 0.9, 2e9  # of what few rows take all may take at most 1 / 0.9; and never more than this


def repeated(folder: Path, place: Path, times: int) -> Path:
    """`times` folders in `place` with the files of `folder`; they take no room."""
    for number in range(times):
        shutil.copytree(folder, place / f"{number:02d}", copy_function=os.link)
    return place


def compare(options: argparse.Namespace) -> None:
    out = arms.check(options, "memory")
    with arms.workplace() as work:
        arms.say(f"{options.faces} faces of {SIZE} pixels, rendered once, and {TIMES} times as many rows")
        source = repeated(source_folder(options.faces, SIZE), work / "source", TIMES)
        never = [f"data.{column}.when=never" for column in ("landmarks", "parser", "attributes")]

        def one(arm: str, rows: int) -> arms.Run:
            output = work / f"{arm}-{rows}"
            shutil.rmtree(output, ignore_errors=True)
            places = [f"data.source.path={source}", f"data.source.count={rows}", f"data.output={output}"]
            told = ["--set", *places, *never, f"data.align.size={SIZE}", "data.max_errors=0"]
            command = [sys.executable, arms.ROOT / "jobs" / "preprocess.py", "--config", CONFIG, *told]
            return arms.run(arm, command, work / "log")

        rows = TIMES * options.faces
        (result,) = arms.take_turns(("ray",), one, few=options.faces, many=rows, rounds=options.rounds)
    few, most = result.peak_bytes_few, result.peak_bytes
    growth, room = arms.over(few, most), arms.over(MOST_BYTES, most)
    arms.report(out, options, [result], {"MB with few / MB": (growth, LEAST), "2 GB / MB": (room, 1.0)})


def main(arguments: Sequence[str] | None = None) -> int:
    options = arms.options_of("Memory of preprocessing over many rows.", workers=None).parse_args(arguments)
    return arms.answer(partial(compare, options))


if __name__ == "__main__":
    sys.exit(main())
