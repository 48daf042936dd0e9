"""`m3face data check` and `m3face data show`: what is in an archive of faces, before hours are spent on it.

Odd here: a layout that nobody named is recognised and said aloud; a label order never is guessed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from m3face.data.rows import Source

SOME = 1000

data = typer.Typer(name="data", help="Look into an archive of faces.")


@data.callback(invoke_without_command=True)
def root(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


_Place = Annotated[str, typer.Argument(metavar="DIR|URI", help="Folder, file or s3:// address of the archive.")]
_Layout = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="celebamask-hq, celeba, m3celeba, ffhq, imagefolder, webdataset or parquet; recognised if left out.",
    ),
]
_LabelOrder = Annotated[
    str | None,
    typer.Option(metavar="merged|raw|face-parsing", help="What the numbers of the label maps mean."),
]


@data.command()
def check(
    path: _Place,
    layout: _Layout = None,
    label_order: _LabelOrder = None,
    everything: Annotated[bool, typer.Option("--all", help=f"Read every row, not only the first {SOME}.")] = False,
) -> None:
    """Read the rows of an archive, count what is there, and name the first bad row and its remedy."""
    source, named = _open(path, layout, label_order)
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    from m3face.data import checking
    from m3face.errors import DataError

    count = len(source) if everything else min(len(source), SOME)
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading", total=count)
        report = checking.check(
            source, count=count, on_progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    read = f"{count} of {len(source)} (--all reads the rest)" if count < len(source) else str(count)
    for name, value in [("layout", named), ("rows read", read), *report.facts()]:
        typer.echo(f"{name:<10} {value}")
    if report.first_bad is not None:
        number, row_id, error = report.first_bad
        typer.echo(f"error: row {number} ({row_id}): {error}; {report.bad} of {report.rows} rows are bad", err=True)
        raise typer.Exit(DataError.exit_code)


@data.command()
def show(
    path: _Place,
    out: Annotated[Path, typer.Option(help="PNG to write.")],
    count: Annotated[int, typer.Option(min=1, max=300, help="How many faces, spread over the archive.")] = 12,
    layout: _Layout = None,
    label_order: _LabelOrder = None,
) -> None:
    """Draw a contact sheet: each face with its label map and its landmarks."""
    from m3face.errors import OutputError

    def unwritable(reason: str) -> OutputError:
        return OutputError("--out", f"{out}: {reason}", "a .png file in a folder that can be written")

    if out.suffix.lower() != ".png" or out.is_dir():
        raise unwritable("is no name of a PNG file")
    source, _ = _open(path, layout, label_order)
    from m3face.data.checking import draw_sheet

    count = min(count, len(source))
    sheet = draw_sheet(source.read([index * len(source) // count for index in range(count)]))
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(aside, format="PNG")
        os.replace(aside, out)
    except OSError as error:
        raise unwritable(error.strerror or str(error)) from None
    finally:
        with suppress(OSError):
            aside.unlink()
    typer.echo(str(out))


def _open(path: str, layout: str | None, label_order: str | None) -> tuple[Source, str]:
    """The archive, and how its layout is called. Raises DataError and ConfigError."""
    from m3face.data.sources import LABEL_ORDERS, LAYOUTS, Archive, detect, open_source
    from m3face.errors import ConfigError, M3FaceError

    if layout is not None and layout not in LAYOUTS:
        raise ConfigError("--layout", repr(layout), ", ".join(LAYOUTS), "leave it out to have it recognised")
    if label_order is not None and label_order not in LABEL_ORDERS:
        raise ConfigError("--label-order", repr(label_order), ", ".join(LABEL_ORDERS))
    from m3face.config.dataset import SourceConfig

    try:
        found = layout or detect(Archive(path))
        config = SourceConfig.model_validate({"layout": found, "path": path, "label_order": label_order})
        return open_source(config), found if layout else f"{found} (recognised)"
    except M3FaceError as error:  # named as it was given here, not as in a job's file
        option = _OPTIONS.get(error.field, error.field)
        raise type(error)(option, error.got, error.allowed, error.remedy) from None


_OPTIONS = {"data.source.path": "PATH", "data.source.label_order": "--label-order"}
