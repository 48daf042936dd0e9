"""Language files: what is wrong in one is found, named and refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib import resources
from typing import Any

import pytest
import yaml

from m3face.captions import lexicon as lexicon_module
from m3face.captions.checks import check_lexicon
from m3face.captions.compiling import Problem, compile_lexicon
from m3face.captions.lexicon import Reading
from m3face.errors import DataError


@pytest.fixture(scope="module")
def english() -> dict[str, Any]:
    file = resources.files("m3face.captions") / "lexicons" / "en.yaml"
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(data, dict)
    return data


def problems(data: Any) -> str:
    """All that is said about a file's content."""
    lexicon, found = compile_lexicon("en", data)
    if lexicon is not None:
        found = (*found, *check_lexicon(lexicon))
    return "\n".join(f"{p.where}: {p.what}" for p in found)


def test_the_file_as_it_is_has_no_problem(english: dict[str, Any]) -> None:
    assert problems(english) == ""


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("language",), "de", "language: is 'de'"),
        (("kinds",), ["has"], "kinds: Input should be a valid dictionary"),
        (("kinds", "has"), "frames", "kinds.has: Input should be a valid dictionary"),
        (("person", "female"), ["a woman"], "person.female: Input should be a valid dictionary"),
        (("person_frames",), None, "person_frames: Input should be a valid list"),
        (("phrases",), None, "phrases: Input should be a valid dictionary"),
        (("composites",), ["is"], "composites.0: Input should be a valid dictionary"),
        (("comma",), "", "comma: String should have at least 1 character"),
        (("and",), None, "and: Input should be a valid string"),
        (("stop",), False, "stop: Input should be a valid string"),
        (("described",), [], "described: Value should have at least 1 item"),
        (("anyone",), "nobody", "anyone: neither"),
        (("openers",), ["a photo of {nom}"], "openers: needs exactly one of {np}, {bare}"),
        (("openers",), "a photo of {np}", "openers: 1, needs 10"),
        (("described",), ["{person}"], "described: needs {person} and {attached}"),
        (("person", "female", "old"), [], "person.female.old: no phrase"),
        (("person", "female", "old"), ["an old woman"], "1 forms instead of 2"),
        (("kinds", "has", "frames"), [], "kinds.has: no frames"),
        (("kinds", "has", "keyword"), "{dat}", "kinds.has.keyword: needs exactly one of"),
        (("kinds", "has", "attached"), "{np}", "unknown entry 'attached'"),
        (("phrases", "hat.yes"), {"wears": ["a hat"]}, "phrases.hat.yes.wears: 1 forms instead of 2"),
        (("phrases", "hat.yes"), {"wears": ["a hat | "]}, "an empty form"),
        (("phrases", "hat.yes"), {"owns": ["a hat"]}, "unknown kind 'owns'"),
        (("phrases", "hat.yes"), {"is": ["<her/his hat"]}, "unbalanced"),
        (("phrases", "hat.yes"), {"is": ["in <her> hat"]}, "two or three alternatives"),
        (("phrases", "hat.yes"), {"is": ["in a {hat}"]}, "a brace"),
        (("phrases", "hat.yes"), {"is": ["hat/cap"]}, "stray '/'"),
        (("phrases", "hat.yes"), {"is": ["hatted"]}, "phrases.hat.yes: 1 wordings, needs 8"),
        (("phrases", "hat.yes"), {"is": [True]}, "not a list of quoted strings"),
        (("phrases", "hat.yes"), ["a hat"], "not a mapping"),
        (("phrases", "hat.maybe"), {"is": ["hatted"]}, "not a key of the attribute table"),
        (("phrases", "hat.yes"), {"is": ["sad"] * 8}, "'sad' stands for hat.yes and emotion.sad"),
        (("adjectives", "hat.yes"), ["hatted | hatted"], "adjectives.hat.yes: unused"),
        (("adjectives", "hair_colour.red"), ["long | long"], "also under"),
        (("composites",), [{"kind": "owns", "forms": "{adjectives}"}], "unknown kind 'owns'"),
        (("composites",), [{"kind": "is", "forms": "hairy"}], "every form needs {adjectives} once"),
    ],
)
def test_a_slip_is_found(english: dict[str, Any], path: tuple[str, ...], value: Any, message: str) -> None:
    data = copy.deepcopy(english)
    place = data
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    assert message in problems(data)


@pytest.mark.parametrize("data", [None, [], "text", {"language": "en"}])
def test_a_broken_outline_gives_no_lexicon(data: Any) -> None:
    lexicon, found = compile_lexicon("en", data)
    assert lexicon is None and found


def test_a_missing_key_is_named(english: dict[str, Any]) -> None:
    data = copy.deepcopy(english)
    del data["phrases"]["freckles.no"]
    assert "phrases.freckles.no: missing" in problems(data)


def test_loading_refuses_with_file_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = Reading(lexicon=None, problems=(Problem("phrases.hat.yes", "missing"),))
    monkeypatch.setattr(lexicon_module, "read_lexicon", lambda language: reading)
    with pytest.raises(DataError, match=r"lexicons/en\.yaml: phrases\.hat\.yes: missing"):
        lexicon_module.load_lexicon.__wrapped__("en")


def test_the_command_shows_samples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "m3face.captions", "en", "4"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 problems" in done.stdout and "[paragraph]" in done.stdout
    refused = subprocess.run(
        [sys.executable, "-m", "m3face.captions", "xx"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
