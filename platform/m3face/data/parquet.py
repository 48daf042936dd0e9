"""Rows as Arrow tables: the schema of a shard, and how a row goes in and comes out.

Odd here: pictures are files inside cells, `{bytes, path}`, and the schema carries the note by which HF `datasets` takes
them for pictures. Attributes are one struct with a field for each that can be known, captions one with a field for each
language, so that a reader sees the same columns in every shard. Photographs are JPEGs of quality 95 without colour
subsampling, a quarter of the bytes of a PNG; label maps are PNGs, always. Of a face that nobody photographed the file
itself says so.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from m3face.data.imagefolder import NOTICE
from m3face.data.pictures import decode, decode_labels
from m3face.data.rows import Question, Row
from m3face.faces import ATTRIBUTES, LANGUAGES

Pictures = Literal["jpeg", "png"]

GENERATED = "generated"
"""The source of faces that a model made."""

FILE = "file"
"""The note with a picture's own PNG, where a step has written one that says more than `note_of`."""

_NOTES = {"synthetic": NOTICE, GENERATED: "A face made by a model. This is no photograph and no real person."}

_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TEXT = pa.string()
_QUESTION = ("question", "answer", "kind", "language")

SCHEMA = pa.schema(
    [
        ("id", _TEXT),
        ("image", _FILE),
        ("label_map", _FILE),
        ("landmarks", pa.list_(pa.list_(pa.float32()))),
        ("attributes", pa.struct([(name, _TEXT) for name in ATTRIBUTES])),
        ("captions", pa.struct([(code, pa.list_(_TEXT)) for code in LANGUAGES])),
        ("qa", pa.list_(pa.struct([(name, _TEXT) for name in _QUESTION]))),
        ("source", _TEXT),
        ("licence", _TEXT),
        ("identity", _TEXT),
        ("split", _TEXT),
        ("error", _TEXT),
    ]
)


def _feature(kind: pa.DataType) -> Any:
    """The note of HF `datasets` for one Arrow type; lists as a list of one, which all its versions read."""
    if kind == _FILE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        return [_feature(kind.value_type)]
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


def for_datasets(schema: pa.Schema) -> pa.Schema:
    """`schema` with the note by which HF `datasets` knows its columns."""
    features = {field.name: _feature(field.type) for field in schema}
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def encode_picture(pixels: NDArray[np.uint8], form: Pictures, *, note: str = "") -> bytes:
    """The file of RGB [H, W, 3] or, as PNG, of class indices [H, W]; `note` is written into it."""
    buffer = io.BytesIO()
    if form == "jpeg":
        Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0, comment=note.encode())
    else:
        info = PngInfo()
        if note:
            info.add_text("Description", note)
        Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def note_of(row: Row) -> str:
    """What the files of a row say about themselves: a face that nobody has, that it is one."""
    return _NOTES.get(row.source, "")


def _file(pixels: NDArray[np.uint8] | None, form: Pictures, path: str, note: str) -> dict[str, Any] | None:
    if pixels is None:
        return None
    return {"bytes": encode_picture(pixels, form, note=note), "path": path}


def _picture(row: Row, pictures: Pictures, note: str) -> dict[str, Any] | None:
    if FILE in row.notes:
        return {"bytes": row.notes[FILE], "path": f"{row.id}.png"}
    return _file(row.image, pictures, f"{row.id}.{'jpg' if pictures == 'jpeg' else 'png'}", note)


def to_record(row: Row, pictures: Pictures) -> dict[str, Any]:
    """`row` as plain values of `SCHEMA`; its `notes` are left out."""
    note = note_of(row)
    return {
        "id": row.id,
        "image": _picture(row, pictures, note),
        "label_map": _file(row.label_map, "png", f"{row.id}.label_map.png", note),
        "landmarks": None if row.landmarks is None else row.landmarks.tolist(),
        "attributes": row.attributes,
        "captions": row.captions,
        "qa": [vars(question) for question in row.qa],
        "source": row.source,
        "licence": row.licence,
        "identity": row.identity,
        "split": row.split,
        "error": row.error,
    }


def to_table(rows: Sequence[Row], pictures: Pictures = "jpeg") -> pa.Table:
    """A table of `SCHEMA`, a row each."""
    return pa.Table.from_pylist([to_record(row, pictures) for row in rows], schema=SCHEMA)


def from_record(record: dict[str, Any]) -> Row:
    """The row of one record of a table; columns that a table lacks stay unknown.

    Raises BadInput where a cell holds no picture or no label map.
    """
    image, label_map = record.get("image"), record.get("label_map")
    points = record.get("landmarks")
    return Row(
        id=record["id"],
        image=None if image is None else decode(image["bytes"]),
        label_map=None if label_map is None else decode_labels(label_map["bytes"])[0],
        landmarks=None if points is None else np.array(points, dtype=np.float32),
        attributes={name: value for name, value in (record.get("attributes") or {}).items() if value is not None},
        captions={code: texts for code, texts in (record.get("captions") or {}).items() if texts},
        qa=[Question(**question) for question in record.get("qa") or ()],
        source=record.get("source") or "",
        licence=record.get("licence") or "",
        identity=record.get("identity") or "",
        split=record.get("split") or "",
        error=record.get("error"),
    )


def from_table(table: pa.Table) -> Iterator[Row]:
    """The rows of a table of `SCHEMA`, one after the other."""
    return (from_record(record) for record in table.to_pylist())
