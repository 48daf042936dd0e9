"""People who do not exist, drawn while they are read: the rows that `m3face synth` would write."""

from __future__ import annotations

from collections.abc import Sequence

from m3face.config.dataset import SourceConfig
from m3face.data.imagefolder import face_row
from m3face.data.rows import Row
from m3face.data.sources.records import begin_from_record, fill_from_record
from m3face.errors import ConfigError
from m3face.synthetic import make_sample


class Synthetic:
    """A `Source` without an archive. Raises ConfigError where nobody said how many."""

    name = "synthetic"
    licence = "CC0-1.0"

    def __init__(self, config: SourceConfig) -> None:
        if config.count is None:
            raise ConfigError("data.source.count", "is not set", "a number of faces", "synthetic people have no end")
        self._count, self._seed, self._size = config.count, config.seed, config.size
        self.licence = config.licence or type(self).licence

    def __len__(self) -> int:
        return self._count

    def read(self, indices: Sequence[int]) -> list[Row]:
        """A row for each index; none is bad."""
        return [self._row(index) for index in indices]

    def _row(self, index: int) -> Row:
        sample = make_sample(self._seed, index, size=self._size)
        record = face_row(sample, index, seed=self._seed)
        row = Row(id=record["id"], image=sample.image, label_map=sample.label_map)
        begin_from_record(row, record, field=row.id)
        fill_from_record(row, record, field=row.id)
        row.licence = self.licence
        return row
