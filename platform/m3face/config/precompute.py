"""The settings of `jobs/precompute.py`: which caches of which faces."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from m3face.config.dataset import PlacementConfig, StorageConfig
from m3face.config.schema import Workplace

Cache = Literal["faces", "text_states", "tokens", "latents", "identities", "clip"]
"""The faces as arrays, the states of their captions, the tokens of both conditions, latents, and two embeddings."""


class PrecomputeConfig(Workplace):
    """The whole job file. A training with the same preset, weights, runs and data finds every cache made."""

    caches: tuple[Cache, ...] = Field(
        default=("faces", "text_states", "tokens", "latents"),
        min_length=1,
        description="what to make; with data.flip the tokens and latents of the mirrored faces too",
    )
    clip: str = Field(default="", description="clip: local folder of a CLIP model (transformers' layout, safetensors)")
    placement: PlacementConfig = Field(default_factory=PlacementConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)

    @model_validator(mode="after")
    def _clip_is_named(self) -> PrecomputeConfig:
        if bool(self.clip) != ("clip" in self.caches):
            raise ValueError("clip names the folder of the model where caches has clip in it, and nothing else")
        return self
