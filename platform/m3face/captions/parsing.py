"""From a text back to what it says: longest match of everything the lexicon can say.

Odd here: nothing is understood but the lexicon's own phrases; among overlapping matches the longest wins, so
"no blond hair" hides "blond hair". A match starts where a word starts, or right after a prefix that the
language's own templates glue to a phrase (Arabic "و", "ب"); in scripts without spaces it starts anywhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from m3face.captions.keys import attribute_of, mentions_of
from m3face.captions.lexicon import load_lexicon
from m3face.captions.model import ANYONE, GENDERS, Lexicon
from m3face.captions.text import is_word_character, normalise
from m3face.faces import Mention


@dataclass(frozen=True, slots=True)
class Match:
    """A stretch of the normalised text and the keys that it says."""

    start: int
    end: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Stack:
    """A composite's pattern; group i is the i-th adjective, `keys` gives what each adjective says."""

    pattern: re.Pattern[str]
    keys: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Reader:
    """What is needed to parse one language."""

    phrases: dict[str, tuple[str, ...]]
    lengths: dict[str, tuple[int, ...]]
    stacks: tuple[_Stack, ...]
    anywhere: bool
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]


def parse(text: str, language: str) -> tuple[Mention, ...]:
    """What the text says, as far as the lexicon's phrases tell: sorted, absence expanded."""
    return mentions_of(key for match in find_matches(text, language) for key in match.keys)


def find_matches(text: str, language: str) -> tuple[Match, ...]:
    """The longest matches that do not overlap, in the order of the text."""
    reader = _reader(language)
    plain = normalise(text)
    found = sorted(_candidates(plain, reader), key=lambda match: (match.start - match.end, match.start))
    taken = bytearray(len(plain))
    chosen: list[Match] = []
    for match in found:
        if not any(taken[match.start : match.end]):
            taken[match.start : match.end] = b"\x01" * (match.end - match.start)
            chosen.append(match)
    return tuple(sorted(chosen, key=lambda match: match.start))


def _candidates(text: str, reader: _Reader) -> Iterator[Match]:
    """Every phrase at every place where one may start; plain phrases before composites."""
    starts = range(len(text)) if reader.anywhere else _starts(text, reader.prefixes)
    ends = None if reader.anywhere else _ends(text, reader.suffixes)
    for start in starts:
        for length in reader.lengths.get(text[start : start + 1], ()):
            end = start + length
            if end <= len(text) and (ends is None or end in ends):
                keys = reader.phrases.get(text[start:end])
                if keys is not None:
                    yield Match(start, end, keys)
    for start in starts:
        for stack in reader.stacks:
            found = stack.pattern.match(text, start)
            if found is not None and (ends is None or found.end() in ends):
                yield Match(start, found.end(), tuple(stack.keys[word] for word in found.groups() if word))


def _starts(text: str, prefixes: Iterable[str]) -> list[int]:
    """Where a word starts, or what follows a glued prefix."""
    out: set[int] = set()
    for place, character in enumerate(text):
        word = is_word_character(character)
        if place == 0 or not word or not is_word_character(text[place - 1]):
            out.add(place)
            if word:
                out.update(place + len(p) for p in prefixes if text.startswith(p, place))
    return sorted(out)


def _ends(text: str, suffixes: Iterable[str]) -> set[int]:
    """Where a word ends, or what precedes a glued suffix."""
    out = {len(text)}
    for place in range(1, len(text)):
        if not (is_word_character(text[place]) and is_word_character(text[place - 1])):
            out.add(place)
    for suffix in suffixes:
        out.update(end - len(suffix) for end in tuple(out) if text.endswith(suffix, 0, end))
    return out


def phrase_table(lexicon: Lexicon) -> dict[str, dict[tuple[Mention, ...], tuple[str, ...]]]:
    """Normalised phrase -> what it may mean -> the keys; more than one meaning is an error of the file."""
    table: dict[str, dict[tuple[Mention, ...], tuple[str, ...]]] = {}

    def add(form: str, keys: tuple[str, ...]) -> None:
        meanings = table.setdefault(normalise(form), {})
        meanings.setdefault(mentions_of(keys), keys)

    for key, wordings in lexicon.wordings.items():
        for wording in wordings:
            for frames in dict.fromkeys(wording.forms):
                for form in frames:
                    add(form, (key,))
    for (gender, age), rows in lexicon.person.items():
        keys = () if gender == ANYONE else (f"gender.{GENDERS[gender]}",)
        if age != "any":
            keys = (*keys, f"age.{age}")
        for forms in rows:
            for form in forms[gender]:
                add(form, keys)
        for form in lexicon.bare.get((gender, age), ()):
            add(form, keys)
    return table


@cache
def _reader(language: str) -> _Reader:
    lexicon = load_lexicon(language)
    phrases = {form: next(iter(meanings.values())) for form, meanings in phrase_table(lexicon).items()}
    lengths: dict[str, set[int]] = {}
    for form in phrases:
        lengths.setdefault(form[0], set()).add(len(form))
    prefixes, suffixes = _glued(lexicon)
    return _Reader(
        phrases=phrases,
        lengths={head: tuple(sorted(sizes, reverse=True)) for head, sizes in lengths.items()},
        stacks=tuple(_stacks(lexicon)),
        anywhere=not lexicon.space,
        prefixes=prefixes,
        suffixes=suffixes,
    )


def _glued(lexicon: Lexicon) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Letters that the templates put directly before and after a phrase, alone and after a glued "and"."""
    before, after = set[str](), set[str]()
    templates = [*lexicon.openers]
    for kind in lexicon.kinds.values():
        templates += [*kind.clause, *kind.attach, *kind.keyword]
    for template in templates:
        for slot in template:
            before.add(_trailing_word(_fold(slot.before)))
            after.add(_leading_word(_fold(slot.after)))
    joint = _trailing_word(_fold(lexicon.last))
    before |= {joint} | {joint + prefix for prefix in before}
    return tuple(sorted(before - {""})), tuple(sorted(after - {""}))


def _trailing_word(text: str) -> str:
    size = 0
    while size < len(text) and is_word_character(text[-1 - size]):
        size += 1
    return text[len(text) - size :]


def _leading_word(text: str) -> str:
    return _trailing_word(text[::-1])[::-1]


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _alternatives(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(set(words), key=lambda word: (-len(word), word)))


def _stacks(lexicon: Lexicon) -> Iterator[_Stack]:
    """One pattern for every order of adjectives and text before them: any of them, but in that order."""
    groups: dict[tuple[tuple[str, ...], str], tuple[set[str], set[str]]] = {}
    for composite in lexicon.composites:
        for frames in composite.around:
            for before, after in frames:
                joints, afters = groups.setdefault((composite.order, _fold(before)), (set(), set()))
                joints.add(_fold(composite.join))
                afters.add(_fold(after))
    for (order, before), (joints, afters) in groups.items():
        keys = adjective_keys(lexicon, order)
        by_attribute: dict[str, list[str]] = {attribute: [] for attribute in order}
        for word, key in keys.items():
            by_attribute[attribute_of(key)].append(word)
        groups_of_words = [f"({_alternatives(words)})" for words in by_attribute.values() if words]
        joint = f"(?:{_alternatives(joints)})"
        starts: list[str] = []
        for place, first in enumerate(groups_of_words):
            starts.append(first + "".join(f"(?:{joint}{other})?" for other in groups_of_words[place + 1 :]))
        if starts:
            ways = "|".join(starts)
            yield _Stack(re.compile(f"{re.escape(before)}(?:{ways})(?:{_alternatives(afters)})"), keys)


def adjective_keys(lexicon: Lexicon, order: tuple[str, ...]) -> dict[str, str]:
    """Normalised adjective -> its key, of the attributes in the order."""
    return {
        normalise(form): key
        for key, adjectives in lexicon.adjectives.items()
        if attribute_of(key) in order
        for forms in adjectives
        for frames in forms
        for form in frames
    }
