"""From options to result folders: check everything first, then load, then make one face after another.

Odd here: all that can be refused (words, files, numbers, weights, the output folder) is refused before torch is
imported, which takes seconds. Only the stages and the ControlNets that the wish needs are loaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3face.errors import BadInput
from m3face.pipelines.calling import in_process
from m3face.pipelines.inputs import read_landmarks, read_map
from m3face.pipelines.results import facts_of, output_folder, write_result
from m3face.pipelines.text_to_face import FaceResult, FaceWish, text_to_face
from m3face.presets import Preset, get, weights_folder
from m3face.stages.prompts import check_prompt
from m3face.stages.requests import CONDITIONS, LARGEST_SEED, MOST_STEPS, STRONGEST_GUIDANCE

MOST_FACES = 10_000

OnProgress = Callable[[str, int, int], None]
"""`on_progress(stage, done, total)` in steps, over all wishes."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person asked for, as typed."""

    prompt: str
    out: Path
    mask: Path | None = None
    landmarks: Path | None = None
    condition: str = "both"
    seed: int = 0
    count: int = 1
    steps: int | None = None
    guidance: float | None = None
    preset: str = "tiny"
    weights: str | None = None


def _whole(field: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BadInput(field, f"is {value}", f"a whole number from {low} to {high}", f"for example {field} {low or 1}")


def seeds_of(seed: int, count: int) -> range:
    """The seeds of `count` faces, from `seed` upward; BadInput where the first or last is none."""
    _whole("--seed", seed, 0, LARGEST_SEED - count + 1)
    return range(seed, seed + count)


def wishes_of(options: Options) -> tuple[list[FaceWish], tuple[str, ...]]:
    """The wishes behind the options, one a seed from `seed` upward, and warnings. Raises BadInput or ConfigError."""
    preset = get(options.preset)
    prompt = check_prompt(options.prompt, limit=preset.prompt_characters)
    chosen = ("both", *CONDITIONS)
    if options.condition not in chosen:
        raise BadInput("--condition", f"is {options.condition!r}", ", ".join(chosen), "leave it out for both")
    _whole("--count", options.count, 1, MOST_FACES)
    seeds = seeds_of(options.seed, options.count)
    fields: dict[str, Any] = {"conditions": CONDITIONS if options.condition == "both" else (options.condition,)}
    if options.steps is not None:
        _whole("--steps", options.steps, 1, MOST_STEPS)
        fields["face_steps"] = options.steps
    if options.guidance is not None:
        if not (math.isfinite(options.guidance) and 0 <= options.guidance <= STRONGEST_GUIDANCE):
            raise BadInput(
                "--guidance", f"is {options.guidance:g}", f"a number from 0 to {STRONGEST_GUIDANCE:g}", "try 2"
            )
        fields["face_guidance"] = options.guidance
    warnings: tuple[str, ...] = ()
    if options.mask is not None:
        fields["label_map"], warnings = read_map(options.mask, size=preset.image_size)
    if options.landmarks is not None:
        fields["landmarks"] = read_landmarks(options.landmarks, size=preset.image_size)
    return [FaceWish.of(preset, prompt, seed=seed, **fields) for seed in seeds], warnings


_PARTS = ("tokenizer", "text_encoder", "transformer", "map_vq", "landmark_vq", "vae", "unet", "scheduler")
_PERHAPS = ("prompt_reader", "latent_reader", "face_tokenizer", "face_text_encoder")  # some weights have these


def check_weights(location: str, conditions: Sequence[str]) -> str:
    """The hash of the manifest at `location`, after comparing every file that will be read; CheckpointError."""
    from m3face import checkpoints

    folder = weights_folder(location)
    parts = [*_PARTS, *(f"controlnet_{name}" for name in conditions)]
    checkpoints.verify(folder, parts=parts + [name for name in _PERHAPS if (folder / name).is_dir()])
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


def open_stages(preset: Preset, location: str, conditions: Sequence[str]) -> dict[str, Any]:
    """The three stages of the flow, with the ControlNets of `conditions` only, on the preset's threads."""
    from m3face.stages import open_stage

    if preset.cpu_threads is not None:
        import torch

        torch.set_num_threads(preset.cpu_threads)
    stages: dict[str, Any] = {name: open_stage(name, location) for name in ("text", "conditions")}
    return stages | {"face": open_stage("face", location, conditions=conditions)}


def run_wishes(
    wishes: Sequence[FaceWish], stages: dict[str, Any], *, on_progress: OnProgress | None = None
) -> Iterator[FaceResult]:
    """The faces of `wishes`, one after another."""
    total, done = sum(wish.condition_steps + wish.face_steps for wish in wishes), 0

    def report(stage: str, _step: int, _previews: Any) -> None:
        nonlocal done
        done += 1
        if on_progress is not None:
            on_progress(stage, min(done, total), total)

    call = in_process(stages, on_call=report)
    for wish in wishes:
        yield asyncio.run(text_to_face(wish, call))


def generate(
    options: Options,
    *,
    on_warning: Callable[[str], None],
    on_progress: OnProgress | None = None,
    on_load: Callable[[], None] | None = None,
) -> Iterator[Path]:
    """Make the faces; yields each result folder when it is whole. Raises `M3FaceError`, before torch where possible."""
    wishes, warnings = wishes_of(options)
    preset: Preset = get(options.preset)
    location = options.weights or preset.weights
    digest = check_weights(location, wishes[0].conditions)
    for warning in warnings:
        on_warning(warning)
    with output_folder(options.out) as aside:
        if on_load is not None:
            on_load()
        stages = open_stages(preset, location, wishes[0].conditions)
        for wish, result in zip(wishes, run_wishes(wishes, stages, on_progress=on_progress), strict=True):
            facts = facts_of(wish, result, preset=preset.name, weights=digest, warnings=warnings)
            for warning in result.warnings if wish is wishes[0] else ():
                on_warning(warning)
            yield write_result(result, facts, out=options.out, aside=aside)
