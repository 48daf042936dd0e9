"""A sentence to a face: text, then conditions (what is given is used, the missing one completed), then the picture."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field

from m3face.pipelines.calling import Call
from m3face.presets import Preset
from m3face.stages.requests import (
    CONDITIONS,
    Attempts,
    Condition,
    ConditionRequest,
    Conditions,
    Face,
    FaceRequest,
    Guidance,
    MapArray,
    PictureArray,
    PointArray,
    Pull,
    RegionArray,
    Seed,
    Steps,
    TextRequest,
    TextResult,
    WithArrays,
)


class FaceWish(WithArrays):
    """What a face should be. `conditions` are those that hold the picture; both are always made and returned."""

    prompt: str
    seed: Seed = 0
    label_map: MapArray | None = None
    landmarks: PointArray | None = None
    region: RegionArray | None = None
    conditions: tuple[Condition, ...] = Field(default=CONDITIONS, description="which conditions the picture follows")
    condition_steps: Steps = 12
    condition_guidance: Guidance = 2.0
    condition_attempts: Attempts = 1
    face_steps: Steps = 20
    face_guidance: Guidance = 2.0
    attribute_guidance: Pull = 0.0

    @classmethod
    def of(cls, preset: Preset, prompt: str, **fields: Any) -> FaceWish:
        """A wish with the preset's steps and guidance where `fields` does not say otherwise."""
        usual = (
            "condition_steps",
            "condition_guidance",
            "condition_attempts",
            "face_steps",
            "face_guidance",
            "attribute_guidance",
        )
        return cls(prompt=prompt, **{name: getattr(preset, name) for name in usual} | fields)


class FaceResult(WithArrays):
    """A face, its conditions, what the words were read as, and the seconds that each stage took."""

    picture: PictureArray
    label_map: MapArray
    landmarks: PointArray
    text: TextResult
    seconds: dict[str, float]

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.text.warnings


async def text_to_face(wish: FaceWish, call: Call) -> FaceResult:
    """Run the flow; raises the `M3FaceError` of the stage that refused."""
    seconds: dict[str, float] = {}

    async def timed(name: str, request: Any) -> Any:
        start = time.perf_counter()
        result = await call(name, request)
        seconds[name] = round(time.perf_counter() - start, 3)
        return result

    words: TextResult = await timed("text", TextRequest(prompt=wish.prompt))
    conditions: Conditions = await timed(
        "conditions",
        ConditionRequest(
            text=words.text,
            empty=words.empty,
            landmark_text=words.words_for("landmarks").text,
            seed=wish.seed,
            label_map=wish.label_map,
            landmarks=wish.landmarks,
            region=wish.region,
            steps=wish.condition_steps,
            guidance=wish.condition_guidance,
            mentions=words.mentions,
            attempts=wish.condition_attempts,
        ),
    )
    face: Face = await timed(
        "face",
        FaceRequest(
            text=words.words_for("face").text,
            empty=words.words_for("face").empty,
            seed=wish.seed,
            label_map=conditions.label_map if "mask" in wish.conditions else None,
            landmarks=conditions.landmarks if "landmarks" in wish.conditions else None,
            steps=wish.face_steps,
            guidance=wish.face_guidance,
            mentions=words.mentions,
            attribute_guidance=wish.attribute_guidance,
        ),
    )
    return FaceResult(
        picture=face.picture,
        label_map=conditions.label_map,
        landmarks=conditions.landmarks,
        text=words,
        seconds=seconds,
    )
