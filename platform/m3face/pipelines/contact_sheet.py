"""Faces on one sheet: prompt, label map, landmarks, picture, a row each; as PNG and as a page.

Odd here: a bare machine has no font for Chinese or Devanagari, and without a shaping library Persian letters would
stand apart. So the PNG writes a prompt only in a font of this machine that has every glyph of it, and otherwise says
which language it is; the page beside it leaves the letters to the browser. The English gloss is always there.
"""

from __future__ import annotations

import base64
import io
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from m3face.faces import LANGUAGES, draw_landmarks, to_colours
from m3face.pipelines.provenance import STATEMENT
from m3face.pipelines.text_to_face import FaceResult

PICTURE, MARGIN, WORDS = 224, 12, 420
_TEXT_SIZE, _SMALL_SIZE, _LINE = 20, 15, 1.35
_INK, _GREY, _PAPER = (30, 30, 34), (120, 120, 128), (255, 255, 255)
_FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "C:/Windows/Fonts",
)
_MOST_FONTS = 400
_ODD_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "condensed")
_NO_CHARACTER = "\U0010fffe"

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True, kw_only=True)
class Row:
    """One face of the sheet. `gloss` says the prompt in English."""

    prompt: str
    language: str
    gloss: str
    result: FaceResult


@lru_cache(maxsize=1)
def _font_files() -> tuple[Path, ...]:
    """Fonts of this machine, plain styles first."""
    folders = [Path(os.path.expanduser(folder)) for folder in _FONT_FOLDERS]
    files = [p for folder in folders if folder.is_dir() for p in folder.rglob("*.[to]t[fc]")]

    def plainness(path: Path) -> tuple[bool, bool, str]:
        name = path.name.lower()
        return any(style in name for style in _ODD_STYLES), "sans" not in name, name

    return tuple(sorted(files, key=plainness)[:_MOST_FONTS])


def _covers(font: Font, text: str) -> bool:
    """Whether the font has a glyph for every letter: none may look like its sign for "no such character"."""
    missing = font.getmask(_NO_CHARACTER)
    for character in set(text):
        if character.isspace() or unicodedata.category(character) in ("Cf", "Mn"):
            continue
        mask = font.getmask(character)
        if mask.size == missing.size and bytes(mask) == bytes(missing):
            return False
    return True


def _needs_shaping(text: str) -> bool:
    return any(unicodedata.bidirectional(c) in ("R", "AL") or "\u0900" <= c <= "\u0dff" for c in text)


def find_font(text: str, size: int) -> Font | None:
    """A font of this machine that can write the whole of `text`, or None."""
    if _needs_shaping(text) and not features.check("raqm"):
        return None
    built_in = ImageFont.load_default(size)
    if isinstance(built_in, ImageFont.FreeTypeFont) and _covers(built_in, text):
        return built_in
    for path in _font_files():
        try:
            if _covers(ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC), text):
                return ImageFont.truetype(path, size)
        except OSError:
            continue
    return None


def _lines(text: str, font: Font, width: int) -> list[str]:
    """`text` cut to lines of `width` pixels, at spaces where there are any, else between letters."""
    joint = " " if " " in text else ""
    lines: list[str] = []
    for word in text.split(" ") if joint else text:
        longer = f"{lines[-1]}{joint}{word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _write(pen: ImageDraw.ImageDraw, row: Row, left: int, top: int) -> None:
    language = LANGUAGES[row.language]
    font, small = find_font(row.prompt, _TEXT_SIZE), find_font(row.gloss, _SMALL_SIZE)
    text = row.prompt
    if font is None:
        text, font = f"(in {language.name}: no font here; see the page)", find_font(language.name, _TEXT_SIZE)
    y = float(top)
    rtl = language.rtl and text == row.prompt
    for line in _lines(text, font, WORDS) if font else ():
        x, anchor = (left + WORDS, "ra") if rtl else (left, "la")
        pen.text((x, y), line, font=font, fill=_INK, anchor=anchor, direction="rtl" if rtl else None)
        y += _TEXT_SIZE * _LINE
    y += _SMALL_SIZE * (_LINE - 1)
    for line in _lines(f"{language.name}: {row.gloss}", small, WORDS) if small else ():
        pen.text((left, y), line, font=small, fill=_GREY)
        y += _SMALL_SIZE * _LINE


def _pictures(result: FaceResult) -> tuple[NDArray[np.uint8], ...]:
    size = len(result.picture)
    return to_colours(result.label_map), draw_landmarks(result.landmarks, size=size, new=PICTURE), result.picture


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """The sheet, RGB."""
    height = PICTURE + MARGIN
    sheet = Image.new("RGB", (WORDS + 3 * PICTURE + 5 * MARGIN, len(rows) * height + MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, row in enumerate(rows):
        top = MARGIN + index * height
        _write(pen, row, MARGIN, top + 4)
        drawings = _pictures(row.result)
        filters = (Image.Resampling.NEAREST, Image.Resampling.NEAREST, Image.Resampling.BICUBIC)
        for column, (drawing, resample) in enumerate(zip(drawings, filters, strict=True)):
            picture = Image.fromarray(drawing).resize((PICTURE, PICTURE), resample)
            sheet.paste(picture, (WORDS + 2 * MARGIN + column * (PICTURE + MARGIN), top))
    return sheet


def _embedded(drawing: NDArray[np.uint8], alt: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(drawing).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{alt}" width="{PICTURE}" height="{PICTURE}" src="data:image/png;base64,{data}">'


def page(rows: Sequence[Row]) -> str:
    """The same as one HTML file that needs nothing beside it."""
    alts = ("label map", "landmarks", "face")
    body = []
    for row in rows:
        language = LANGUAGES[row.language]
        pictures = "".join(_embedded(d, a) for d, a in zip(_pictures(row.result), alts, strict=True))
        direction = ' dir="rtl"' if language.rtl else ""
        words = f'<p lang="{row.language}"{direction}>{escape(row.prompt)}</p><p class="gloss">{escape(row.gloss)}</p>'
        body.append(f"<section><div><h2>{language.name}</h2>{words}</div>{pictures}</section>")
    style = (
        "body{font:18px sans-serif;margin:2em}section{display:flex;gap:12px;margin-bottom:12px}"
        "section div{width:24em}h2{font-size:14px;color:#777;margin:0}.gloss{font-size:14px;color:#777}"
        "img{image-rendering:pixelated}"
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>m3face</title><style>{style}</style>'
        f"<p>Each face is {STATEMENT}.</p>{''.join(body)}</html>\n"
    )
