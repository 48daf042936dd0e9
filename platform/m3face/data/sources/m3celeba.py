"""M3CelebA's own columns: image, mask, landmark (136 numbers at 512 pixels), captions_eng, captions_fra …

Odd here: points are scaled from the 512 pixels they were written for to the picture's size, and are otherwise as
written, without the half pixel to a pixel's centre. `landmark_image` is a drawing of them and is not read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3face.data.rows import Row
from m3face.data.sources.celeba import LICENCE
from m3face.data.sources.parquet import Parquet, split_of_file
from m3face.data.sources.records import fill_from_record, read_landmarks
from m3face.errors import BadInput
from m3face.faces import COUNT, Landmarks

LANDMARK_SIZE = 512
MASK, POINTS = "mask", "landmark"
_COLUMNS = ("image", MASK, POINTS, "captions_eng")


class M3Celeba(Parquet):
    """Pictures, maps, landmarks and captions. Maps in colours name their classes; numbers need a label order."""

    name = "m3celeba"
    licence = f"M3CelebA, made from CelebA; {LICENCE}"
    needs = f"files ending in .parquet with the columns {', '.join(_COLUMNS)}"
    columns = _COLUMNS

    def fill(self, row: Row, index: int) -> None:
        path, record = self.record(index)
        row.id = f"{self.name}-{record.get('id') or index}"
        row.split = split_of_file(path)
        self.lay_picture(row, record)
        if record.get(MASK) is not None:
            self.lay_map(row, self.cell(record, MASK, row.id), field=f"{row.id}: {MASK}", order=self.label_order)
        if record.get(POINTS) is not None:
            row.landmarks = _points(row, record[POINTS], field=f"{row.id}: {POINTS}")
        captions = {key: value for key, value in record.items() if key.startswith("captions_")}
        fill_from_record(row, captions, field=row.id)


def _points(row: Row, numbers: Sequence[float], *, field: str) -> Landmarks:
    """The 136 numbers in the row's pixels. Raises BadInput."""
    assert row.image is not None
    if len(numbers) != 2 * COUNT:
        got = f"has {len(numbers)} numbers"
        raise BadInput(field, got, f"{2 * COUNT} numbers x, y, x, y …", "leave the row out")
    height, width = row.image.shape[:2]
    scale = np.array([width, height], dtype=np.float32) / LANDMARK_SIZE
    return read_landmarks(row, np.array(numbers, dtype=np.float32).reshape(COUNT, 2) * scale, field=field)
