"""Language files, read from the package and kept: `load_lexicon`.

Odd here: in a compiled lexicon every string is kept three times, once per grammatical gender (0 female,
1 male, 2 not named), so that making a caption is only look-up and concatenation.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from m3face.captions.compiling import Problem, compile_lexicon
from m3face.captions.model import Lexicon
from m3face.errors import BadInput, DataError
from m3face.faces import LANGUAGES

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What came of reading a language file: the lexicon, or None with the problems that prevented it."""

    lexicon: Lexicon | None
    problems: tuple[Problem, ...]


def available_languages() -> tuple[str, ...]:
    """The languages whose file is present, in the order of `LANGUAGES`."""
    folder = resources.files("m3face.captions") / "lexicons"
    return tuple(code for code in LANGUAGES if (folder / f"{code}.yaml").is_file())


def wording_digest() -> str:
    """Twelve hex digits of every language file's bytes: captions drawn before and after a change have other texts."""
    folder = resources.files("m3face.captions") / "lexicons"
    digest = hashlib.sha256()
    for code in available_languages():
        digest.update((folder / f"{code}.yaml").read_bytes())
    return digest.hexdigest()[:12]


def read_lexicon(language: str) -> Reading:
    """Reads and compiles a language file, collecting every problem instead of raising on the first."""
    if language not in LANGUAGES:
        raise BadInput("language", repr(language), ", ".join(LANGUAGES), "give an ISO 639-1 code")
    file = resources.files("m3face.captions") / "lexicons" / f"{language}.yaml"
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_LOADER)
    except FileNotFoundError:
        return Reading(lexicon=None, problems=(Problem("file", "missing"),))
    except yaml.YAMLError as error:
        return Reading(lexicon=None, problems=(Problem("file", f"not YAML: {error}"),))
    lexicon, problems = compile_lexicon(language, data)
    return Reading(lexicon=lexicon, problems=problems)


@cache
def load_lexicon(language: str) -> Lexicon:
    """The compiled lexicon of a language; DataError names file, key and the first thing that is wrong."""
    reading = read_lexicon(language)
    if reading.lexicon is None or reading.problems:
        first = reading.problems[0]
        raise DataError(
            f"captions/lexicons/{language}.yaml",
            f"{first.where}: {first.what}",
            "a file that follows the lexicon format",
            f"run python -m m3face.captions {language}",
        )
    return reading.lexicon
