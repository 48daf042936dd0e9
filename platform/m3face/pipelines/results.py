"""Result folders: DIR/0000/, 0001/, … each whole or not there.

Odd here: a folder is written beside its place under a hidden name and renamed when its last byte is down; numbers
that exist are never touched, and two programs that write to one DIR do not meet, since a rename onto a full folder
fails and the next number is tried. `label_map.png` is grey ("L") with the class index as the value: any reader gets
the same bytes, which a palette would not promise; colours for people are in `label_map_colour.png`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from PIL import Image

from m3face import __version__
from m3face.errors import OutputError
from m3face.faces import to_colours
from m3face.pipelines.provenance import STATEMENT, png_text
from m3face.pipelines.text_to_face import FaceResult, FaceWish


@contextmanager
def output_folder(out: Path, *, field: str = "--out") -> Iterator[Path]:
    """A hidden folder in `out` to write aside in; gone at the end, and so is `out` if it was made here and is empty.

    Made at once, so that an unwritable place is known before any work. OSErrors inside become OutputError.
    """
    made: list[Path] = []
    aside: Path | None = None
    try:
        made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".m3face-", dir=out))
        yield aside
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise OutputError(
            field, f"{out}: {what}", "a folder that can be written", "choose another or make room"
        ) from None
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        for folder in made:
            try:
                folder.rmdir()
            except OSError:
                break


def _claim(folder: Path, out: Path) -> Path:
    """Rename `folder` to the first free number of `out`."""
    taken = [int(p.name) for p in out.iterdir() if p.name.isdecimal() and len(p.name) >= 4]
    number = max(taken, default=-1) + 1
    while True:
        place = out / f"{number:04d}"
        if not place.exists():
            try:
                os.rename(folder, place)
                return place
            except OSError:
                if not place.exists():
                    raise
        number += 1


def facts_of(
    wish: FaceWish, result: FaceResult, *, preset: str, weights: str, warnings: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What `result.json` says. `weights` is the hash of the weights' manifest."""
    return {
        "made_by": f"m3face {__version__}",
        "statement": STATEMENT,
        "prompt": wish.prompt,
        "language": result.text.language,
        "understood": [asdict(mention) for mention in result.text.mentions],
        "seed": wish.seed,
        "preset": preset,
        "weights": weights,
        "given": [
            name for name, value in (("mask", wish.label_map), ("landmarks", wish.landmarks)) if value is not None
        ],
        "conditions": list(wish.conditions),
        "settings": {
            name: getattr(wish, name)
            for name in (
                "condition_steps",
                "condition_guidance",
                "condition_attempts",
                "face_steps",
                "face_guidance",
                "attribute_guidance",
            )
        },
        "size": len(result.picture),
        "seconds": result.seconds,
        "warnings": [*warnings, *result.warnings],
    }


def write_result(result: FaceResult, facts: Mapping[str, Any], *, out: Path, aside: Path) -> Path:
    """Write one result folder aside and give it the next free number in `out`; the folder's path."""
    folder = aside / "result"
    folder.mkdir()
    Image.fromarray(result.picture).save(folder / "face.png", pnginfo=png_text(facts))
    Image.fromarray(result.label_map).save(folder / "label_map.png", pnginfo=png_text(facts))
    Image.fromarray(to_colours(result.label_map)).save(folder / "label_map_colour.png", pnginfo=png_text(facts))
    points = [[round(float(x), 3), round(float(y), 3)] for x, y in result.landmarks]
    (folder / "landmarks.json").write_text(json.dumps(points) + "\n", encoding="utf-8")
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (folder / "result.json").write_text(text + "\n", encoding="utf-8")
    return _claim(folder, out)
