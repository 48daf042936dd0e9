"""Draw the pictures of the README: `make pictures`.

Odd here: only pictures that the project makes itself, each with its provenance in the metadata.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from m3face.faces import draw_landmarks, to_colours
from m3face.pipelines.demonstrating import demo_rows
from m3face.pipelines.provenance import STATEMENT
from m3face.presets import get
from m3face.synthetic import make_sample

_HERE = Path(__file__).parent
_SEED, _SIZE, _COLUMNS = 2026, 128, 10
_FACES, _LABELLED = 30, 10
_MADE = 192  # pixels of each picture that the networks made


def people() -> Image.Image:
    """Rows of faces, then a row of them with label map and landmarks."""
    samples = [make_sample(_SEED, index, size=_SIZE) for index in range(_FACES)]
    rows = [np.hstack([s.image for s in samples[i : i + _COLUMNS]]) for i in range(0, _FACES, _COLUMNS)]
    labelled = samples[:_LABELLED]
    rows.append(np.hstack([to_colours(s.label_map) for s in labelled]))
    rows.append(np.hstack([draw_landmarks(s.landmarks, size=_SIZE) for s in labelled]))
    return Image.fromarray(np.vstack(rows))


def made() -> Image.Image:
    """The demo's six faces side by side: label maps, landmarks, faces."""
    tiny = get("tiny")
    results = [row.result for row in demo_rows(tiny, tiny.weights)]
    drawn = [
        (to_colours(r.label_map), draw_landmarks(r.landmarks, size=len(r.picture), new=_MADE), r.picture)
        for r in results
    ]
    filters = (Image.Resampling.NEAREST, Image.Resampling.NEAREST, Image.Resampling.BICUBIC)
    rows = [
        np.hstack([np.asarray(Image.fromarray(d).resize((_MADE, _MADE), resample)) for d in row])
        for row, resample in zip(zip(*drawn, strict=True), filters, strict=True)
    ]
    return Image.fromarray(np.vstack(rows))


def main() -> None:
    for name, picture, statement in (
        ("people", people(), "rendered by m3face.synthetic; these people do not exist"),
        ("made", made(), STATEMENT),
    ):
        note = PngInfo()
        note.add_text("Description", statement)
        picture.save(_HERE / f"{name}.png", pnginfo=note, optimize=True)


if __name__ == "__main__":
    main()
