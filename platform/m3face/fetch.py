"""`m3face fetch`: networks that others published, into a weights folder of ours.

Odd here: every source is looked up before the first file is copied, so that what is not there is told at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def fetch(
    preset: Annotated[str, typer.Argument(help="Row of presets with published networks: sd15, m3face.")],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="COMPONENT=LOCATION",
            help="Another source for one network: hub:OWNER/REPO@BRANCH/FOLDER or dir:PATH. May be repeated.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder to write; the preset's own place if left out.")] = None,
) -> None:
    """Bring published networks into a weights folder: checked, named as here, with a manifest."""
    from m3face import checkpoints, presets
    from m3face.errors import ConfigError, OutputError

    row = presets.get(preset)
    if not row.sources:
        raise ConfigError("preset", f"{preset!r} has no published networks", "one that has", "train it instead")
    sources = dict(row.sources)
    for wish in given or ():
        component, _, location = wish.partition("=")
        if component not in row.networks or not location:
            choices = ", ".join(sorted(row.networks))
            raise ConfigError("--from", repr(wish), f"COMPONENT=LOCATION, one of {choices}", "see m3face fetch --help")
        sources[component] = location
    target = presets.cached(preset) if out is None else out
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError("--out", f"{target} is there already", "a new or empty folder", "delete it or name another")
    found = [checkpoints.locate(component, location) for component, location in sources.items()]
    for part in found:
        if not part.component.endswith(("tokenizer", "scheduler")):
            part.weights()  # a pickle is refused before gigabytes are copied
    checkpoints.fetch(
        found,
        row.networks,
        target,
        preset=preset,
        image_size=row.image_size,
        on_part=lambda part: typer.echo(part, err=True),
    )
    typer.echo(f"weights: {target}")
