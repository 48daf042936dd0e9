"""The compiled shapes of a language: templates, kinds, wordings, composites, the lexicon itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FEMALE, MALE, ANYONE = 0, 1, 2
GENDERS = ("female", "male", "anyone")
AGES = ("any", "young", "middle_aged", "old")
SPLITS = ("train", "heldout", "all")
MODES = ("clause", "attach", "keyword")

Forms = tuple[tuple[str, ...], ...]
"""A phrase: gender -> frame -> string."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A template for one gender: text, the frame that goes between, text."""

    before: str
    frame: int
    after: str


Template = tuple[Slot, ...]
"""A template: gender -> slot."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How phrases of one kind enter a text."""

    name: str
    frames: tuple[str, ...]
    clause: tuple[Template, ...]
    attach: tuple[Template, ...]
    keyword: tuple[Template, ...]

    def templates(self, mode: str) -> tuple[Template, ...]:
        """The templates of a mode; empty where phrases of this kind cannot be said so."""
        if mode == "clause":
            return self.clause
        return self.attach if mode == "attach" else self.keyword


@dataclass(frozen=True, slots=True)
class Wording:
    """One way to say a key (or, from a composite, several keys)."""

    keys: tuple[str, ...]
    kind: str
    forms: Forms
    held_out: bool = False
    negative: bool = False


@dataclass(frozen=True, slots=True)
class Composite:
    """A noun on which adjectives of several attributes stack; `around`: gender, frame -> (before, after)."""

    kind: str
    order: tuple[str, ...]
    join: str
    around: tuple[tuple[tuple[str, str], ...], ...]


Pools = Mapping[str, tuple[Wording, ...]]


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Everything that is needed to speak and to read one language.

    `bare` are person phrases without their articles, as in a terse prompt ("Frau mit Brille"). `pools` gives,
    for (split, mode), the wordings of every key that can be said so.
    """

    language: str
    capitalise: bool
    comma: str
    last: str
    space: str
    stop: str
    person_frames: tuple[str, ...]
    person: Mapping[tuple[int, str], tuple[Forms, ...]]
    bare: Mapping[tuple[int, str], tuple[str, ...]]
    openers: tuple[Template, ...]
    described: tuple[str, ...]
    kinds: Mapping[str, Kind]
    wordings: Mapping[str, tuple[Wording, ...]]
    composites: tuple[Composite, ...]
    adjectives: Mapping[str, tuple[Forms, ...]]
    pools: Mapping[tuple[str, str], Pools]

    @property
    def between_words(self) -> str:
        """What stands between two parts of a sentence: nothing in scripts without spaces."""
        return " " if self.space else ""
