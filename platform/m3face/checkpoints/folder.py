"""Folders that are whole or not there: write aside, manifest last, rename into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from m3face.errors import CheckpointError, OutputError

FORMAT = 1
TRAIN_OR_COPY = "train it (make tiny, then make ship-tiny) or copy it again"
MANIFEST = "manifest.json"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_manifest(folder: Path, **facts: Any) -> None:
    """Write `manifest.json` over every file of `folder`; `facts` (parent, config, …) go beside the hashes."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = {name: _digest(folder / name) for name in names if name != MANIFEST}
    text = json.dumps({"format": FORMAT, **facts, "files": files}, indent=1, ensure_ascii=False)
    aside = folder / (MANIFEST + ".aside")
    aside.write_text(text + "\n", encoding="utf-8")
    os.replace(aside, folder / MANIFEST)


@contextmanager
def publish(folder: Path, **facts: Any) -> Iterator[Path]:
    """A sibling folder to write into; on success it gets a manifest and takes the name `folder`, else it vanishes."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.aside")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
    except OSError as error:
        raise OutputError("folder", f"{folder}: {error.strerror}", "a folder that can be written") from None
    try:
        yield aside
        write_manifest(aside, **facts)
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        if folder.exists():
            os.replace(folder, old)
        os.replace(aside, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder; CheckpointError says "not finished" where there is none."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            "weights", f"{folder} has no {MANIFEST}", "a finished folder", "it was not finished: train or copy it again"
        ) from None
    except (OSError, ValueError):
        raise CheckpointError("weights", f"{folder / MANIFEST} cannot be read", "JSON", "copy it again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise CheckpointError("weights", f"{folder / MANIFEST} is no manifest", "a JSON object", "copy it again")
    if manifest.get("format") != FORMAT:
        raise CheckpointError(
            "weights", f"{folder} has the format {manifest.get('format')!r}", f"format {FORMAT}", "update m3face"
        )
    return manifest


def verify(folder: Path, *, parts: Sequence[str] | None = None) -> None:
    """Compare every file's hash with the manifest; only those under the folders `parts`, if given.

    A part that the manifest does not know is missing.
    """
    files = read_manifest(folder)["files"]
    for part in parts or ():
        if not any(name.split("/")[0] == part for name in files):
            raise CheckpointError("weights", f"{folder / part} is missing", "a trained network", TRAIN_OR_COPY)
    for name, digest in files.items():
        if parts is not None and name.split("/")[0] not in parts:
            continue
        path = folder / name
        if not path.is_file():
            raise CheckpointError("weights", f"{path} is missing", "every file of the manifest", "copy it again")
        if _digest(path) != digest:
            raise CheckpointError("weights", f"{path} is damaged", "the hash in the manifest", "copy it again")
