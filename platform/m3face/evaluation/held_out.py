"""Held-out people and captions through the whole line, judged by the annotators: the table of `m3face evaluate`.

Odd here: seed 0 of the renderer is never trained on. People `count` to `2 count` - 1 serve only as a second set of
renders, which says how far apart two sets are that differ by nothing but chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m3face import checkpoints
from m3face.captions import caption
from m3face.data.encoded import pictures as to_tensor
from m3face.errors import M3FaceError
from m3face.evaluation import table
from m3face.evaluation.free_prompts import FreePrompt
from m3face.evaluation.table import Judged, Row, Wish
from m3face.faces import LANGUAGES, Mention
from m3face.presets import Preset, weights_folder
from m3face.stages import ConditionRequest, FaceRequest, PictureRequest, TextRequest, open_stage
from m3face.synthetic import Sample, make_sample, render, sample_look, sample_person

HELD_OUT_SEED = 0
_OTHER_SEEDS = 10_000
_JUDGES = ("parse", "landmarks", "attributes", "identity")
_TWINS, _COMPLETED = 48, 96  # at most so many second faces, and completions each way

Progress = Callable[[str, int, int], None]


def _answers(stage: Any, requests: Sequence[Any], what: str, progress: Progress, chunk: int = 8) -> list[Any]:
    answers: list[Any] = []
    for first in range(0, len(requests), chunk):
        for answer in stage.run(list(requests[first : first + chunk])):
            if isinstance(answer, M3FaceError):
                raise answer
            answers.append(answer)
        progress(what, len(answers), len(requests))
    return answers


def _wishes(people: Sequence[Sample], split: str) -> list[Wish]:
    languages = list(LANGUAGES)
    said = [
        caption(p.attributes, languages[i % len(languages)], np.random.default_rng([HELD_OUT_SEED, 99, i]), split=split)
        for i, p in enumerate(people)
    ]
    return [Wish(prompt=c.text, language=c.language, mentions=c.mentions) for c in said]


def stranger(person: Sample, mentions: Sequence[Mention], seed: int) -> Sample:
    """Somebody else who has what the words name of `person`, and nothing else in common but by chance."""
    rng = np.random.default_rng([HELD_OUT_SEED, 98, seed])
    other = sample_person(rng)
    look = sample_look(rng, other)
    named = {m.attribute: person.attributes[m.attribute] for m in mentions}
    traits, worn = ({**t, **{n: v for n, v in named.items() if n in t}} for t in (other.traits, look.traits))
    return render(replace(other, traits=traits), replace(look, traits=worn), size=len(person.image))


class _Line:
    """The stages of one weights folder, at the steps and guidance of the preset, which are what a user gets."""

    def __init__(self, preset: Preset, location: str, *, device: str, progress: Progress) -> None:
        self.preset, self.device, self.progress = preset, device, progress
        self.folder = weights_folder(location)
        self.text, self.conditions, self.face = (
            open_stage(name, location, device=device) for name in ("text", "conditions", "face")
        )
        self.judges: dict[str, Any] = {name: open_stage(name, location, device=device) for name in _JUDGES}

    def read(self, wishes: Sequence[Wish], label: str) -> list[Any]:
        """Text results of sentences."""
        requests = [TextRequest(prompt=w.prompt) for w in wishes]
        return _answers(self.text, requests, f"reading {label}", self.progress, 32)

    def write(
        self, texts: Sequence[Any], seeds: Sequence[int], label: str, given: Sequence[dict[str, Any]] = ()
    ) -> list[Any]:
        """Conditions for each text under its seed; `given` holds conditions that are known already."""
        requests = [
            ConditionRequest(
                text=t.text,
                empty=t.empty,
                seed=seed,
                steps=self.preset.condition_steps,
                guidance=self.preset.condition_guidance,
                mentions=t.mentions,
                attempts=self.preset.condition_attempts,
                **known,
            )
            for t, seed, known in zip(texts, seeds, given or [{}] * len(texts), strict=True)
        ]
        return _answers(self.conditions, requests, f"writing conditions, {label}", self.progress)

    def draw(self, texts: Sequence[Any], seeds: Sequence[int], conditions: Sequence[Any], label: str) -> list[Any]:
        """Pictures for each text and its conditions."""
        requests = [
            FaceRequest(
                text=t.text,
                empty=t.empty,
                seed=seed,
                label_map=c.label_map,
                landmarks=c.landmarks,
                steps=self.preset.face_steps,
                guidance=self.preset.face_guidance,
                mentions=t.mentions,
                attribute_guidance=self.preset.attribute_guidance,
            )
            for t, seed, c in zip(texts, seeds, conditions, strict=True)
        ]
        return [f.picture for f in _answers(self.face, requests, f"drawing {label}", self.progress)]

    @torch.inference_mode()
    def judge(self, pictures: Sequence[NDArray[np.uint8]], label: str) -> Judged:
        """What the annotators say of pictures."""
        requests = [PictureRequest(picture=p) for p in pictures]
        maps, points, attributes, identities = (
            _answers(self.judges[name], requests, f"judging {label}, {name}", self.progress, 16) for name in _JUDGES
        )
        classifier = self.judges["attributes"].network
        features = [classifier.look(to_tensor(p[None]).to(self.device))[0].float().cpu().numpy() for p in pictures]
        return Judged(
            pictures=pictures,
            label_maps=[m.label_map for m in maps],
            landmarks=[p.landmarks for p in points],
            attributes=[a.attributes for a in attributes],
            identities=[i.vector for i in identities],
            features=np.concatenate(features),
        )

    @torch.inference_mode()
    def through_vae(self, pictures: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
        """Pictures encoded and decoded."""
        vae = checkpoints.load("vae", self.folder, device=self.device)
        out = []
        for picture in pictures:
            decoded = vae.decode(vae.encode(to_tensor(picture[None]).to(self.device)).latent_dist.mean).sample[0]
            out.append(((decoded.permute(1, 2, 0).cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy())
        return out


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

    `free` are prompts in people's own words, read and drawn like the captions.
    """
    people: list[Sample] = []
    for index in range(2 * count):
        people.append(make_sample(HELD_OUT_SEED, index, size=preset.image_size))
        progress("rendering people", index + 1, 2 * count)
    people, others = people[:count], people[count:]
    line = _Line(preset, location, device=device, progress=progress)
    spoken = [Wish(prompt=f.prompt, language=f.language, mentions=f.mentions) for f in free]

    rows: list[Row] = []
    for label, own in (
        ("trained wordings", _wishes(people, "train")),
        ("held-out wordings", _wishes(people, "heldout")),
        ("free wordings", spoken),
    ):
        if own:
            rows += table.reading_rows(own, [r.mentions for r in line.read(own, label)], label)

    wishes = _wishes(people, "all")
    texts, seeds = line.read(wishes, "captions"), range(count)
    made = line.write(texts, seeds, "captions")
    true = line.judge([p.image for p in people], "renders")
    rows += table.map_rows(wishes, made, people)
    some = people[:_COMPLETED]
    completed = [
        line.write(texts[: len(some)], range(len(some)), f"from {name}", [{name: getattr(p, name)} for p in some])
        for name in ("label_map", "landmarks")
    ]
    rows += table.completion_rows(some, *completed)

    faces = line.judge(line.draw(texts, seeds, made, "captions"), "faces")
    vae = line.judge(line.through_vae([p.image for p in people]), "renders through the VAE")
    following, by_class = table.following_rows(made, people, faces, true, vae)
    rows += following
    rows += table.attribute_rows(wishes, faces, "", ceiling=true, through_vae=vae)
    if spoken:
        read = line.read(spoken, "free prompts")
        conditions = line.write(read, range(len(spoken)), "free prompts")
        drawn = line.judge(line.draw(read, range(len(spoken)), conditions, "free prompts"), "faces of free prompts")
        rows += table.attribute_rows(spoken, drawn, ", free wordings")

    twin_seeds = range(_OTHER_SEEDS, _OTHER_SEEDS + min(_TWINS, count))
    twin_texts = texts[: len(twin_seeds)]
    twin_conditions = line.write(twin_texts, twin_seeds, "other seeds")
    twins = line.judge(line.draw(twin_texts, twin_seeds, twin_conditions, "other seeds"), "other seeds")
    strangers = [stranger(people[i], wishes[i].mentions, i).image for i in range(len(twin_seeds))]
    rows += table.variety_rows(
        faces,
        twins,
        true,
        line.judge([p.image for p in others], "more renders"),
        line.judge(strangers, "strangers"),
    )
    rows += table.judge_rows(people, true)
    return rows, by_class
