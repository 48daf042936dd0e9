"""`m3face …`: reads options, calls the library, turns errors into one line.

Odd here: nothing heavy is imported at the top (no numpy, no torch), so that `--help` and a mistyped option answer at
once. A command is a function in `COMMANDS`; one with much to say lives in a module of its own, which imports as little.
`data` is a group of two.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer._click.exceptions import ClickException

from m3face import __version__
from m3face.doctor import doctor
from m3face.errors import M3FaceError
from m3face.evaluate import evaluate
from m3face.export import export
from m3face.fetch import fetch
from m3face.generate import demo, generate
from m3face.inspect_data import data

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

app = typer.Typer(
    name="m3face",
    help="Words in any language to a label map and landmarks, to a face.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"m3face {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def progress(unit: str) -> Progress:
    """A progress bar on stderr with the rate in `unit` a second."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:.1f} {unit}/s")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def synth(
    out: Annotated[Path, typer.Option(help="New or empty folder to write.")],
    count: Annotated[int, typer.Option(min=1, help="How many faces.")] = 100,
    size: Annotated[int, typer.Option(min=64, max=512, help="Pixels a side.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the people; the same seed makes the same people.")] = 0,
) -> None:
    """Draw labelled faces of people who do not exist, as an imagefolder."""
    from m3face.data.imagefolder import check_new_folder, write_imagefolder

    check_new_folder(out)
    from m3face.synthetic import make_sample

    with progress("faces") as bar:
        task = bar.add_task("drawing", total=count)
        write_imagefolder(
            (make_sample(seed, index, size=size) for index in range(count)),
            out,
            seed=seed,
            on_face=lambda done: bar.update(task, completed=done),
        )
    print(f"{count} faces of {size} x {size} pixels: {out}")


def train(
    config: Annotated[Path, typer.Option(help="YAML file of the run (jobs/configs/).")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: train.steps=100.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print every setting and its meaning, no more.")] = False,
    deadline: Annotated[float | None, typer.Option(min=1, help="Stop after so many seconds, to go on later.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; the GPU if there is one.")] = None,
) -> None:
    """Train one network as a file says; continue where the last run stopped."""
    from m3face import presets
    from m3face.config import load_config

    settings = load_config(config, overrides or ())  # before torch: a mistake in the file is told at once
    presets.get(settings.preset)
    if explain:
        from m3face.config.job import explained

        said = {setting.partition("=")[0]: "--set" for setting in overrides or ()}
        print("\n".join(explained(settings, said, str(config))))
        return
    from m3face.training.run import train as run_training

    with progress("steps") as bar:
        weights = run_training(settings, report=_Reporter(bar), device=device, deadline_s=deadline)
    component = settings.train.component
    print(f"{component}: stopped at the deadline; call again" if weights is None else f"{component}: {weights}")


class _Reporter:
    """Shows what training reports: a bar for each thing on a terminal, a line with each metrics elsewhere."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        facts = " ".join(f"{name}={value:.4g}" for name, value in metrics.items())
        if not self._bar.console.is_terminal:
            if facts or done == total:
                print(f"{what} {done}/{total} {facts}".rstrip(), file=sys.stderr, flush=True)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total)
        self._bar.update(self._tasks[what], completed=done, total=total, description=f"{what} {facts}".rstrip())


_INTERRUPTED = 130

COMMANDS: tuple[Callable[..., None], ...] = (generate, demo, synth, train, evaluate, fetch, export, doctor)

for _command in COMMANDS:
    app.command()(_command)
app.add_typer(data)


def _known(error: Exception) -> M3FaceError | None:
    """`error` as one of ours, where a user can cure it."""
    if isinstance(error, M3FaceError):
        return error
    if "pydantic" in sys.modules:
        from pydantic import ValidationError

        if isinstance(error, ValidationError):
            from m3face.config import one_line

            return one_line(error, where=error.title)
    return None


def _usage_line(error: ClickException) -> str:
    """What was wrong with the options, in the same shape as every other error."""
    context = getattr(error, "ctx", None)
    remedy = f"see {context.command_path if context else 'm3face'} --help"
    parameter, cause = getattr(error, "param", None), error.__cause__
    if parameter is not None and cause is not None and hasattr(cause, "errors"):  # pydantic read the value
        first = cause.errors()[0]
        allowed = first["msg"].removeprefix("Input should be ").split(",")[0]
        return f"{parameter.opts[0]}: got {first['input']!r}; allowed: {allowed}; {remedy}"
    return f"{' '.join(error.format_message().split()).rstrip('.')}; {remedy}"


def run(arguments: Sequence[str]) -> int:
    """Runs a command line and returns its exit code; an error is one line on stderr."""
    try:
        code = app(args=list(arguments), prog_name="m3face", standalone_mode=False)
    except ClickException as error:
        print(f"error: {_usage_line(error)}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:  # `m3face … | head`
        sys.stdout = open(os.devnull, "w")
        return 1
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        return known.exit_code
    return code if isinstance(code, int) else 0


def main() -> None:
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
