"""`m3face export`: trained or fetched weights as folders that stock libraries open.

Odd here: no torch. What has no stock class is named on stderr, and the rest is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    source: Annotated[
        str, typer.Argument(help="A run's folder, a checkpoint, or weights: PATH, pkg:NAME, cache:NAME or dir:PATH.")
    ],
    out: Annotated[Path, typer.Argument(help="New folder to write.")],
    to: Annotated[Literal["diffusers", "peft"], typer.Option(help="Whose layout.")] = "diffusers",
) -> None:
    """Write networks as stock diffusers, transformers and PEFT open them."""
    from m3face import checkpoints
    from m3face.errors import OutputError

    folder = _networks(source)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError("OUT", f"{out} is there already", "a new or empty folder", "delete it or name another")
    if to == "peft":
        checkpoints.export_peft(folder, out)
    else:
        for component, reason in checkpoints.export_diffusers(folder, out).items():
            typer.echo(f"left out {component}: {reason}", err=True)
    typer.echo(str(out))


def _networks(source: str) -> Path:
    """The folder of networks behind a run (its newest checkpoint), a checkpoint or weights, after comparing hashes."""
    from m3face import checkpoints, presets

    known = source.partition(":")[0] in ("pkg", "cache", "dir")
    folder = presets.weights_folder(source if known else f"dir:{source}")
    if steps := sorted(folder.glob("step-*/manifest.json")):
        folder = steps[-1].parent
    if (folder / "model").is_dir():  # a checkpoint: what the optimizer knew is not read
        checkpoints.verify(folder, parts=["model"])
        return folder / "model"
    checkpoints.verify(folder)
    return folder
