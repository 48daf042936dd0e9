"""The reader of latents: what a face is like, read where diffusion happens.

Odd here: it learns on latents with noise on them and at points that are a little off, since what it will read are
predictions of a UNet under points that somebody else wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from m3face import checkpoints
from m3face.models.latent_reader import VALUES, surprise
from m3face.tasks.base import Batch, Context, Draw, stack
from m3face.tasks.latents import LatentTask

_ROUGH = 0.6  # largest deviation of the noise on latents, whose own is about 1
_OFF = 0.01  # deviation of all points of a face together, as a share of the side


class LatentReaderTask(LatentTask):
    """Cross-entropy of every attribute's value."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.module = context.network("latent_reader")

    def batch(self, draws: Sequence[Draw]) -> Batch:
        mirrored = self.context.mirrors(draws)
        clean = self.drawn_latents(draws, mirrored)
        noise = [d.rng.uniform(0, _ROUGH) * d.rng.standard_normal(self.shape, dtype=np.float32) for d in draws]
        off = [_OFF * d.rng.standard_normal((1, 2), dtype=np.float32) for d in draws]
        points = self.points(draws, mirrored) / int(self.faces.key["size"])
        return {
            "latents": clean + stack(noise).float(),
            "points": torch.from_numpy(points) + stack(off),
            "attributes": self.attributes(draws),
        }

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        said = module(batch["latents"], batch["points"]).float()
        hits = [own.argmax(1) == code for own, code in zip(said.split(VALUES, 1), batch["attributes"].T, strict=True)]
        return {"loss": surprise(said, batch["attributes"]).mean(), "right": torch.stack(hits).float().mean()}

    def export(self, root: Path) -> None:
        checkpoints.save("latent_reader", self.module, root)
