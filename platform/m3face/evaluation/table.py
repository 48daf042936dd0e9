"""The rows of the table: plain functions from what was made and what the judges said to figures.

Odd here: every figure for made pictures stands beside the same judge's figure on true renders (`ceiling`) and on
renders that went through the VAE, since a judge that errs on those cannot do better elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.evaluation.metrics import (
    Rate,
    cosine,
    kernel_distance,
    landmark_error,
    laplacian_energy,
    mean_iou,
    points_on_map,
    rate,
)
from m3face.faces import ATTRIBUTES, LANGUAGES, LabelMap, Landmarks, Mention
from m3face.faces.anatomy import anatomy_faults
from m3face.faces.signs import SIGNS, asked_signs, hair_colour, map_signs
from m3face.stages import Conditions
from m3face.synthetic import Sample

_NEIGHBOURS = {"skin_tone"}  # ordered values: one step off is taken as right, and the note says so


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure: `value` with its 95 % interval where it is a rate, the judge's `ceiling` on true renders, a note."""

    name: str
    value: float
    count: int
    interval: tuple[float, float] | None = None
    ceiling: float | None = None
    through_vae: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What somebody said: a sentence and what it asks for."""

    prompt: str
    language: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Pictures and what the annotators say of each: the four answers, and features [n, d] for distances of sets."""

    pictures: Sequence[NDArray[np.uint8]]
    label_maps: Sequence[LabelMap]
    landmarks: Sequence[Landmarks]
    attributes: Sequence[dict[str, str]]
    identities: Sequence[NDArray[np.float32]]
    features: NDArray[np.float32]


def rate_row(name: str, hits: Sequence[bool], **more: Any) -> Row:
    """A row of a rate, with its interval."""
    found: Rate = rate(hits)
    return Row(name=name, value=found.value, count=found.count, interval=found.interval, **more)


def holds(mention: Mention, attributes: Mapping[str, str]) -> bool:
    """Whether judged attributes do what a caption says; one Monk step off counts as right."""
    if mention.attribute in _NEIGHBOURS and not mention.negated:
        values = ATTRIBUTES[mention.attribute].values
        return abs(values.index(attributes[mention.attribute]) - values.index(mention.value)) <= 1
    return mention.holds(attributes)


def reading_rows(wishes: Sequence[Wish], read: Sequence[Sequence[Mention]], label: str) -> list[Row]:
    """What the prompt reader understood: all, what it made up, and by language."""
    hits = [[m in r for m in w.mentions] for w, r in zip(wishes, read, strict=True)]
    extra = sum(len(set(r) - set(w.mentions)) for w, r in zip(wishes, read, strict=True))
    rows = [
        rate_row(f"reader: mentions understood, {label}", [h for hs in hits for h in hs]),
        Row(name=f"reader: mentions invented per prompt, {label}", value=extra / len(wishes), count=len(wishes)),
    ]
    for code in LANGUAGES:
        own = [h for hs, w in zip(hits, wishes, strict=True) if w.language == code for h in hs]
        if own:
            rows.append(rate_row(f"reader: {code}, {label}", own))
    return rows


def map_rows(wishes: Sequence[Wish], made: Sequence[Conditions], people: Sequence[Sample]) -> list[Row]:
    """Anatomy, agreement of map and landmarks, and what can be told from the map alone as the words asked."""
    rows = [
        rate_row(
            "map: anatomy right",
            [not anatomy_faults(c.label_map) for c in made],
            ceiling=rate([not anatomy_faults(p.label_map) for p in people]).value,
        ),
        rate_row(
            "map and landmarks agree",
            [points_on_map(c.landmarks, c.label_map) for c in made],
            ceiling=rate([points_on_map(p.landmarks, p.label_map) for p in people]).value,
        ),
    ]
    asked = [asked_signs(w.mentions) for w in wishes]
    shown, true = [map_signs(c.label_map) for c in made], [map_signs(p.label_map) for p in people]
    for sign in SIGNS:
        where = [index for index, wanted in enumerate(asked) if sign in wanted]
        if where:
            hits, ceiling = ([maps[i][sign] == asked[i][sign] for i in where] for maps in (shown, true))
            rows.append(rate_row(f"map: {sign} as asked", hits, ceiling=rate(ceiling).value))
    return rows


def completion_rows(
    people: Sequence[Sample], from_map: Sequence[Conditions], from_points: Sequence[Conditions]
) -> list[Row]:
    """One condition of a true person given, the other completed: they agree, and a completed map is a face."""
    return [
        rate_row(
            "completion: landmarks agree with the given map",
            [points_on_map(c.landmarks, p.label_map) for c, p in zip(from_map, people, strict=True)],
        ),
        rate_row(
            "completion: map agrees with the given landmarks",
            [points_on_map(p.landmarks, c.label_map) for c, p in zip(from_points, people, strict=True)],
        ),
        rate_row(
            "completion: anatomy of the completed map right", [not anatomy_faults(c.label_map) for c in from_points]
        ),
    ]


def following_rows(
    made: Sequence[Conditions], people: Sequence[Sample], own: Judged, true: Judged, vae: Judged
) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """How faces follow their conditions, and IoU by class of made faces and of renders."""
    true_maps = [p.label_map for p in people]
    ceiling, true_by_class = mean_iou(true.label_maps, true_maps)
    through, _ = mean_iou(vae.label_maps, true_maps)
    value, by_class = mean_iou(own.label_maps, [c.label_map for c in made])
    both = sorted(by_class.keys() & true_by_class.keys())  # a class that is never drawn must not raise the share
    share = sum(by_class[name] for name in both) / sum(true_by_class[name] for name in both)
    absent = sorted(true_by_class.keys() - by_class.keys())

    def points_error(found: Sequence[Landmarks], wanted: Sequence[Any]) -> float:
        return float(np.mean([landmark_error(f, w.landmarks) for f, w in zip(found, wanted, strict=True)]))

    count = len(made)
    rows = [
        Row(name="face: parsed back, mean IoU", value=value, count=count, ceiling=ceiling, through_vae=through),
        Row(
            name="face: parsed back, share of the parser's own",
            value=share,
            count=count,
            note=f"over {len(both)} classes; never drawn: {', '.join(absent) or 'none'}",
        ),
        Row(
            name="face: landmark error over eye distance",
            value=points_error(own.landmarks, made),
            count=count,
            ceiling=points_error(true.landmarks, people),
            through_vae=points_error(vae.landmarks, people),
        ),
    ]
    return rows, {"faces": by_class, "renders": true_by_class}


def attribute_rows(wishes: Sequence[Wish], own: Judged, label: str, **ceilings: Judged) -> list[Row]:
    """Attributes named in the prompt: all, by language and by attribute. `ceilings` are `ceiling` and `through_vae`."""

    def row(name: str, keep: Callable[[Wish, Mention], bool], **more: Any) -> list[Row]:
        def hits(judged: Judged) -> list[bool]:
            pairs = zip(wishes, judged.attributes, strict=True)
            return [holds(m, found) for w, found in pairs for m in w.mentions if keep(w, m)]

        beside = {kind: rate(hits(judged)).value for kind, judged in ceilings.items()}
        return [rate_row(name, own_hits, **beside, **more)] if (own_hits := hits(own)) else []

    rows = row(f"face: attributes named in the prompt right{label}", lambda w, m: True, note="one Monk step off counts")
    for code in LANGUAGES:
        rows += row(f"face: attributes, {code}{label}", lambda w, m, code=code: w.language == code)  # type: ignore[misc]
    if not label:
        for name in ATTRIBUTES:
            rows += row(f"face: {name}", lambda w, m, name=name: m.attribute == name)  # type: ignore[misc]
    return rows


def variety_rows(own: Judged, twins: Judged, true: Judged, more_true: Judged, strangers: Judged) -> list[Row]:
    """Sharpness, distance of the made set from renders, and how alike faces of one and of different prompts are.

    `twins` are the first of `own` under other seeds; `strangers` are other people than the first of `true`, who share
    with them what their captions name.
    """

    def between(one: Sequence[Any], other: Sequence[Any]) -> float:
        return float(np.mean([cosine(a, b) for a, b in zip(one, other, strict=False)]))

    scale = 1 / np.sqrt(np.square(true.features).mean())  # the kernel knows no unit: renders' features are of size one
    energy, true_energy = (float(np.mean([laplacian_energy(p) for p in j.pictures])) for j in (own, true))
    people = between(true.identities[:-1], true.identities[1:])
    count = len(own.pictures)
    return [
        Row(name="face: Laplacian energy, share of renders", value=energy / true_energy, count=count),
        Row(
            name="face: kernel distance to renders",
            value=kernel_distance(own.features * scale, true.features * scale),
            count=count,
            ceiling=kernel_distance(more_true.features * scale, true.features * scale),
            note="features of the attribute classifier; ceiling: between two sets of renders",
        ),
        Row(
            name="face: identity similarity between seeds of one prompt",
            value=between(own.identities, twins.identities),
            count=len(twins.pictures),
            ceiling=people,
            note="ceiling: between random rendered people",
        ),
        Row(
            name="judge: identity similarity between people who share what a prompt names",
            value=between(true.identities, strangers.identities),
            count=len(strangers.pictures),
            ceiling=people,
        ),
        Row(
            name="face: identity similarity between faces of different prompts",
            value=between(own.identities[:-1], own.identities[1:]),
            count=count - 1,
            ceiling=people,
        ),
    ]


def judge_rows(people: Sequence[Sample], true: Judged) -> list[Row]:
    """The judges on true renders, against rules on pixels and maps that know no network."""
    signs = [map_signs(p.label_map) for p in people]
    says: dict[str, Callable[[dict[str, str]], bool]] = {
        "glasses": lambda a: a["glasses"] != "none",
        "hat": lambda a: a["hat"] == "yes",
        "earrings": lambda a: a["earrings"] == "yes",
        "bald": lambda a: a["hair_length"] == "bald",
        "long hair": lambda a: a["hair_length"] == "long",
    }
    rows = [
        rate_row(
            f"judge: {sign} as the map has it",
            [say(a) == s[sign] for a, s in zip(true.attributes, signs, strict=True)],
        )
        for sign, say in says.items()
    ]
    rows += [
        rate_row(
            f"judge: {sign} on its own map as on the true one",
            [map_signs(m)[sign] == s[sign] for m, s in zip(true.label_maps, signs, strict=True)],
        )
        for sign in SIGNS
    ]
    colours = [hair_colour(p.image, p.label_map) for p in people]
    hits = [a["hair_colour"] == c for a, c in zip(true.attributes, colours, strict=True) if c is not None]
    return [*rows, rate_row("judge: hair colour as its pixels have it", hits)]
