"""Who is drawn: attributes first, then numbers inside the range that each value allows.

Odd here: a `Person` is what stays when the same face is photographed again, a `Look` is one photograph, and
both keep their attribute values (`traits`) beside the numbers (`shape`). A number is always drawn *from*
its value's range, never the other way round, so a label can not disagree with the picture. Uniform draws
come as plain floats, for speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from m3face.faces import ATTRIBUTES

_TONES = ATTRIBUTES["skin_tone"].values


@dataclass(frozen=True, kw_only=True)
class Person:
    """An identity: `traits` are attribute values, `shape` numbers of -1..1 (or 0..1) that vary within them."""

    identity: str
    traits: Mapping[str, str]
    shape: Mapping[str, float]
    seed: int

    def has(self, attribute: str) -> bool:
        return self.traits[attribute] == "yes"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One picture of a person: what may change from photograph to photograph. Angles are degrees."""

    traits: Mapping[str, str]
    shape: Mapping[str, float]
    yaw: float
    pitch: float
    roll: float
    seed: int

    def has(self, attribute: str) -> bool:
        return self.traits[attribute] == "yes"


class _Dice:
    """Uniform numbers drawn in one go and handed out one by one: far cheaper than a call a draw."""

    def __init__(self, rng: np.random.Generator, count: int) -> None:
        self._numbers: list[float] = rng.random(count).tolist()
        self._next = 0

    def unit(self) -> float:
        self._next += 1
        return self._numbers[self._next - 1]

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def yes(self, chance: float) -> str:
        return "yes" if self.unit() < chance else "no"

    def one(self, values: Sequence[str], weights: Sequence[float] | None = None) -> str:
        if weights is None:
            return values[int(self.unit() * len(values))]
        at = self.unit() * sum(weights)
        for value, weight in zip(values, weights, strict=True):
            at -= weight
            if at < 0:
                return value
        return values[-1]


_PERSON_SHAPE = (
    "face_width", "face_height", "jaw", "eye_gap", "eye_size", "eye_tilt", "eye_height", "brow_height", "brow_slope",
    "nose_width", "nose_length", "nose_height", "mouth_width", "mouth_height", "lip", "chin", "ear_size", "ear_flare",
    "skin_shift", "hair_shift", "eye_shift", "neck", "wave", "part",
)  # fmt: skip

_LOOK_SHAPE = (
    "amount", "gaze_x", "gaze_y", "offset_x", "offset_y", "scale", "light_side", "light_up", "light_warm", "light_hard",
    "back_kind", "back_hue", "back_light", "back_shift", "cloth_hue", "cloth_light", "cloth_kind", "cloth_pattern",
    "glasses_kind", "glasses_hue", "hat_kind", "hat_hue", "earring_kind", "necklace_kind", "length", "volume",
    "lip_hue", "shadow_hue", "tie_hue", "body_turn", "fringe",
)  # fmt: skip


def sample_person(rng: np.random.Generator) -> Person:
    """A person who does not exist."""
    seed = int(rng.integers(1 << 62))
    dice = _Dice(rng, 64)
    gender, age = dice.one(("female", "male")), dice.one(("young", "middle_aged", "old"))
    man, old, young = gender == "male", age == "old", age == "young"
    grey = {"young": 0.03, "middle_aged": 0.16, "old": 0.9}[age]
    chubby = dice.yes(0.36)
    texture = dice.one(
        ("smooth", "rough", "wrinkled"),
        (0.7, 0.3, 0.0) if young else ((0.15, 0.2, 0.65) if old else (0.4, 0.35, 0.25)),
    )
    traits = {
        "gender": gender,
        "age": age,
        "face_shape": dice.one(ATTRIBUTES["face_shape"].values),
        "chubby": chubby,
        "double_chin": dice.yes(0.6 if chubby == "yes" else 0.18),
        "high_cheekbones": dice.yes(0.4),
        "skin_tone": dice.one(_TONES),
        "skin_texture": texture,
        "rosy_cheeks": dice.yes(0.35),
        "freckles": dice.yes(0.3),
        "moles": dice.yes(0.33),
        "dimples": dice.yes(0.32),
        "eye_bags": dice.yes(0.5 if old else 0.3),
        "crows_feet": dice.yes(0.1 if young else (0.75 if old else 0.4)),
        "hair_colour": dice.one(
            ATTRIBUTES["hair_colour"].values,
            (*(w * (1.0 - grey) for w in (0.28, 0.28, 0.26, 0.18)), grey * 0.5, grey * 0.5),
        ),
        "hair_type": dice.one(ATTRIBUTES["hair_type"].values),
        "hairline": dice.one(ATTRIBUTES["hairline"].values, (0.5, 0.32, 0.3) if man else (0.6, 0.12, 0.28)),
        "eye_colour": dice.one(ATTRIBUTES["eye_colour"].values, (0.34, 0.24, 0.22, 0.2)),
        "narrow_eyes": dice.yes(0.34),
        "arched_brows": dice.yes(0.4),
        "bushy_brows": dice.yes(0.42 if man else 0.28),
        "big_nose": dice.yes(0.36),
        "pointy_nose": dice.yes(0.36),
        "big_lips": dice.yes(0.4),
        "bald": dice.yes(0.13 if man else 0.03),
    }
    shape = {name: dice.between(-1.0, 1.0) for name in _PERSON_SHAPE}
    return Person(identity=f"p{seed:019d}", traits=traits, shape=shape, seed=seed)


def _expression(dice: _Dice) -> dict[str, str]:
    emotion = dice.one(ATTRIBUTES["emotion"].values, (0.25, 0.36, 0.13, 0.13, 0.13))
    smile = dice.one(("slight", "broad", "laughing"), (0.36, 0.34, 0.3)) if emotion == "happy" else "none"
    chance = {"surprised": 0.85, "neutral": 0.25, "sad": 0.2, "angry": 0.35, "happy": 0.2}[emotion]
    if smile in ("broad", "laughing"):
        chance = 1.0 if smile == "laughing" else 0.75
    return {"emotion": emotion, "smile": smile, "mouth_open": dice.yes(chance)}


def sample_look(rng: np.random.Generator, person: Person) -> Look:
    """One picture of `person`: expression, pose, light, hair style, what they wear."""
    seed = int(rng.integers(1 << 62))
    dice = _Dice(rng, 72)
    man = person.traits["gender"] == "male"
    if person.has("bald"):
        length = "bald"
    else:
        length = dice.one(("short", "medium", "long"), (0.6, 0.24, 0.16) if man else (1.0, 1.0, 1.0))
    bare = length == "bald" or person.traits["hairline"] == "receding"
    whiskers = man and dice.unit() < 0.68
    traits = _expression(dice) | {
        "hair_length": length,
        "bangs": "no" if bare else dice.yes(0.5),
        "beard": dice.one(("none", "stubble", "goatee", "full"), (0.16, 0.3, 0.26, 0.28)) if whiskers else "none",
        "mustache": dice.yes(0.55) if whiskers else "no",
        "sideburns": dice.yes(0.45) if man and length in ("short", "medium") else "no",
        "glasses": dice.one(("none", "eyeglasses", "sunglasses"), (0.75, 0.165, 0.085)),
        "hat": dice.yes(0.15),
        "earrings": dice.yes(0.14 if man else 0.46),
        "necklace": dice.yes(0.12 if man else 0.38),
        "necktie": dice.yes(0.26 if man else 0.04),
        "heavy_makeup": dice.yes(0.04 if man else 0.55),
        "lipstick": dice.yes(0.04 if man else 0.55),
    }
    if traits["necktie"] == "yes":
        traits["necklace"] = "no"
    yaw, pitch = dice.between(-1.0, 1.0), dice.between(-1.0, 1.0)
    shape = {name: dice.unit() for name in _LOOK_SHAPE}
    return Look(
        traits=traits,
        shape=shape,
        yaw=35.0 * yaw * abs(yaw) ** 0.35,
        pitch=14.0 * pitch * abs(pitch) ** 0.35,
        roll=dice.between(-6.0, 6.0),
        seed=seed,
    )


def attributes_of(person: Person, look: Look) -> dict[str, str]:
    """Every attribute's value, in the table's order."""
    both = {**person.traits, **look.traits}
    return {name: both[name] for name in ATTRIBUTES}


def sample_attributes(rng: np.random.Generator) -> dict[str, str]:
    """A row of attributes from the distribution of the pictures, without drawing one."""
    person = sample_person(rng)
    return attributes_of(person, sample_look(rng, person))
