"""From the parsed YAML of a language to the compiled lexicon, with every structural problem listed.

Odd here: nothing raises; a problem is noted and the faulty entry left out, so that an author sees all of them
at once. `load_lexicon` turns the first one into a DataError. Every fourth wording of a key is held out of
training, unless training wordings and the templates around them say the same; person rows and adjectives
never are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from m3face.captions.keys import ABSENT_KEYS, PRESENT_KEYS, is_key, is_negative
from m3face.captions.model import (
    AGES,
    GENDERS,
    MODES,
    SPLITS,
    Composite,
    Forms,
    Kind,
    Lexicon,
    Pools,
    Slot,
    Template,
    Wording,
)

_CHOICE = re.compile(r"<([^<>]*)>")
_BRACES = re.compile(r"\{([^{}]*)\}")
_STRAY = re.compile(r"[<>{}|/]")
_HELD_OUT_EVERY = 4

_Strings = str | list[Any]
_Filled = Annotated[_Strings, Field(min_length=1)]


class _Outline(BaseModel):
    """What kind of thing stands where; the compiler below relies on it and looks at the rest itself."""

    model_config = ConfigDict(strict=True)

    language: str
    capitalise: bool = False
    comma: Annotated[str, Field(min_length=1)]
    last: Annotated[str, Field(min_length=1, alias="and")]
    space: str
    stop: str
    person_frames: Annotated[list[str], Field(min_length=1)]
    person: dict[str, dict[str, Any] | None]
    openers: _Filled
    described: _Filled
    kinds: dict[Any, dict[str, Any]]  # a kind called `no` is False to YAML, here and under phrases
    phrases: dict[Any, Any]
    composites: list[dict[str, Any]] | None = None
    adjectives: dict[Any, Any] | None = None
    articles: _Strings | None = None


@dataclass(frozen=True)
class Problem:
    """Something wrong in a language file: the place and what is wrong there."""

    where: str
    what: str


def compile_lexicon(language: str, data: Any) -> tuple[Lexicon | None, tuple[Problem, ...]]:
    """The lexicon, or None where the file's outline is broken, and all problems found."""
    return Compiler(language, data).run()


class Compiler:
    """One run over one file; `problems` grows on the way."""

    def __init__(self, language: str, data: Any) -> None:
        self.language, self.data = language, data
        self.problems: list[Problem] = []
        self.anyone = 0

    def note(self, where: str, what: str) -> None:
        self.problems.append(Problem(where, what))

    def run(self) -> tuple[Lexicon | None, tuple[Problem, ...]]:
        data = self.data
        if not isinstance(data, Mapping):
            self.note("file", "not a mapping")
            return None, tuple(self.problems)
        try:
            _Outline.model_validate(data)
        except ValidationError as error:
            for one in error.errors():
                what = "missing" if one["type"] == "missing" else one["msg"]
                self.note(".".join(str(part) for part in one["loc"]), what)
            return None, tuple(self.problems)
        if data["language"] != self.language:
            self.note("language", f"is {data['language']!r}, the file says {self.language!r}")
        if data.get("anyone", "female") not in ("female", "male"):
            self.note("anyone", "neither female nor male")
        self.anyone = 1 if data.get("anyone") == "male" else 0
        frames = tuple(data["person_frames"])
        kinds = self.kinds(data["kinds"])
        wordings = self.wordings(data["phrases"], kinds)
        composites = self.composites(data.get("composites") or [], kinds)
        person = self.persons(data["person"], frames)
        openers = self.templates("openers", data["openers"], frames)
        articles = tuple(self.strings("articles", data.get("articles") or []))
        lexicon = Lexicon(
            language=self.language,
            capitalise=bool(data.get("capitalise", False)),
            comma=data["comma"],
            last=data["and"],
            space=data["space"],
            stop=data["stop"],
            person_frames=frames,
            person=person,
            bare=_bare_persons(person, articles, wordings, [*openers, *_all_templates(kinds)]),
            openers=openers,
            described=self.described(data["described"]),
            kinds=kinds,
            wordings=wordings,
            composites=composites,
            adjectives=self.adjectives(data.get("adjectives") or {}, composites, kinds),
            pools=_pools(wordings, kinds),
        )
        return lexicon, tuple(self.problems)

    def strings(self, where: str, value: Any) -> list[str]:
        """The value as a list of strings; one string counts as a list of one."""
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.note(where, f"not a list of quoted strings: {value!r}"[:160])
            return []
        return value

    def genders(self, where: str, text: str) -> tuple[str, str, str]:
        """The text for female, male and anyone."""
        if "<" not in text:
            plain = text
            if "/" in text or ">" in text:
                self.note(where, f"stray '/' or '>' in {text!r}")
            return plain, plain, plain
        if any(_STRAY.search(part) and ("<" in part or ">" in part) for part in _CHOICE.split(text)):
            self.note(where, f"unbalanced < > in {text!r}")
        if any(found.count("/") not in (1, 2) for found in _CHOICE.findall(text)):
            self.note(where, f"a choice needs two or three alternatives in {text!r}")
            return text, text, text

        def chosen(gender: int) -> str:
            def pick(match: re.Match[str]) -> str:
                options = match[1].split("/")
                return options[gender] if gender < len(options) else options[self.anyone]

            return _CHOICE.sub(pick, text)

        return chosen(0), chosen(1), chosen(2)

    def forms(self, where: str, text: str, count: int) -> Forms | None:
        """The phrase in all genders and frames."""
        parts = [part.strip() for part in text.split("|")]
        if len(parts) != count:
            self.note(where, f"{len(parts)} forms instead of {count} in {text!r}")
            return None
        if not all(parts):
            self.note(where, f"an empty form in {text!r}")
            return None
        if "{" in text or "}" in text:
            self.note(where, f"a brace in the phrase {text!r}")
            return None
        by_frame = [self.genders(where, part) for part in parts]
        return tuple(tuple(frame[gender] for frame in by_frame) for gender in range(3))

    def templates(self, where: str, value: Any, frames: tuple[str, ...]) -> tuple[Template, ...]:
        """Templates with exactly one brace, which names one of the frames."""
        out: list[Template] = []
        for text in self.strings(where, value):
            slots = []
            for variant in self.genders(where, text):
                found = _BRACES.findall(variant)
                if len(found) != 1 or found[0] not in frames:
                    self.note(where, f"needs exactly one of {{{'}, {'.join(frames)}}} in {text!r}")
                    break
                before, after = variant.split("{" + found[0] + "}")
                slots.append(Slot(before, frames.index(found[0]), after))
            else:
                out.append(tuple(slots))
        return tuple(out)

    def described(self, value: Any) -> tuple[str, ...]:
        texts = self.strings("described", value)
        for text in texts:
            if sorted(_BRACES.findall(text)) != ["attached", "person"]:
                self.note("described", f"needs {{person}} and {{attached}} once each in {text!r}")
        return tuple(texts)

    def persons(self, value: Any, frames: tuple[str, ...]) -> dict[tuple[int, str], tuple[Forms, ...]]:
        rows: dict[tuple[int, str], tuple[Forms, ...]] = {}
        for number, gender in enumerate(GENDERS):
            for age in AGES:
                where = f"person.{gender}.{age}"
                texts = self.strings(where, (value.get(gender) or {}).get(age) or [])
                forms = tuple(f for text in texts if (f := self.forms(where, text, len(frames))))
                if not forms:
                    self.note(where, "no phrase")
                rows[number, age] = forms
        return rows

    def kinds(self, value: Any) -> dict[str, Kind]:
        out: dict[str, Kind] = {}
        for name, body in value.items():
            where = f"kinds.{name}"
            frames = tuple(body.get("frames") or ())
            if not frames:
                self.note(where, "no frames")
            parts = {mode: self.templates(f"{where}.{mode}", body.get(mode) or [], frames) for mode in MODES}
            if not parts["keyword"]:
                self.note(where, "no keyword template")
            if not parts["clause"] and not parts["attach"]:
                self.note(where, "neither clause nor attach")
            for extra in set(body) - {"frames", *MODES}:
                self.note(where, f"unknown entry {extra!r}")
            out[name] = Kind(name=name, frames=frames, **parts)
        return out

    def wordings(self, value: Any, kinds: Mapping[str, Kind]) -> dict[str, tuple[Wording, ...]]:
        out: dict[str, tuple[Wording, ...]] = {}
        for key, by_kind in value.items():
            where = f"phrases.{key}"
            if not isinstance(key, str) or not is_key(key):
                self.note(where, "not a key of the attribute table")
                continue
            if not isinstance(by_kind, Mapping):
                self.note(where, "not a mapping from kind to phrases")
                continue
            found: list[tuple[str, Forms]] = []
            for kind, texts in by_kind.items():
                if kind not in kinds:
                    self.note(where, f"unknown kind {kind!r}")
                    continue
                count = len(kinds[kind].frames)
                for text in self.strings(f"{where}.{kind}", texts):
                    forms = self.forms(f"{where}.{kind}", text, count)
                    if forms is not None:
                        found.append((kind, forms))
            out[key] = _hold_out(key, found, kinds)
        for key in PRESENT_KEYS + ABSENT_KEYS:
            if not out.get(key):
                self.note(f"phrases.{key}", "missing")
        return out

    def composites(self, value: Any, kinds: Mapping[str, Kind]) -> tuple[Composite, ...]:
        out: list[Composite] = []
        for number, body in enumerate(value):
            where = f"composites[{number}]"
            kind = body.get("kind")
            if kind not in kinds:
                self.note(where, f"unknown kind {kind!r}")
                continue
            parts = [part.strip() for part in body.get("forms", "").split("|")]
            if len(parts) != len(kinds[kind].frames):
                self.note(where, f"{len(parts)} forms instead of {len(kinds[kind].frames)}")
                continue
            if any(part.count("{adjectives}") != 1 for part in parts):
                self.note(where, "every form needs {adjectives} once")
                continue
            frames = [[tuple(v.split("{adjectives}")) for v in self.genders(where, part)] for part in parts]
            around = tuple(tuple((f[g][0], f[g][1]) for f in frames) for g in range(3))
            out.append(
                Composite(
                    kind=kind, order=tuple(body.get("order") or ()), join=body.get("join", " "), around=around
                )
            )
        return tuple(out)

    def adjectives(
        self, value: Any, composites: tuple[Composite, ...], kinds: Mapping[str, Kind]
    ) -> dict[str, tuple[Forms, ...]]:
        out: dict[str, tuple[Forms, ...]] = {}
        for key, texts in value.items():
            where = f"adjectives.{key}"
            attribute = str(key).split(".", 1)[0]
            counts = {len(kinds[c.kind].frames) for c in composites if attribute in c.order}
            if not is_key(str(key)) or not counts:
                self.note(where, "unused: no composite's order names this attribute")
                continue
            if len(counts) > 1:
                self.note(where, "its composites have kinds with different numbers of frames")
                continue
            count = counts.pop()
            out[key] = tuple(f for t in self.strings(where, texts) if (f := self.forms(where, t, count)))
        return out


def _hold_out(key: str, found: list[tuple[str, Forms]], kinds: Mapping[str, Kind]) -> tuple[Wording, ...]:
    """The key's wordings, every fourth one held out unless training would say the same by other means."""
    last = _HELD_OUT_EVERY - 1
    trained = [entry for index, entry in enumerate(found) if index % _HELD_OUT_EVERY != last]
    said = [pair for kind, forms in trained for pair in _sayings(kinds[kind], forms)]
    wordings: list[Wording] = []
    for index, (kind, forms) in enumerate(found):
        held_out = index % _HELD_OUT_EVERY == last and not any(
            form == plain or (form in whole and form not in plain)
            for form in {form.casefold() for frames in forms for form in frames}
            for plain, whole in said
        )
        wordings.append(Wording((key,), kind, forms, held_out=held_out, negative=is_negative(key)))
    return tuple(wordings)


def _sayings(kind: Kind, forms: Forms) -> set[tuple[str, str]]:
    """The phrase's forms, each with what the templates make of it."""
    out: set[tuple[str, str]] = set()
    for mode in MODES:
        for template in kind.templates(mode):
            for gender, slot in enumerate(template):
                form = forms[gender][slot.frame].casefold()
                out.add((form, slot.before.casefold() + form + slot.after.casefold()))
    return out


def _all_templates(kinds: Mapping[str, Kind]) -> list[Template]:
    return [template for kind in kinds.values() for mode in MODES for template in kind.templates(mode)]


def _bare_persons(
    person: Mapping[tuple[int, str], tuple[Forms, ...]],
    articles: tuple[str, ...],
    wordings: Mapping[str, tuple[Wording, ...]],
    templates: list[Template],
) -> dict[tuple[int, str], tuple[str, ...]]:
    """The person rows' first forms without their articles, where nothing else is said in the same words."""
    literals = " ".join(f"{s.before} {s.after}" for template in templates for s in template).casefold()
    found: dict[tuple[int, str], dict[str, str]] = {}
    for row, phrases in person.items():
        for forms in phrases:
            for article in articles:
                if forms[row[0]][0].startswith(article):
                    text = forms[row[0]][0].removeprefix(article)
                    found.setdefault(row, {})[text.casefold()] = text
    taken = Counter(text for texts in found.values() for text in texts)
    for key, entries in wordings.items():
        own = {f"gender.{GENDERS[row[0]]}" for row in found if row[1] == "any"}
        if key not in own:
            taken.update({form.casefold() for w in entries for frames in w.forms for form in frames})
    return {
        row: tuple(text for folded, text in texts.items() if taken[folded] == 1 and folded not in literals)
        for row, texts in found.items()
    }


def _pools(
    wordings: Mapping[str, tuple[Wording, ...]], kinds: Mapping[str, Kind]
) -> dict[tuple[str, str], Pools]:
    """For every split and mode the wordings of each key; a key that cannot be said so is left out."""
    pools: dict[tuple[str, str], Pools] = {}
    for mode in MODES:
        sayable = {
            key: tuple(w for w in entries if kinds[w.kind].templates(mode))
            for key, entries in wordings.items()
        }
        train = {key: tuple(w for w in entries if not w.held_out) for key, entries in sayable.items()}
        held = {
            key: tuple(w for w in entries if w.held_out) or train[key] for key, entries in sayable.items()
        }
        for split, pool in zip(SPLITS, (train, held, sayable), strict=True):
            pools[split, mode] = {key: entries for key, entries in pool.items() if entries}
    return pools
