"""Words to a label map and 68 landmarks of one face, around what is already given.

Odd here: both are always written on one canvas, so a missing one is completed from the other and both asked at once
are one face. What is given comes back as it came, pixel for pixel: tokens only tell the network about it. With a
`region`, tokens inside it are made anew and only pixels and points inside it change. A published transformer has no
common canvas: it writes the map and then the landmarks, each after words of its own, and neither knows of the other.
A map that plain rules find wrong is written again, if the request says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from m3face import checkpoints
from m3face.errors import BadInput, M3FaceError
from m3face.faces import Landmarks, check_landmarks, resize_map, to_colours
from m3face.faces.anatomy import anatomy_faults
from m3face.faces.signs import unasked
from m3face.models.masked_transformer import MaskedTransformer, canvas, split_canvas
from m3face.models.vq import decode_drawings, decode_landmarks, decode_maps, encode_landmarks, encode_maps
from m3face.sampling import decode_masked
from m3face.stages.batching import Group, run_groups
from m3face.stages.requests import LARGEST_SEED, ConditionRequest, Conditions, OnStep, Preview, TextStates
from m3face.stages.weights import check_states, picture_size, weights_folder

_OTHER_DRAWS = 1 << 62
_OTHER_ATTEMPT = 0x2545F4914F6CDD1D  # seeds next to each other are other people's


@dataclass(frozen=True)
class _Prepared:
    """A checked request: its arrays at the stage's size."""

    request: ConditionRequest
    label_map: np.ndarray[Any, np.dtype[np.uint8]] | None
    landmarks: Landmarks | None
    region: Tensor  # bool [grid, grid]


def _faults(request: ConditionRequest, result: Conditions | M3FaceError) -> int:
    """What is wrong with a map that we wrote; of one that was given or corrected by hand, nothing."""
    if isinstance(result, M3FaceError) or request.label_map is not None or request.region is not None:
        return 0
    return len(anatomy_faults(result.label_map)) + len(unasked(result.label_map, request.mentions))


def _seed(seed: int, attempt: int) -> int:
    return (seed + attempt * _OTHER_ATTEMPT) % (LARGEST_SEED + 1)


def _among(some: Sequence[int], total: int, on_step: OnStep | None) -> OnStep | None:
    """`on_step` for a run of `some` of its requests alone."""
    if on_step is None:
        return None

    def seen(step: int, previews: Sequence[Preview | None]) -> list[int]:
        shown: list[Preview | None] = [None] * total
        for index, preview in zip(some, previews, strict=True):
            shown[index] = preview
        return [some.index(index) for index in on_step(step, shown) or () if index in some]

    return seen


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
        results = self._written(requests, on_step)
        for attempt in range(1, max((r.attempts for r in requests), default=1)):
            again = [i for i, r in enumerate(requests) if attempt < r.attempts and _faults(r, results[i])]
            if not again:
                break
            others = [requests[i].model_copy(update={"seed": _seed(requests[i].seed, attempt)}) for i in again]
            for index, other in zip(again, self._written(others, _among(again, len(requests), on_step)), strict=True):
                if isinstance(other, M3FaceError) or _faults(requests[index], other) < _faults(
                    requests[index], results[index]
                ):
                    results[index] = other
        return results

    def _written(self, requests: Sequence[ConditionRequest], on_step: OnStep | None) -> list[Conditions | M3FaceError]:
        return run_groups(
            requests,
            prepare=self._prepare,
            key=lambda p: (p.request.steps, p.request.guidance, p.request.temperature, p.request.text.states.shape),
            work=self._work,
            micro_batch=self.micro_batch,
            on_step=on_step,
        )

    def _prepare(self, request: ConditionRequest) -> _Prepared:
        config = self.transformer.config
        for text in (request.text, request.landmark_text or request.text):
            check_states(text, request.empty, width=config["encoder_hidden_size"], pooled=config["cond_embed_dim"])
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
    def _work(self, group: Group[_Prepared]) -> list[Conditions | M3FaceError]:
        starts = [self._start(prepared) for prepared in group.members]
        map_ids, landmark_ids = (torch.cat(ids) for ids in zip(*starts, strict=True))
        codes, mask_id = self.transformer.map_codes, self.transformer.mask_id
        texts = [p.request.text for p in group.members]
        if codes:
            ids = canvas(map_ids, landmark_ids, map_codes=codes, mask_id=mask_id)
            ids = self._write(group, ids, texts, lambda now: self._map_preview(split_canvas(now, map_codes=codes)[0]))
            map_ids, landmark_ids = split_canvas(ids, map_codes=codes)
        else:
            map_ids = self._write(group, map_ids, texts, self._map_preview)
            texts = [p.request.landmark_text or p.request.text for p in group.members]
            landmark_ids = self._write(group, landmark_ids, texts, self._drawing_preview, other_draws=True)
        maps = decode_maps(self.map_vq, map_ids, size=self.size).cpu().numpy()
        drawn = landmark_ids.split(1)
        return [self._conditions(p, m, ids) for p, m, ids in zip(group.members, maps, drawn, strict=True)]

    def _conditions(self, prepared: _Prepared, label_map: Any, landmark_ids: Tensor) -> Conditions | M3FaceError:
        try:
            points = decode_landmarks(self.landmark_vq, landmark_ids, size=self.size)[0].float().cpu().numpy()
        except M3FaceError as error:  # a drawing that is no face spoils this request, not its neighbours
            if prepared.landmarks is None or bool(prepared.region.any()):
                return error
            points = prepared.landmarks
        return self._keep_given(prepared, label_map, points)

    def _start(self, prepared: _Prepared) -> tuple[Tensor, Tensor]:
        """Map and landmark tokens [1, grid, grid] of what is known, masked elsewhere."""
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
        return map_ids, landmark_ids

    def _write(
        self,
        group: Group[_Prepared],
        ids: Tensor,
        texts: list[TextStates],
        preview: Callable[[Tensor], Any],
        *,
        other_draws: bool = False,
    ) -> Tensor:
        """`ids` with what is masked written; `other_draws` for the second picture of one seed."""
        mask_id, request = self.transformer.mask_id, group.members[0].request
        if not bool((ids == mask_id).any()):
            return ids
        seeds = [(p.request.seed + _OTHER_DRAWS * other_draws) % (LARGEST_SEED + 1) for p in group.members]
        return decode_masked(
            self._guided(group, texts),
            ids,
            mask_id=mask_id,
            steps=request.steps,
            temperature=request.temperature,
            generators=[torch.Generator().manual_seed(seed) for seed in seeds],
            on_step=lambda step, now: group.step(step, lambda m: partial(preview, now[m : m + 1])),
        )

    def _guided(self, group: Group[_Prepared], texts: list[TextStates]) -> Any:
        """ids -> logits, with the empty text's subtracted in proportion to the guidance."""
        device, guidance = self.transformer.device, group.members[0].request.guidance
        side = self.grid << (len(self.map_vq.config["block_out_channels"]) - 1)
        if guidance != 1:
            texts = texts + [p.request.empty for p in group.members]
        states = torch.from_numpy(np.stack([t.states for t in texts])).to(device)
        pooled = torch.from_numpy(np.stack([t.pooled for t in texts])).to(device)

        def logits(ids: Tensor) -> Tensor:
            if guidance == 1:
                return self.transformer.logits(ids, states, pooled, side=side)
            asked, empty = self.transformer.logits(torch.cat([ids, ids]), states, pooled, side=side).chunk(2)
            return empty + guidance * (asked - empty)

        return logits

    def _map_preview(self, ids: Tensor) -> Any:
        """The drawing of a half-written map; what is still masked shows as the first code."""
        with torch.inference_mode():
            ids = torch.where(ids == self.transformer.mask_id, 0, ids)
            return to_colours(decode_maps(self.map_vq, ids, size=self.size)[0].cpu().numpy())

    def _drawing_preview(self, ids: Tensor) -> Any:
        """The half-written drawing of the landmarks, likewise."""
        with torch.inference_mode():
            return decode_drawings(self.landmark_vq, torch.where(ids == self.transformer.mask_id, 0, ids))[0]

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
