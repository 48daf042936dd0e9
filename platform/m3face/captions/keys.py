"""Keys: the units a caption says, "attribute.value" or "not.attribute.value".

Odd here: the key of an absent value ("glasses.none") stands for as many negated mentions as the attribute has
present values, so one key may be several mentions.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from m3face.faces import ATTRIBUTES, Mention, absence

PRESENT_KEYS: tuple[str, ...] = tuple(f"{a.name}.{v}" for a in ATTRIBUTES.values() for v in a.present)
"""Keys that say that something is there; every language has at least eight wordings for each."""

ABSENT_KEYS: tuple[str, ...] = tuple(
    f"{a.name}.{a.absent}" for a in ATTRIBUTES.values() if a.absent is not None
)
"""Keys that say that something is not there ("glasses.none"); at least four wordings each."""

DENIED_KEYS: tuple[str, ...] = tuple(f"not.{key}" for key in PRESENT_KEYS)
"""Keys that deny one value ("not.hair_colour.blond"); a language may lack any of them."""

_KNOWN = frozenset(PRESENT_KEYS + ABSENT_KEYS + DENIED_KEYS)
_ABSENT = frozenset(ABSENT_KEYS)


def is_key(key: str) -> bool:
    """Whether the string is a key of the attribute table."""
    return key in _KNOWN


def is_negative(key: str) -> bool:
    """Whether the key says that something is not so."""
    return key in _ABSENT or key.startswith("not.")


def attribute_of(key: str) -> str:
    """The attribute's name in a key of any sort."""
    return key.removeprefix("not.").split(".", 1)[0]


@cache
def key_mentions(key: str) -> tuple[Mention, ...]:
    """What one key says."""
    attribute, value = key.removeprefix("not.").split(".", 1)
    if key in _ABSENT:
        return absence(attribute)
    return (Mention(attribute, value, negated=key.startswith("not.")),)


def mentions_of(keys: Iterable[str]) -> tuple[Mention, ...]:
    """What the keys say together: sorted, each mention once, absence expanded."""
    return tuple(sorted({mention for key in keys for mention in key_mentions(key)}))
