"""`m3face doctor`: what this machine has, what is missing, and how to get it.

Odd here: it must work on the machine where nothing else does, so whatever it looks at is imported inside the check that
looks, and a check that fails is a row of the table, never an exception.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

_GIB = 1 << 30
_MEMORY_GIB, _DISK_GIB = 2.5, 2.0
_INSTALL = "pip install -c constraints.txt -e "
_OWN_EXTRA = re.compile(r"""extra\s*==\s*["']([\w-]+)["']""")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row: what was looked at, what is there, what is needed, and the remedy where that differs.

    `needed_for` is empty where nothing works without it.
    """

    name: str
    found: str
    needed: str
    good: bool
    remedy: str = ""
    needed_for: str = ""


def _requirements() -> list[str]:
    """The package's own requirement lines, of the installed distribution or of the source tree."""
    source = Path(__file__).parents[2] / "pyproject.toml"
    if source.is_file():
        project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
        lines = list(project["dependencies"])
        for extra, more in project["optional-dependencies"].items():
            lines += [f'{line}; extra == "{extra}"' for line in more]
        return lines
    return importlib.metadata.requires("m3face") or []


def _python() -> Iterator[Finding]:
    version = sys.version_info
    yield Finding(
        name="python",
        found=f"{version.major}.{version.minor}.{version.micro}",
        needed=">=3.11",
        good=version >= (3, 11),
        remedy="install Python 3.11 or newer",
    )


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    for line in sorted(_requirements(), key=lambda line: ("extra" in line, line.lower())):
        extra = _OWN_EXTRA.search(line)
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        specifier = Requirement(line.split(";")[0]).specifier
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        yield Finding(
            name=name,
            found=found,
            needed=str(specifier) or "any",
            good=found != "missing" and specifier.contains(found, prereleases=True),
            remedy=f"pip install -c constraints.txt -e '.[{extra[1]}]'"
            if extra
            else "pip install -c constraints.txt -e .",
            needed_for=f"the extra `{extra[1]}`" if extra else "",
        )


def _compiler() -> Iterator[Finding]:
    path = shutil.which(os.environ.get("CXX", "g++"))
    yield Finding(
        name="g++",
        found=path or "missing",
        needed="any",
        good=path is not None,
        remedy="apt-get install g++",
        needed_for="DeepSpeed",
    )


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(name="cores", found=str(cores), needed=">=1", good=True)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _GIB
    yield Finding(
        name="memory",
        found=f"{memory:.1f} GiB",
        needed=f">={_MEMORY_GIB} GiB",
        good=memory >= _MEMORY_GIB,
        remedy="use a machine with more memory",
    )
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("m3face"))
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(nearest).free / _GIB
    writable = os.access(nearest, os.W_OK)
    yield Finding(
        name=f"cache folder {folder}",
        found=f"{free:.1f} GiB free" if writable else "not writable",
        needed=f">={_DISK_GIB} GiB, writable",
        good=writable and free >= _DISK_GIB,
        remedy="free some space, or point XDG_CACHE_HOME at another disk",
        needed_for="training",
    )


def _weights() -> Iterator[Finding]:
    from m3face import presets
    from m3face.checkpoints import read_manifest, verify
    from m3face.config import COMPONENTS, RunConfig

    name: str = RunConfig.model_fields["preset"].default
    folder = presets.weights_folder(presets.get(name).weights)
    verify(folder)
    files: dict[str, str] = read_manifest(folder)["files"]
    there = {file.split("/")[0] for file in files}
    absent = [component for component in COMPONENTS if component not in there]
    size = sum((folder / file).stat().st_size for file in files) / 1e6
    yield Finding(
        name=f"weights of `{name}`",
        found=f"without {', '.join(absent)}" if absent else f"{len(COMPONENTS)} networks, {size:.1f} MB, hashes agree",
        needed=f"{len(COMPONENTS)} networks",
        good=not absent,
        remedy="train them (make tiny, then make ship-tiny) or install m3face again",
    )


def _gpu() -> Iterator[Finding]:
    import torch

    there = torch.cuda.is_available()
    yield Finding(
        name="GPU",
        found=torch.cuda.get_device_name(0) if there else f"none (torch {torch.__version__})",
        needed="CUDA",
        good=there,
        remedy="nothing to do on a CPU; with a card: its driver and a CUDA build of torch",
        needed_for="speed",
    )


_CHECKS: tuple[tuple[str, Callable[[], Iterator[Finding]], str], ...] = (
    ("python", _python, ""),
    ("packages", _packages, ""),
    ("compiler", _compiler, "DeepSpeed"),
    ("machine", _machine, "training"),
    ("weights", _weights, ""),
    ("GPU", _gpu, "speed"),
)


def examine() -> list[Finding]:
    """Every finding; what raises becomes a bad one."""
    findings: list[Finding] = []
    for name, check, needed_for in _CHECKS:
        try:
            findings += check()
        except Exception as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            remedy = getattr(error, "remedy", "") or f"{_INSTALL}."
            findings.append(
                Finding(name=name, found=line, needed="no error", good=False, remedy=remedy, needed_for=needed_for)
            )
    return findings


def doctor() -> None:
    """Say what this machine has, what is missing, and how to get it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    with Console(stderr=True).status("looking at this machine"):
        findings = examine()
    table = Table("", "what", "found", "needed", "remedy", box=None, pad_edge=False)
    for finding in findings:
        bad = Text("--", "yellow") if finding.needed_for else Text("NO", "red")
        purpose = f" for {finding.needed_for}" if finding.needed_for and not finding.good else ""
        table.add_row(
            Text("ok", "green") if finding.good else bad,
            Text(finding.name),
            Text(finding.found),
            Text(finding.needed + purpose),
            Text("" if finding.good else finding.remedy),
        )
    console = Console()
    console.print(table)
    missing = [finding.name for finding in findings if not finding.good and not finding.needed_for]
    if missing:
        console.print(f"\nmissing and required: {', '.join(missing)}", style="red", highlight=False, markup=False)
        raise typer.Exit(1)
    console.print("\neverything required is here", style="green", highlight=False)
