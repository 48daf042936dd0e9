"""What an author wants to know of a language file beyond its structure: too few wordings, clashes.

Odd here: `load_lexicon` does not run these (they cost as much as loading); the tests and the command do.
"""

from __future__ import annotations

from m3face.captions.compiling import Problem
from m3face.captions.keys import ABSENT_KEYS, DENIED_KEYS, PRESENT_KEYS, attribute_of
from m3face.captions.model import AGES, GENDERS, Lexicon
from m3face.captions.parsing import adjective_keys, phrase_table
from m3face.captions.text import normalise

_LEAST = {"present": 8, "absent": 4, "denied": 2, "gender": 4}
_LEAST_OPENERS, _LEAST_CLAUSES = 10, 3


def check_lexicon(lexicon: Lexicon) -> list[Problem]:
    """Every shortcoming of a language that compiles."""
    problems = [*_too_few(lexicon), *_too_few_persons(lexicon)]
    for form, meanings in phrase_table(lexicon).items():
        if len(meanings) > 1:
            keys = " and ".join("+".join(keys) or "person" for keys in meanings.values())
            problems.append(Problem("phrases", f"{form!r} stands for {keys}"))
        if not form:
            problems.append(Problem("phrases", f"an empty phrase for {meanings}"))
    problems += _adjectives(lexicon)
    problems += _repeats(lexicon)
    return problems


def _too_few(lexicon: Lexicon) -> list[Problem]:
    problems: list[Problem] = []
    for keys, sort in ((PRESENT_KEYS, "present"), (ABSENT_KEYS, "absent"), (DENIED_KEYS, "denied")):
        for key in keys:
            least = _LEAST["gender" if key.startswith("gender.") else sort]
            count = len(lexicon.wordings.get(key, ()))
            if count < least and (sort != "denied" or count):
                problems.append(Problem(f"phrases.{key}", f"{count} wordings, needs {least}"))
    return problems


def _too_few_persons(lexicon: Lexicon) -> list[Problem]:
    problems: list[Problem] = []
    for (gender, age), rows in lexicon.person.items():
        least = 5 if GENDERS[gender] == "anyone" else 8 if age == AGES[0] else 6
        if len(rows) < least:
            where = f"person.{GENDERS[gender]}.{age}"
            problems.append(Problem(where, f"{len(rows)} phrases, needs {least}"))
    if len(lexicon.openers) < _LEAST_OPENERS:
        problems.append(Problem("openers", f"{len(lexicon.openers)}, needs {_LEAST_OPENERS}"))
    for kind in lexicon.kinds.values():
        if 0 < len(kind.clause) < _LEAST_CLAUSES:
            problems.append(
                Problem(f"kinds.{kind.name}.clause", f"{len(kind.clause)} variants, needs {_LEAST_CLAUSES}")
            )
    return problems


def _adjectives(lexicon: Lexicon) -> list[Problem]:
    """Adjectives that mean two things on the same noun."""
    problems: list[Problem] = []
    for order in dict.fromkeys(composite.order for composite in lexicon.composites):
        keys = adjective_keys(lexicon, order)
        for key, adjectives in lexicon.adjectives.items():
            if attribute_of(key) not in order:
                continue
            for form in {form for forms in adjectives for frames in forms for form in frames}:
                other = keys[normalise(form)]
                if other != key:
                    problems.append(Problem(f"adjectives.{key}", f"{form!r} also under {other}"))
    return problems


def _repeats(lexicon: Lexicon) -> list[Problem]:
    """The same phrase twice under one key and kind."""
    problems: list[Problem] = []
    for key, wordings in lexicon.wordings.items():
        seen: set[tuple[str, object]] = set()
        for wording in wordings:
            mark = (wording.kind, wording.forms)
            if mark in seen:
                problems.append(Problem(f"phrases.{key}.{wording.kind}", f"{wording.forms[0][0]!r} twice"))
            seen.add(mark)
    return problems
