"""The settings tree of a training run (pydantic, closed and frozen)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from m3face.config.loading import load_settings

Component = Literal[
    "text_encoder",
    "map_vq",
    "landmark_vq",
    "transformer",
    "vae",
    "unet",
    "controlnet_mask",
    "controlnet_landmarks",
    "parser",
    "landmark_detector",
    "attribute_classifier",
    "identity_embedder",
]
"""The trained networks, each a folder of that name in a weights directory, in the order in which they train."""

COMPONENTS: tuple[str, ...] = get_args(Component)

_RENDERED = 16000


class Closed(BaseModel):
    """Base of every settings and request model: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Closed):
    """Which faces to learn from: rendered ones, made once in the cache folder, or one split of a dataset."""

    source: Literal["synthetic", "dataset"] = Field(default="synthetic", description="rendered people, or a dataset")
    path: str = Field(default="", description="dataset: folder or s3:// address that jobs/preprocess.py wrote")
    split: Literal["train", "validation", "test"] = Field(default="train", description="dataset: which of its splits")
    count: int | None = Field(
        default=None, ge=2, description=f"number of faces; {_RENDERED} rendered ones, or the whole split, unless set"
    )
    seed: int = Field(default=1, ge=1, description="seed of rendered people; 0 is kept for held-out people")
    size: int = Field(default=128, ge=64, le=512, description="pixels a side; that of the preset")
    captions_per_face: int = Field(default=2, ge=1, le=64, description="captions drawn for each face")
    flip: bool = Field(
        default=False, description="UNet, ControlNets and transformer see every second face mirrored, words unchanged"
    )

    @model_validator(mode="before")
    @classmethod
    def _rendered_faces_are_counted(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("source", "synthetic") == "synthetic" and given.get("count") is None:
            return {**given, "count": _RENDERED}
        return given

    @model_validator(mode="after")
    def _only_a_dataset_has_a_place(self) -> DataConfig:
        if self.source == "dataset" and not self.path:
            raise ValueError("data.path is empty: data.source dataset needs the folder or s3:// address of one")
        if self.source == "synthetic" and (self.path or self.split != "train"):
            raise ValueError("data.path and data.split are for data.source dataset")
        return self


class TrainConfig(Closed):
    """How one network is trained."""

    component: Component = Field(description="which network of the preset to train")
    conditions: tuple[Literal["mask", "landmarks"], ...] = Field(
        default=(), description="ControlNets that train together with the UNet; component unet only"
    )
    start: str | None = Field(
        default=None, description="'pkg:NAME' or 'dir:PATH': weights to begin with (fine-tuning); fresh ones if none"
    )
    steps: int = Field(gt=0, description="optimizer steps in all")
    batch_size: int = Field(default=32, gt=0, description="samples in a step, over all workers")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak learning rate of AdamW")
    schedule: Literal["constant", "cosine"] = Field(default="cosine", description="after the warm-up")
    warmup_steps: int = Field(default=100, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW weight decay")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the weights' moving average; 0 is none")
    precision: Literal["fp32", "bf16"] = Field(default="bf16", description="autocast of the forward pass")
    prompt_dropout: float = Field(default=0.1, ge=0, le=1, description="share of samples trained without words")
    checkpoint_every: int = Field(default=200, gt=0, description="steps between checkpoints")
    log_every: int = Field(default=20, gt=0, description="steps between lines of metrics")

    @model_validator(mode="after")
    def _only_the_unet_has_conditions(self) -> TrainConfig:
        if self.conditions and self.component != "unet":
            raise ValueError(f"train.conditions {self.conditions!r} is for train.component unet, not {self.component}")
        return self


class Workplace(Closed):
    """What training and its caches share: the networks, the faces, and where everything lies."""

    preset: str = Field(default="tiny", description="row of presets to start from")
    weights: str | None = Field(
        default=None,
        description="'pkg:NAME' or 'dir:PATH': where the frozen networks are; those that runs finished here if none",
    )
    runs: str = Field(default="", description="folder of runs and caches; empty is the user's cache folder")
    data: DataConfig = Field(default_factory=DataConfig)


class RunConfig(Workplace):
    """Everything one run needs; saved beside every checkpoint."""

    seed: int = Field(default=0, ge=0, description="seed of every draw in training")
    train: TrainConfig


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated settings of a YAML file with `overrides` ("train.steps=100") laid over it.

    Raises ConfigError for a missing or malformed file, an unknown key or a value out of range.
    """
    return load_settings(RunConfig, path, overrides)
