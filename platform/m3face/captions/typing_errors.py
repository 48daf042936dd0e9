"""Slips of the keyboard: letters swapped, dropped, doubled or replaced by a neighbour's.

Odd here: words shorter than four characters stay as they are, since a slip there often makes another word.
"""

from __future__ import annotations

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


def misspell(text: str, share: float, rng: np.random.Generator) -> str:
    """The text with a slip in about `share` of its longer words."""
    words = text.split(" ")
    return " ".join(_slip(w, rng) if len(w) >= _SHORTEST and rng.random() < share else w for w in words)


def _slip(word: str, rng: np.random.Generator) -> str:
    place = 1 + int(rng.random() * (len(word) - 2))
    if not (word[place].isalpha() and word[place + 1].isalpha()):
        return word
    sort = rng.random()
    if sort < 0.3:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if sort < 0.6:
        return word[:place] + word[place + 1 :]
    if sort < 0.8 or word[place] not in _NEIGHBOUR:
        return word[:place] + word[place] + word[place:]
    return word[:place] + _NEIGHBOUR[word[place]] + word[place + 1 :]
