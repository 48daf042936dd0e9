"""The words of questions in one language, read from `questions/<code>.yaml` and kept: `load_question_words`.

Odd here: a yes/no question borrows its wording from the language's lexicon ("a beard", "glasses"), so this file only
says how a wording of each *kind* is asked for, and stays small. Texts are kept once per grammatical gender, as there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m3face.captions.compiling import Compiler
from m3face.captions.lexicon import load_lexicon
from m3face.captions.model import Template
from m3face.errors import BadInput, DataError
from m3face.faces import LANGUAGES

WHAT = (
    "gender", "age", "face_shape", "skin_tone", "skin_texture", "hair_colour", "hair_length", "hair_type", "hairline",
    "eye_colour", "beard", "glasses", "smile", "emotion",
)  # fmt: skip
"""Attributes that have questions of their own ("What colour is the hair?")."""

THINGS = ("glasses", "hat", "earrings", "necklace", "necktie", "mustache", "freckles", "dimples")
"""Attributes that are there or not, and can be counted together."""

MOST_THINGS = 5

REASONS = (
    "celebration", "funeral", "quarrel", "surprise", "waiting", "sunshine", "office", "studies", "retirement",
    "short_night", "party", "conversation", "silence",
)  # fmt: skip
"""Situations that a face can speak for, each with a reason ("because ...")."""

SITUATIONS = (*REASONS, "night", "beach", "long_sleep", "gardening")
"""Everything that a reasoning question can offer."""

Gendered = tuple[str, str, str]
"""A text where the person is female, male, or not named as either."""

_Texts = Annotated[list[str], Field(min_length=3)]


class _File(BaseModel):
    """A question file as written: at least three phrasings of everything that is asked."""

    model_config = ConfigDict(strict=True, extra="forbid")

    language: str
    anyone: Literal["female", "male"] = "female"
    whether: dict[str, _Texts]
    agree: _Texts
    deny: _Texts
    what: dict[str, _Texts]
    which: _Texts
    count: _Texts
    things: dict[str, str]
    numbers: Annotated[list[str], Field(min_length=MOST_THINGS + 1, max_length=MOST_THINGS + 1)]
    why: _Texts
    because: _Texts
    situations: dict[str, str]
    reasons: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class QuestionWords:
    """`whether` is by the kind of a wording, `what` by attribute. `agree` and `deny` may hold {it}; `which` and `why`
    hold {a} and {b}, `count` {things}, `because` {a} and {reason}. `numbers` are the words for 0 to `MOST_THINGS`."""

    whether: Mapping[str, tuple[Template, ...]]
    agree: tuple[str, ...]
    deny: tuple[str, ...]
    what: Mapping[str, tuple[Gendered, ...]]
    which: tuple[Gendered, ...]
    count: tuple[Gendered, ...]
    things: Mapping[str, str]
    numbers: tuple[str, ...]
    why: tuple[Gendered, ...]
    because: tuple[Gendered, ...]
    situations: Mapping[str, str]
    reasons: Mapping[str, Gendered]


@cache
def load_question_words(language: str) -> QuestionWords:
    """The words of a language; BadInput for an unknown one, DataError names what is wrong in a file."""
    if language not in LANGUAGES:
        raise BadInput("language", repr(language), ", ".join(LANGUAGES), "give an ISO 639-1 code")
    path = resources.files("m3face.captions") / "questions" / f"{language}.yaml"
    try:
        return compile_question_words(language, yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise _wrong(language, "file", "missing") from None
    except yaml.YAMLError as error:
        raise _wrong(language, "file", f"not YAML: {error}") from None


def _wrong(language: str, where: str, what: str) -> DataError:
    return DataError(f"captions/questions/{language}.yaml", f"{where}: {what}", "a file like that of another language")


def compile_question_words(language: str, data: Any) -> QuestionWords:
    """The words behind a parsed file; DataError names the first thing that is wrong."""
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(language, ".".join(map(str, first["loc"])), first["msg"]) from None
    kinds = load_lexicon(language).kinds
    for where, got, wanted in (
        ("language", {file.language}, {language}),
        ("what", set(file.what), set(WHAT)),
        ("things", set(file.things), set(THINGS)),
        ("situations", set(file.situations), set(SITUATIONS)),
        ("reasons", set(file.reasons), set(REASONS)),
        ("whether, not kinds of the lexicon", set(file.whether) - set(kinds), set()),
    ):
        if got != wanted:
            raise _wrong(language, where, ", ".join(sorted(got ^ wanted)))
    for where, texts, holes in (
        ("which", file.which, ("{a}", "{b}")),
        ("count", file.count, ("{things}",)),
        ("why", file.why, ("{a}", "{b}")),
        ("because", file.because, ("{a}", "{reason}")),
    ):
        for text in texts:
            if any(text.count(hole) != 1 for hole in holes):
                raise _wrong(language, where, f"needs {' and '.join(holes)} once each in {text!r}")
    compiler = Compiler(language, data)
    compiler.anyone = 1 if file.anyone == "male" else 0

    def gendered(where: str, texts: list[str]) -> tuple[Gendered, ...]:
        return tuple(compiler.genders(where, text) for text in texts)

    words = QuestionWords(
        whether={k: compiler.templates(f"whether.{k}", texts, kinds[k].frames) for k, texts in file.whether.items()},
        agree=tuple(file.agree),
        deny=tuple(file.deny),
        what={name: gendered(f"what.{name}", texts) for name, texts in file.what.items()},
        which=gendered("which", file.which),
        count=gendered("count", file.count),
        things=file.things,
        numbers=tuple(file.numbers),
        why=gendered("why", file.why),
        because=gendered("because", file.because),
        situations=file.situations,
        reasons={name: compiler.genders(f"reasons.{name}", text) for name, text in file.reasons.items()},
    )
    if compiler.problems:
        raise _wrong(language, compiler.problems[0].where, compiler.problems[0].what)
    return words
