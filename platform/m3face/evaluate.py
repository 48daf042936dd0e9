"""`m3face evaluate`: held-out people and captions through the whole line, as a table and a JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    preset: Annotated[str, typer.Option(help="Row of presets.")] = "tiny",
    weights: Annotated[str | None, typer.Option(help="'pkg:NAME' or 'dir:PATH'; the preset's own if left out.")] = None,
    count: Annotated[int, typer.Option(min=2, help="People and captions.")] = 500,
    prompts: Annotated[
        Path | None, typer.Option(help="Also read and draw these prompts: JSON lines of language, kind, prompt, asks.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("out/evaluation.json"),
) -> None:
    """Measure the weights on people and captions that no network was trained on."""
    from m3face import checkpoints, presets
    from m3face.config import COMPONENTS
    from m3face.errors import OutputError
    from m3face.evaluation.free_prompts import read_free_prompts

    row = presets.get(preset)
    location = weights or row.weights
    checkpoints.verify(presets.weights_folder(location), parts=COMPONENTS)
    free = read_free_prompts(prompts) if prompts else []
    aside = out.with_name(f".{out.name}.aside")  # written at once, so that hours of work meet no closed door
    try:
        if out.is_dir():
            raise OutputError("--out", f"{out} is a folder", "a file that can be written")
        out.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text("")
        aside.unlink()
    except OSError as error:
        raise OutputError("--out", f"{out}: {error.strerror}", "a file that can be written") from None
    import dataclasses

    import torch
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

    from m3face.evaluation.held_out import HELD_OUT_SEED, evaluate_weights

    if row.cpu_threads:
        torch.set_num_threads(row.cpu_threads)
    console = Console(stderr=True)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as bar:
        tasks: dict[str, object] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done)  # type: ignore[arg-type]

        rows, by_class = evaluate_weights(row, location, count=count, free=free, progress=progress)
    facts = {
        "weights": location,
        "count": count,
        "people_seed": HELD_OUT_SEED,
        "prompts": str(prompts) if prompts else None,
        "rows": [dataclasses.asdict(r) for r in rows],
        "iou_by_class": by_class,
    }
    for r in rows:
        interval = f"[{r.interval[0]:.3f}, {r.interval[1]:.3f}]" if r.interval else ""
        beside = "".join(
            f"  {label} {value:.3f}"
            for label, value in (("true renders", r.ceiling), ("through the VAE", r.through_vae))
            if value is not None
        )
        typer.echo(f"{r.name:<62} {r.value:7.3f} {interval:<16} n={r.count}{beside}")
    aside.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(aside, out)
    typer.echo(f"written to {out}")
