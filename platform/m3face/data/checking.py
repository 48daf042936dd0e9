"""What an archive holds and whether it can be read: counts, the first bad row, and a sheet of faces.

Odd here: an id that comes twice makes the second row bad here, although each reads well: two rows of one name cannot be
told apart later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from m3face.data.rows import Row, Source
from m3face.faces import ATTRIBUTES, draw_landmarks, to_colours

CHUNK = 32
TILE, MARGIN, LINE, ACROSS = 176, 8, 14, 3
_PAPER, _INK, _BAD, _NOTHING = (255, 255, 255), (40, 40, 44), (170, 30, 30), (238, 238, 240)


@dataclass(kw_only=True)
class Report:
    """Counts over the rows read. `first_bad` is (number, id, what is wrong with it and what to do)."""

    rows: int = 0
    bad: int = 0
    first_bad: tuple[int, str, str] | None = None
    sizes: Counter[str] = field(default_factory=Counter)
    labelled: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    identities: set[str] = field(default_factory=set)
    _ids: set[str] = field(default_factory=set)

    def add(self, number: int, row: Row) -> None:
        """Count the row that was read as `number`."""
        self.rows += 1
        error = row.error
        if error is None and row.id in self._ids:
            error = f"id: {row.id} comes a second time; allowed: one row an id; rename or remove one of them"
        self._ids.add(row.id)
        if error is not None:
            self.bad += 1
            self.first_bad = self.first_bad or (number, row.id, error)
            return
        if row.image is not None:
            self.sizes["{1} x {0}".format(*row.image.shape)] += 1
        there = {
            "label map": row.label_map is not None,
            "landmarks": row.landmarks is not None,
            "attributes": bool(row.attributes),
            "captions": bool(row.captions),
            "questions": bool(row.qa),
            "identity": bool(row.identity),
        }
        self.labelled.update(name for name, present in there.items() if present)
        self.languages.update(list(row.captions))
        self.splits[row.split or "none"] += 1
        self.licences[row.licence or "unknown"] += 1
        if row.identity:
            self.identities.add(row.identity)

    def facts(self) -> list[tuple[str, str]]:
        """What to tell of the rows that are not bad, (name, value)."""
        found = [
            ("good rows", str(self.rows - self.bad)),
            ("pictures", _counts(self.sizes)),
            ("have", _counts(self.labelled)),
            ("languages", _counts(self.languages)),
            ("splits", _counts(self.splits)),
            ("people", str(len(self.identities) or "")),
            ("licences", _counts(self.licences)),
        ]
        return [(name, value) for name, value in found if value]


def _counts(counter: Counter[str], most: int = 12) -> str:
    shown = [f"{name} ({count})" for name, count in counter.most_common(most)]
    return ", ".join([*shown, "…"] if len(counter) > most else shown)


def check(source: Source, *, count: int, on_progress: Callable[[int, int], None] | None = None) -> Report:
    """Read rows 0 to `count - 1` of `source`. Raises DataError where the archive is out of reach."""
    report = Report()
    for first in range(0, count, CHUNK):
        numbers = range(first, min(first + CHUNK, count))
        for number, row in zip(numbers, source.read(numbers), strict=True):
            report.add(number, row)
        if on_progress is not None:
            on_progress(report.rows, count)
    return report


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Each row as picture, map in colours and landmarks on the picture, three rows beside each other; RGB.

    What is unknown is an empty tile; a bad row shows its error instead.
    """
    wide, high = 3 * TILE + 2 * MARGIN, TILE + 2 * LINE + MARGIN
    down = -(-len(rows) // ACROSS)
    across = min(ACROSS, len(rows))
    sheet = Image.new("RGB", (MARGIN + across * (wide + MARGIN), MARGIN + down * high), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        left, top = MARGIN + index % ACROSS * (wide + MARGIN), MARGIN + index // ACROSS * high
        for place, tile in enumerate(_tiles(row)):
            sheet.paste(tile, (left + place * (TILE + MARGIN), top))
        there = [f"{name} {value}" for name, value in row.attributes.items() if value != ATTRIBUTES[name].absent]
        words = row.error or ", ".join(there)
        lines = (row.id, _INK), (words, _BAD if row.error else _INK)
        for number, (text, ink) in enumerate(lines):
            pen.text((left, top + TILE + 1 + number * LINE), _shortened(pen, text, wide), fill=ink)
    return sheet


def _shortened(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """As much of `text` as fits; the built-in font knows Latin letters only."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    while pen.textlength(text) > width:
        text = text[: int(len(text) * width / pen.textlength(text)) - 1]
    return text


def _tiles(row: Row) -> list[Image.Image]:
    empty = Image.new("RGB", (TILE, TILE), _NOTHING)
    if row.image is None or row.error is not None:
        return [empty] * 3
    picture = _tile(row.image, Image.Resampling.BICUBIC)
    label_map = empty if row.label_map is None else _tile(to_colours(row.label_map), Image.Resampling.NEAREST)
    if row.landmarks is None:
        return [picture, label_map, empty]
    height, width = row.image.shape[:2]
    side = max(height, width)
    points = row.landmarks + np.array([(side - width) // 2, (side - height) // 2], dtype=np.float32)
    drawing = draw_landmarks(points, size=side, new=TILE)
    over = np.where(drawing.any(-1, keepdims=True), drawing, np.asarray(picture))
    return [picture, label_map, Image.fromarray(over.astype(np.uint8))]


def _tile(pixels: NDArray[np.uint8], resample: Image.Resampling) -> Image.Image:
    """`pixels` in the middle of a square, at the size of a tile."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side), _NOTHING)
    square.paste(Image.fromarray(pixels), ((side - width) // 2, (side - height) // 2))
    return square.resize((TILE, TILE), resample)
