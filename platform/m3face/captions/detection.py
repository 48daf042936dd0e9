"""Which of the twelve languages a text is in: by script, then by words and letters.

Odd here: the letter statistics are those of our own lexicons, so the guess is made for captions, not for
prose; a script that none of the languages uses is taken for English.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import cache, lru_cache

from m3face.captions.lexicon import available_languages, load_lexicon
from m3face.captions.model import Lexicon
from m3face.captions.text import normalise

_DEFAULT = "en"
_BY_SCRIPT: dict[str, tuple[str, ...]] = {
    "latin": ("en", "fr", "de", "it", "es", "pt"),
    "arabic": ("fa", "ar"),
    "han": ("zh", "ja"),
    "devanagari": ("hi",),
    "cyrillic": ("ru",),
}
_SCRIPTS = (
    ("kana", re.compile("[\u3040-\u30ff\u31f0-\u31ff]")),
    ("han", re.compile("[\u3400-\u9fff]")),
    ("devanagari", re.compile("[\u0900-\u097f]")),
    ("cyrillic", re.compile("[\u0400-\u04ff]")),
    ("arabic", re.compile("[\u0600-\u06ff\u0750-\u077f]")),
    ("latin", re.compile("[a-z\u00df-\u024f]")),
)
_PERSIAN = frozenset("پچژگکی")
_NOT_PERSIAN = frozenset("كيىةأإؤ")
_LETTER_BONUS, _WORD_SHARE, _SMOOTHING = 1.5, 2.0, 0.3
_GRAM = 3


def detect_language(text: str) -> str:
    """The ISO 639-1 code of the likeliest language; "en" where nothing tells."""
    plain = normalise(text)
    counts = {script: len(pattern.findall(plain)) for script, pattern in _SCRIPTS}
    if counts["kana"]:
        return "ja"
    script = max(counts, key=lambda name: (counts[name] * (2 if name == "han" else 1), name == "latin"))
    if not counts[script]:
        return _DEFAULT
    candidates = _BY_SCRIPT[script]
    if len(candidates) == 1:
        return candidates[0]
    scores = {code: _score(plain, code, script) for code in candidates if code in available_languages_now()}
    if script == "arabic":
        bonus = sum(c in _PERSIAN for c in plain) - sum(c in _NOT_PERSIAN for c in plain)
        scores["fa"] = scores.get("fa", 0.0) + _LETTER_BONUS * bonus
        scores.setdefault("ar", 0.0)
    return max(scores, key=scores.__getitem__) if scores else candidates[0]


@lru_cache(maxsize=1)
def available_languages_now() -> frozenset[str]:
    """The languages with a file, looked up once."""
    return frozenset(available_languages())


def _features(text: str) -> tuple[list[str], list[str]]:
    """The words and the letter groups of a normalised text."""
    words = re.findall(r"[^\W\d_]+", text)
    grams = [f" {word} "[i : i + _GRAM] for word in words for i in range(len(word) + 3 - _GRAM)]
    return words, grams


def _score(text: str, language: str, script: str) -> float:
    """The log-likelihood of the text's words and letter groups, up to a constant per script."""
    words, grams = _features(text)
    if script == "han":
        words, grams = [], list(text) + [text[i : i + 2] for i in range(len(text) - 1)]
    word_table, gram_table, unknown_word, unknown_gram = _tables(language)
    total = sum(gram_table.get(gram, unknown_gram) for gram in grams)
    return total + _WORD_SHARE * sum(word_table.get(word, unknown_word) for word in words)


@cache
def _tables(language: str) -> tuple[dict[str, float], dict[str, float], float, float]:
    words: Counter[str] = Counter()
    grams: Counter[str] = Counter()
    lexicon = load_lexicon(language)
    for text in _strings(lexicon):
        plain = normalise(text)
        some_words, some_grams = _features(plain)
        if not lexicon.space:
            some_words, some_grams = [], list(plain) + [plain[i : i + 2] for i in range(len(plain) - 1)]
        words.update(some_words)
        grams.update(some_grams)
    word_table, unknown_word = _logarithms(words, 20_000)
    gram_table, unknown_gram = _logarithms(grams, 8_000)
    return word_table, gram_table, unknown_word, unknown_gram


def _logarithms(counts: Counter[str], vocabulary: int) -> tuple[dict[str, float], float]:
    """Smoothed log-probabilities, and that of anything unseen."""
    total = math.log(sum(counts.values()) + _SMOOTHING * vocabulary)
    table = {word: math.log(count + _SMOOTHING) - total for word, count in counts.items()}
    return table, math.log(_SMOOTHING) - total


def _strings(lexicon: Lexicon) -> list[str]:
    """All text of a language, templates many times since every caption has some."""
    out: list[str] = []
    for wordings in lexicon.wordings.values():
        out += [form for w in wordings for form in dict.fromkeys(f for frames in w.forms for f in frames)]
    for adjectives in lexicon.adjectives.values():
        out += [form for forms in adjectives for form in forms[0]]
    for rows in lexicon.person.values():
        out += [form for forms in rows for form in forms[0]] * 3
    slots = [slot for template in lexicon.openers for slot in template[:1]]
    for kind in lexicon.kinds.values():
        slots += [slot for t in (*kind.clause, *kind.attach) for slot in t[:1]] * 5
    out += [text for slot in slots for text in (slot.before, slot.after) if text] * 3
    return out + [lexicon.last] * 150
