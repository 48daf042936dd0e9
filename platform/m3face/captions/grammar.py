"""From keys to a caption: pick wordings, stack adjectives, fill templates, join sentences.

Odd here: `Caption.mentions` is what the text says, not what was asked for: a key that the language cannot say
in the chosen style is dropped from both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from m3face.captions.choosing import choose_keys
from m3face.captions.keys import attribute_of, is_key, mentions_of
from m3face.captions.lexicon import load_lexicon
from m3face.captions.model import ANYONE, FEMALE, MALE, SPLITS, Lexicon, Wording
from m3face.captions.text import capitalised, ends_closed, join_list, tidy
from m3face.captions.typing_errors import misspell, plainly
from m3face.errors import BadInput
from m3face.faces import Mention

STYLES = ("keywords", "phrase", "sentences", "paragraph")
_COMPOSITE_SHARE = 0.7
_ATTACHED_TOGETHER, _ATTACHMENTS, _CLAUSE_ITEMS = 4, 5, 3
_PERSON_KEYWORD_SHARE, _AGE_APART_SHARE = 0.35, 0.12
_BARE_SHARE = 0.7
_CARELESS_SHARE = 0.4  # of the captions with slips
_T = TypeVar("_T")
_HOLE = "\ue000"
_COMMAS = tuple(",;،，、")


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A sentence about a face and exactly what it says."""

    text: str
    language: str
    style: str
    mentions: tuple[Mention, ...]


def caption(
    attributes: Mapping[str, str],
    language: str,
    rng: np.random.Generator,
    *,
    style: str | None = None,
    split: str = "train",
    count: int | None = None,
    typos: float = 0.0,
) -> Caption:
    """A random true caption of the face."""
    keys = choose_keys(attributes, rng, count=count)
    return realise(keys, language, rng, style=style, split=split, typos=typos)


def realise(
    keys: Sequence[str],
    language: str,
    rng: np.random.Generator,
    *,
    style: str | None = None,
    split: str = "train",
    typos: float = 0.0,
) -> Caption:
    """The keys said in a language; see the module's opening for what may be dropped."""
    unknown = [key for key in keys if not is_key(key)]
    if unknown:
        raise BadInput("keys", repr(unknown[0]), "attribute.value or not.attribute.value")
    if split not in SPLITS:
        raise BadInput("split", repr(split), ", ".join(SPLITS))
    if style is None:
        style = _any_style(len(keys), rng)
    elif style not in STYLES:
        raise BadInput("style", repr(style), ", ".join(STYLES))
    speaker = _Speaker(load_lexicon(language), rng, split, typos, keys)
    text = speaker.keywords() if style == "keywords" else speaker.description(style)
    if typos > 0 and rng.random() < _CARELESS_SHARE:
        text = plainly(text)
    return Caption(text=text, language=language, style=style, mentions=mentions_of(speaker.said))


def _any_style(count: int, rng: np.random.Generator) -> str:
    """A style that suits the number of things to say."""
    shares = (0.3, 0.8, 1.0) if count <= 2 else (0.25, 0.55, 0.85) if count <= 7 else (0.3, 0.4, 0.6)
    draw = rng.random()
    return next((style for style, share in zip(STYLES, shares, strict=False) if draw < share), STYLES[-1])


class _Speaker:
    """One caption in the making: `said` collects the keys that went into the text."""

    def __init__(
        self, lexicon: Lexicon, rng: np.random.Generator, split: str, typos: float, keys: Sequence[str]
    ) -> None:
        self.lexicon, self.split, self.typos, self.rng = lexicon, split, typos, rng
        self.random = rng.random
        self.keys = list(dict.fromkeys(keys))
        self.said: list[str] = []
        self.gender = (
            FEMALE if "gender.female" in self.keys else MALE if "gender.male" in self.keys else ANYONE
        )

    # ---- choices

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self.random() * len(options))]

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        draws = self.random(len(items)).tolist()
        return [items[place] for place in sorted(range(len(items)), key=draws.__getitem__)]

    def units(self, keys: Sequence[str]) -> list[Wording | str]:
        """The keys, some of them already joined into composites."""
        rest, units = list(keys), list[Wording | str]()
        composites = self.lexicon.composites
        orders = dict.fromkeys(composite.order for composite in composites)
        for order in orders:
            if self.random() >= _COMPOSITE_SHARE:
                continue
            stacked = [key for key in rest if attribute_of(key) in order and self.stackable(key)]
            if len(stacked) < 2:
                continue
            if len(stacked) > 2 and self.random() < 0.4:
                stacked = self.shuffled(stacked)[:2]
            stacked.sort(key=lambda key: order.index(attribute_of(key)))
            composite = self.pick([c for c in composites if c.order == order])
            words = [self.pick(self.lexicon.adjectives[key])[self.gender] for key in stacked]
            forms = tuple(
                before + composite.join.join(word[frame] for word in words) + after
                for frame, (before, after) in enumerate(composite.around[self.gender])
            )
            units.append(Wording(tuple(stacked), composite.kind, (forms, forms, forms)))
            rest = [key for key in rest if key not in stacked]
        return units + list(rest)

    def stackable(self, key: str) -> bool:
        """Whether the key has adjectives (and, among held-out wordings, none of those)."""
        if not self.lexicon.adjectives.get(key):
            return False
        return self.split != "heldout" or not any(w.held_out for w in self.lexicon.wordings.get(key, ()))

    def wording(self, unit: Wording | str, mode: str) -> Wording | None:
        """A wording of the unit that can be said in the mode."""
        if isinstance(unit, str):
            options = self.lexicon.pools[self.split, mode].get(unit)
            return self.pick(options) if options else None
        return unit if self.lexicon.kinds[unit.kind].templates(mode) else None

    # ---- parts

    def slipped(self, text: str) -> str:
        """The part with slips of the keyboard."""
        return misspell(text, self.typos, self.rng) if self.typos > 0 else text

    def part(self, wordings: Sequence[Wording], mode: str) -> str:
        """Phrases of one kind, joined and put into a template of the mode; notes what was said."""
        lexicon = self.lexicon
        slot = self.pick(lexicon.kinds[wordings[0].kind].templates(mode))[self.gender]
        items = [wording.forms[self.gender][slot.frame] for wording in wordings]
        for wording in wordings:
            self.said += wording.keys
        joined = join_list(items, lexicon.comma, lexicon.last)
        return self.slipped(slot.before + joined + slot.after)

    def person(self, age: str, frame: int, *, terse: bool) -> str:
        """The person in a frame; where the text is terse, mostly without article."""
        bare = self.lexicon.bare.get((self.gender, age)) if terse else None
        if bare and self.random() < _BARE_SHARE:
            return self.pick(bare)
        return self.pick(self.lexicon.person[self.gender, age])[self.gender][frame]

    def described(self, age: str, attached: Sequence[str]) -> str:
        """The opener with the person and what is attached."""
        lexicon = self.lexicon
        opener = self.pick(lexicon.openers)[self.gender]
        terse = not (opener.frame or opener.before or opener.after)
        person = self.slipped(self.person(age, opener.frame, terse=terse))
        text = self.pick(lexicon.described).replace("{person}", person)
        text = text.replace("{attached}", lexicon.between_words.join(attached))
        around = self.slipped(opener.before + _HOLE + opener.after)
        return around.replace(_HOLE, text.strip())

    # ---- styles

    def keywords(self) -> str:
        """A list of words in random order."""
        keys, items = self.keys, list[str]()
        if self.split != "heldout" and self.gender != ANYONE and self.random() < _PERSON_KEYWORD_SHARE:
            age, keys = self.take_person(keys)
            items.append(self.slipped(self.person(age, 0, terse=True)))
        for unit in self.units(keys):
            wording = self.wording(unit, "keyword")
            if wording is not None:
                items.append(self.part((wording,), "keyword"))
        if not items:
            items.append(self.person("any", 0, terse=True))
        text = tidy(self.lexicon.comma.join(self.shuffled(items)))
        if self.random() < 0.12 and not ends_closed(text):
            text += self.lexicon.stop
        return capitalised(text) if self.lexicon.capitalise and self.random() < 0.3 else text

    def take_person(self, keys: Sequence[str], *, with_age: bool = True) -> tuple[str, list[str]]:
        """The age for the person row and the keys that remain to be said."""
        taken = [key for key in keys if key.startswith("gender.") or (with_age and key.startswith("age."))]
        self.said += taken
        ages = [key.removeprefix("age.") for key in taken if key.startswith("age.")]
        return (ages[0] if ages else "any"), [key for key in keys if key not in taken]

    def description(self, style: str) -> str:
        """Opener and person with attachments, then clauses where the style has them."""
        apart = self.split == "heldout" or (style != "phrase" and self.random() < _AGE_APART_SHARE)
        age, keys = self.take_person(self.keys, with_age=not apart)
        attaching = self.shuffled(self.units(keys))
        later: list[Wording | str] = []
        if style != "phrase":
            share = int(self.random() * (4 if style == "sentences" else 3))
            attaching, later = attaching[:share], attaching[share:]
        parts, left = self.attachments(attaching)
        first = self.described(age, parts)
        if style == "phrase":
            return self.finished([first], 0.6, 0.6)
        limit = _CLAUSE_ITEMS if style == "sentences" else _CLAUSE_ITEMS - 1
        return self.finished([first, *self.clauses(later + left, limit)], 0.88, 0.92)

    def attachments(self, units: Sequence[Wording | str]) -> tuple[list[str], list[Wording | str]]:
        """What is attached to the person, and the units that could not be."""
        left: list[Wording | str] = []
        by_kind: dict[str, list[list[Wording]]] = {}
        count = 0
        for unit in units:
            wording = self.wording(unit, "attach")
            if wording is None:
                left.append(unit)
                continue
            groups = by_kind.setdefault(wording.kind, [])
            if groups and len(groups[-1]) < _ATTACHED_TOGETHER:
                groups[-1].append(wording)
            elif count < _ATTACHMENTS:
                groups.append([wording])
                count += 1
            else:
                left.append(unit)
        parts = [self.part(group, "attach") for groups in by_kind.values() for group in groups]
        return sorted(parts, key=lambda part: part.lstrip().startswith(_COMMAS)), left

    def clauses(self, units: Sequence[Wording | str], limit: int) -> list[str]:
        """Sentences that say the units, up to `limit` of one kind in each."""
        by_kind: dict[str, list[Wording]] = {}
        for unit in units:
            wording = self.wording(unit, "clause")
            if wording is not None:
                by_kind.setdefault(wording.kind, []).append(wording)
        sentences: list[str] = []
        for wordings in by_kind.values():
            while wordings:
                size = 1 + int(self.random() * limit)
                sentences.append(self.part(wordings[:size], "clause"))
                wordings = wordings[size:]
        return self.shuffled(sentences)

    def finished(self, sentences: Sequence[str], stop_share: float, capital_share: float) -> str:
        """The sentences in a row, with or without capitals and the final stop."""
        lexicon = self.lexicon
        capital = lexicon.capitalise and self.random() < capital_share
        stopped: list[str] = []
        for place, sentence in enumerate(sentences):
            text = tidy(sentence)
            if capital:
                text = capitalised(text)
            inner = place + 1 < len(sentences)
            if not ends_closed(text) and (inner or self.random() < stop_share):
                text += lexicon.stop
            stopped.append(text)
        text = lexicon.space.join(stopped)
        return text if capital or not lexicon.capitalise or self.random() < 0.5 else text.lower()
