"""Captions and questions for rows, by grammar.

Odd here: every draw is a function of the seed, the row's id, the language and which text it is, so the words do not
depend on how rows are batched or which process has them. What an archive brought stays: only languages without captions
get some, and only rows without questions. Of a face whose attributes nobody knows nothing is said.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from m3face.captions import ask, caption
from m3face.config.dataset import CaptionConfig, QaConfig
from m3face.data.rows import Question, Row, Step, each


def draws(seed: int, row: str, language: str, which: str) -> np.random.Generator:
    """The generator behind one text of one row."""
    digest = hashlib.sha256(json.dumps([seed, row, language, which]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def write_captions(config: CaptionConfig, *, seed: int) -> Step:
    """A step that writes `each` captions a language; only the first language where a model translates the others."""
    languages = config.languages[:1] if config.translate else config.languages

    def work(row: Row) -> None:
        for language in languages:
            if row.attributes and not row.captions.get(language):
                generators = (draws(seed, row.id, language, f"caption {which}") for which in range(config.each))
                row.captions[language] = [caption(row.attributes, language, rng).text for rng in generators]

    return each(work)


def write_questions(config: QaConfig, *, seed: int) -> Step:
    """A step that gives each row up to `each` questions, spread over the languages and over the kinds."""

    def work(row: Row) -> None:
        if row.qa:
            return
        start = int(draws(seed, row.id, "", "questions").integers(len(config.languages)))
        turns = [config.languages[(start + turn) % len(config.languages)] for turn in range(config.each)]
        for language in dict.fromkeys(turns):
            rng = draws(seed, row.id, language, "questions")
            for asked in ask(row.attributes, language, rng, count=turns.count(language)):
                row.qa.append(
                    Question(question=asked.question, answer=asked.answer, kind=asked.kind, language=language)
                )

    return each(work)
