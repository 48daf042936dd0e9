"""The files that a shard becomes: Parquet in the row schema, Parquet in M3CelebA's columns, or a WebDataset tar.

Odd here: every container is fed tables of the row schema, pictures already encoded, and decodes none but the label maps
that M3CelebA wants in colours. Rows are written in groups of about `GROUP`, so memory does not grow with the shard.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from m3face.data.parquet import SCHEMA, encode_picture, for_datasets
from m3face.faces import ATTRIBUTES, LANGUAGES, PALETTE, draw_landmarks

GROUP = 64  # rows; what a reader that jumps about has to read for one face

_REPEATED = ["source", "licence", "split", "error", *(f"attributes.{name}" for name in ATTRIBUTES)]
_FILE = SCHEMA.field("image").type
_PAPER_LANGUAGES = ("en", "fr", "de", "it", "es")


def m3celeba_schema(languages: Sequence[str]) -> pa.Schema:
    """The published columns; the captions of further languages are named after the same rule."""
    every = dict.fromkeys((*_PAPER_LANGUAGES, *languages))
    return pa.schema(
        [
            ("id", pa.string()),
            ("image", _FILE),
            ("mask", _FILE),
            ("landmark_image", _FILE),
            ("landmark", pa.list_(pa.int32())),
            *((f"captions_{LANGUAGES[code].code3}", pa.list_(pa.string())) for code in every),
        ]
    )


class Container(Protocol):
    """One file in the writing."""

    suffix: str

    def add(self, table: pa.Table) -> None:
        """Further rows, in the row schema."""
        ...

    def close(self) -> None:
        """May be called again."""
        ...


def parquet_writer(file: Any, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer that does not look for repeated pictures."""
    options: dict[str, Any] = {"use_dictionary": _REPEATED, "write_statistics": ["id", "split"]}
    return pq.ParquetWriter(file, schema, compression="zstd", **options)


class Rows:
    """Parquet in the row schema."""

    suffix = "parquet"

    def __init__(self, file: Path, schema: pa.Schema = SCHEMA) -> None:
        self.schema = schema
        self._writer = parquet_writer(file, for_datasets(schema))
        self._waiting: list[pa.Table] = []

    def convert(self, table: pa.Table) -> pa.Table:
        return table

    def add(self, table: pa.Table) -> None:
        self._waiting.append(self.convert(table))
        if sum(waiting.num_rows for waiting in self._waiting) >= GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()  # once more does nothing

    def _flush(self) -> None:
        if self._waiting:
            group = pa.concat_tables(self._waiting).combine_chunks()
            self._writer.write_table(group, row_group_size=max(1, group.num_rows))
            self._waiting.clear()


class M3CelebA(Rows):
    """Parquet in the published columns: palette masks, the drawing and 136 rounded numbers, 3 captions a language."""

    def convert(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([_m3celeba(record) for record in table.to_pylist()], schema=self.schema)


def _m3celeba(record: dict[str, Any]) -> dict[str, Any]:
    mask, drawing, numbers = record["label_map"], None, None
    if mask is not None:
        with Image.open(io.BytesIO(mask["bytes"])) as picture:
            mask = {"bytes": _palette_png(np.asarray(picture)), "path": f"{record['id']}.mask.png"}
    if record["landmarks"] is not None:
        points = np.array(record["landmarks"], dtype=np.float32)
        numbers = np.rint(points).astype(int).ravel().tolist()
        if record["image"] is not None:
            with Image.open(io.BytesIO(record["image"]["bytes"])) as picture:
                drawn = draw_landmarks(points, size=picture.width)
            drawing = {"bytes": encode_picture(drawn, "png"), "path": f"{record['id']}.landmark.png"}
    captions = {f"captions_{LANGUAGES[c].code3}": (texts or [])[:3] for c, texts in record["captions"].items()}
    shown = {"id": record["id"], "image": record["image"], "mask": mask}
    return {**shown, "landmark_image": drawing, "landmark": numbers, **captions}


def _palette_png(label_map: Any) -> bytes:
    """Class indices with the published colours as their palette: both kinds of reader get what they expect."""
    buffer = io.BytesIO()
    picture = Image.fromarray(label_map).convert("L")
    picture.putpalette(PALETTE.tobytes())
    picture.save(buffer, "PNG")
    return buffer.getvalue()


class WebDataset:
    """A tar of `KEY.jpg`, `KEY.mask.png`, `KEY.txt` (a caption) and `KEY.json` (all else), a key for each row."""

    suffix = "tar"

    def __init__(self, file: Path) -> None:
        self._tar = tarfile.open(file, "w")
        self._shard, self._count = file.stem, 0

    def add(self, table: pa.Table) -> None:
        for record in table.to_pylist():
            key = f"{self._shard}-{self._count:06d}"
            self._count += 1
            image, label_map = record.pop("image"), record.pop("label_map")
            known = {name: value for name, value in record["attributes"].items() if value is not None}
            captions = {code: texts for code, texts in record["captions"].items() if texts}
            if image is not None:
                self._put(f"{key}.{image['path'].rpartition('.')[2]}", image["bytes"])
            if label_map is not None:
                self._put(f"{key}.mask.png", label_map["bytes"])
            if captions:
                self._put(f"{key}.txt", next(iter(captions.values()))[0].encode())
            facts = {**record, "attributes": known, "captions": captions, "label_order": "merged"}
            self._put(f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())

    def _put(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # its time is 0, so the same rows make the same file
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def close(self) -> None:
        self._tar.close()
