"""Words and conditions to a face: latent diffusion held by one ControlNet a condition.

Odd here: each ControlNet is present only if its condition is; the residuals of two are added (diffusers'
Multi-ControlNet). Both passes of the guidance see the conditions, only the words differ. The scheduler is made anew
for every group, since it carries state. Weights with a `latent_reader` can also be held to what the words were read as.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m3face import checkpoints
from m3face.errors import BadInput, M3FaceError
from m3face.faces import check_landmarks, resize_map
from m3face.models.controlnet import condition_side
from m3face.models.latent_reader import LatentReader, agreement
from m3face.models.vq import landmark_picture, map_picture
from m3face.sampling import denoise, initial_noise, pulled
from m3face.stages.batching import Group, run_groups
from m3face.stages.requests import CONDITIONS, Face, FaceRequest, OnStep
from m3face.stages.weights import check_states, picture_size, weights_folder


@dataclass(frozen=True)
class _Prepared:
    """A checked request and the picture [channels, side, side] that each ControlNet gets of it."""

    request: FaceRequest
    pictures: dict[str, Tensor]


class FaceGenerator:
    """`run([FaceRequest])` gives a `Face` each: RGB uint8 [size, size, 3]."""

    Request: ClassVar[type[FaceRequest]] = FaceRequest

    def __init__(
        self,
        vae: Any,
        unet: Any,
        scheduler: Any,
        controlnets: dict[str, Any],
        *,
        reader: LatentReader | None = None,
        size: int,
        micro_batch: int = 1,
    ) -> None:
        self.vae, self.unet, self.scheduler, self.controlnets = vae, unet, scheduler, controlnets
        self.reader = reader
        self.size, self.micro_batch = size, micro_batch
        self._side = size // vae.downscale  # of the latents

    @classmethod
    def from_checkpoint(
        cls, location: str, *, device: str = "cpu", micro_batch: int = 1, conditions: Collection[str] = CONDITIONS
    ) -> Self:
        """The generator of the weights at `location`, able to follow `conditions`; raises CheckpointError."""
        folder = weights_folder(location)
        load = partial(checkpoints.load, root=folder, device=device)
        controlnets: dict[str, Any] = {name: load(f"controlnet_{name}") for name in CONDITIONS if name in conditions}
        scheduler = checkpoints.load("scheduler", folder)
        reader = load("latent_reader") if (folder / "latent_reader").is_dir() else None
        size = picture_size(folder)
        return cls(load("vae"), load("unet"), scheduler, controlnets, reader=reader, size=size, micro_batch=micro_batch)

    def run(self, requests: Sequence[FaceRequest], *, on_step: OnStep | None = None) -> list[Face | M3FaceError]:
        """One result or error a request, in order. Previews are the picture so far."""
        return run_groups(
            requests,
            prepare=self._prepare,
            key=lambda p: (
                p.request.steps,
                p.request.guidance,
                p.request.attribute_guidance,
                tuple(p.pictures),
                p.request.text.states.shape,
            ),
            work=self._work,
            micro_batch=self.micro_batch,
            on_step=on_step,
        )

    def _prepare(self, request: FaceRequest) -> _Prepared:
        width = int(self.unet.config["cross_attention_dim"])
        check_states(request.text, request.empty, width=width)
        if request.attribute_guidance and self.reader is None:
            lacks = "0: these weights have no latent_reader"
            raise BadInput("attribute_guidance", str(request.attribute_guidance), lacks, "leave it out")
        pictures = {}
        if request.label_map is not None:
            controlnet = self._controlnet("mask")
            channels, side = int(controlnet.config["conditioning_channels"]), condition_side(controlnet, self._side)
            maps = torch.from_numpy(resize_map(request.label_map, self.size))[None]
            pictures["mask"] = map_picture(maps, channels=channels, size=side)[0]
        if request.landmarks is not None:
            side = condition_side(self._controlnet("landmarks"), self._side)
            points = check_landmarks(request.landmarks, size=self.size)
            pictures["landmarks"] = landmark_picture(points[None], size=self.size, new=side)[0]
        return _Prepared(request, pictures)

    def _controlnet(self, name: str) -> Any:
        if name not in self.controlnets:
            loaded = ", ".join(self.controlnets) or "none"
            raise BadInput("condition", f"{name!r} was given", f"those loaded: {loaded}", "load its ControlNet too")
        return self.controlnets[name]

    @torch.inference_mode()
    def _work(self, group: Group[_Prepared]) -> list[Face]:
        shape = (int(self.unet.config["in_channels"]), self._side, self._side)
        first = group.members[0].request
        predictor = self._predictor(group)
        if first.attribute_guidance and first.landmarks is not None:
            predictor = self._insisting(predictor, group)
        latents = denoise(
            predictor,
            initial_noise([p.request.seed for p in group.members], shape).to(self.unet.device),
            scheduler=type(self.scheduler).from_config(self.scheduler.config),
            steps=first.steps,
            on_step=lambda step, now: group.step(step, lambda m: partial(self._preview, now[m : m + 1])),
        )
        return [Face(picture=picture) for picture in self._decode(latents)]

    def _predictor(self, group: Group[_Prepared]) -> Any:
        """(latents, timestep) -> what the UNet predicts, guided."""
        device, guidance = self.unet.device, group.members[0].request.guidance
        passes = 1 if guidance == 1 else 2
        texts = [p.request.text for p in group.members]
        if passes == 2:
            texts += [p.request.empty for p in group.members]
        states = torch.from_numpy(np.stack([t.states for t in texts])).to(device)
        held = [
            (self.controlnets[name], torch.stack([p.pictures[name] for p in group.members] * passes).to(device))
            for name in group.members[0].pictures
        ]

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            latents = torch.cat([latents] * passes)
            residuals: dict[str, Any] = {}
            for controlnet, picture in held:
                down, mid = controlnet(latents, timestep, states, controlnet_cond=picture, return_dict=False)
                if residuals:
                    down = [a + b for a, b in zip(residuals["down_block_additional_residuals"], down, strict=True)]
                    mid = residuals["mid_block_additional_residual"] + mid
                residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            predicted = self.unet(latents, timestep, states, return_dict=False, **residuals)[0]
            if passes == 1:
                return predicted
            asked, empty = predicted.chunk(2)
            return empty + guidance * (asked - empty)

        return predict

    def _insisting(self, predict: Any, group: Group[_Prepared]) -> Any:
        """`predict`, moved towards what each request says of its face."""
        reader: Any = self.reader
        requests = [p.request for p in group.members]
        points = np.stack([check_landmarks(r.landmarks, size=self.size) for r in requests])
        at = (torch.from_numpy(points) / self.size).to(self.unet.device)

        def score(clean: Tensor) -> Tensor:
            return agreement(reader(clean, at.clone()), [r.mentions for r in requests])

        def insisting(latents: Tensor, timestep: Tensor) -> Tensor:
            return pulled(
                predict(latents, timestep),
                latents,
                timestep,
                scheduler=self.scheduler,
                score=score,
                strength=requests[0].attribute_guidance,
            )

        return insisting

    def _decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Model latents [B, C, h, w] to RGB uint8 [B, size, size, 3]."""
        scaled = latents / self.vae.config["scaling_factor"] + (self.vae.config["shift_factor"] or 0.0)
        pictures = self.vae.decode(scaled, return_dict=False)[0].float()
        values = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return values.permute(0, 2, 3, 1).cpu().numpy()

    def _preview(self, latents: Tensor) -> NDArray[np.uint8]:
        with torch.inference_mode():
            return self._decode(latents)[0]
