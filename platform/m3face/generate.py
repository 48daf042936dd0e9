"""`m3face generate` and `m3face demo`: options in, progress on stderr, paths on stdout.

Odd here: numbers are checked by the library and not by the option parser, so that a mistake reads the same from every
door. The bar is taken down while a path is printed: both may be one terminal, and stdout must stay clean for a pipe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

_DOING = {"text": "reading", "conditions": "map and landmarks", "face": "face"}


class Bar:
    """Progress over one command; shows nothing where stderr is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("checking", total=None)

    @contextmanager
    def shown(self) -> Iterator[Bar]:
        self._bar.start()
        try:
            yield self
        finally:
            self._bar.stop()

    def loading(self) -> None:
        self._bar.update(self._task, description="loading networks")

    def step(self, stage: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=_DOING.get(stage, stage), completed=done, total=total)

    def say(self, line: str, *, error: bool = False) -> None:
        """Print a line above the bar."""
        self._bar.stop()
        typer.echo(line, err=error)
        self._bar.start()

    def warn(self, line: str) -> None:
        self.say(f"warning: {line}", error=True)


def generate(
    prompt: Annotated[str, typer.Argument(help="What the face looks like, in any of the twelve languages.")],
    mask: Annotated[
        Path | None, typer.Option(help="Label map to follow: a square PNG of class indices or palette colours.")
    ] = None,
    landmarks: Annotated[
        Path | None, typer.Option(help="JSON of 68 pairs (x, y) in pixels of the face to follow.")
    ] = None,
    condition: Annotated[
        str, typer.Option(metavar="mask|landmarks|both", help="Which conditions hold the picture.")
    ] = "both",
    seed: Annotated[int, typer.Option(help="Seed of the first face; the next ones count upward.")] = 0,
    count: Annotated[int, typer.Option(help="How many faces.")] = 1,
    steps: Annotated[int | None, typer.Option(help="Steps of the diffusion; the preset's own if left out.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How hard the words pull on the picture, 0 to 30; 1 is no guidance.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Row of presets.")] = "tiny",
    weights: Annotated[
        str | None, typer.Option(metavar="pkg:NAME|dir:PATH", help="Other weights than the preset's.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder that gets 0000/, 0001/, …")] = Path("faces-out"),
) -> None:
    """Turn a sentence into a label map, 68 landmarks and a face."""
    from m3face.pipelines.generating import Options
    from m3face.pipelines.generating import generate as run

    options = Options(
        prompt=prompt,
        mask=mask,
        landmarks=landmarks,
        condition=condition,
        seed=seed,
        count=count,
        steps=steps,
        guidance=guidance,
        preset=preset,
        weights=weights,
        out=out,
    )
    with Bar().shown() as bar:
        for folder in run(options, on_warning=bar.warn, on_progress=bar.step, on_load=bar.loading):
            bar.say(str(folder))


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the contact sheet.")] = Path("faces-out/demo"),
    seed: Annotated[int, typer.Option(help="Seed of the first face.")] = 0,
    preset: Annotated[str, typer.Option(help="Row of presets.")] = "tiny",
    weights: Annotated[
        str | None, typer.Option(metavar="pkg:NAME|dir:PATH", help="Other weights than the preset's.")
    ] = None,
) -> None:
    """Make one contact sheet: six prompts in six scripts, each with its map, landmarks and face."""
    from m3face.pipelines.demonstrating import demonstrate

    with Bar().shown() as bar:
        bar.loading()
        sheet, page = demonstrate(out, preset=preset, weights=weights, seed=seed, on_progress=bar.step)
    typer.echo(f"contact sheet: {sheet.resolve()}")
    typer.echo(f"the same as a page, with every script: {page.resolve()}")
