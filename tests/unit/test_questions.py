"""Questions: every language has all of them, their answers are true of the face, and no is said as often as yes."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest

from m3face.captions import QUESTION_KINDS, Asked, ask, load_lexicon, mentions_of, parse
from m3face.captions.__main__ import random_attributes
from m3face.captions.choosing import hidden
from m3face.captions.keys import PRESENT_KEYS
from m3face.captions.model import Wording
from m3face.captions.question_words import REASONS, THINGS, compile_question_words, load_question_words
from m3face.errors import BadInput, DataError
from m3face.faces import ATTRIBUTES, LANGUAGES, Mention

_ALL = tuple(LANGUAGES)
# what each reason rests on, written down a second time
_SPEAKS_FOR = {
    "celebration": {"emotion": "happy"},
    "funeral": {"emotion": "sad", "smile": "none"},
    "quarrel": {"emotion": "angry", "smile": "none"},
    "surprise": {"emotion": "surprised"},
    "waiting": {"emotion": "neutral", "smile": "none"},
    "sunshine": {"glasses": "sunglasses"},
    "office": {"necktie": "yes"},
    "studies": {"age": "young"},
    "retirement": {"age": "old"},
    "short_night": {"eye_bags": "yes"},
    "party": {"heavy_makeup": "yes"},
    "conversation": {"mouth_open": "yes"},
    "silence": {"mouth_open": "no"},
}


@cache
def asked(language: str) -> tuple[tuple[dict[str, str], Asked], ...]:
    """Questions about many faces, each with its face."""
    rng = np.random.default_rng(3)
    faces = [random_attributes(rng) for _ in range(60)]
    return tuple((face, one) for face in faces for one in ask(face, language, rng, count=12))


def whether(language: str) -> list[tuple[dict[str, str], Asked, bool]]:
    """The yes/no questions, with their answer."""
    words = load_question_words(language)
    starts = {text.split("{it}")[0]: answer for answer in (True, False) for text in (words.deny, words.agree)[answer]}
    found = []
    for face, one in asked(language):
        said = [answer for start, answer in starts.items() if one.answer.startswith(start)]
        if said and one.kind != "reasoning" and len(set(said)) == 1:
            found.append((face, one, said[0]))
    return found


@pytest.mark.parametrize("language", _ALL)
def test_every_wording_can_be_asked_for(language: str) -> None:
    lexicon, words = load_lexicon(language), load_question_words(language)

    def askable(wording: Wording) -> bool:
        return wording.kind in words.whether

    for key in PRESENT_KEYS:
        if not key.startswith("gender."):
            assert any(askable(w) for w in lexicon.pools["train", "keyword"][key]), key
    assert all(len(set(templates)) >= 3 for templates in words.whether.values())
    assert all(len(set(texts)) >= 3 for texts in (*words.what.values(), words.which, words.count, words.why))
    assert len(set(words.situations.values())) == len(words.situations)


@pytest.mark.parametrize("language", _ALL)
def test_texts_are_whole(language: str) -> None:
    for _, one in asked(language):
        assert one.language == language
        assert one.kind in QUESTION_KINDS
        for text in (one.question, one.answer):
            assert text == text.strip()
            assert not set(text) & set("{}<>|")
            assert "  " not in text
        assert one.question.endswith(("?", "？", "؟", ".", "。", "।")), one.question
        assert one.answer.endswith((".", "。", "।")), one.answer


@pytest.mark.parametrize("language", _ALL)
def test_yes_and_no_are_true_of_what_the_question_names(language: str) -> None:
    """The reader of captions finds in the question what is asked, and the face has it or not."""
    read = 0
    for face, one, answer in whether(language):
        (name,) = one.about
        named = [m for m in parse(one.question, language) if m.attribute == name and not m.negated]
        if len(named) == 1:
            assert named[0].holds(face) == answer, one
            read += 1
    assert read > 40


@pytest.mark.parametrize("language", _ALL)
def test_no_comes_as_often_as_yes(language: str) -> None:
    counts = Counter(answer for _, _, answer in whether(language))
    total = counts[True] + counts[False]
    assert total > 150
    assert abs(counts[True] - counts[False]) < 3 * total**0.5  # three standard deviations of a fair coin


@pytest.mark.parametrize("language", _ALL)
def test_what_answers_say_is_true(language: str) -> None:
    checked = 0
    for face, one in asked(language):
        if one.kind != "reasoning" and len(one.about) == 1:
            said = [m for m in parse(one.answer, language) if m.attribute == one.about[0]]
            assert all(mention.holds(face) for mention in said), (one, said)
            checked += bool(said)
    assert checked > 100


@pytest.mark.parametrize("language", _ALL)
def test_counts_are_counts(language: str) -> None:
    words = load_question_words(language)
    stop = load_lexicon(language).stop
    seen = 0
    for face, one in asked(language):
        if len(one.about) > 1:
            assert set(one.about) <= set(THINGS)
            there = sum(face[name] != ATTRIBUTES[name].absent for name in one.about)
            assert one.answer.casefold() == (words.numbers[there] + stop).casefold()
            assert all(words.things[name].casefold() in one.question.casefold() for name in one.about)
            seen += 1
    assert seen > 10


@pytest.mark.parametrize("language", _ALL)
def test_reasons_are_true(language: str) -> None:
    words = load_question_words(language)
    seen = set()
    for face, one in asked(language):
        if one.kind == "reasoning":
            given = [name for name in REASONS for text in words.reasons[name] if text in one.answer]
            assert given, one
            (name,) = set(given)
            assert words.situations[name].casefold() in one.answer.casefold()
            assert words.situations[name].casefold() in one.question.casefold()
            needed = _SPEAKS_FOR[name]
            assert {key: face[key] for key in needed} == needed, one
            assert one.about[0] in needed
            seen.add(name)
    assert len(seen) > 9


@pytest.mark.parametrize("language", ["en", "ar", "ja"])
def test_nothing_unknown_or_hidden_is_asked(language: str) -> None:
    rng = np.random.default_rng(9)
    for _ in range(80):
        face = random_attributes(rng)
        known = {name: value for name, value in face.items() if rng.random() < 0.3}
        for one in ask(known, language, rng, count=10):
            assert set(one.about) <= set(known) - hidden(known), one
    assert ask({}, language, rng, count=5) == []
    bald = {"hair_length": "bald", "hair_colour": "red", "hair_type": "curly", "bangs": "no"}
    assert {name for one in ask(bald, language, rng, count=30) for name in one.about} == {"hair_length"}


def test_the_kinds_take_turns_and_no_question_comes_twice() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        face = random_attributes(rng)
        some = ask(face, "en", rng, count=8)
        assert len(some) == 8
        assert Counter(one.kind for one in some)["appearance"] >= 2
        assert len({one.question for one in ask(face, "en", rng, count=40)}) >= 25


def test_close_values_are_not_told_apart() -> None:
    """Nobody is asked to deny that a broad smile is a smile, or that grey hair is white."""
    rng = np.random.default_rng(2)
    face = {"smile": "broad", "hair_colour": "gray", "skin_tone": "monk_4", "beard": "stubble"}
    plain = {text for texts in load_question_words("en").what["beard"] for text in texts}
    named: set[Mention] = set()
    for _ in range(60):
        for one in ask(face, "en", rng, count=20):
            if one.question not in plain:
                named |= {m for m in parse(one.question, "en") if m.attribute == one.about[0]}
    assert {m.value for m in named if m.attribute == "smile"} == {"broad"}
    assert {m.value for m in named if m.attribute == "beard"} == {"stubble"}
    assert "white" not in {m.value for m in named if m.attribute == "hair_colour"}
    assert {"monk_2", "monk_3", "monk_5", "monk_6"}.isdisjoint(m.value for m in named if m.attribute == "skin_tone")
    assert mentions_of(["hair_colour.red"])[0] in named


def test_the_same_generator_asks_the_same() -> None:
    face = random_attributes(np.random.default_rng(0))
    one, other = (ask(face, "ru", np.random.default_rng(5), count=9) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("attributes", "named"),
    [({"hair_colour": "pink"}, "hair_colour is 'pink'; allowed: black"), ({"tail": "yes"}, "tail is 'yes'")],
)
def test_a_value_that_does_not_exist_is_named(attributes: dict[str, str], named: str) -> None:
    with pytest.raises(BadInput, match=named):
        ask(attributes, "en", np.random.default_rng(0), count=1)


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(BadInput, match=r"language: 'xx'; allowed: en, fr"):
        ask({"hat": "yes"}, "xx", np.random.default_rng(0), count=1)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"which": ["{a}?", "{a} {b}?", "{b} {a}?"]}, "which: needs {a} and {b}"),
        ({"agree": ["Yes.", "Yes!"]}, "agree: List should have at least 3"),
        ({"things": {}}, "things: dimples"),
        ({"whether": {"sings": ["{v}?"] * 3}}, "whether, not kinds of the lexicon: sings"),
        ({"whether": {"has": ["Has {pred}?"] * 3}}, "whether.has: needs exactly one of"),
        ({"extra": "x"}, "extra: Extra inputs"),
    ],
)
def test_a_wrong_file_is_named(change: dict[str, object], named: str) -> None:
    from importlib import resources

    import yaml

    data = yaml.safe_load((resources.files("m3face.captions") / "questions" / "en.yaml").read_text("utf-8"))
    compile_question_words("en", data)
    with pytest.raises(DataError) as caught:
        compile_question_words("en", data | change)
    assert str(caught.value).startswith(f"captions/questions/en.yaml: {named}")
