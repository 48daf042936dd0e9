"""Writes labelled faces as an `imagefolder`: pictures, label maps and one row of labels a face.

    OUT/000000.png  OUT/label_maps/000000.png (8-bit class indices)  OUT/metadata.jsonl

Odd here: everything is written to a hidden folder beside OUT, which is renamed at the end, so a reader never sees half
a dataset; the split follows the *person*, so no person is in two splits.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from m3face import __version__
from m3face.captions import caption
from m3face.data.splitting import split_of
from m3face.errors import OutputError
from m3face.faces import LANGUAGES, LabelMap, Landmarks

METADATA = "metadata.jsonl"
NOTICE = "A rendered face, made by m3face synth. This is no photograph and no real person."
_CAPTION_STREAM = 1  # keeps the words' draws apart from the faces' draws of the same seed


class LabelledFace(Protocol):
    """What a row is made from; `m3face.synthetic.Sample` is one."""

    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def label_map(self) -> LabelMap: ...
    @property
    def landmarks(self) -> Landmarks: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def identity(self) -> str: ...


def face_row(face: LabelledFace, index: int, *, seed: int) -> dict[str, Any]:
    """The row of `face`, with a caption in English and one in another language drawn from (seed, index)."""
    rng = np.random.default_rng((seed, index, _CAPTION_STREAM))
    other = str(rng.choice([code for code in LANGUAGES if code != "en"]))
    name = f"{index:06d}"
    return {
        "file_name": f"{name}.png",
        "id": f"synthetic-{seed}-{name}",
        "label_map": f"label_maps/{name}.png",
        "landmarks": [[round(float(x), 3), round(float(y), 3)] for x, y in face.landmarks],
        "attributes": dict(face.attributes),
        "captions": {code: [caption(face.attributes, code, rng).text] for code in ("en", other)},
        "qa": [],
        "source": "synthetic",
        "licence": "CC0-1.0",
        "identity": str(face.identity),
        "split": split_of(face.identity),
        "error": None,
    }


def check_new_folder(out: Path, *, field: str = "--out") -> None:
    """OutputError unless `out` is a new or empty folder that can be written."""
    try:
        if out.exists() and not out.is_dir():
            raise OutputError(field, f"{out} is a file", "a new or empty folder", "give another name")
        if out.is_dir() and any(out.iterdir()):
            raise OutputError(
                field, f"{out} is not empty", "a new or empty folder", "give another name or remove it first"
            )
    except OSError as error:
        raise _unwritable(field, out, error) from None
    nearest = out.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    # the rename replaces `out` itself, so its parent is what has to be writable
    if nearest == out.absolute():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(field, f"{nearest} is not a writable folder", "a writable place", "give another folder")


def _unwritable(field: str, out: Path, error: OSError) -> OutputError:
    return OutputError(field, f"{out}: {error.strerror or error}", "a writable folder", "give another folder")


@contextmanager
def _publish(out: Path, *, field: str) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when the block ends well, and disappears when it does not."""
    out = out.absolute()
    aside = out.parent / f".{out.name}.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        yield aside
        os.replace(aside, out)
    except OSError as error:
        raise _unwritable(field, out, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_imagefolder(
    faces: Iterable[LabelledFace],
    out: str | Path,
    *,
    seed: int = 0,
    field: str = "--out",
    on_face: Callable[[int], None] | None = None,
) -> Path:
    """Writes `faces` to the folder `out`; `on_face(done)` is told of each. Returns the folder.

    Raises OutputError, leaving nothing behind, where `out` is not a new or empty folder or the disk is full.
    """
    out = Path(out)
    check_new_folder(out, field=field)
    note = PngInfo()
    note.add_text("Description", NOTICE)
    note.add_text("Software", f"m3face {__version__}")
    with _publish(out, field=field) as folder:
        (folder / "label_maps").mkdir()
        with (folder / METADATA).open("w", encoding="utf-8") as rows:
            for index, face in enumerate(faces):
                row = face_row(face, index, seed=seed)
                Image.fromarray(face.image).save(folder / row["file_name"], pnginfo=note)
                Image.fromarray(face.label_map).save(folder / row["label_map"], pnginfo=note)
                rows.write(json.dumps(row, ensure_ascii=False) + "\n")
                if on_face is not None:
                    on_face(index + 1)
    return out
