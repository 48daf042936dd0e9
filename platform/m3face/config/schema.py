"""The settings tree of a training run (pydantic, closed and frozen)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from m3face.config.loading import load_settings

Component = Literal[
    "text_encoder",
    "map_vq",
    "landmark_vq",
    "transformer",
    "vae",
    "latent_reader",
    "unet",
    "controlnet_mask",
    "controlnet_landmarks",
    "parser",
    "landmark_detector",
    "attribute_classifier",
    "identity_embedder",
    "text_adapter",
]
"""The trained networks, each a folder of that name in a weights directory, in the order in which they train."""

COMPONENTS: tuple[str, ...] = tuple(name for name in get_args(Component) if name != "text_adapter")
"""Those of whole weights of our own; a text adapter is for a backbone that others published."""

_RENDERED = 16000

_WHOLE_BATCH = {
    "map_vq": "counts the use of its codes once a step",
    "landmark_vq": "counts the use of its codes once a step",
    "identity_embedder": "compares the people of a whole batch",
}
"""Why a batch cannot be cut into passes."""

_CONTROLNETS = ("controlnet_mask", "controlnet_landmarks")
_ADAPTABLE = ("transformer", "unet", *_CONTROLNETS)

_ENGINE_TORCH = {
    "map_vq": "puts unused codes anew, between steps",
    "landmark_vq": "puts unused codes anew, between steps",
    "vae": "has an encoder that no step may touch",
}
"""Why DeepSpeed, which owns every weight, cannot train a network."""


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
    online: bool = Field(
        default=False, description="UNet, ControlNets: encode faces within the step instead of reading cached latents"
    )
    augment: bool = Field(
        default=False,
        description="ControlNets: the paper's augmentation, online: flip, other light on faces, conditions bent",
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


def _json_file(given: Any) -> Any:
    """The content of the JSON file that `given` names; anything else as it is."""
    if not isinstance(given, str):
        return given
    try:
        return json.loads(Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{given}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{given} is not JSON") from None


class TrainConfig(Closed):
    """How one network is trained."""

    component: Component = Field(description="which network of the preset to train")
    conditions: tuple[Literal["mask", "landmarks"], ...] = Field(
        default=(), description="ControlNets that train together with the UNet; component unet only"
    )
    start: str | None = Field(
        default=None, description="'pkg:NAME' or 'dir:PATH': weights to begin with (fine-tuning); fresh ones if none"
    )
    lora: int = Field(
        default=0,
        ge=0,
        description="unet, ControlNets, transformer: rank of adapters beside train.start; 0 trains the weights",
    )
    steps: int = Field(gt=0, description="optimizer steps in all")
    batch_size: int = Field(default=32, gt=0, description="samples in a step, over all workers")
    learning_rate: float = Field(default=1e-3, gt=0, allow_inf_nan=False, description="peak learning rate of AdamW")
    schedule: Literal["constant", "cosine"] = Field(default="cosine", description="after the warm-up")
    warmup_steps: int = Field(default=100, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(default=0.01, ge=0, description="AdamW weight decay")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(default=0.0, ge=0, lt=1, description="decay of the weights' moving average; 0 is none")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="bf16",
        description="autocast of the forward pass; under deepspeed the weights' too, beside fp32 masters",
    )
    prompt_dropout: float = Field(default=0.1, ge=0, le=1, description="share of samples trained without words")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="transformer: share of the target that goes to all codes alike"
    )
    contiguous: float = Field(
        default=0.15, ge=0, le=0.7, description="transformer: share of samples that are masked in one rectangle"
    )
    perceptual: str | None = Field(
        default=None,
        description="VQ networks of drawings: 'dir:PATH' of a backbone of transformers whose features are compared too",
    )
    min_snr: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="unet, ControlNets: signal to noise above which a time step weighs less, 5 as published; 0 is none",
    )
    checkpoint_every: int = Field(default=200, gt=0, description="steps between checkpoints")
    log_every: int = Field(default=20, gt=0, description="steps between lines of metrics")
    report_to: Literal["tensorboard", "wandb", "mlflow", "none"] = Field(
        default="tensorboard", description="who draws the metrics beside metrics.jsonl; tensorboard if it is installed"
    )
    workers: int = Field(default=1, ge=1, description="processes that share every batch; jobs/train_*.py start them")
    cpus: float = Field(default=1.0, gt=0, description="CPUs, and threads of torch, of one of several workers")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="what a worker trains on; auto is a GPU where there is one for each"
    )
    max_failures: int = Field(default=3, ge=0, description="how often lost workers are started again")
    accumulate: int = Field(default=1, ge=1, description="passes that a worker makes of its share of a batch")
    gradient_checkpointing: bool = Field(default=False, description="compute activations again instead of keeping them")
    engine: Literal["torch", "deepspeed"] = Field(default="torch", description="who makes a step")
    zero: int = Field(default=1, ge=0, le=3, description="deepspeed: stage of ZeRO")
    offload: bool = Field(default=False, description="deepspeed: masters and moments lie in the CPU's memory; zero 1-3")
    deepspeed: Annotated[dict[str, Any], BeforeValidator(_json_file)] = Field(
        default_factory=dict, description="deepspeed: more of its own settings, or the JSON file that holds them"
    )

    @model_validator(mode="after")
    def _only_the_unet_has_conditions(self) -> TrainConfig:
        if self.conditions and self.component != "unet":
            raise ValueError(f"train.conditions {self.conditions!r} is for train.component unet, not {self.component}")
        return self

    @model_validator(mode="after")
    def _adapters_stand_beside_something(self) -> TrainConfig:
        if not self.lora:
            return self
        if self.component not in _ADAPTABLE:
            raise ValueError(f"train.lora {self.lora} is for {', '.join(_ADAPTABLE)}, not {self.component}")
        if self.start is None:
            raise ValueError(f"train.lora {self.lora}: train.start names the weights that it stands beside")
        if self.conditions:
            raise ValueError(f"train.lora {self.lora}: with train.conditions whole networks train")
        return self

    @model_validator(mode="after")
    def _everyone_has_a_share(self) -> TrainConfig:
        parts = self.workers * self.accumulate
        if self.batch_size % parts:
            raise ValueError(
                f"train.batch_size {self.batch_size} cannot be shared evenly by {self.workers} workers "
                f"in {self.accumulate} passes: a multiple of {parts} can"
            )
        if self.accumulate > 1 and self.component in _WHOLE_BATCH:
            raise ValueError(f"train.accumulate {self.accumulate}: {self.component} {_WHOLE_BATCH[self.component]}")
        return self

    @model_validator(mode="after")
    def _deepspeed_can(self) -> TrainConfig:
        if self.engine == "torch":
            if self.precision == "fp16":
                raise ValueError("train.precision fp16 scales its loss: train.engine deepspeed can, torch has bf16")
            if self.offload or self.deepspeed:
                raise ValueError("train.offload and train.deepspeed are for train.engine deepspeed")
            return self
        if self.component in _ENGINE_TORCH:
            raise ValueError(f"train.engine deepspeed: {self.component} {_ENGINE_TORCH[self.component]}; torch can")
        if self.zero == 3 and self.conditions:
            raise ValueError("train.zero 3: with train.conditions the loss asks for gradients half-way; at most 2 can")
        if self.zero == 0 and (self.offload or self.precision == "fp16"):
            raise ValueError("train.zero 0 neither offloads nor scales a loss for fp16: at least 1")
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
    storage: str = Field(
        default="",
        description="folder that all nodes share, or s3:// address, of checkpoints and metrics; empty is that of runs",
    )
    resume: str = Field(
        default="auto", description="auto: the run's newest complete checkpoint; a step-* folder: begin from that one"
    )
    train: TrainConfig

    @model_validator(mode="after")
    def _who_sees_faces_in_the_step(self) -> RunConfig:
        for name, on, whose in (
            ("augment", self.data.augment, _CONTROLNETS),
            ("online", self.data.online, ("unet", *_CONTROLNETS)),
        ):
            if on and self.train.component not in whose:
                raise ValueError(f"data.{name} is for {', '.join(whose)}, not {self.train.component}")
        return self


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The validated settings of a YAML file with `overrides` ("train.steps=100") laid over it.

    Raises ConfigError for a missing or malformed file, an unknown key or a value out of range.
    """
    return load_settings(RunConfig, path, overrides)
