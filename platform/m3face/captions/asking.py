"""Questions about a face with their answers, from its attributes: what, whether, which, how many, and why.

Odd here: a yes/no question is drawn from its answer, a fair coin first, so that "no" comes as often as "yes" however
rare neckties are. Only what is known and can be seen is asked; and no false value is offered that people would call
true (a broad smile is also "a smile", grey hair almost white).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from m3face.captions.choosing import hidden
from m3face.captions.lexicon import load_lexicon
from m3face.captions.model import ANYONE, FEMALE, MALE, Wording
from m3face.captions.question_words import MOST_THINGS, THINGS, WHAT, load_question_words
from m3face.captions.text import capitalised, join_list
from m3face.errors import BadInput
from m3face.faces import ATTRIBUTES

QUESTION_KINDS = ("appearance", "expression", "emotion", "reasoning")
"""What a question is about (UniF2aceD)."""

_T = TypeVar("_T")

_KIND = {"smile": "expression", "mouth_open": "expression", "emotion": "emotion"}
_PLAIN = 2  # the first wordings of a key are the plain ones; later ones say more than the value ("a beanie")
_NAMED_SHARE = 0.6  # of the questions say "she" or "he" where that is known
_FEWEST_THINGS = 3
_NEXT_TONES = 2  # skin tones so near on Monk's scale cannot be told apart by words

# values of one attribute that people would not hold apart
_CLOSE = {
    frozenset(pair)
    for pair in (
        ("hair_colour.gray", "hair_colour.white"),
        ("hair_type.wavy", "hair_type.curly"),
        ("skin_texture.rough", "skin_texture.wrinkled"),
        ("face_shape.oval", "face_shape.long"),
        ("face_shape.oval", "face_shape.heart"),
    )
}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question and its answer; `kind` is one of `QUESTION_KINDS`, `about` the attributes that the answer rests on."""

    question: str
    answer: str
    kind: str
    language: str
    about: tuple[str, ...]


@dataclass(frozen=True)
class _Case:
    """A situation that a face speaks for when `attribute` is `value`, unless another attribute has one of `unless`."""

    situation: str
    attribute: str
    value: str
    unless: tuple[tuple[str, tuple[str, ...]], ...] = ()


_SMILING = (("smile", ("slight", "broad", "laughing")),)
_MOUTH_SAYS_MORE = (("smile", ("laughing",)), ("emotion", ("surprised",)))

# scene: its cases, and situations that nothing here speaks for
_SCENES: tuple[tuple[tuple[_Case, ...], tuple[str, ...]], ...] = (
    (
        (
            _Case("celebration", "emotion", "happy"),
            _Case("funeral", "emotion", "sad", _SMILING),
            _Case("quarrel", "emotion", "angry", _SMILING),
            _Case("surprise", "emotion", "surprised"),
            _Case("waiting", "emotion", "neutral", _SMILING),
        ),
        (),
    ),
    ((_Case("sunshine", "glasses", "sunglasses"),), ("night",)),
    ((_Case("office", "necktie", "yes"),), ("beach",)),
    ((_Case("studies", "age", "young"), _Case("retirement", "age", "old")), ()),
    ((_Case("short_night", "eye_bags", "yes"),), ("long_sleep",)),
    ((_Case("party", "heavy_makeup", "yes"),), ("gardening",)),
    (
        (
            _Case("conversation", "mouth_open", "yes", _MOUTH_SAYS_MORE),
            _Case("silence", "mouth_open", "no", _MOUTH_SAYS_MORE),
        ),
        (),
    ),
)

_Draft = Callable[[], Asked]


def ask(attributes: Mapping[str, str], language: str, rng: np.random.Generator, *, count: int) -> list[Asked]:
    """Up to `count` different questions, the kinds in turn; fewer where too little is known.

    Raises BadInput for an unknown language or a value that the table of attributes does not have.
    """
    for name, value in attributes.items():
        if name not in ATTRIBUTES or value not in ATTRIBUTES[name].values:
            allowed = ", ".join(ATTRIBUTES[name].values if name in ATTRIBUTES else ATTRIBUTES)
            raise BadInput("attributes", f"{name} is {value!r}", allowed)
    drafts = _Interviewer(attributes, language, rng).drafts()
    asked: list[Asked] = []
    turn = int(rng.integers(len(QUESTION_KINDS)))
    while len(asked) < count and any(forms for forms in drafts.values()):
        forms = drafts[QUESTION_KINDS[turn % len(QUESTION_KINDS)]]
        turn += 1
        if forms:
            form = list(forms)[int(rng.integers(len(forms)))]
            if form == "whether":
                answer = "yes" if rng.random() < 0.5 else "no"
                if not forms[form][answer]:
                    # asking the other way round would tip the balance; where nothing else is left, stop asking
                    if len(forms) == 1:
                        del forms[form]
                    continue
            else:
                answer = "any"
            topics = forms[form][answer]
            asked.append(topics.pop(int(rng.integers(len(topics))))())
            if not any(forms[form].values()):
                del forms[form]
    return asked


class _Interviewer:
    """Everything that can be asked of one face in one language."""

    def __init__(self, attributes: Mapping[str, str], language: str, rng: np.random.Generator) -> None:
        unseen = hidden(attributes)
        self.known = {name: attributes[name] for name in ATTRIBUTES if name in attributes and name not in unseen}
        self.language, self.rng = language, rng
        self.lexicon, self.words = load_lexicon(language), load_question_words(language)
        self.sex = {"female": FEMALE, "male": MALE}.get(attributes.get("gender", ""), ANYONE)

    def drafts(self) -> dict[str, dict[str, dict[str, list[_Draft]]]]:
        """kind -> form -> answer -> what can be asked so."""
        drafts: dict[str, dict[str, dict[str, list[_Draft]]]] = {kind: {} for kind in QUESTION_KINDS}
        for kind, form, answer, draft in self._all():
            drafts[kind].setdefault(form, {"yes": [], "no": [], "any": []})[answer].append(draft)
        return drafts

    def _all(self) -> Iterator[tuple[str, str, str, _Draft]]:
        for name, value in self.known.items():
            kind = _KIND.get(name, "appearance")
            if name in WHAT:
                yield kind, "what", "any", partial(self.what, name)
            if name == "gender":
                continue
            if value != ATTRIBUTES[name].absent:
                yield kind, "whether", "yes", partial(self.whether, name, value)
            for other in self.plainly_false(name):
                yield kind, "whether", "no", partial(self.whether, name, other)
                if value != ATTRIBUTES[name].absent:
                    yield kind, "which", "any", partial(self.which, name, other)
        if sum(name in self.known for name in THINGS) >= _FEWEST_THINGS:
            yield "appearance", "count", "any", self.count
        for cases, others in _SCENES:
            for case in cases:
                if self.known.get(case.attribute) == case.value and not any(
                    self.known.get(name) in values for name, values in case.unless
                ):
                    false = [c.situation for c in cases if c != case] + list(others)
                    yield "reasoning", "why", "any", partial(self.why, case, false)

    def plainly_false(self, name: str) -> list[str]:
        """Values of the attribute that nobody would say of this face."""
        attribute, value = ATTRIBUTES[name], self.known[name]
        if value == attribute.absent:
            return list(attribute.present)
        if attribute.absent is not None:
            return []
        others = [other for other in attribute.present if other != value]
        if name == "skin_tone":
            tones = attribute.values
            return [o for o in others if abs(tones.index(o) - tones.index(value)) > _NEXT_TONES]
        return [o for o in others if frozenset((f"{name}.{value}", f"{name}.{o}")) not in _CLOSE]

    # ---- the forms

    def what(self, name: str) -> Asked:
        gender = ANYONE if name == "gender" else self.gender()
        answer = self.said(self.wording(name, self.known[name]), gender)
        return self.asked(self.pick(self.words.what[name])[gender], answer + self.lexicon.stop, name)

    def whether(self, name: str, value: str) -> Asked:
        gender, wording = self.gender(), self.wording(name, value)
        slot = self.pick(self.words.whether[wording.kind])[gender]
        question = slot.before + wording.forms[gender][slot.frame] + slot.after
        if self.known[name] == value:
            return self.asked(question, self.pick(self.words.agree).replace("{it}", self.said(wording, gender)), name)
        true = self.said(self.wording(name, self.known[name]), gender)
        return self.asked(question, self.pick(self.words.deny).replace("{it}", true), name)

    def which(self, name: str, other: str) -> Asked:
        gender = self.gender()
        true, false = (self.said(self.wording(name, v), gender) for v in (self.known[name], other))
        question = self.between(self.pick(self.words.which)[gender], true, false)
        return self.asked(question, true + self.lexicon.stop, name)

    def count(self) -> Asked:
        names = self.shuffled([name for name in THINGS if name in self.known])
        names = names[: _FEWEST_THINGS + int(self.rng.integers(MOST_THINGS - _FEWEST_THINGS + 1))]
        things = join_list([self.words.things[name] for name in names], self.lexicon.comma, self.lexicon.last)
        there = sum(self.known[name] != ATTRIBUTES[name].absent for name in names)
        question = self.pick(self.words.count)[self.gender()].replace("{things}", things)
        return self.asked(question, self.words.numbers[there] + self.lexicon.stop, *names)

    def why(self, case: _Case, false: Sequence[str]) -> Asked:
        gender, situation = self.gender(), self.words.situations[case.situation]
        other = self.words.situations[self.pick(false)]
        answer = self.pick(self.words.because)[gender].replace("{a}", situation)
        answer = answer.replace("{reason}", self.words.reasons[case.situation][gender])
        question = self.between(self.pick(self.words.why)[gender], situation, other)
        return self.asked(question, answer, case.attribute, kind="reasoning")

    # ---- parts

    def asked(self, question: str, answer: str, *about: str, kind: str = "") -> Asked:
        if self.lexicon.capitalise:
            question, answer = capitalised(question), capitalised(answer)
        kind = kind or _KIND.get(about[0], "appearance")
        return Asked(question=question, answer=answer, kind=kind, language=self.language, about=about)

    def wording(self, name: str, value: str) -> Wording:
        """A plain wording, of a kind that can be asked for unless the value is an absence."""
        options = self.lexicon.pools["train", "keyword"][f"{name}.{value}"]
        askable = [w for w in options if w.kind in self.words.whether]
        absent = value == ATTRIBUTES[name].absent or name == "gender"
        return self.pick((options if absent else askable)[:_PLAIN])

    def said(self, wording: Wording, gender: int) -> str:
        """The wording by itself, as in a list of keywords."""
        slot = self.lexicon.kinds[wording.kind].keyword[0][gender]
        return slot.before + wording.forms[gender][slot.frame] + slot.after

    def between(self, template: str, one: str, other: str) -> str:
        """The template with the two in random order."""
        first, second = self.shuffled([one, other])
        return template.replace("{a}", first).replace("{b}", second)

    def gender(self) -> int:
        return self.sex if self.rng.random() < _NAMED_SHARE else ANYONE

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self.rng.integers(len(options)))]

    def shuffled(self, items: Sequence[_T]) -> list[_T]:
        return [items[int(place)] for place in self.rng.permutation(len(items))]
