"""The four networks that look at faces: parser, landmark detector, attribute classifier, identity embedder.

Odd here: they will judge pictures that other networks made, so they learn on blurred, noisy and re-lit ones too.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.data.encoded import pictures
from m3face.data.people import LOOKS
from m3face.faces import ATTRIBUTES
from m3face.models.annotators import AttributeClassifier
from m3face.tasks.base import Batch, Context, Draw, Task, class_weight, stack

_TEMPERATURE = 0.1


def _worn(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """A picture [3, S, S] as a network or a camera might have left it: softer, noisier, brighter or darker."""
    if rng.random() < 0.4:
        small = F.interpolate(picture[None], scale_factor=float(rng.uniform(0.4, 0.9)), mode="area")
        picture = F.interpolate(small, size=picture.shape[-2:], mode="bilinear", align_corners=False)[0]
    if rng.random() < 0.4:
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        picture = picture + float(rng.uniform(0.01, 0.1)) * torch.from_numpy(noise)
    if rng.random() < 0.4:
        picture = (picture + 1) * float(rng.uniform(0.85, 1.15)) - 1
    return picture.clamp(-1, 1)


class _LookingTask(Task):
    component: str

    def __init__(self, context: Context) -> None:
        self.faces = context.faces
        self.size = int(self.faces.key["size"])
        self.count = len(self.faces)
        self.module = context.network(self.component)

    def _pictures(self, draws: Sequence[Draw], indices: Sequence[int]) -> Tensor:
        clean = pictures(np.stack([self.faces["image"][i] for i in indices]))
        return torch.stack([_worn(p, d.rng) for p, d in zip(clean, draws, strict=True)])

    def export(self, root: Path) -> None:
        checkpoints.save(self.component, self.module, root)


class _LabelledTask(_LookingTask):
    def batch(self, draws: Sequence[Draw]) -> Batch:
        indices = [d.index for d in draws]
        return {"picture": self._pictures(draws, indices), **self.targets(indices)}

    @abstractmethod
    def targets(self, indices: Sequence[int]) -> Batch:
        """What the network should say of these faces."""


class ParserTask(_LabelledTask):
    """Class-weighted cross-entropy of every pixel."""

    component = "parser"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.class_weight = class_weight(self.faces, power=0.25)

    def targets(self, indices: Sequence[int]) -> Batch:
        return {"label_map": stack([self.faces["label_map"][i] for i in indices])}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, target = module(batch["picture"]).float(), batch["label_map"].long()
        loss = F.cross_entropy(logits, target, weight=self.class_weight.to(logits.device))
        return {"loss": loss, "right": (logits.argmax(1) == target).float().mean()}


class LandmarkDetectorTask(_LabelledTask):
    """Distance of the points, in hundredths of the picture's side."""

    component = "landmark_detector"

    def targets(self, indices: Sequence[int]) -> Batch:
        return {"points": stack([self.faces["landmarks"][i] / self.size for i in indices])}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": (module(batch["picture"]) - batch["points"]).abs().sum(-1).mean() * 100}


class AttributeClassifierTask(_LabelledTask):
    """Cross-entropy of every attribute's value."""

    component = "attribute_classifier"

    def targets(self, indices: Sequence[int]) -> Batch:
        return {"values": stack([self.faces["attributes"][i] for i in indices]).long()}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = AttributeClassifier.split(module(batch["picture"]).float())
        pairs = [(logits[name], target) for name, target in zip(ATTRIBUTES, batch["values"].unbind(1), strict=True)]
        each = [F.cross_entropy(own, target) for own, target in pairs]
        hits = [(own.argmax(1) == target).float().mean() for own, target in pairs]
        return {"loss": torch.stack(each).mean(), "right": torch.stack(hits).mean()}


class IdentityEmbedderTask(_LookingTask):
    """Two looks of one person closer than any two people of the batch (InfoNCE)."""

    component = "identity_embedder"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.count = len(self.faces) // LOOKS

    def batch(self, draws: Sequence[Draw]) -> Batch:
        looks = [self._pictures(draws, [d.index * LOOKS + look for d in draws]) for look in range(LOOKS)]
        return {"picture": torch.cat(looks)}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        one, other = module(batch["picture"]).float().chunk(LOOKS)
        similarity = one @ other.T / _TEMPERATURE
        target = torch.arange(len(one), device=one.device)
        loss = (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
        return {"loss": loss, "right": (similarity.argmax(1) == target).float().mean()}
