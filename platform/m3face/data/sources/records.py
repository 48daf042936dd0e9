"""What a written row says of a face (a line of JSON, a parquet row), checked and put into a `Row`.

Odd here: the keys are those of the row schema, and beside them the spellings of others: `text` and `text_es` for
captions, `captions_spa` for M3CelebA's. An unknown key is left alone, a known one with a wrong value is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from m3face.data.rows import Question, Row
from m3face.errors import BadInput
from m3face.faces import ATTRIBUTES, CODE_BY_CODE3, COUNT, LANGUAGES, Landmarks, check_landmarks

SPLITS = {"train": "train", "validation": "validation", "test": "test", "val": "validation", "valid": "validation"}
_PLAIN = ("id", "source", "licence", "identity")
_TEXT = "text"


def begin_from_record(row: Row, record: Mapping[str, Any], *, field: str) -> bool:
    """Give `row` the names that `record` has for it; False where it was bad when it was written, and is to stay so.

    Raises BadInput.
    """
    for name in _PLAIN:
        if record.get(name):
            setattr(row, name, str(record[name]))
    if record.get("split"):
        row.split = read_split(str(record["split"]), field=field)
    if record.get("error"):
        row.error = str(record["error"])
    return row.error is None


def fill_from_record(row: Row, record: Mapping[str, Any], *, field: str) -> None:
    """Fill `row`, whose picture is there already, with what else `record` says. Raises BadInput."""
    if record.get("landmarks") is not None:
        row.landmarks = read_landmarks(row, record["landmarks"], field=f"{field}: landmarks")
    row.attributes = _attributes(as_mapping(record.get("attributes"), f"{field}: attributes"), f"{field}: attributes")
    for code, texts in _captions(record, field):
        row.captions.setdefault(code, []).extend(texts)
    row.qa = [_question(entry, f"{field}: qa") for entry in record.get("qa") or ()]


def read_split(name: str, *, field: str) -> str:
    """`name` in our spelling. Raises BadInput."""
    if name not in SPLITS:
        raise BadInput(f"{field}: split", repr(name), ", ".join(SPLITS))
    return SPLITS[name]


def read_landmarks(row: Row, points: Any, *, field: str) -> Landmarks:
    """68 pairs, or 136 numbers x, y, x, y …, in the row's pixels. Raises BadInput."""
    assert row.image is not None
    try:
        array = np.asarray(points, dtype=np.float32)
    except (TypeError, ValueError):
        raise BadInput(field, "is not a list of numbers", f"{COUNT} pairs [x, y]") from None
    if array.shape == (2 * COUNT,):
        array = array.reshape(COUNT, 2)
    return check_landmarks(array, size=max(row.image.shape), field=field)


def as_mapping(value: Any, field: str) -> Mapping[str, Any]:
    """An object of JSON, a struct, a map's pairs or the text of one, without what is empty. Raises BadInput."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value else {}
        except ValueError:
            raise BadInput(field, "is not JSON", "an object of names and values") from None
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)
    if value is not None and not isinstance(value, Mapping):
        raise BadInput(field, f"is {value!r:.60}", "an object of names and values")
    return {str(name): entry for name, entry in (value or {}).items() if entry not in (None, "", [])}


def _attributes(given: Mapping[str, Any], field: str) -> dict[str, str]:
    for name, value in given.items():
        if name not in ATTRIBUTES:
            raise BadInput(field, f"names {name!r}", ", ".join(ATTRIBUTES), "rename it or leave it out")
        if value not in ATTRIBUTES[name].values:
            raise BadInput(f"{field}: {name}", repr(value), ", ".join(ATTRIBUTES[name].values))
    return {name: str(value) for name, value in given.items()}


def _captions(record: Mapping[str, Any], field: str) -> Iterable[tuple[str, list[str]]]:
    for code, texts in as_mapping(record.get("captions"), f"{field}: captions").items():
        yield language(code, f"{field}: captions"), _texts(texts, f"{field}: captions")
    for key, texts in record.items():
        head, _, code = key.partition("_")
        if texts and key == _TEXT:
            yield "en", _texts(texts, f"{field}: {key}")
        elif texts and code and head in (_TEXT, "captions"):
            yield language(code, f"{field}: {key}"), _texts(texts, f"{field}: {key}")


def language(code: str, field: str) -> str:
    """The ISO 639-1 code of a language given by that or by three letters. Raises BadInput."""
    code = CODE_BY_CODE3.get(code, code)
    if code not in LANGUAGES:
        raise BadInput(field, f"the language {code!r}", ", ".join(LANGUAGES), "write ISO 639-1 codes")
    return code


def _texts(value: Any, field: str) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise BadInput(field, f"is {value!r:.60}", "a text or a list of texts")
    return [text for text in texts if text]


def _question(entry: Any, field: str) -> Question:
    parts = as_mapping(entry, field)
    absent = [name for name in Question.__dataclass_fields__ if not isinstance(parts.get(name), str)]
    if absent:
        raise BadInput(field, f"lacks {', '.join(absent)}", ", ".join(Question.__dataclass_fields__))
    return Question(**{name: str(parts[name]) for name in Question.__dataclass_fields__})
