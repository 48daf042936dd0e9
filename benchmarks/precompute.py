"""How fast caches are made: `jobs/precompute.py` against the encoders alone, called in a loop.

    python benchmarks/precompute.py

Odd here: the bare loop is the library's own build with another `Spread`, one that reads all inputs first and counts the
seconds inside the encoders only: reading, drawing captions and writing are no part of its rate, but of the job's. The
job's caches are told apart by when their index was written, and are compared with the loop's byte by byte.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import arms

from m3face.config.loading import load_settings
from m3face.config.precompute import PrecomputeConfig

if TYPE_CHECKING:
    from m3face.data.store import Arrays, ArrayStore, Encode

CONFIG = arms.ROOT / "jobs" / "configs" / "precompute_tiny.yaml"
CACHES = ("text-states", "tokens", "latents")  # in the order in which the job makes them
WANTED = 0.9

_FEW, _SIZE = 200, 128
_TIMES = "times.json"


class Bare:
    """A `Spread` that counts the seconds of the encoder alone."""

    seconds = 0.0

    def __call__(self, encode: Encode, given: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Arrays]]:
        for number, read in list(given):
            began = time.perf_counter()
            arrays = encode(read)
            self.seconds += time.perf_counter() - began
            yield number, arrays


def bare(config: PrecomputeConfig) -> None:
    """Every encoder in a loop of this process, on one thread; its seconds beside the caches."""
    import torch

    from m3face import presets
    from m3face.data import encoded
    from m3face.data.faces import captions, faces

    torch.set_num_threads(1)
    assert config.weights is not None
    root = Path(config.runs) / "caches"
    own = faces(config.data, root)
    frozen: dict[str, Any] = {"root": root, "faces": own, "weights": presets.weights_folder(config.weights)}
    builds: tuple[partial[ArrayStore], ...] = (
        partial(encoded.text_states, captions=captions(config.data, own)),
        partial(encoded.condition_tokens),
        partial(encoded.latents),
    )
    seconds = {}
    for name, build in zip(CACHES, builds, strict=True):
        spread = Bare()
        build(**frozen, device="cpu", spread=spread)
        seconds[name] = spread.seconds
    (root / _TIMES).write_text(json.dumps(seconds), encoding="utf-8")


def finished(caches: Path, began: float) -> dict[str, float]:
    """Seconds from the end of one cache to that of the next, by the clock of their files."""
    ends = [next(caches.glob(f"{name}-*/index.json")).stat().st_mtime for name in CACHES]
    return {name: end - before for name, end, before in zip(CACHES, ends, [began, *ends])}


def require_same(one: Path, other: Path) -> None:
    """DataError unless both folders hold the same caches."""
    from m3face.errors import DataError

    names = sorted(path.relative_to(one).as_posix() for name in CACHES for path in one.glob(f"{name}-*/*"))
    assert len(names) > len(CACHES)
    _, *wrong = filecmp.cmpfiles(one, other, names, shallow=False)
    if differ := [*wrong[0], *wrong[1]]:
        raise DataError(other.parent.name, f"has another {differ[0]}", f"that of {one.parent.name}")


def compare(options: argparse.Namespace) -> None:
    out = arms.check(options, "precompute")
    few = min(_FEW, options.faces // 4)
    with arms.workplace() as work:
        arms.say(f"{options.faces} faces of {_SIZE} pixels, rendered once")
        stores = {count: arms.rendered(count, _SIZE) for count in (few, options.faces)}

        def one(arm: str, faces: int) -> arms.Run:
            place = work / f"{arm}-{faces}"
            shutil.rmtree(place, ignore_errors=True)
            caches = place / "caches"
            caches.mkdir(parents=True)
            (caches / stores[faces].folder.name).symlink_to(stores[faces].folder, target_is_directory=True)
            data = {"source": "synthetic", "path": '""', "count": faces, "seed": arms.SEED, "size": _SIZE}
            told = [f"data.{name}={value}" for name, value in data.items()]
            told += [f"runs={place}", f"placement.workers={options.workers}"]
            job = [arms.ROOT / "jobs" / "precompute.py", "--config", CONFIG]
            began = time.time()
            command = [sys.executable, *(job if arm == "ray" else [__file__, "--arm", arm]), "--set", *told]
            took = arms.run(arm, command, work / "log")
            for other in set(work.glob(f"*-{faces}")) - {place}:
                require_same(other / "caches", caches)
            if arm == "ray":
                return arms.Run({**finished(caches, began), **took.seconds}, took.peak_bytes)
            alone = json.loads((caches / _TIMES).read_text(encoding="utf-8"))
            return arms.Run({**alone, arms.ALL: sum(alone.values())}, took.peak_bytes)

        results = list(arms.take_turns(("bare", "ray"), one, few=few, many=options.faces, rounds=options.rounds))
    whole = {result.arm: result.rate for result in results if result.part == arms.ALL}
    arms.report(out, options, results, {"ray / bare": (arms.over(whole["ray"], whole["bare"]), WANTED)})


def main(arguments: Sequence[str] | None = None) -> int:
    options = arms.options_of("Precomputing: the job on Ray, and the encoders alone.", workers=1).parse_args(arguments)
    if options.arm is None:
        return arms.answer(partial(compare, options))
    return arms.answer(lambda: bare(load_settings(PrecomputeConfig, CONFIG, options.set)))


if __name__ == "__main__":
    sys.exit(main())
