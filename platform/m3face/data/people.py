"""Rendered people as a store: what `tiny` learns from.

Odd here: faces 2 k and 2 k + 1 show one person in two looks, so that the identity embedder has pairs and every other
network sees a person twice. Seed 0 is never trained on: it belongs to evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.data.store import ArrayStore, build_store
from m3face.faces import ATTRIBUTES
from m3face.synthetic import make_sample

LOOKS = 2

_RENDERER = 1  # raise it when the renderer makes other pictures, so that old caches are left behind


def attribute_codes(attributes: dict[str, str]) -> NDArray[np.uint8]:
    """Each attribute's value as its index in `ATTRIBUTES[name].values`, uint8 [A]."""
    return np.array([a.values.index(attributes[a.name]) for a in ATTRIBUTES.values()], dtype=np.uint8)


def attribute_values(codes: NDArray[np.uint8]) -> dict[str, str]:
    """The inverse of `attribute_codes`."""
    return {a.name: a.values[int(code)] for a, code in zip(ATTRIBUTES.values(), codes, strict=True)}


@dataclass(frozen=True)
class RenderPeople:
    """(first, last) to arrays; picklable, so that processes may share the work."""

    seed: int
    size: int

    def __call__(self, first: int, last: int) -> dict[str, NDArray[Any]]:
        samples = [make_sample(self.seed, i // LOOKS, size=self.size, variant=i % LOOKS) for i in range(first, last)]
        return {
            "image": np.stack([s.image for s in samples]),
            "label_map": np.stack([s.label_map for s in samples]),
            "landmarks": np.stack([s.landmarks for s in samples]),
            "attributes": np.stack([attribute_codes(s.attributes) for s in samples]),
        }


def people(
    root: Path,
    *,
    count: int,
    seed: int,
    size: int,
    processes: int = 2,
    on_progress: Callable[[int, int], None] | None = None,
) -> ArrayStore:
    """`count` rendered faces: image uint8 [S, S, 3], label_map uint8 [S, S], landmarks fp32 [68, 2], attributes."""
    return build_store(
        root,
        "people",
        key={"renderer": _RENDERER, "seed": seed, "size": size, "count": count},
        count=count,
        fields={
            "image": ("uint8", (size, size, 3)),
            "label_map": ("uint8", (size, size)),
            "landmarks": ("float32", (68, 2)),
            "attributes": ("uint8", (len(ATTRIBUTES),)),
        },
        produce=RenderPeople(seed, size),
        chunk=100,
        processes=processes,
        on_progress=on_progress,
    )
