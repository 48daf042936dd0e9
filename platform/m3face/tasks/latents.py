"""What all that learn from latents share: which latents, whose points.

Odd here: latents are drawn from the posterior anew each time. The posterior is read from the cache, or with
`data.online` the frozen VAE finds it within the step, in fp32, and it is rounded as the cache has it: the two are the
same. A mirrored face (`data.flip`) comes with its own latents, map and points. `data.augment` changes a face before it
is encoded, so it cannot be cached.
"""

# B batch, C latent channels, h latent side

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3face.data.encoded import pictures
from m3face.faces import flip_landmarks
from m3face.models.vae import FaceVae
from m3face.tasks.augmentation import relit
from m3face.tasks.base import Batch, Context, Draw, Task, stack


class LatentTask(Task):
    """A task over the latents of faces, of `shape` [C, h, h] each."""

    def __init__(self, context: Context) -> None:
        self.context, self.faces = context, context.faces
        self.count = len(self.faces)
        vae: FaceVae = context.frozen("vae")
        self.scale = float(vae.config["scaling_factor"])
        side = int(self.faces.key["size"]) // vae.downscale
        self.shape = (int(vae.config["latent_channels"]), side, side)
        self.vae = vae if context.data.online or context.data.augment else None
        self.latents = context.latents if self.vae is None else None

    def shown_latents(self, draws: Sequence[Draw], mirrored: Sequence[bool]) -> dict[str, Tensor]:
        """`clean` latents, or what `with_latents` makes them from: `picture` in [-1, 1] and `drawn` noise."""
        if self.vae is None:
            return {"clean": self.drawn_latents(draws, mirrored)}
        drawn = [draw.rng.standard_normal(self.shape, dtype=np.float32) for draw in draws]
        images = [self.faces["image"][d.index] for d in draws]
        images = [np.ascontiguousarray(own[:, ::-1]) if m else own for own, m in zip(images, mirrored, strict=True)]
        if self.context.data.augment:
            images = [relit(own, draw.rng) for own, draw in zip(images, draws, strict=True)]
        return {"picture": pictures(np.stack(images)), "drawn": stack(drawn)}

    @torch.no_grad()
    def with_latents(self, batch: Batch) -> Batch:
        """`batch` with its `clean` latents [B, C, h, h], where that of `shown_latents` has only the pictures."""
        if self.vae is None:
            return batch
        with torch.autocast(batch["picture"].device.type, enabled=False):
            posterior = self.vae.encode(batch["picture"]).latent_dist
        mean, std = (value.half().float() for value in (posterior.mean, posterior.std))
        return {**batch, "clean": (mean + std * batch["drawn"]) * self.scale}

    def drawn_latents(self, draws: Sequence[Draw], mirrored: Sequence[bool]) -> Tensor:
        """Cached latents [B, C, h, h] as the UNet knows them: one draw of each posterior, scaled; fp32."""
        assert self.latents is not None
        clean = []
        for draw, other in zip(draws, mirrored, strict=True):
            latents = self.context.mirrored_latents if other else self.latents
            mean = latents["mean"][draw.index].astype(np.float32)
            std = latents["std"][draw.index].astype(np.float32)
            clean.append((mean + std * draw.rng.standard_normal(mean.shape, dtype=np.float32)) * self.scale)
        return stack(clean).float()

    def points(self, draws: Sequence[Draw], mirrored: Sequence[bool]) -> NDArray[np.float32]:
        """The landmarks [B, 68, 2] of these faces, mirrored where that is so, in pixels."""
        size = int(self.faces.key["size"])
        points = [self.faces["landmarks"][d.index] for d in draws]
        return np.stack([flip_landmarks(p, size=size) if m else p for p, m in zip(points, mirrored, strict=True)])

    def attributes(self, draws: Sequence[Draw]) -> Tensor:
        """The values of these faces as codes [B, A]."""
        return stack([self.faces["attributes"][d.index] for d in draws]).long()
