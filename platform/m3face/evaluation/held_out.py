"""Held-out people and captions, judged by the annotators: the table of `m3face evaluate`.

Odd here: seed 0 of the renderer is never trained on. Every figure for made pictures stands beside the same judge's
figure on true renders and on renders that went through the VAE, since a judge that errs on those cannot do better
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m3face.captions import Caption, caption
from m3face.errors import M3FaceError
from m3face.evaluation.anatomy import anatomy_faults
from m3face.evaluation.free_prompts import FreePrompt
from m3face.evaluation.metrics import Rate, cosine, landmark_error, mean_iou, points_on_map, rate
from m3face.faces import ATTRIBUTES, LANGUAGES, Mention
from m3face.presets import Preset
from m3face.stages import ConditionRequest, FaceRequest, PictureRequest, TextRequest, open_stage
from m3face.synthetic import Sample, make_sample

HELD_OUT_SEED = 0
_OTHER_SEEDS = 10_000
_NEIGHBOURS = {"skin_tone"}  # ordered values: one step off is taken as right, and the note says so

Progress = Callable[[str, int, int], None]


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


def _row(name: str, found: Rate, **more: Any) -> Row:
    return Row(name=name, value=found.value, count=found.count, interval=found.interval, **more)


def holds(mention: Mention, attributes: dict[str, str]) -> bool:
    """Whether judged attributes do what a caption says; one Monk step off counts as right."""
    if mention.attribute in _NEIGHBOURS and not mention.negated:
        values = ATTRIBUTES[mention.attribute].values
        return abs(values.index(attributes[mention.attribute]) - values.index(mention.value)) <= 1
    return mention.holds(attributes)


def _answers(stage: Any, requests: Sequence[Any], what: str, progress: Progress, chunk: int = 8) -> list[Any]:
    answers: list[Any] = []
    for first in range(0, len(requests), chunk):
        for answer in stage.run(list(requests[first : first + chunk])):
            if isinstance(answer, M3FaceError):
                raise answer
            answers.append(answer)
        progress(what, len(answers), len(requests))
    return answers


def _laplacian_energy(picture: NDArray[np.uint8]) -> float:
    grey = picture.astype(np.float32).mean(2)
    centre = grey[1:-1, 1:-1]
    laplacian = 4 * centre - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float((laplacian**2).mean())


def _through_vae(location: str, pictures: Sequence[NDArray[np.uint8]], device: str) -> list[NDArray[np.uint8]]:
    import torch

    from m3face.checkpoints import load
    from m3face.data.encoded import pictures as to_tensor
    from m3face.presets import weights_folder

    vae = load("vae", weights_folder(location), device=device)
    with torch.inference_mode():
        out = []
        for picture in pictures:
            decoded = vae.decode(vae.encode(to_tensor(picture[None]).to(device)).latent_dist.mean).sample
            array = ((decoded[0].permute(1, 2, 0).cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
            out.append(array)
    return out


def _captions(people: Sequence[Sample], split: str) -> list[Caption]:
    languages = list(LANGUAGES)
    return [
        caption(p.attributes, languages[i % len(languages)], np.random.default_rng([HELD_OUT_SEED, 99, i]), split=split)
        for i, p in enumerate(people)
    ]


@dataclass(frozen=True, kw_only=True)
class _Said:
    prompt: str
    language: str
    mentions: tuple[Mention, ...]


def _reading_rows(text: Any, said: Sequence[_Said], label: str, progress: Progress) -> list[Row]:
    """What the prompt reader understood of `said`: all, what it made up, and by language."""
    read = _answers(text, [TextRequest(prompt=s.prompt) for s in said], f"reading prompts, {label}", progress, 32)
    hits = [[m in r.mentions for m in s.mentions] for s, r in zip(said, read, strict=True)]
    extra = sum(len(set(r.mentions) - set(s.mentions)) for s, r in zip(said, read, strict=True))
    rows = [
        _row(f"reader: mentions understood, {label}", rate([h for hs in hits for h in hs])),
        Row(name=f"reader: mentions invented per prompt, {label}", value=extra / len(said), count=len(said)),
    ]
    for code in LANGUAGES:
        own = [h for hs, s in zip(hits, said, strict=True) if s.language == code for h in hs]
        if own:
            rows.append(_row(f"reader: {code}, {label}", rate(own)))
    return rows


def _made(
    stages: dict[str, Any], preset: Preset, texts: Sequence[Any], seeds: Sequence[int], what: str, progress: Progress
) -> tuple[list[Any], list[Any]]:
    """(conditions, faces) of each text under its seed."""
    said = list(zip(texts, seeds, strict=True))
    wishes = [
        ConditionRequest(
            text=t.text, empty=t.empty, seed=seed, steps=preset.condition_steps, guidance=preset.condition_guidance
        )
        for t, seed in said
    ]
    made = _answers(stages["conditions"], wishes, f"{what}: conditions", progress)
    requests = [
        FaceRequest(
            text=t.text,
            empty=t.empty,
            seed=seed,
            label_map=c.label_map,
            landmarks=c.landmarks,
            steps=preset.face_steps,
            guidance=preset.face_guidance,
        )
        for (t, seed), c in zip(said, made, strict=True)
    ]
    return made, _answers(stages["face"], requests, f"{what}: rendering", progress)


def evaluate_weights(
    preset: Preset,
    location: str,
    *,
    count: int,
    free: Sequence[FreePrompt] = (),
    device: str = "cpu",
    progress: Progress,
) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """(rows of the table, IoU by class of made faces and of renders) for the weights at `location` over `count` people.

    Size, steps and guidance are those of `preset`, which are what a user gets; `free` are prompts in people's own
    words, for the reader alone.
    """
    people = []
    for index in range(count):
        people.append(make_sample(HELD_OUT_SEED, index, size=preset.image_size))
        progress("rendering people", index + 1, count)
    said = _captions(people, "all")
    stages = {name: open_stage(name, location, device=device) for name in ("text", "conditions", "face")}
    judges = {
        name: open_stage(name, location, device=device) for name in ("parse", "landmarks", "attributes", "identity")
    }

    def judged(what: str, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, list[Any]]:
        requests = [PictureRequest(picture=p) for p in pictures]
        return {name: _answers(judge, requests, f"judging {what}", progress, 16) for name, judge in judges.items()}

    wordings = {
        label: [_Said(prompt=c.text, language=c.language, mentions=c.mentions) for c in _captions(people, split)]
        for split, label in (("train", "trained wordings"), ("heldout", "held-out wordings"))
    }
    if free:
        wordings["free wordings"] = [_Said(prompt=f.prompt, language=f.language, mentions=f.mentions) for f in free]
    rows = [row for label, own in wordings.items() for row in _reading_rows(stages["text"], own, label, progress)]
    texts = _answers(stages["text"], [TextRequest(prompt=c.text) for c in said], "reading prompts", progress, 32)
    made, faces = _made(stages, preset, texts, range(count), "faces", progress)
    pictures = [f.picture for f in faces]
    true = judged("renders", [p.image for p in people])
    vae = judged("renders through the VAE", _through_vae(location, [p.image for p in people], device))
    own = judged("faces", pictures)

    maps, true_maps = [c.label_map for c in made], [p.label_map for p in people]
    rows.append(
        _row(
            "map: anatomy right",
            rate([not anatomy_faults(m) for m in maps]),
            ceiling=rate([not anatomy_faults(m) for m in true_maps]).value,
        )
    )
    rows.append(
        _row(
            "map and landmarks agree",
            rate([points_on_map(c.landmarks, c.label_map) for c in made]),
            ceiling=rate([points_on_map(p.landmarks, p.label_map) for p in people]).value,
        )
    )
    ceiling, true_by_class = mean_iou([a.label_map for a in true["parse"]], true_maps)
    through, _ = mean_iou([a.label_map for a in vae["parse"]], true_maps)
    value, by_class = mean_iou([a.label_map for a in own["parse"]], maps)
    both = sorted(by_class.keys() & true_by_class.keys())  # a class that is never drawn must not raise the share
    share = sum(by_class[name] for name in both) / sum(true_by_class[name] for name in both)
    absent = sorted(true_by_class.keys() - by_class.keys())
    rows.append(Row(name="face: parsed back, mean IoU", value=value, count=count, ceiling=ceiling, through_vae=through))
    rows.append(
        Row(
            name="face: parsed back, share of the parser's own",
            value=share,
            count=count,
            note=f"over {len(both)} classes; never drawn: {', '.join(absent) or 'none'}",
        )
    )

    def points_error(answers: Sequence[Any], wanted: Sequence[Any]) -> float:
        return float(np.mean([landmark_error(a.landmarks, w.landmarks) for a, w in zip(answers, wanted, strict=True)]))

    rows.append(
        Row(
            name="face: landmark error over eye distance",
            value=points_error(own["landmarks"], made),
            count=count,
            ceiling=points_error(true["landmarks"], people),
            through_vae=points_error(vae["landmarks"], people),
        )
    )

    def attribute_hits(answers: Sequence[Any]) -> list[bool]:
        return [holds(m, a.attributes) for c, a in zip(said, answers, strict=True) for m in c.mentions]

    rows.append(
        _row(
            "face: attributes named in the prompt right",
            rate(attribute_hits(own["attributes"])),
            ceiling=rate(attribute_hits(true["attributes"])).value,
            through_vae=rate(attribute_hits(vae["attributes"])).value,
            note="one Monk step off counts as right",
        )
    )
    for name in ATTRIBUTES:
        hits = [
            (holds(m, a.attributes), holds(m, b.attributes))
            for c, a, b in zip(said, own["attributes"], true["attributes"], strict=True)
            for m in c.mentions
            if m.attribute == name
        ]
        if hits:
            ceiling_rate = rate([b for _, b in hits]).value
            rows.append(_row(f"face: {name}", rate([a for a, _ in hits]), ceiling=ceiling_rate))
    others = range(_OTHER_SEEDS, _OTHER_SEEDS + min(48, count))
    _, twins = _made(stages, preset, texts[: len(others)], others, "other seeds", progress)
    seen = _answers(
        judges["identity"], [PictureRequest(picture=f.picture) for f in twins], "judging other seeds", progress
    )
    rows += _variety_rows(own["identity"], seen, true["identity"])
    energy = [_laplacian_energy(p) for p in pictures]
    true_energy = [_laplacian_energy(p.image) for p in people]
    sharpness = float(np.mean(energy) / np.mean(true_energy))
    rows.append(Row(name="face: Laplacian energy, share of renders", value=sharpness, count=count))
    return rows, {"faces": by_class, "renders": true_by_class}


def _variety_rows(own: Sequence[Any], others: Sequence[Any], true: Sequence[Any]) -> list[Row]:
    """Mean identity similarity between two seeds of one prompt, beside random people and random faces."""
    between_seeds = [cosine(a.vector, b.vector) for a, b in zip(own, others, strict=False)]
    between_faces = [cosine(a.vector, b.vector) for a, b in zip(own[:-1], own[1:], strict=True)]
    between_people = [cosine(a.vector, b.vector) for a, b in zip(true[:-1], true[1:], strict=True)]
    return [
        Row(
            name="face: identity similarity between seeds of one prompt",
            value=float(np.mean(between_seeds)),
            count=len(between_seeds),
            ceiling=float(np.mean(between_people)),
            note="ceiling: between random rendered people",
        ),
        Row(
            name="face: identity similarity between faces of different prompts",
            value=float(np.mean(between_faces)),
            count=len(between_faces),
            ceiling=float(np.mean(between_people)),
        ),
    ]
