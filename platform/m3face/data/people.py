"""Rendered people as a store: what `tiny` learns from.

Odd here: faces 2 k and 2 k + 1 show one person in two looks, so that the identity embedder has pairs and every other
network sees a person twice. Seed 0 is never trained on: it belongs to evaluation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.captions import Caption, caption, wording_digest
from m3face.data.store import ArrayStore, Progress, Spread, build_store, in_processes
from m3face.faces import ATTRIBUTES, LANGUAGES
from m3face.synthetic import make_sample

LOOKS = 2

_RENDERER = 1  # raise it when the renderer makes other pictures, so that old caches are left behind
_CAPTIONS = 2  # the same for how captions are drawn

_DENSE = (8, 15)  # things that every second caption names; the others name six on average, a mustache one in thirty


def attribute_codes(attributes: dict[str, str]) -> NDArray[np.uint8]:
    """Each attribute's value as its index in `ATTRIBUTES[name].values`, uint8 [A]."""
    return np.array([a.values.index(attributes[a.name]) for a in ATTRIBUTES.values()], dtype=np.uint8)


def attribute_values(codes: NDArray[np.uint8]) -> dict[str, str]:
    """The inverse of `attribute_codes`."""
    return {a.name: a.values[int(code)] for a, code in zip(ATTRIBUTES.values(), codes, strict=True)}


@dataclass(frozen=True)
class RenderPeople:
    """Numbers of faces to their arrays."""

    seed: int
    size: int

    def __call__(self, faces: range) -> dict[str, NDArray[Any]]:
        samples = [make_sample(self.seed, i // LOOKS, size=self.size, variant=i % LOOKS) for i in faces]
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
    spread: Spread | None = None,
    on_progress: Progress = None,
) -> ArrayStore:
    """`count` rendered faces: image uint8 [S, S, 3], label_map uint8 [S, S], landmarks fp32 [68, 2], attributes.

    Rendered by `spread`, or else by so many processes of this machine.
    """
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
        encode=RenderPeople(seed, size),
        chunk=100,
        spread=spread or in_processes(processes),
        on_progress=on_progress,
    )


def face_caption(faces: ArrayStore, index: int, which: int, *, split: str = "train") -> Caption:
    """Caption number `which` of face `index`: language, wording and style are functions of the two.

    Every second one names much of the face, or what is rare would hardly ever be heard.
    """
    rng = np.random.default_rng([int(faces.key["seed"]), index, which])
    language = list(LANGUAGES)[int(rng.integers(len(LANGUAGES)))]
    typos = 0.04 if rng.random() < 0.2 else 0.0
    count = int(rng.integers(*_DENSE)) if which % 2 else None
    return caption(attribute_values(faces["attributes"][index]), language, rng, split=split, count=count, typos=typos)


@dataclass(frozen=True)
class PeopleCaptions:
    """`each` sentences a rendered face, from the grammars."""

    faces: ArrayStore
    each: int

    @property
    def key(self) -> dict[str, Any]:
        """What decides the texts, beside the faces."""
        return {"captions": [_CAPTIONS, self.each], "wording": wording_digest()}

    def texts(self, first: int, last: int) -> list[str]:
        """The captions of these faces, face by face."""
        return [face_caption(self.faces, i, k).text for i in range(first, last) for k in range(self.each)]
