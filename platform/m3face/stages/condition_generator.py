"""Words to a label map and 68 landmarks of one face, around what is already given.

Odd here: both are always written on one canvas, so a missing one is completed from the other and both asked at once
are one face. What is given comes back as it came, pixel for pixel: tokens only tell the network about it. With a
`region`, tokens inside it are made anew and only pixels and points inside it change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from m3face import checkpoints
from m3face.errors import BadInput, M3FaceError
from m3face.faces import Landmarks, check_landmarks, resize_map, to_colours
from m3face.models.masked_transformer import MaskedTransformer, canvas, split_canvas
from m3face.models.vq import decode_landmarks, decode_maps, encode_landmarks, encode_maps
from m3face.sampling import decode_masked
from m3face.stages.batching import Group, run_groups
from m3face.stages.requests import ConditionRequest, Conditions, OnStep
from m3face.stages.weights import check_states, picture_size, weights_folder


@dataclass(frozen=True)
class _Prepared:
    """A checked request: its arrays at the stage's size."""

    request: ConditionRequest
    label_map: np.ndarray[Any, np.dtype[np.uint8]] | None
    landmarks: Landmarks | None
    region: Tensor  # bool [grid, grid]


class ConditionGenerator:
    """`run([ConditionRequest])` gives `Conditions` each: uint8 [size, size] and fp32 [68, 2] in pixels of size."""

    Request: ClassVar[type[ConditionRequest]] = ConditionRequest

    def __init__(
        self, transformer: MaskedTransformer, map_vq: Any, landmark_vq: Any, *, size: int, micro_batch: int = 1
    ) -> None:
        self.transformer, self.map_vq, self.landmark_vq = transformer, map_vq, landmark_vq
        self.size, self.micro_batch = size, micro_batch
        self.grid = int(transformer.config["sample_size"])

    @classmethod
    def from_checkpoint(cls, location: str, *, device: str = "cpu", micro_batch: int = 1) -> Self:
        """The generator of the weights at `location`; raises CheckpointError."""
        folder = weights_folder(location)
        parts = [checkpoints.load(name, folder, device=device) for name in ("transformer", "map_vq", "landmark_vq")]
        return cls(*parts, size=picture_size(folder), micro_batch=micro_batch)

    def run(
        self, requests: Sequence[ConditionRequest], *, on_step: OnStep | None = None
    ) -> list[Conditions | M3FaceError]:
        """One result or error a request, in order. Previews are the palette drawing of the map so far."""
        return run_groups(
            requests,
            prepare=self._prepare,
            key=lambda p: (p.request.steps, p.request.guidance, p.request.temperature, p.request.text.states.shape),
            work=self._work,
            micro_batch=self.micro_batch,
            on_step=on_step,
        )

    def _prepare(self, request: ConditionRequest) -> _Prepared:
        width = int(self.transformer.config["encoder_hidden_size"])
        check_states(request.text, request.empty, width=width)
        label_map = None if request.label_map is None else resize_map(request.label_map, self.size)
        landmarks = None if request.landmarks is None else check_landmarks(request.landmarks, size=self.size)
        if request.region is None:
            region = torch.zeros(self.grid, self.grid, dtype=torch.bool)
        elif request.region.shape == (self.grid, self.grid):
            region = torch.from_numpy(request.region.copy())
        else:
            raise BadInput("region", f"has {request.region.shape[0]} rows", f"{self.grid} x {self.grid} cells")
        return _Prepared(request, label_map, landmarks, region)

    @torch.inference_mode()
    def _work(self, group: Group[_Prepared]) -> list[Conditions]:
        ids = torch.cat([self._start(prepared) for prepared in group.members])
        if bool((ids == self.transformer.mask_id).any()):
            request = group.members[0].request
            ids = decode_masked(
                self._guided(group),
                ids,
                mask_id=self.transformer.mask_id,
                steps=request.steps,
                temperature=request.temperature,
                generators=[torch.Generator().manual_seed(p.request.seed) for p in group.members],
                on_step=lambda step, now: group.step(step, lambda m: partial(self._preview, now[m : m + 1])),
            )
        maps, points = self._decode(ids)
        return [self._keep_given(p, m, q) for p, m, q in zip(group.members, maps.numpy(), points.numpy(), strict=True)]

    def _start(self, prepared: _Prepared) -> Tensor:
        """The canvas [1, grid, 2 grid] of what is known, masked elsewhere."""
        mask_id, device = self.transformer.mask_id, self.transformer.device
        unknown = torch.full((1, self.grid, self.grid), mask_id, device=device)
        map_ids = landmark_ids = unknown
        region = prepared.region.to(device)
        if prepared.label_map is not None:
            map_ids = encode_maps(self.map_vq, torch.from_numpy(prepared.label_map)[None].to(device))
            map_ids = torch.where(region, mask_id, map_ids)
        if prepared.landmarks is not None:
            landmark_ids = encode_landmarks(self.landmark_vq, prepared.landmarks[None], size=self.size)
            landmark_ids = torch.where(region, mask_id, landmark_ids)
        return canvas(map_ids, landmark_ids, map_codes=self.transformer.map_codes, mask_id=mask_id)

    def _guided(self, group: Group[_Prepared]) -> Any:
        """ids -> logits, with the empty text's subtracted in proportion to the guidance."""
        device, guidance = self.transformer.device, group.members[0].request.guidance
        texts = [p.request.text for p in group.members]
        if guidance != 1:
            texts += [p.request.empty for p in group.members]
        states = torch.from_numpy(np.stack([t.states for t in texts])).to(device)
        pooled = torch.from_numpy(np.stack([t.pooled for t in texts])).to(device)

        def logits(ids: Tensor) -> Tensor:
            if guidance == 1:
                return self.transformer.logits(ids, states, pooled)
            asked, empty = self.transformer.logits(torch.cat([ids, ids]), states, pooled).chunk(2)
            return empty + guidance * (asked - empty)

        return logits

    def _decode(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        map_ids, landmark_ids = split_canvas(ids, map_codes=self.transformer.map_codes)
        maps = decode_maps(self.map_vq, map_ids, size=self.size)
        return maps.cpu(), decode_landmarks(self.landmark_vq, landmark_ids, size=self.size).float().cpu()

    def _preview(self, ids: Tensor) -> Any:
        """The drawing of a half-written map; what is still masked shows as the first code."""
        with torch.inference_mode():
            map_ids, _ = split_canvas(ids, map_codes=self.transformer.map_codes)
            map_ids = torch.where(map_ids == self.transformer.mask_id, 0, map_ids)
            return to_colours(decode_maps(self.map_vq, map_ids, size=self.size)[0].cpu().numpy())

    def _keep_given(self, prepared: _Prepared, label_map: Any, landmarks: Any) -> Conditions:
        """The decoded conditions, with what was given put back wherever the region does not reach."""
        region, cell = prepared.region.numpy(), self.size / self.grid
        if prepared.label_map is not None:
            inside = resize_map(region.astype(np.uint8), self.size).astype(bool)
            label_map = np.where(inside, label_map, prepared.label_map)
        if prepared.landmarks is not None:
            column, row = np.clip((prepared.landmarks / cell).astype(np.intp), 0, self.grid - 1).T
            landmarks = np.where(region[row, column][:, None], landmarks, prepared.landmarks)
        return Conditions(label_map=label_map, landmarks=landmarks)
