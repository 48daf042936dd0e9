"""Who is in which split: a share of people, not of pictures, by a hash of the person.

Odd here: nothing is drawn and nothing counted, so any process at any time gives one person the same split; the shares
are met only roughly for few people. A picture of nobody known is a person of its own.
"""

from __future__ import annotations

import hashlib

from m3face.config.dataset import SplitConfig
from m3face.data.rows import Row, Step, each
from m3face.errors import BadInput

SPLITS = ("train", "validation", "test")


def split_of(person: str, shares: SplitConfig | None = None) -> str:
    """`train`, `validation` or `test`, always the same for the same person and shares (by default 90, 5 and 5 %)."""
    shares = shares or SplitConfig()
    place = int.from_bytes(hashlib.sha256(str(person).encode()).digest()[:8], "big") / 2**64
    if place < shares.validation:
        return "validation"
    return "test" if place >= 1 - shares.test else "train"


def split(config: SplitConfig) -> Step:
    """A step that gives each row its split; the archive's own stays where `config.own`. BadInput for an unknown one."""

    def work(row: Row) -> None:
        if row.split and config.own:
            if row.split not in SPLITS:
                raise BadInput("split", f"is {row.split!r}", ", ".join(SPLITS), "or set data.split.own=false")
        else:
            row.split = split_of(row.identity or row.id, config)

    return each(work)
