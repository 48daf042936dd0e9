"""Captions: every language file is complete, and every caption is true of its face and is read back."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from m3face.captions import (
    STYLES,
    available_languages,
    caption,
    choose_keys,
    detect_language,
    load_lexicon,
    mentions_of,
    normalise,
    parse,
    realise,
)
from m3face.captions.__main__ import random_attributes
from m3face.captions.checks import check_lexicon
from m3face.captions.keys import ABSENT_KEYS, PRESENT_KEYS
from m3face.captions.parsing import find_matches
from m3face.captions.typing_errors import misspell, plainly
from m3face.errors import BadInput
from m3face.faces import ATTRIBUTES, Mention

LANGUAGES = available_languages()
FACE = {name: attribute.absent or attribute.values[0] for name, attribute in ATTRIBUTES.items()} | {
    "hair_length": "long",
    "hair_colour": "blond",
    "hair_type": "wavy",
}


@cache
def training_forms(language: str) -> frozenset[str]:
    """Every form of a wording that may be used in training."""
    return frozenset(
        normalise(form)
        for wordings in load_lexicon(language).wordings.values()
        for wording in wordings
        if not wording.held_out
        for frames in wording.forms
        for form in frames
    )


def held_out_forms(language: str) -> frozenset[str]:
    """Every form of a held-out wording that no training wording and no person row shares."""
    lexicon = load_lexicon(language)
    persons = {normalise(form) for rows in lexicon.person.values() for f in rows for fs in f for form in fs}
    held = {
        normalise(form)
        for wordings in lexicon.wordings.values()
        for wording in wordings
        if wording.held_out
        for frames in wording.forms
        for form in frames
    }
    return frozenset(held - training_forms(language) - persons)


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_file_has_no_problem(language: str) -> None:
    assert [f"{p.where}: {p.what}" for p in check_lexicon(load_lexicon(language))] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_key_can_be_said_in_every_list(language: str) -> None:
    rng = np.random.default_rng(0)
    for key in PRESENT_KEYS + ABSENT_KEYS:
        for split in ("train", "heldout"):
            made = realise((key,), language, rng, style="keywords", split=split)
            assert made.mentions == mentions_of((key,)), (key, made.text)
            assert parse(made.text, language) == made.mentions, (key, made.text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_captions_are_true_and_read_back(language: str) -> None:
    rng = np.random.default_rng(7)
    for place in range(150):
        face = random_attributes(rng)
        split = ("train", "heldout", "all")[place % 3]
        made = caption(face, language, rng, style=STYLES[place % 4], split=split)
        assert all(mention.holds(face) for mention in made.mentions), made
        assert parse(made.text, language) == made.mentions, made
        assert made.text and "{" not in made.text and "<" not in made.text and "|" not in made.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_training_text_uses_no_held_out_wording(language: str) -> None:
    rng = np.random.default_rng(11)
    held = held_out_forms(language)
    assert held
    leaks = []
    for _ in range(150):
        made = caption(
            random_attributes(rng), language, rng, split="train", style=STYLES[int(rng.random() * 4)]
        )
        plain = normalise(made.text)
        leaks += [
            plain[m.start : m.end]
            for m in find_matches(made.text, language)
            if plain[m.start : m.end] in held
        ]
    assert leaks == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_text_uses_held_out_wordings(language: str) -> None:
    rng = np.random.default_rng(12)
    lexicon = load_lexicon(language)
    for key in ("hat.yes", "hair_colour.red", "glasses.none", "freckles.yes"):
        assert any(w.held_out for w in lexicon.wordings[key]), key
        forms = {
            normalise(f) for w in lexicon.wordings[key] if w.held_out for frames in w.forms for f in frames
        }
        made = realise((key,), language, rng, style="keywords", split="heldout")
        assert any(form in normalise(made.text) for form in forms), made.text


def test_same_generator_gives_the_same_captions() -> None:
    def texts() -> list[str]:
        rng = np.random.default_rng(5)
        return [caption(FACE, language, rng, typos=0.1).text for language in LANGUAGES for _ in range(5)]

    assert texts() == texts()


def test_detect_language_knows_captions() -> None:
    rng = np.random.default_rng(3)
    wrong = []
    for language in LANGUAGES:
        for place in range(60):
            made = caption(random_attributes(rng), language, rng, style=("phrase", "sentences")[place % 2])
            if detect_language(made.text) != language:
                wrong.append((language, detect_language(made.text), made.text))
    assert len(wrong) <= 0.03 * 60 * len(LANGUAGES), wrong


@pytest.mark.parametrize(
    ("text", "language"),
    [("", "en"), ("1234 !?", "en"), ("안경을 쓴 여자", "en"), ("メガネの女", "ja"), ("戴眼镜的女人", "zh")],
)
def test_detect_language_of_odd_text(text: str, language: str) -> None:
    assert detect_language(text) == language


@pytest.mark.parametrize("language", LANGUAGES)
def test_odd_text_says_nothing(language: str) -> None:
    for text in ("", "   ", "42", "?!…", "🙂", "\u200c", "xyzzy"):
        assert parse(text, language) == ()


def test_negation_hides_what_it_denies() -> None:
    assert parse("a man without glasses", "en") == mentions_of(("gender.male", "glasses.none"))
    assert parse("LONG, wavy  blond hair", "en") == mentions_of(
        ("hair_length.long", "hair_type.wavy", "hair_colour.blond")
    )
    assert Mention("hair_colour", "red", negated=True) in parse("anything but red hair", "en")


def test_choice_of_keys_is_natural() -> None:
    rng = np.random.default_rng(2)
    choices = [choose_keys(random_attributes(rng), rng) for _ in range(3000)]
    keys = [key for choice in choices for key in choice]
    negative = sum(key.startswith("not.") or key in ABSENT_KEYS for key in keys) / len(keys)
    assert 0.10 < negative < 0.20
    unnamed = sum(not any(k.startswith("gender.") for k in choice) for choice in choices) / len(choices)
    assert 0.06 < unnamed < 0.15
    counts = [len(choice) for choice in choices]
    assert min(counts) == 1 and max(counts) == 14
    assert sum(3 <= count <= 7 for count in counts) > 0.5 * len(counts)
    assert len(choose_keys(FACE, rng, count=9)) == 9


def test_hidden_things_are_never_named() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        bald = random_attributes(rng) | {"hair_length": "bald"}
        named = {key.removeprefix("not.").split(".")[0] for key in choose_keys(bald, rng, count=14)}
        assert not named & {"hair_type", "hairline", "bangs", "hair_colour"}
        hatted = random_attributes(rng) | {"hat": "yes"}
        assert not any("hairline" in key for key in choose_keys(hatted, rng, count=14))


def test_slips_spare_short_words_and_first_letters() -> None:
    rng = np.random.default_rng(6)
    assert misspell("a red hat", 1.0, rng) == "a red hat"
    slips = {misspell("beautiful", 1.0, rng) for _ in range(50)}
    assert "beautiful" not in slips and len(slips) > 10
    assert all(s[0] == "b" and 8 <= len(s) <= 10 for s in slips)
    assert {misspell("मूँछों", 1.0, rng) for _ in range(20)} != {"मूँछों"}  # vowel signs are dropped too
    assert {misspell("cf. 12345 -----", 1.0, rng) for _ in range(20)} == {"cf. 12345 -----"}


@pytest.mark.parametrize(
    ("careful", "careless"),
    [
        ("Ein Mädchen mit Sommersprossen, groß.", "ein madchen mit sommersprossen, gross"),
        ("Une femme âgée à l’œil noir.", "une femme agee a l’œil noir"),
        ("Весёлый мужчина.", "веселый мужчина"),
        ("امرأة مبتسمة.", "امراه مبتسمه"),
        ("زنی با موهای مشکی\u200cرنگ.", "زنی با موهای مشکی رنگ"),
        ("मूँछों वाला आदमी।", "मूंछों वाला आदमी"),
        ("ががが、髪が長い。", "ががが、髪が長い"),
    ],
)
def test_what_is_typed_without_care(careful: str, careless: str) -> None:
    assert plainly(careful) == careless


def test_captions_without_slips_are_as_they_were() -> None:
    for language in LANGUAGES:
        one, other = (realise(("glasses.none", "hat.yes"), language, np.random.default_rng(3)) for _ in range(2))
        hasty = realise(("glasses.none", "hat.yes"), language, np.random.default_rng(3), typos=1.0)
        assert one == other and hasty.mentions == one.mentions and hasty.text != one.text


def test_keys_the_language_lacks_are_dropped_from_text_and_mentions() -> None:
    key = "not.dimples.yes"
    assert key not in load_lexicon("en").wordings
    made = realise(("gender.male", key), "en", np.random.default_rng(0))
    assert made.mentions == mentions_of(("gender.male",))


def test_wrong_arguments_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(BadInput, match="keys"):
        realise(("hair.purple",), "en", rng)
    with pytest.raises(BadInput, match="style"):
        realise(("hat.yes",), "en", rng, style="poem")
    with pytest.raises(BadInput, match="split"):
        realise(("hat.yes",), "en", rng, split="test")
    with pytest.raises(BadInput, match="language"):
        load_lexicon("ko")
