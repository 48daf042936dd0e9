"""Checks a language file and shows what it says: python -m m3face.captions CODE [N]."""

from __future__ import annotations

import sys

import numpy as np

from m3face.captions.checks import check_lexicon
from m3face.captions.grammar import STYLES, caption
from m3face.captions.lexicon import load_lexicon, read_lexicon
from m3face.captions.parsing import find_matches, parse
from m3face.faces import ATTRIBUTES, LANGUAGES, Mention

_SHOWN_FAILURES, _PARSED = 40, 600


def random_attributes(rng: np.random.Generator) -> dict[str, str]:
    """Any face, with a mood that fits the mouth."""
    face = {name: a.values[int(rng.random() * len(a.values))] for name, a in ATTRIBUTES.items()}
    if face["emotion"] == "happy" and face["smile"] == "none":
        face["smile"] = "broad"
    elif face["emotion"] != "happy" and face["smile"] in ("broad", "laughing"):
        face["emotion"] = "happy"
    return face


def show(mentions: tuple[Mention, ...]) -> str:
    """The mentions on one line."""
    return " ".join(f"{'-' if m.negated else ''}{m.attribute}.{m.value}" for m in mentions)


def main(arguments: list[str]) -> int:
    """Prints problems, samples and captions that do not parse back; 1 if anything is wrong."""
    if not arguments or arguments[0] not in LANGUAGES or not all(a.isdecimal() for a in arguments[1:]):
        print(f"usage: python -m m3face.captions CODE [N]   CODE one of {', '.join(LANGUAGES)}")
        return 2
    language = arguments[0]
    count = int(arguments[1]) if len(arguments) > 1 else 20
    reading = read_lexicon(language)
    problems = list(reading.problems)
    if reading.lexicon is not None:
        problems += check_lexicon(reading.lexicon)
    print(f"{len(problems)} problems")
    for problem in problems:
        print(f"  {problem.where}: {problem.what}")
    if reading.lexicon is None or reading.problems:
        print("no samples: mend the structural problems first")
        return 1
    lexicon = load_lexicon(language)
    total = sum(len(wordings) for wordings in lexicon.wordings.values())
    held = sum(w.held_out for wordings in lexicon.wordings.values() for w in wordings)
    print(f"{len(lexicon.wordings)} keys, {total} wordings, {held} held out\n")
    rng = np.random.default_rng(0)
    for place in range(count):
        made = caption(random_attributes(rng), language, rng, style=STYLES[place % len(STYLES)], split="all")
        print(f"[{made.style}] {made.text}\n")
    return 1 if _report_failures(language, np.random.default_rng(1)) or problems else 0


def _report_failures(language: str, rng: np.random.Generator) -> int:
    """Makes many captions, prints those that parse to something else, returns their number."""
    failures = 0
    for place in range(_PARSED):
        made = caption(random_attributes(rng), language, rng, style=STYLES[place % len(STYLES)], split="all")
        read = parse(made.text, language)
        if read == made.mentions:
            continue
        failures += 1
        if failures <= _SHOWN_FAILURES:
            lost, extra = set(made.mentions) - set(read), set(read) - set(made.mentions)
            print(f"NOT PARSED BACK [{made.style}] {made.text}")
            if lost:
                print(f"   said but not read: {show(tuple(sorted(lost)))}")
            if extra:
                print(f"   read but not said: {show(tuple(sorted(extra)))}")
                wrong = [m for m in find_matches(made.text, language) if m.keys]
                plain = made.text.casefold()
                print("   matched: " + "; ".join(f"{plain[m.start : m.end]!r}={'+'.join(m.keys)}" for m in wrong))
    print(f"{failures} of {_PARSED} captions do not parse back")
    return failures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
