"""The masked transformer: words to map and landmark tokens (Muse's objective, M3Face section 3.1).

Odd here: the share masked follows the sampler's own cosine; with probability `train.contiguous` (0.15 in the authors'
code) it is a rectangle of cells, which is what editing a region needs. In 30 % of the samples one modality is known and
the other masked, wholly or (half of the time) in part, so that each completes the other. Labels are not smoothed unless
`train.label_smoothing` says so (0.1 in the authors' code): the sampler draws from these very distributions, and a tenth
of their mass on any token at all is a tenth of its draws. Smoothing spreads over the codes of a token's own modality.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from m3face.models.masked_transformer import MaskedTransformer, canvas
from m3face.sampling import masked_share
from m3face.tasks.base import Batch, Context, Draw, Task, stack
from m3face.tasks.global_batch import over_workers
from m3face.tasks.prompts import words

_ONE_GIVEN = 0.3
_IGNORE = -100


def _hidden(rng: np.random.Generator, side: int, *, contiguous: float) -> NDArray[np.bool_]:
    """Which tokens of [side, 2 side] are masked; a share `contiguous` of all draws is a rectangle."""
    kind = rng.random()
    share = masked_share(rng.random())
    if kind < _ONE_GIVEN:
        hidden = np.zeros((side, side, 2), dtype=bool)
        hidden[..., int(rng.integers(2))] = True
        if rng.random() < 0.5:  # the sampler's way there: part of the missing modality already written
            hidden &= rng.random(hidden.shape) < max(share, 0.02)
    elif kind < _ONE_GIVEN + contiguous:
        hidden = np.repeat(_rectangle(rng, side, share)[..., None], 2, axis=-1)
    else:
        count = max(1, round(side * side * 2 * share))
        hidden = (rng.permutation(side * side * 2) < count).reshape(side, side, 2)
    if not hidden.any():
        hidden[int(rng.integers(side)), int(rng.integers(side))] = True
    return hidden.reshape(side, side * 2)


def _rectangle(rng: np.random.Generator, side: int, share: float) -> NDArray[np.bool_]:
    """A rectangle of about this share of [side, side] cells."""
    height, width = (max(1, round(side * s)) for s in (share ** rng.random(), share ** rng.random()))
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    hidden = np.zeros((side, side), dtype=bool)
    hidden[top : top + height, left : left + width] = True
    return hidden


def _hidden_alone(rng: np.random.Generator, side: int, *, contiguous: float) -> NDArray[np.bool_]:
    """Which tokens [side, side] of one picture are masked."""
    in_one, share = rng.random() < contiguous, masked_share(rng.random())
    if in_one:
        return _rectangle(rng, side, share)
    return (rng.permutation(side * side) < max(1, round(side * side * share))).reshape(side, side)


class _TokenTask(Task):
    """What the masked transformers of both kinds share."""

    module: MaskedTransformer

    def __init__(self, context: Context, network: MaskedTransformer) -> None:
        self.context, self.faces, self.tokens = context, context.faces, context.tokens
        self.count = len(self.tokens)
        self.module = network
        self.mask_id, self.map_codes = network.mask_id, network.map_codes
        self.words = words(context)

    def export(self, root: Path) -> None:
        self.context.save("transformer", self.module, root)

    def resume(self, model: Path) -> None:
        self.context.resume("transformer", model)


class MaskedTransformerTask(_TokenTask):
    """Cross-entropy of the masked tokens of map and landmarks on one canvas, under the words."""

    def batch(self, draws: Sequence[Draw]) -> Batch:
        side = self.tokens["map"].shape[1]
        mirrors = self.context.mirrors(draws)
        contiguous = self.context.train.contiguous
        hidden = stack([_hidden(d.rng, side, contiguous=contiguous) for d in draws])
        given = self.words.given(draws)
        stores = [self.context.mirrored_tokens if mirrored else self.tokens for mirrored in mirrors]
        maps = stack([tokens["map"][d.index] for tokens, d in zip(stores, draws)]).long()
        landmarks = stack([tokens["landmarks"][d.index] for tokens, d in zip(stores, draws)]).long()
        ids = canvas(maps, landmarks, map_codes=self.map_codes, mask_id=self.mask_id)
        return {"ids": ids, "hidden": hidden, **given}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        ids, hidden = batch["ids"], batch["hidden"]
        inputs = torch.where(hidden, self.mask_id, ids)
        logits = module.logits(inputs, *self.words.read(batch))  # type: ignore[operator]
        smoothing = self.context.train.label_smoothing
        total, parts = torch.zeros((), device=ids.device), {}
        for name, first, last, offset in (
            ("map", 0, self.map_codes, 0),
            ("landmarks", self.map_codes, logits.shape[1], 1),
        ):
            own = logits[:, first:last, :, offset::2]
            target = torch.where(hidden[:, :, offset::2], ids[:, :, offset::2] - first, _IGNORE)
            part = F.cross_entropy(own, target, ignore_index=_IGNORE, reduction="sum", label_smoothing=smoothing)
            parts[name] = part.detach() / hidden[:, :, offset::2].sum().clamp(min=1)
            total = total + part
        return {"loss": total / over_workers(hidden.sum()), **parts}


class OnePictureTask(_TokenTask):
    """The same for a published transformer, which writes map or landmarks, as the words before the prompt say."""

    def __init__(self, context: Context, network: MaskedTransformer) -> None:
        super().__init__(context, network)
        self.side = int(context.frozen("map_vq").config["sample_size"])

    def batch(self, draws: Sequence[Draw]) -> Batch:
        mirrors = self.context.mirrors(draws)
        kinds = [("mask", "map") if d.rng.random() < 0.5 else ("landmarks", "landmarks") for d in draws]
        stores = [self.context.mirrored_tokens if mirrored else self.tokens for mirrored in mirrors]
        ids = [tokens[name][d.index] for tokens, (_, name), d in zip(stores, kinds, draws, strict=True)]
        contiguous = self.context.train.contiguous
        hidden = [_hidden_alone(d.rng, len(own), contiguous=contiguous) for own, d in zip(ids, draws, strict=True)]
        given = self.words.given(draws, wanted=[condition for condition, _ in kinds])
        return {"ids": stack(ids).long(), "hidden": stack(hidden), **given}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        ids, hidden = batch["ids"], batch["hidden"]
        inputs = torch.where(hidden, self.mask_id, ids)
        logits = module.logits(inputs, *self.words.read(batch), side=self.side)  # type: ignore[operator]
        target, smoothing = torch.where(hidden, ids, _IGNORE), self.context.train.label_smoothing
        total = F.cross_entropy(logits, target, ignore_index=_IGNORE, reduction="sum", label_smoothing=smoothing)
        return {"loss": total / over_workers(hidden.sum())}


def masked_transformer_task(context: Context) -> Task:
    """The task of a masked transformer: whether it has a common canvas decides."""
    network: Any = context.network("transformer")
    return (MaskedTransformerTask if network.map_codes else OnePictureTask)(context, network)
