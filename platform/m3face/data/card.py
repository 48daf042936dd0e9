"""The card of a finished dataset (README.md), its report (report.json) and a contact sheet (sheet.png).

Odd here: the front matter of the card tells HF `datasets` which files make which split, and keeps the rows that were
set aside in a configuration of their own. The audit compares shares and judges nothing.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from m3face import __version__
from m3face.data.audit import UNKNOWN, below, columns, merged, shares
from m3face.data.parquet import from_table, note_of
from m3face.data.publishing import close_work, shard_reports
from m3face.data.rows import Row
from m3face.data.shards import REPORT, SET_ASIDE, SPLITS, Plan, read_part
from m3face.data.storage import Storage
from m3face.faces import ATTRIBUTES, CLASSES, LANGUAGES, draw_landmarks, to_colours

SHEET, SHEET_SIDE, SHEET_COLUMNS = "sheet.png", 128, 4
_SPLIT_RULE = (
    "By person: everybody's pictures are in one split, chosen by a hash of the identity (of the picture where nobody "
    "knows who it is). An archive's own split lists win where it has them, unless `split.own` is off."
)
_HUB_LICENCES = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "MIT", "Apache-2.0")
_COLUMNS = (
    "`id`, `image`, `label_map` (PNG of class indices), `landmarks` (68 pairs x, y in pixels, pixel centres at +0.5), "
    "`attributes`, `captions` (by language), `qa`, `source`, `licence`, `identity`, `split`, `error`"
)


def report(
    settings: Mapping[str, Any], decision: Mapping[str, Any], shards: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that is known of the dataset, as plain JSON: `settings` again, counts, errors, files with hashes."""
    counts = merged(shard["counts"] for shard in shards)
    files = [file for shard in shards for file in shard["files"]]
    names = ("split", "source", "licence", "captions", "qa", "qa language", "error")
    return {
        "made_by": f"m3face {__version__}",
        "settings": settings,
        "rows": sum(file["rows"] for file in files),
        "counts": {name: below(counts, name) for name in names},
        "errors": decision["errors"],
        "copies": len(decision["copies"]),
        "people": decision["people"],
        "people_in_two_splits": decision["people_in_two_splits"],
        "groups": [[*key[1:], count] for key, count in sorted(counts.items()) if key[0] == "people"],
        "attributes": [
            {"name": name, "value": value, "faces": faces, "shares": dict(zip(map(" ".join, columns()), parts))}
            for name, value, faces, parts in shares(counts)
        ],
        "files": sorted(files, key=lambda file: str(file["name"])),
    }


def card(facts: Mapping[str, Any]) -> str:
    """README.md of a report's facts."""
    counts = facts["counts"]
    good = sum(counts["split"].values())
    sections = [
        _front(facts),
        f"# Faces from {', '.join(counts['source']) or 'nowhere'}",
        f"{good} faces for use, {facts['rows'] - good} rows set aside. Made by {facts['made_by']} from the settings in "
        "`report.json`, which also has every number of this page.\n\n![some of the faces](sheet.png)",
        _table("Split", ("split", "faces"), counts["split"].items()),
        f"{_SPLIT_RULE} {facts['people']} people are known, {facts['people_in_two_splits']} are in two splits.",
        _table("Sources", ("source", "faces"), counts["source"].items()),
        _table("Licences", ("licence of the pictures", "faces"), counts["licence"].items()),
        "## Columns\n\n" + _COLUMNS + ".\n\nLabel order: " + ", ".join(f"{i} {name}" for i, name in enumerate(CLASSES)),
        _table("Captions", ("language", "texts"), _by_name(counts["captions"])),
        _table("Questions and answers", ("kind", "pairs"), counts["qa"].items()),
        _table("Questions by language", ("language", "pairs"), _by_name(counts["qa language"])),
        _set_aside(facts),
        _groups(facts["groups"]),
        _attributes(facts["attributes"]),
        _table("Files", ("file", "rows", "bytes", "SHA-256"), _files(facts["files"])),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front(facts: Mapping[str, Any]) -> str:
    """YAML by which the hub and `load_dataset` know files, splits and languages."""
    kinds = {file["split"]: file["name"].rpartition(".")[2] for file in facts["files"]}
    licence = next(iter(facts["counts"]["licence"]), "") if len(facts["counts"]["licence"]) == 1 else ""
    known = licence.lower() if licence in _HUB_LICENCES else "other"
    lines = ["---", "pretty_name: Faces with label maps, landmarks and captions", f"license: {known}"]
    if languages := [code for code in LANGUAGES if code in facts["counts"]["captions"]]:
        lines += ["language:", *(f"- {code}" for code in languages)]
    lines += ["configs:"]
    for name, every in (("default", SPLITS), (SET_ASIDE, (SET_ASIDE,))):
        if splits := [split for split in every if split in kinds]:
            lines += [f"- config_name: {name}", "  data_files:"]
            lines += [f"  - split: {split}\n    path: data/{split}-*.{kinds[split]}" for split in splits]
    return "\n".join([*lines, "---"])


def _by_name(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return [(LANGUAGES[code].name, count) for code, count in counts.items()]


def _table(title: str, head: Sequence[str], rows: Any) -> str:
    lines = ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    if not lines:
        return ""
    ruler = "|" + "---|" * len(head)
    return "\n".join([f"## {title}", "", "| " + " | ".join(head) + " |", ruler, *lines])


def _set_aside(facts: Mapping[str, Any]) -> str:
    rows = [(kind["rows"], name, kind["example"]) for name, kind in facts["errors"]["kinds"].items()]
    if facts["copies"]:
        rows.append((facts["copies"], "copies of other rows", "their `error` names the row that stays"))
    return _table("Set aside", ("rows", "what is wrong", "the first of them"), rows)


def _groups(groups: Sequence[Sequence[Any]]) -> str:
    """Faces by skin tone, and by gender and age across."""
    found: Counter[tuple[str, str]] = Counter()
    for gender, age, tone, faces in groups:
        found[tone, _words(gender, age)] += faces
    across = [_words(gender, age) for gender in _values("gender") for age in _values("age")]
    across = [column for column in across if any(key[1] == column for key in found)]
    rows = [(_words(tone), *(found[tone, column] for column in across)) for tone in _values("skin_tone")]
    return _table("Who is in it", ("skin tone", *across), [row for row in rows if any(row[1:])])


def _values(group: str) -> tuple[str, ...]:
    return (*ATTRIBUTES[group].values, UNKNOWN)


def _words(*values: str) -> str:
    """Values as a person would write them; what nobody knows is said once."""
    return " ".join(dict.fromkeys(values)).replace("_", " ")


def _attributes(attributes: Sequence[Mapping[str, Any]]) -> str:
    """Shares of an attribute's value among the faces of a group of which the attribute is known."""
    rows = []
    for entry in attributes:
        parts = ["" if share is None else f"{share:.0%}" for share in entry["shares"].values()]
        rows.append((entry["name"], entry["value"], entry["faces"], *parts))
    head = ("attribute", "value", "faces", *(_words(group[1]) for group in columns()))
    return _table("Attributes by gender, age and skin tone", head, rows)


def _files(files: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    return [(file["name"], file["rows"], file["bytes"], f"`{file['sha256']}`") for file in files]


def finish(storage: Storage, plan: Plan, decision: Mapping[str, Any]) -> dict[str, Any]:
    """Publish report and card, then drop the work folder. Every shard must be there. Returns the report."""
    facts = report(plan.settings, decision, shard_reports(storage, plan))
    storage.publish(REPORT, (json.dumps(facts, ensure_ascii=False, indent=1) + "\n").encode())
    storage.publish("README.md", card(facts).encode())
    close_work(storage)
    return facts


def publish_sheet(storage: Storage, plan: Plan, decision: Mapping[str, Any]) -> None:
    """Draw the faces that `decision` picked, from their parts: it must be done before shards let go of them."""
    if not storage.exists(SHEET):
        rows: list[Row] = []
        for index in decision["shown"]:
            chunk = plan.chunk_of(index)
            rows += from_table(read_part(storage, chunk).slice(index - chunk.start, 1))
        storage.publish(SHEET, contact_sheet(rows))


def contact_sheet(rows: Sequence[Row]) -> bytes:
    """A PNG with each face, its label map in colours and its landmarks; it says so if a face was rendered."""
    side, across = SHEET_SIDE, SHEET_COLUMNS
    down = max(1, -(-len(rows) // across))
    sheet = np.full((down * side, across * 3 * side, 3), 255, dtype=np.uint8)
    for place, row in enumerate(rows):
        top, left = place // across * side, place % across * 3 * side
        for column, tile in enumerate(_tiles(row)):
            start = left + column * side
            sheet[top : top + side, start : start + side] = tile
    info, buffer = PngInfo(), io.BytesIO()
    if note := next(filter(None, map(note_of, rows)), ""):
        info.add_text("Description", note)
    Image.fromarray(sheet).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _tiles(row: Row) -> list[Any]:
    side = (SHEET_SIDE, SHEET_SIDE)
    tiles = [np.full((*side, 3), 255, dtype=np.uint8)] * 3
    if row.image is None:
        return tiles
    tiles[0] = np.asarray(Image.fromarray(row.image).resize(side, Image.Resampling.LANCZOS))
    if row.label_map is not None:
        tiles[1] = np.asarray(Image.fromarray(to_colours(row.label_map)).resize(side, Image.Resampling.NEAREST))
    if row.landmarks is not None:
        tiles[2] = draw_landmarks(row.landmarks, size=row.image.shape[1], new=SHEET_SIDE)
    return tiles
