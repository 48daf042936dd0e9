"""Which true things a caption says of a face: the choice of keys.

Odd here: people name what stands out, so each key has a weight; absences are rare and favour what one expects
on such a face ("without glasses", "no beard" of a man). Hidden things are never named: the hair of a bald
head, the hairline under a fringe or a hat.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate

import numpy as np

from m3face.captions.keys import attribute_of
from m3face.faces import ATTRIBUTES, WITHOUT_HAIR

_COUNT_WEIGHTS = (3, 6, 12, 15, 15, 13, 11, 7, 5, 4, 3, 3, 2, 1)
_COUNT_STEPS = tuple(accumulate(_COUNT_WEIGHTS))
_GENDER_SHARE, _AGE_SHARE, _ABSENT_SHARE, _DENIED_SHARE = 0.91, 0.55, 0.19, 0.3

_PRESENT_WEIGHT: dict[str, float] = {
    "face_shape": 1.2, "skin_tone": 1.6, "skin_texture": 0.8, "hair_colour": 4.0, "hair_length": 3.0,
    "hair_type": 2.6, "hairline": 0.8, "eye_colour": 3.0, "beard": 4.0, "glasses": 5.0, "hat": 5.0,
    "smile": 3.0, "emotion": 2.4, "earrings": 3.0, "heavy_makeup": 2.5, "mouth_open": 1.6,
}  # fmt: skip
_ABSENT_WEIGHT: dict[str, float] = {
    "glasses": 5.0, "beard": 4.0, "hat": 3.0, "smile": 3.0, "earrings": 2.5, "heavy_makeup": 2.5,
    "bangs": 2.0, "mustache": 1.5, "lipstick": 1.5, "necklace": 1.2, "mouth_open": 1.5, "freckles": 1.2,
    "necktie": 0.8,
}  # fmt: skip
_DEFAULT_PRESENT, _DEFAULT_ABSENT = 2.0, 0.5
_UNEXPECTED_ABSENCES = {
    "female": frozenset(("beard", "mustache", "sideburns", "necktie")),
    "male": frozenset(("heavy_makeup", "lipstick", "earrings", "necklace")),
}
_UNEXPECTED_FACTOR = 0.15
_DENIABLE: tuple[tuple[str, str], ...] = (
    *(("hair_colour", value) for value in ATTRIBUTES["hair_colour"].values),
    ("hair_length", "bald"),
    ("hair_length", "long"),
    *(("eye_colour", value) for value in ATTRIBUTES["eye_colour"].values),
)


def hidden(attributes: Mapping[str, str]) -> set[str]:
    """Attributes that cannot be seen on this face."""
    unseen: set[str] = set()
    if attributes.get("hair_length") == "bald":
        unseen.update(WITHOUT_HAIR)
        unseen.add("hair_colour")
    if attributes.get("bangs") == "yes" or attributes.get("hat") == "yes":
        unseen.add("hairline")
    return unseen


def _sample(weighted: Mapping[str, float], count: int, rng: np.random.Generator) -> list[str]:
    """`count` keys without replacement, the heavier the likelier (Efraimidis and Spirakis)."""
    if count <= 0:
        return []
    draws = rng.random(len(weighted)).tolist()
    ranked = sorted(
        (math.log(draw + 1e-300) / weight, key)
        for draw, (key, weight) in zip(draws, weighted.items(), strict=True)
    )
    return [key for _, key in ranked[-count:]]


def choose_keys(
    attributes: Mapping[str, str], rng: np.random.Generator, *, count: int | None = None
) -> tuple[str, ...]:
    """A random subset of the keys that are true of the face, in random order.

    Of attributes that `attributes` does not name nothing is said; the more it names, the more can be.
    """
    if count is None:
        count = 1 + bisect(_COUNT_STEPS, rng.random() * _COUNT_STEPS[-1])
    unseen = hidden(attributes)
    keys: list[str] = []
    if count > 0 and rng.random() < (_GENDER_SHARE if count > 1 else 0.5) and "gender" in attributes:
        keys.append(f"gender.{attributes['gender']}")
    if len(keys) < count and rng.random() < _AGE_SHARE and "age" in attributes:
        keys.append(f"age.{attributes['age']}")
    present: dict[str, float] = {}
    absent: dict[str, float] = {}
    unexpected = _UNEXPECTED_ABSENCES.get(attributes.get("gender", ""), frozenset())
    for name, attribute in ATTRIBUTES.items():
        if name not in attributes or name in unseen or name in ("gender", "age"):
            continue
        value = attributes[name]
        if value != attribute.absent:
            present[f"{name}.{value}"] = _PRESENT_WEIGHT.get(name, _DEFAULT_PRESENT)
        else:
            weight = _ABSENT_WEIGHT.get(name, _DEFAULT_ABSENT)
            absent[f"{name}.{value}"] = weight * (_UNEXPECTED_FACTOR if name in unexpected else 1.0)
    free = count - len(keys)
    negative = int(np.count_nonzero(rng.random(free) < _ABSENT_SHARE)) if free else 0
    denied = int(np.count_nonzero(rng.random(negative) < _DENIED_SHARE)) if negative else 0
    denials = {
        f"not.{name}.{value}": 1.0
        for name, value in _DENIABLE
        if name in attributes and name not in unseen and attributes[name] != value
    }
    # one does not say both that hair is blond and that it is not red
    for key in _sample(denials, min(denied, 2), rng):
        keys.append(key)
        negative -= 1
        for other in [k for k in present if attribute_of(k) == attribute_of(key)]:
            if rng.random() < 0.8:
                del present[other]
    keys += _sample(absent, min(negative, len(absent)), rng)
    keys += _sample(present, min(count - len(keys), len(present)), rng)
    order = rng.random(len(keys)).tolist()
    return tuple(key for _, key in sorted(zip(order, keys, strict=True)))
