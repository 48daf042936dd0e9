"""What the benchmarks share: rendered faces, an arm as a process of its own, what it took, and the report.

Odd here: no arm is timed from inside. Each runs twice, once with few faces and once with all: the difference is what
the further faces cost, and so no start-up, of whatever kind, is in the rates. Arms take turns, and every second round
goes backwards, so that a machine that slows down does not favour one. Imported first, it finds the `m3face` beside it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

if find_spec("m3face") is None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "platform"))

from m3face.errors import ConfigError, DataError, M3FaceError, OutputError

if TYPE_CHECKING:
    from m3face.data.store import ArrayStore

ROOT = Path(__file__).parents[1]
SEED, LEAST, ENOUGH = 11, 32, 2000  # faces with which it runs at all, and from which on a ratio means something
ALL = "all"  # the part that is the whole of an arm's work

_LOOKS = 0.01  # of a core, in every arm: what adding up the memory of its processes may take
_PACKAGES = ("torch", "numpy", "pillow", "pyarrow", "ray", "datasets")

say = partial(print, flush=True)


# ------------------------------------------------------------------------------------------------ command line
def options_of(description: str, *, workers: int | None) -> argparse.ArgumentParser:
    """The options that every benchmark has; `workers` but where there are none."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--faces", type=int, default=ENOUGH, help=f"how many (default {ENOUGH})")
    if workers is not None:
        parser.add_argument("--workers", type=int, default=workers, help=f"processes with models (default {workers})")
    parser.add_argument("--rounds", type=int, default=2, help="how often every arm runs (default 2)")
    parser.add_argument("--out", metavar="FILE", help="the result as JSON (default out/benchmarks/NAME.json)")
    parser.add_argument("--arm", help=argparse.SUPPRESS)  # what a benchmark gives to its processes
    parser.add_argument("--set", nargs="+", default=[], help=argparse.SUPPRESS)
    return parser


def check(options: argparse.Namespace, name: str) -> Path:
    """The file of the result, whose folder is there. Raises ConfigError or OutputError."""
    for option, least in (("faces", LEAST), ("workers", 1), ("rounds", 1)):
        if (value := getattr(options, option, least)) < least:
            raise ConfigError(f"--{option}", str(value), f"{least} or more")
    if find_spec("ray") is None or find_spec("pyarrow") is None:
        raise ConfigError("ray", "is not installed", "the extra ray", "pip install 'm3face[ray]'")
    out = Path(options.out or ROOT / "out" / "benchmarks" / f"{name}.json").expanduser()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError("--out", f"{out}: {error.strerror}", "a file in a writable folder") from None
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise OutputError("--out", f"{out} cannot be written", "a file in a writable folder")
    return out


def answer(work: Callable[[], None]) -> int:
    """Do `work`; the exit code. What goes wrong is one line on stderr."""
    try:
        work()
    except M3FaceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is a command line
        return error.exit_code
    return 0


# ------------------------------------------------------------------------------------------------------- faces
def scratch() -> Path:
    """The folder of what may be used again, under the user's temporary folder."""
    return Path(tempfile.gettempdir()) / "m3face-benchmarks"


def rendered(count: int, size: int) -> ArrayStore:
    """So many people who do not exist, rendered by all cores once."""
    from m3face.data.people import people

    return people(scratch(), count=count, seed=SEED, size=size, processes=os.cpu_count() or 1)


# -------------------------------------------------------------------------------------------------------- runs
@dataclass(frozen=True)
class Run:
    """Seconds by part of the work, ALL among them, start-up within; the most memory, None where Linux is not."""

    seconds: Mapping[str, float]
    peak_bytes: int | None


def run(arm: str, command: Sequence[str | Path], log: Path) -> Run:
    """Let `arm` run to its end, on one thread a process. DataError with its last words where it does not end well."""
    given = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}  # this machine, no cluster
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    quiet = {"HF_HOME": str(log.parent / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    peak, code, pause = 0, None, 0.5
    with log.open("w") as stream:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**given, **threads, **quiet})
        try:
            while code is None:
                with suppress(subprocess.TimeoutExpired):
                    code = process.wait(pause)
                if code is None:
                    looked = time.process_time()
                    peak = max(peak, _memory_of(process.pid))
                    pause = max(pause, (time.process_time() - looked) / _LOOKS)
        finally:
            if code is None:
                process.terminate()
                process.wait()
    if code:
        lines = log.read_text(errors="replace").strip().splitlines() or [f"exit code {code}"]
        said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[-1])
        raise DataError(f"arm {arm}", said, "an arm that ends well")
    return Run({ALL: time.monotonic() - began}, peak or None)


def _memory_of(root: int) -> int:
    """Bytes of a process and all below it; a page that several share counts once (PSS)."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
    return total


# ------------------------------------------------------------------------------------------------------ results
@dataclass(frozen=True)
class Result:
    """One part of one arm's work. `seconds` are those of all `faces` at `rate`, faces a second; `startup_s` is what a
    run with few faces took beyond theirs. None where there were too few to tell. `ratio` is to the first arm."""

    arm: str
    part: str
    faces: int
    startup_s: float
    seconds: float | None
    rate: float | None
    rates: list[float | None]
    ratio: float | None
    peak_bytes: int | None
    peak_bytes_few: int | None


def take_turns(
    arms: Sequence[str], one: Callable[[str, int], Run], *, few: int, many: int, rounds: int
) -> Iterator[Result]:
    """Let `one(arm, faces)` run for every arm, with few and with many faces, in every round."""
    runs: dict[str, list[tuple[Run, Run]]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for arm in arms if number % 2 == 0 else reversed(arms):
            short, long = one(arm, few), one(arm, many)
            runs[arm].append((short, long))
            took = f"{few} faces {short.seconds[ALL]:.1f} s, {many} faces {long.seconds[ALL]:.1f} s"
            say(f"round {number + 1} of {rounds}, {arm}: {took}")
    first: dict[str, float | None] = {}
    for part in runs[arms[0]][0][0].seconds:
        for arm in arms:
            least = min(short.seconds[part] for short, _ in runs[arm])  # the first of all may find cold disks
            whole = [long.seconds[part] for _, long in runs[arm]]
            rate = over(many - few, mean(whole) - least)
            peaks = [[r.peak_bytes or 0 for r in pair] for pair in runs[arm]]
            peak_few, peak = (max(column) or None for column in zip(*peaks, strict=True))
            yield Result(
                arm=arm,
                part=part,
                faces=many,
                startup_s=least - few / rate if rate else least,
                seconds=many / rate if rate else None,
                rate=rate,
                rates=[over(many - few, seconds - least) for seconds in whole],
                ratio=over(rate, first.setdefault(part, rate)),
                peak_bytes=peak,
                peak_bytes_few=peak_few,
            )


def over(value: float | None, by: float | None) -> float | None:
    return value / by if value is not None and by is not None and by > 0 else None


def report(
    out: Path, options: argparse.Namespace, results: Sequence[Result], ratios: Mapping[str, tuple[float | None, float]]
) -> None:
    """Print the table and write the file; `ratios` by name: what came out, and the least that is wanted."""
    rows: list[tuple[str, ...]] = [
        ("arm", "part", "faces", "start-up s", "seconds", "faces/s", "by round", "ratio", "MB", "MB with few")
    ]
    for r in results:
        numbers = (r.startup_s, r.seconds, r.rate)
        memory = (None if peak is None else peak / 1e6 for peak in (r.peak_bytes, r.peak_bytes_few))
        rounds = " ".join(_shown(rate, 1) for rate in r.rates)
        last = (_shown(r.ratio, 2), *(_shown(m, 0) for m in memory))
        rows.append((r.arm, r.part, str(r.faces), *(_shown(n, 1) for n in numbers), rounds, *last))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))))
    for name, (ratio, wanted) in ratios.items():
        say(f"{name}: {_shown(ratio, 2)} (wanted: at least {wanted})")
    if options.faces < ENOUGH:
        say(f"{options.faces} faces show that it runs; ratios mean something from {ENOUGH} on")
    settings = {k: v for k, v in vars(options).items() if k not in ("arm", "set", "out")}
    summary = {name: {"ratio": ratio, "wanted": wanted} for name, (ratio, wanted) in ratios.items()}
    content = {"settings": settings, "machine": machine(), "ratios": summary, "arms": [asdict(r) for r in results]}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    say(f"written to {out}")


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_LOAD = os.getloadavg()[0]  # before anything is done


def machine() -> dict[str, Any]:
    """What it ran on, with the load that others made when it began."""
    versions = {}
    for package in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    name, memory = platform.processor(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    facts = {"cpu": name, "cores": os.cpu_count(), "memory_bytes": memory, "load_before": _LOAD}
    return {**facts, "system": platform.platform(), "python": platform.python_version(), "packages": versions}


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for what the arms write, gone at the end."""
    if _LOAD > 0.5:
        say(f"other programs run here (load {_LOAD:.1f}): the ratios are those of a busy machine")
    scratch().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch(), ignore_cleanup_errors=True) as folder:
        yield Path(folder)
