"""The four networks that look at faces: parser, landmark detector, attribute classifier, identity embedder.

Odd here: they will judge pictures that other networks made, so they learn on blurred, noisy and re-lit ones too, and on
those that the VAE makes of them from rough latents; and every draw is mirrored, moved and zoomed anew, without which
they learn the training people by heart.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.data.encoded import pictures
from m3face.data.faces import pictures_of_people
from m3face.data.people import LOOKS
from m3face.errors import DataError
from m3face.faces import ATTRIBUTES, flip_landmarks, flip_map
from m3face.models.annotators import AttributeClassifier
from m3face.models.vae import FaceVae
from m3face.tasks.base import Batch, Context, Draw, Task, class_weight, stack
from m3face.tasks.global_batch import from_workers, share_of

_TEMPERATURE = 0.1
_ZOOM, _SHIFT = (0.85, 1.15), 0.15  # of views; the shift in half sides
_AGAIN, _ROUGH = 0.4, 0.3  # share of pictures that the VAE makes again; largest deviation of its latents, unscaled
_POINTS = 0.1  # weight of the attribute classifier's points against its values


def _worn(picture: Tensor, rng: np.random.Generator) -> Tensor:
    """A picture [3, S, S] as a network or a camera might have left it: softer, noisier, brighter or darker.

    Half of them stay as they are: freckles and moles are a pixel wide, and never seen clearly are never learned.
    """
    if rng.random() < 0.5:
        return picture
    if rng.random() < 0.5:
        small = F.interpolate(picture[None], scale_factor=float(rng.uniform(0.4, 0.9)), mode="area")
        picture = F.interpolate(small, size=picture.shape[-2:], mode="bilinear", align_corners=False)[0]
    if rng.random() < 0.5:
        noise = rng.standard_normal(picture.shape, dtype=np.float32)
        picture = picture + float(rng.uniform(0.01, 0.06)) * torch.from_numpy(noise)
    if rng.random() < 0.5:
        picture = (picture + 1) * float(rng.uniform(0.85, 1.15)) - 1
    return picture.clamp(-1, 1)


@dataclass(frozen=True)
class _View:
    """A picture fp32 [3, S, S] in [-1, 1], its label map uint8 [S, S], its points [68, 2] as shares of the side."""

    picture: Tensor
    label_map: Tensor
    points: Tensor


def _view(face: dict[str, np.ndarray[Any, Any]], rng: np.random.Generator) -> _View:
    """A face (image, label_map, landmarks) mirrored or not, moved and zoomed a little."""
    image, label_map, landmarks = face["image"], face["label_map"], face["landmarks"]
    size = len(image)
    if rng.random() < 0.5:
        image, label_map = np.ascontiguousarray(image[:, ::-1]), flip_map(label_map)
        landmarks = flip_landmarks(landmarks, size=size)
    zoom, shift = float(rng.uniform(*_ZOOM)), torch.from_numpy(rng.uniform(-_SHIFT, _SHIFT, 2)).float()
    place = torch.cat([torch.eye(2) / zoom, shift[:, None]], dim=1)[None]  # where a pixel of the view comes from
    grid = F.affine_grid(place, [1, 1, size, size], align_corners=False)
    options: dict[str, Any] = {"padding_mode": "border", "align_corners": False}
    seen = F.grid_sample(pictures(image[None]), grid, mode="bilinear", **options)
    labels = F.grid_sample(torch.from_numpy(label_map)[None, None].float(), grid, mode="nearest", **options)
    points = torch.from_numpy(landmarks) / size * 2 - 1
    return _View(seen[0], labels[0, 0].to(torch.uint8), ((points - shift) * zoom + 1) / 2)


class _LookingTask(Task):
    component: str

    def __init__(self, context: Context) -> None:
        self.faces = context.faces
        self.count = len(self.faces)
        self.module = context.network(self.component)
        self.vae: FaceVae = context.frozen("vae")
        side = int(self.faces.key["size"]) // self.vae.downscale
        self.latent = (int(self.vae.config["latent_channels"]), side, side)

    def _views(self, draws: Sequence[Draw], indices: Sequence[int]) -> list[_View]:
        names = ("image", "label_map", "landmarks")
        rows = [{name: np.array(self.faces[name][i]) for name in names} for i in indices]
        views = [_view(row, draw.rng) for row, draw in zip(rows, draws, strict=True)]
        return [replace(v, picture=_worn(v.picture, d.rng)) for v, d in zip(views, draws, strict=True)]

    def _pictures(self, draws: Sequence[Draw], views: Sequence[_View]) -> Batch:
        """The pictures of views, which of them the VAE makes again, and what is added to their latents."""
        rough = [d.rng.uniform(0, _ROUGH) * d.rng.standard_normal(self.latent, dtype=np.float32) for d in draws]
        return {
            "picture": torch.stack([v.picture for v in views]),
            "again": torch.tensor([d.rng.random() < _AGAIN for d in draws]),
            "rough": stack(rough).float(),
        }

    @torch.no_grad()
    def _seen(self, batch: Batch) -> Tensor:
        """What the network is shown of a batch."""
        rows = batch["again"].nonzero().flatten()
        if not len(rows):
            return batch["picture"]
        latents = self.vae.encode(batch["picture"][rows]).latent_dist.mean + batch["rough"][rows]
        return batch["picture"].index_copy(0, rows, self.vae.decode(latents).sample.float().clamp(-1, 1))

    def export(self, root: Path) -> None:
        checkpoints.save(self.component, self.module, root)


class _LabelledTask(_LookingTask):
    def batch(self, draws: Sequence[Draw]) -> Batch:
        indices = [d.index for d in draws]
        views = self._views(draws, indices)
        return {**self._pictures(draws, views), **self.targets(indices, views)}

    @abstractmethod
    def targets(self, indices: Sequence[int], views: Sequence[_View]) -> Batch:
        """What the network should say of these views of these faces."""


class ParserTask(_LabelledTask):
    """Class-weighted cross-entropy of every pixel."""

    component = "parser"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.class_weight = class_weight(self.faces, power=0.25)

    def targets(self, indices: Sequence[int], views: Sequence[_View]) -> Batch:
        return {"label_map": torch.stack([v.label_map for v in views])}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits, target = module(self._seen(batch)).float(), batch["label_map"].long()
        weight = self.class_weight.to(logits.device)
        loss = F.cross_entropy(logits, target, weight=weight) * share_of(weight[target].sum())
        return {"loss": loss, "right": (logits.argmax(1) == target).float().mean()}


def _apart(found: Tensor, true: Tensor) -> Tensor:
    """Mean distance of points given as shares of the side, in hundredths of it."""
    return (found - true).abs().sum(-1).mean() * 100


class LandmarkDetectorTask(_LabelledTask):
    """Distance of the points, in hundredths of the picture's side."""

    component = "landmark_detector"

    def targets(self, indices: Sequence[int], views: Sequence[_View]) -> Batch:
        return {"points": torch.stack([v.points for v in views])}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"loss": _apart(module(self._seen(batch)), batch["points"])}


class AttributeClassifierTask(_LabelledTask):
    """Cross-entropy of every attribute's value, and the distance of the points where the network looks for them."""

    component = "attribute_classifier"

    def targets(self, indices: Sequence[int], views: Sequence[_View]) -> Batch:
        values = stack([self.faces["attributes"][i] for i in indices]).long()
        return {"values": values, "points": torch.stack([v.points for v in views])}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        features, points = module.look(self._seen(batch))  # type: ignore[operator]
        logits = AttributeClassifier.split(module.outer(features).float())  # type: ignore[operator]
        pairs = [(logits[name], target) for name, target in zip(ATTRIBUTES, batch["values"].unbind(1), strict=True)]
        each = torch.stack([F.cross_entropy(own, target) for own, target in pairs]).mean()
        hits = torch.stack([(own.argmax(1) == target).float().mean() for own, target in pairs]).mean()
        apart = _apart(points, batch["points"])
        return {"loss": each + _POINTS * apart, "values": each, "apart": apart, "right": hits}


class IdentityEmbedderTask(_LookingTask):
    """Two looks of one person closer than any two people of the batch (InfoNCE)."""

    component = "identity_embedder"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.people = pictures_of_people(self.faces)
        self.count = len(self.people)
        if self.count < 2:
            got = f"{self.count} people have two pictures or more"
            raise DataError("data", got, "at least 2", "take more faces; a dataset needs its column identity filled")

    def batch(self, draws: Sequence[Draw]) -> Batch:
        pairs = [self._pair(draw) for draw in draws]
        looks = [v for look in range(LOOKS) for v in self._views(draws, [pair[look] for pair in pairs])]
        return self._pictures(list(draws) * LOOKS, looks)

    def _pair(self, draw: Draw) -> list[int]:
        """Two pictures of one person, drawn where there are more."""
        own = self.people[draw.index]
        return [int(i) for i in (own if len(own) == LOOKS else draw.rng.choice(own, LOOKS, replace=False))]

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        one, other = module(self._seen(batch)).float().chunk(LOOKS)
        (ones, begin), (others, _) = from_workers(one), from_workers(other)
        target = torch.arange(len(one), device=one.device) + begin
        similarity, back = one @ others.T / _TEMPERATURE, other @ ones.T / _TEMPERATURE
        loss = (F.cross_entropy(similarity, target) + F.cross_entropy(back, target)) / 2
        return {"loss": loss, "right": (similarity.argmax(1) == target).float().mean()}
