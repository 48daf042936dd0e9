"""Sentences about faces in twelve languages: made from attributes, and read back.

Odd here: the words are data (`lexicons/<code>.yaml`); the code knows no language.
"""

from m3face.captions.asking import QUESTION_KINDS, Asked, ask
from m3face.captions.choosing import choose_keys
from m3face.captions.detection import detect_language
from m3face.captions.grammar import STYLES, Caption, caption, realise
from m3face.captions.keys import mentions_of
from m3face.captions.lexicon import available_languages, load_lexicon, wording_digest
from m3face.captions.model import Lexicon
from m3face.captions.parsing import parse
from m3face.captions.text import normalise

__all__ = [
    "QUESTION_KINDS",
    "STYLES",
    "Asked",
    "Caption",
    "Lexicon",
    "ask",
    "available_languages",
    "caption",
    "choose_keys",
    "detect_language",
    "load_lexicon",
    "mentions_of",
    "normalise",
    "parse",
    "realise",
    "wording_digest",
]
