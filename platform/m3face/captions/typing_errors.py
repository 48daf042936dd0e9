"""Slips of the keyboard, and typing without care: letters swapped, dropped, doubled or a neighbour's; no accents.

Odd here: words shorter than four characters and first letters stay as they are, since a slip there often makes another
word ("kein", "ein").
"""

from __future__ import annotations

import unicodedata

import numpy as np

_ROWS = (
    *("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    *("йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю"),
    *("ضصثقفغعهخحجچ", "شسیبلاتنمکگ"),
)
_NEIGHBOUR = {
    letter: row[place + 1] if place + 1 < len(row) else row[place - 1]
    for row in _ROWS
    for place, letter in enumerate(row)
}
_SHORTEST = 4
_LAST_LATIN = "\u024f"
_CARELESS = str.maketrans(
    {"ё": "е", "Ё": "Е", "ß": "ss", "أ": "ا", "إ": "ا", "آ": "ا", "ة": "ه", "ى": "ي", "\u200c": " ", "ँ": "ं", "़": None}
)


def misspell(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with a slip in about `share` of its longer words."""
    words = text.split(" ")
    return " ".join(_slip(w, rng) if len(w) >= _SHORTEST and rng.random() < share else w for w in words)


def plainly(text: str) -> str:
    """The text as typed in a hurry: small letters, no accents, no dots over yo, no hamza, no full stop."""
    kept = []
    for character in unicodedata.normalize("NFC", text.lower()).translate(_CARELESS):
        kept.append(unicodedata.normalize("NFD", character)[0] if character <= _LAST_LATIN else character)
    return "".join(kept).rstrip(".。।")


def _letter(character: str) -> bool:
    return character.isalpha() or unicodedata.category(character).startswith("M")


def _slip(word: str, rng: np.random.Generator) -> str:
    place = 1 + int(rng.random() * (len(word) - 2))
    if not (_letter(word[place]) and _letter(word[place + 1])):
        return word
    sort = rng.random()
    if sort < 0.3 and word[place].isalpha() and word[place + 1].isalpha():
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if sort < 0.6:
        return word[:place] + word[place + 1 :]
    if sort < 0.8 or word[place] not in _NEIGHBOUR:
        return word[:place] + word[place] + word[place:]
    return word[:place] + _NEIGHBOUR[word[place]] + word[place + 1 :]
