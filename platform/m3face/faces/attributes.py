"""What can be said of a face: one closed table of attributes and their values.

Odd here: CelebA's 40 yes/no labels are *derived* (`to_celeba`), because most of them are one value of a
finer attribute (Black_Hair is hair_colour=black). `Attractive` is a judgement and `Blurry` a property of the
photograph, so neither is given a value. Values are strings, everywhere, so that a row is plain JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One thing that can be said of a face.

    `values` are all values; `absent` is the value that means "not there" ("no" or "none") or None where the
    attribute always has some value (everyone has an eye colour). `family` follows UniF2ace (appearance,
    action, emotion) with the appearance family split by place.
    """

    name: str
    family: str
    values: tuple[str, ...]
    absent: str | None = None

    @property
    def present(self) -> tuple[str, ...]:
        """The values a sentence can ask for or negate; `absent` is said by negating them."""
        return tuple(v for v in self.values if v != self.absent)


def _yes_no(name: str, family: str) -> Attribute:
    return Attribute(name=name, family=family, values=("no", "yes"), absent="no")


ATTRIBUTES: dict[str, Attribute] = {
    a.name: a
    for a in (
        Attribute(name="gender", family="person", values=("female", "male")),
        Attribute(name="age", family="person", values=("young", "middle_aged", "old")),
        Attribute(name="face_shape", family="person", values=("oval", "round", "square", "heart", "long")),
        _yes_no("chubby", "person"),
        _yes_no("double_chin", "person"),
        _yes_no("high_cheekbones", "person"),
        Attribute(name="skin_tone", family="skin", values=tuple(f"monk_{i}" for i in range(1, 11))),
        Attribute(name="skin_texture", family="skin", values=("smooth", "rough", "wrinkled")),
        _yes_no("rosy_cheeks", "skin"),
        _yes_no("freckles", "skin"),
        _yes_no("moles", "skin"),
        _yes_no("dimples", "skin"),
        _yes_no("eye_bags", "skin"),
        _yes_no("crows_feet", "skin"),
        Attribute(name="hair_colour", family="hair", values=("black", "brown", "blond", "red", "gray", "white")),
        Attribute(name="hair_length", family="hair", values=("bald", "short", "medium", "long")),
        Attribute(name="hair_type", family="hair", values=("straight", "wavy", "curly")),
        Attribute(name="hairline", family="hair", values=("rounded", "receding", "widows_peak")),
        _yes_no("bangs", "hair"),
        Attribute(name="beard", family="beard", values=("none", "stubble", "goatee", "full"), absent="none"),
        _yes_no("mustache", "beard"),
        _yes_no("sideburns", "beard"),
        Attribute(name="eye_colour", family="eyes", values=("brown", "blue", "green", "gray")),
        _yes_no("narrow_eyes", "eyes"),
        _yes_no("arched_brows", "eyes"),
        _yes_no("bushy_brows", "eyes"),
        _yes_no("big_nose", "nose_mouth"),
        _yes_no("pointy_nose", "nose_mouth"),
        _yes_no("big_lips", "nose_mouth"),
        Attribute(name="glasses", family="accessories", values=("none", "eyeglasses", "sunglasses"), absent="none"),
        _yes_no("hat", "accessories"),
        _yes_no("earrings", "accessories"),
        _yes_no("necklace", "accessories"),
        _yes_no("necktie", "accessories"),
        _yes_no("heavy_makeup", "make_up"),
        _yes_no("lipstick", "make_up"),
        _yes_no("mouth_open", "action"),
        Attribute(name="smile", family="action", values=("none", "slight", "broad", "laughing"), absent="none"),
        Attribute(name="emotion", family="emotion", values=("neutral", "happy", "sad", "angry", "surprised")),
    )
}

PAIRS: tuple[tuple[str, str], ...] = tuple((a.name, v) for a in ATTRIBUTES.values() for v in a.present)
"""Every (attribute, value) that a sentence can ask for or negate: the rows of the prompt reader's head."""

WITHOUT_HAIR = ("hair_type", "hairline", "bangs")
"""Attributes that a bald head cannot show; their values are kept in the row but never named in a caption."""


@dataclass(frozen=True, order=True)
class Mention:
    """One thing a sentence says: `attribute` is (or, `negated`, is not) `value`.

    "without glasses" negates every present value of `glasses`, hence is two mentions.
    """

    attribute: str
    value: str
    negated: bool = False

    def holds(self, attributes: Mapping[str, str]) -> bool:
        """Whether a face with these attributes does what the sentence says."""
        return (attributes[self.attribute] == self.value) != self.negated


def absence(attribute: str) -> tuple[Mention, ...]:
    """The mentions that together say that `attribute` is not there ("no beard")."""
    return tuple(Mention(attribute, value, negated=True) for value in ATTRIBUTES[attribute].present)


CELEBA_NAMES: tuple[str, ...] = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips",
    "Big_Nose", "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby",
    "Double_Chin", "Eyeglasses", "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male",
    "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose",
    "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair",
    "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace", "Wearing_Necktie", "Young",
)  # fmt: skip
"""CelebA's 40 names in the published order."""

# CelebA name -> (attribute, the values of ours for which CelebA says 1)
_CELEBA: dict[str, tuple[str, tuple[str, ...]]] = {
    "5_o_Clock_Shadow": ("beard", ("stubble",)),
    "Arched_Eyebrows": ("arched_brows", ("yes",)),
    "Bags_Under_Eyes": ("eye_bags", ("yes",)),
    "Bald": ("hair_length", ("bald",)),
    "Bangs": ("bangs", ("yes",)),
    "Big_Lips": ("big_lips", ("yes",)),
    "Big_Nose": ("big_nose", ("yes",)),
    "Black_Hair": ("hair_colour", ("black",)),
    "Blond_Hair": ("hair_colour", ("blond",)),
    "Brown_Hair": ("hair_colour", ("brown",)),
    "Bushy_Eyebrows": ("bushy_brows", ("yes",)),
    "Chubby": ("chubby", ("yes",)),
    "Double_Chin": ("double_chin", ("yes",)),
    "Eyeglasses": ("glasses", ("eyeglasses", "sunglasses")),
    "Goatee": ("beard", ("goatee",)),
    "Gray_Hair": ("hair_colour", ("gray", "white")),
    "Heavy_Makeup": ("heavy_makeup", ("yes",)),
    "High_Cheekbones": ("high_cheekbones", ("yes",)),
    "Male": ("gender", ("male",)),
    "Mouth_Slightly_Open": ("mouth_open", ("yes",)),
    "Mustache": ("mustache", ("yes",)),
    "Narrow_Eyes": ("narrow_eyes", ("yes",)),
    "No_Beard": ("beard", ("none",)),
    "Oval_Face": ("face_shape", ("oval",)),
    "Pale_Skin": ("skin_tone", ("monk_1", "monk_2")),
    "Pointy_Nose": ("pointy_nose", ("yes",)),
    "Receding_Hairline": ("hairline", ("receding",)),
    "Rosy_Cheeks": ("rosy_cheeks", ("yes",)),
    "Sideburns": ("sideburns", ("yes",)),
    "Smiling": ("smile", ("slight", "broad", "laughing")),
    "Straight_Hair": ("hair_type", ("straight",)),
    "Wavy_Hair": ("hair_type", ("wavy",)),
    "Wearing_Earrings": ("earrings", ("yes",)),
    "Wearing_Hat": ("hat", ("yes",)),
    "Wearing_Lipstick": ("lipstick", ("yes",)),
    "Wearing_Necklace": ("necklace", ("yes",)),
    "Wearing_Necktie": ("necktie", ("yes",)),
    "Young": ("age", ("young",)),
}

_SHOWN_BY_HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Straight_Hair", "Wavy_Hair", "Bangs")


def to_celeba(attributes: Mapping[str, str]) -> dict[str, bool]:
    """CelebA's labels for a face, without `Attractive` and `Blurry`; a bald head has no hair labels."""
    labels = {name: attributes[attribute] in ones for name, (attribute, ones) in _CELEBA.items()}
    if attributes["hair_length"] == "bald":
        labels |= dict.fromkeys(_SHOWN_BY_HAIR, False)
    return labels


def from_celeba(labels: Mapping[str, bool]) -> dict[str, str]:
    """What CelebA's labels say for certain of a face: some of our attributes, each with its value.

    A value counts if a yes names it and no other label denies it, or if the labels deny whatever else the attribute
    could be and it is "not there" or one of two. What stays open (Smiling does not say how much) or contradicts
    itself (two hair colours, a bald head with bangs) is left out. Labels may be missing; `Attractive` and `Blurry` say
    nothing.
    """
    open_values = {name: list(attribute.values) for name, attribute in ATTRIBUTES.items()}
    said: set[tuple[str, str]] = set()
    for label, (name, ones) in _CELEBA.items():
        if label in labels:
            open_values[name] = [v for v in open_values[name] if (v in ones) == labels[label]]
            said |= {(name, value) for value in ones if labels[label]}
    if labels.get("Bald") and any(labels.get(label) for label in _SHOWN_BY_HAIR):
        for name in ("hair_length", *(_CELEBA[label][0] for label in _SHOWN_BY_HAIR)):
            open_values[name] = []
    return {
        name: values[0]
        for name, values in open_values.items()
        if len(values) == 1
        and ((name, values[0]) in said or values[0] == ATTRIBUTES[name].absent or len(ATTRIBUTES[name].values) == 2)
    }
