"""Small helpers on strings: normal form, word characters, joined lists, tidy sentences.

Odd here: a word character is a letter, digit, combining mark (Devanagari vowel signs) or the zero-width
non-joiner (Persian), which `str.isalnum` and `\\w` do not all accept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

ZERO_WIDTH_NON_JOINER = "\u200c"
_SPACES = re.compile(r"\s+")
_SPACE_BEFORE = re.compile(r"\s+(?=[,;.:!?،。，、؛।])")
_CLOSING = ",;.:!?،。，、؛।"


def normalise(text: str) -> str:
    """NFKC, case-folded, white space collapsed; accents and the zero-width non-joiner stay."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def is_word_character(character: str) -> bool:
    """Whether the character belongs to a word in any of our scripts."""
    return (
        character.isalnum()
        or character == ZERO_WIDTH_NON_JOINER
        or unicodedata.category(character).startswith("M")
    )


def join_list(items: Sequence[str], comma: str, last: str) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(items) == 1:
        return items[0]
    return comma.join(items[:-1]) + last + items[-1]


def tidy(text: str) -> str:
    """Collapses spaces and drops those before a closing punctuation mark."""
    text = _SPACES.sub(" ", text).strip()
    return _SPACE_BEFORE.sub("", text)


def capitalised(sentence: str) -> str:
    """The sentence with its first character in capitals."""
    return sentence[:1].upper() + sentence[1:]


def ends_closed(sentence: str) -> bool:
    """Whether the sentence already ends in a punctuation mark."""
    return sentence.endswith(tuple(_CLOSING))
