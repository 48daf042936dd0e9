"""The prompts in people's own words: the shipped file is whole, and a wrong line is named."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from m3face.errors import BadInput
from m3face.evaluation.free_prompts import read_free_prompts
from m3face.faces import ATTRIBUTES, LANGUAGES, Mention

FILE = Path(__file__).parents[1] / "data" / "free_prompts.jsonl"


def test_twenty_a_language_of_every_kind_and_no_prompt_twice() -> None:
    prompts = read_free_prompts(FILE)
    assert Counter(p.language for p in prompts) == dict.fromkeys(LANGUAGES, 20)
    for code in LANGUAGES:
        kinds = Counter(p.kind for p in prompts if p.language == code)
        assert kinds == {"plain": 14, "misspelt": 2, "colloquial": 2, "contradictory": 1, "mixed": 1}, code
        assert sum(any(m.negated for m in p.mentions) for p in prompts if p.language == code) >= 4, code
    assert len({p.prompt for p in prompts}) == 240
    assert all(len(p.prompt) <= 500 and len(set(p.mentions)) == len(p.mentions) for p in prompts)
    assert {m.attribute for p in prompts for m in p.mentions} == set(ATTRIBUTES)


def test_a_line_is_read_as_mentions(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    asks = '[{"attribute": "hat", "value": "yes", "negated": true}]'
    path.write_text(f'{{"language": "fr", "prompt": "sans chapeau", "asks": {asks}}}\n')
    (prompt,) = read_free_prompts(path)
    assert prompt.mentions == (Mention("hat", "yes", negated=True),) and prompt.kind == "plain"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no lines"),
        ("{}\n", "line 1: language"),
        ('{"language": "xx", "prompt": "p", "asks": [{"attribute": "hat", "value": "yes"}]}', "'xx'"),
        ('{"language": "en", "prompt": "p", "asks": []}', "asks"),
        ('{"language": "en", "prompt": "p", "asks": [{"attribute": "hat", "value": "no"}]}', "'no'"),
        ('{"language": "en", "prompt": "p", "asks": [{"attribute": "tail", "value": "yes"}]}', "'tail'"),
        ('{"language": "en", "prompt": " ", "asks": [{"attribute": "hat", "value": "yes"}]}', "is blank"),
        ("not json", "line 1"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_free_prompts(path)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--prompts"):
        read_free_prompts(tmp_path / "none.jsonl")
