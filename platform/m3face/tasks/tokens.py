"""The two VQ networks that turn a label map, and 68 landmarks, into tokens.

Odd here: stock VQModel has no moving average and no restart of dead codes, so codes start as k-means of encoder
outputs, and a code that nobody chose for a while is put on an encoder output of the present batch. Targets are class
indices and points, never colours; networks published for drawings learn in drawings.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import VQModel
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.faces import CLASSES, GROUPS
from m3face.models import vq as tokens
from m3face.tasks.base import Batch, Context, Draw, Task, class_weight, stack
from m3face.tasks.global_batch import from_workers, over_workers, share_of

_RESTART_EVERY = 25
_DEAD_BELOW = 0.02  # of the average use
_KMEANS_ROUNDS = 8
_SHAPE = 20.0  # weight of the shapes beside hundredths of the side
_PARTS = tuple(slice(group.start, group.stop) for group in GROUPS.values())


class Codebook(nn.Module):
    """A VQ network with the record of which codes are in use; those that are not begin anew, if it `restarts`."""

    use: Tensor
    age: Tensor

    def __init__(self, network: VQModel, *, restarts: bool = True) -> None:
        super().__init__()
        self.network, self.restarts = network, restarts
        codes = int(network.config["num_vq_embeddings"])
        self.register_buffer("use", torch.full((codes,), 1.0 / codes))
        self.register_buffer("age", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def observe(self, latents: Tensor, ids: Tensor) -> None:
        """Note the use of codes; now and then put the unused on latents [.., width] of this batch."""
        codes = len(self.use)
        counts = over_workers(torch.bincount(ids.flatten(), minlength=codes).float())
        self.use.lerp_(counts / counts.sum(), 0.05)
        self.age += 1
        if not self.restarts or int(self.age) % _RESTART_EVERY:
            return
        latents, _ = from_workers(latents)
        dead = (self.use < _DEAD_BELOW / codes).nonzero().flatten()
        generator = torch.Generator().manual_seed(int(self.age))
        rows = torch.randint(len(latents), (len(dead),), generator=generator)
        self.network.quantize.embedding.weight[dead] = latents[rows.to(latents.device)]
        self.use[dead] = 1.0 / codes

    @torch.no_grad()
    def start(self, latents: Tensor) -> None:
        """Codes by k-means on latents [n, width]."""
        codes = len(self.use)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(latents), generator=generator).repeat(1 + codes // len(latents))
        centres = latents[order[:codes]].clone()
        for _ in range(_KMEANS_ROUNDS):
            nearest = torch.cdist(latents, centres).argmin(1)
            sums = torch.zeros_like(centres).index_add_(0, nearest, latents)
            counts = torch.bincount(nearest, minlength=codes).unsqueeze(1)
            fresh = latents[torch.randint(len(latents), (codes,), generator=generator)]
            centres = torch.where(counts > 0, sums / counts.clamp(min=1), fresh)
        self.network.quantize.embedding.weight.copy_(centres)


class TokensTask(Task):
    """What all VQ networks share: `component` is trained from `network` on."""

    component: str
    module: Codebook

    def __init__(self, context: Context, network: Any) -> None:
        self.faces = context.faces
        self.size = int(self.faces.key["size"])
        self.count = len(self.faces)
        self.module = self.codebook(network)
        self.picture_size = int(self.module.network.config["sample_size"])

    def codebook(self, network: VQModel) -> Codebook:
        """What is trained."""
        return Codebook(network)

    @abstractmethod
    def picture(self, batch: Batch) -> Tensor:
        """What the network is shown of a batch."""

    def coded(self, module: Any, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(decoder output, codebook loss, share of codes in use)."""
        network: VQModel = module.network
        latents = network.encode(picture).latents.float()
        quantized, loss, (_, _, ids) = network.quantize(latents)
        module.observe(latents.detach().permute(0, 2, 3, 1).flatten(0, 2), ids)
        decoded = tokens.decode_latents(network, quantized)
        used = (module.use > _DEAD_BELOW / len(module.use)).float().mean()
        return decoded.float(), loss, used

    @torch.no_grad()
    def begin(self, batches: Callable[[int], Batch]) -> None:
        network = self.module.network
        device = network.device
        found = []
        for step in range(8):
            batch = {name: value.to(device) for name, value in batches(step).items()}
            found.append(network.encode(self.picture(batch)).latents.permute(0, 2, 3, 1).flatten(0, 2))
        self.module.start(torch.cat(found)[:20_000])

    def export(self, root: Path) -> None:
        checkpoints.save(self.component, self.module.network, root)


class MapTokensTask(TokensTask):
    """Class-weighted cross-entropy on the map at full size, so that earrings and glasses survive."""

    component = "map_vq"

    def __init__(self, context: Context, network: Any) -> None:
        super().__init__(context, network)
        self.class_weight = class_weight(self.faces, power=0.25)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        return {"label_map": stack([self.faces["label_map"][d.index] for d in draws])}

    def picture(self, batch: Batch) -> Tensor:
        return tokens.map_picture(batch["label_map"], channels=len(CLASSES), size=self.picture_size)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        decoded, codebook, used = self.coded(module, self.picture(batch))
        logits, target = tokens.map_logits(decoded, size=self.size), batch["label_map"].long()
        weight = self.class_weight.to(logits.device)
        map_loss = F.cross_entropy(logits, target, weight=weight) * share_of(weight[target].sum())
        right = (logits.argmax(1) == target).float().mean()
        return {"loss": map_loss + codebook, "map": map_loss, "codebook": codebook, "right": right, "used": used}


class LandmarkTokensTask(TokensTask):
    """Distance of the 68 centres of mass from the true points, and of their shapes.

    Whether eyes are narrow or lips are full is a matter of half a pixel at 128, far below what a mean over a whole face
    feels: without the second term the tokens of narrow eyes and of others were alike. So each part of the face (an eye,
    the lips) is also compared about its own centre, in units of its own size.
    """

    component = "landmark_vq"

    def batch(self, draws: Sequence[Draw]) -> Batch:
        points = np.stack([self.faces["landmarks"][d.index] for d in draws])
        return {
            "points": torch.from_numpy(points / self.size),
            "picture": tokens.landmark_picture(points, size=self.size, new=self.picture_size),
        }

    def picture(self, batch: Batch) -> Tensor:
        return batch["picture"]

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        decoded, codebook, used = self.coded(module, self.picture(batch))
        error = tokens.soft_argmax(decoded) - batch["points"]
        apart = error.abs().sum(-1).mean() * 100  # hundredths of the picture's side
        shape = torch.stack([shape_error(error[:, own], batch["points"][:, own]) for own in _PARTS]).mean()
        loss = apart + _SHAPE * shape + codebook
        return {"loss": loss, "apart": apart, "shape": shape, "codebook": codebook, "used": used}


def shape_error(error: Tensor, points: Tensor) -> Tensor:
    """Mean error of points [B, n, 2] about their centre, in units of their spread."""
    spread = (points - points.mean(1, keepdim=True)).square().mean((1, 2), keepdim=True).sqrt()
    return ((error - error.mean(1, keepdim=True)) / spread).abs().mean()
