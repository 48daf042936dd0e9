"""What every task has, and where it finds its data and its frozen networks."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn

from m3face import checkpoints
from m3face.config import COMPONENTS, DataConfig, TrainConfig
from m3face.data import encoded
from m3face.data.faces import captions, faces
from m3face.data.store import ArrayStore
from m3face.errors import CheckpointError, ConfigError
from m3face.faces import CLASSES
from m3face.models.adapters import add_adapter, save_adapter
from m3face.presets import Preset, weights_folder

HEAVIEST = 10.0
"""The most that a pixel of a rare label weighs in a picture or its latents."""

_COUNTED_MAPS = 500
_BASE = "base.json"  # beside an adapter: what it was trained beside
_WORDS = ("text_encoder", "tokenizer")

NEEDS: dict[str, tuple[str, ...]] = {component: () for component in COMPONENTS} | {
    "transformer": (*_WORDS, "map_vq", "landmark_vq"),
    "latent_reader": ("vae",),
    "unet": (*_WORDS, "vae", "latent_reader"),
    "controlnet_mask": (*_WORDS, "vae", "unet", "scheduler"),
    "controlnet_landmarks": (*_WORDS, "vae", "unet", "scheduler", "controlnet_mask"),
    **dict.fromkeys(("parser", "landmark_detector", "attribute_classifier", "identity_embedder"), ("vae",)),
    "text_adapter": (*_WORDS, "face_text_encoder", "face_tokenizer"),
}
"""The finished networks that a component trains on top of; a resumed run must find the same ones."""

Batch = Mapping[str, Tensor]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Draw:
    """One sample of a global batch: which, and its own random numbers, a function of (seed, epoch, position)."""

    index: int
    rng: np.random.Generator


def _silent(_what: str, _done: int, _total: int) -> None:
    return None


@dataclass(frozen=True)
class Context:
    """Where a task finds things: the preset's numbers, finished weights, the caches (built when first asked for)."""

    preset: Preset
    weights: Path
    caches: Path
    data: DataConfig
    train: TrainConfig
    seed: int
    device: str
    progress: Progress = field(default=_silent)

    @property
    def start(self) -> Path | None:
        """The folder of weights that a fine-tuning begins with; None if everything is fresh."""
        return None if self.train.start is None else weights_folder(self.train.start)

    def network(self, component: str, **numbers: Any) -> nn.Module:
        """A network of `component` to train: that of `train.start`, or a fresh one with the preset's numbers and these.

        With `train.lora` only the adapters in it train.
        """
        torch.manual_seed(self.seed)
        if self.start is not None:
            begun: nn.Module = checkpoints.load(component, self.start)
            if self.train.lora:
                return add_adapter(begun, rank=self.train.lora, seed=self.seed)
            return begun.requires_grad_(True)
        if not numbers and component not in self.preset.networks:
            allowed = ", ".join(name for name in COMPONENTS if name in self.preset.networks)
            raise ConfigError("train.component", f"{self.preset.name} has no {component}", allowed)
        network: nn.Module = checkpoints.build(component, {**self.preset.networks.get(component, {}), **numbers})
        return network

    def save(self, component: str, network: nn.Module, root: Path) -> None:
        """Write what `network` gave: `root/component`, or with `train.lora` its adapters as `root/component_lora`."""
        if not self.train.lora:
            checkpoints.save(component, network, root)
            return
        assert self.start is not None
        folder = root / f"{component}_lora"
        save_adapter(network, folder)
        (folder / _BASE).write_text(json.dumps({"base": encoded.weights_key(self.start, component)}) + "\n")

    def resume(self, component: str, model: Path) -> None:
        """CheckpointError if the adapters in `model/` were trained beside other weights than `train.start`."""
        if not self.train.lora:
            return
        assert self.start is not None
        base = json.loads((model / f"{component}_lora" / _BASE).read_text())["base"]
        if base != encoded.weights_key(self.start, component):
            got, allowed = f"{self.start / component} changed since the run began", "the network that it began with"
            raise CheckpointError("train.start", got, allowed, "delete the run to train it anew")

    def ask(self, *components: str) -> None:
        """What is asked here must stand in `NEEDS`: training checks and records those before it begins."""
        assert set(components) <= set(NEEDS[self.train.component]), components

    def frozen(self, component: str) -> Any:
        """A finished network, at the precision it is shipped in."""
        self.ask(component)
        return checkpoints.load(component, self.weights, device=self.device)

    @cached_property
    def faces(self) -> ArrayStore:
        what = "rendering people" if self.data.source == "synthetic" else "reading faces"
        return faces(self.data, self.caches, on_progress=partial(self.progress, what))

    @cached_property
    def text_states(self) -> ArrayStore:
        self.ask(*_WORDS)
        return encoded.text_states(
            self.caches,
            self.faces,
            self.weights,
            captions=captions(self.data, self.faces),
            device=self.device,
            on_progress=partial(self.progress, "encoding captions"),
        )

    @cached_property
    def empty_states(self) -> Tensor:
        """The slot states of no words, fp32 [slots, width]."""
        return encoded.empty_states(self.weights, device=self.device)

    @cached_property
    def tokens(self) -> ArrayStore:
        return self._tokens(mirrored=False)

    @cached_property
    def mirrored_tokens(self) -> ArrayStore:
        """Those of the mirrored faces; asked for only where `data.flip` is on."""
        return self._tokens(mirrored=True)

    def _tokens(self, *, mirrored: bool) -> ArrayStore:
        self.ask("map_vq", "landmark_vq")
        return encoded.condition_tokens(
            self.caches,
            self.faces,
            self.weights,
            device=self.device,
            mirrored=mirrored,
            on_progress=partial(self.progress, "encoding conditions"),
        )

    @cached_property
    def latents(self) -> ArrayStore:
        return self._latents(mirrored=False)

    @cached_property
    def mirrored_latents(self) -> ArrayStore:
        """Those of the mirrored faces; asked for only where `data.flip` is on."""
        return self._latents(mirrored=True)

    def _latents(self, *, mirrored: bool) -> ArrayStore:
        self.ask("vae")
        return encoded.latents(
            self.caches,
            self.faces,
            self.weights,
            device=self.device,
            mirrored=mirrored,
            on_progress=partial(self.progress, "encoding faces"),
        )

    def mirrors(self, draws: Sequence[Draw]) -> list[bool]:
        """Which of these samples show the mirrored face: every second one if any may be, else none, undrawn."""
        mirrors = self.data.flip or self.data.augment
        return [bool(mirrors and draw.rng.random() < 0.5) for draw in draws]

    def drawn_states(self, draws: Sequence[Draw]) -> Tensor:
        """Text states [B, slots, width] of one caption a sample; `prompt_dropout` of them are those of no words.

        The share given is dropped, not kept: the published training code has it the wrong way round.
        """
        rows = []
        for draw in draws:
            which = int(draw.rng.integers(self.data.captions_per_face))
            dropped = draw.rng.random() < self.train.prompt_dropout
            states = self.text_states["states"][draw.index, which]
            rows.append(self.empty_states if dropped else torch.from_numpy(states.astype(np.float32)))
        return torch.stack(rows)


class Task(ABC):
    """Networks and loss of one objective.

    `module` holds what is trained; the engine moves it. `count` samples make an epoch. One that learns from faces has
    them as `faces`.
    """

    module: nn.Module
    count: int

    @abstractmethod
    def batch(self, draws: Sequence[Draw]) -> Batch:
        """Tensors on the CPU for these draws."""

    @abstractmethod
    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalars; "loss" is minimised, the others are logged."""

    @abstractmethod
    def export(self, root: Path) -> None:
        """Write what `module` holds now as component folders under `root`."""

    def begin(self, batches: Callable[[int], Batch]) -> None:
        """Before the first step from fresh weights (k-means of a codebook); not on resume, nor from `train.start`."""
        return None

    def resume(self, model: Path) -> None:
        """Before a run goes on: take from the checkpoint's `model/` what cannot be made again alike (a tokenizer)."""
        return None


def stack(values: Sequence[np.ndarray[Any, Any]]) -> Tensor:
    """One tensor of equally shaped arrays."""
    return torch.from_numpy(np.stack(values))


def class_weight(faces: ArrayStore, *, power: float) -> Tensor:
    """Weights of the 19 classes, fp32: a class's share of the pixels to the minus `power`, 1 on the average pixel."""
    maps = faces["label_map"][:_COUNTED_MAPS]
    share = np.bincount(maps.ravel(), minlength=len(CLASSES)) / maps.size
    weight = np.clip(share, 1e-4, None) ** -power
    return torch.tensor(weight / (weight * share).sum(), dtype=torch.float32)


def _norm(gradient: Tensor) -> Tensor:
    """The norm of a gradient over the whole global batch, of which every worker has its rows."""
    norm = gradient.norm()
    if not (distributed.is_available() and distributed.is_initialized()):
        return norm
    square = norm.square()
    distributed.all_reduce(square)
    return square.sqrt()


def weighed(wish: Tensor, errors: Tensor, at: Tensor, *, share: float, most: float = math.inf) -> Tensor:
    """The loss `wish`, scaled so that its gradient at `at` is `share` of that of `errors` (VQGAN, equation 7).

    It is scaled by `most` at the most.
    """
    by_errors, by_wish = (_norm(torch.autograd.grad(loss, at, retain_graph=True)[0]) for loss in (errors, wish))
    return (share * (by_errors / by_wish.clamp(min=1e-9))).clamp(max=most) * wish
