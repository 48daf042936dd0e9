"""The masked transformer: words to map and landmark tokens (Muse's objective, M3Face section 3.1).

Odd here: the share masked follows the sampler's own cosine; with probability 0.15 it is a rectangle of cells, as in
the authors' code, which is what editing a region needs. In 30 % of the samples one modality is known and the other
masked, wholly or (half of the time) in part, so that each completes the other. Labels are not smoothed: the sampler
draws from these very distributions, and a tenth of their mass on any token at all is a tenth of its draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.models.masked_transformer import MaskedTransformer, canvas
from m3face.sampling import masked_share
from m3face.tasks.base import Batch, Context, Draw, Task, stack

_RECTANGLE = 0.15
_ONE_GIVEN = 0.3
_IGNORE = -100


def _hidden(rng: np.random.Generator, side: int) -> NDArray[np.bool_]:
    """Which tokens of [side, 2 side] are masked."""
    kind = rng.random()
    share = masked_share(rng.random())
    if kind < _ONE_GIVEN:
        hidden = np.zeros((side, side, 2), dtype=bool)
        hidden[..., int(rng.integers(2))] = True
        if rng.random() < 0.5:  # the sampler's way there: part of the missing modality already written
            hidden &= rng.random(hidden.shape) < max(share, 0.02)
    elif kind < _ONE_GIVEN + _RECTANGLE:
        height, width = (max(1, round(side * s)) for s in (share ** rng.random(), share ** rng.random()))
        top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
        hidden = np.zeros((side, side, 2), dtype=bool)
        hidden[top : top + height, left : left + width] = True
    else:
        count = max(1, round(side * side * 2 * share))
        hidden = (rng.permutation(side * side * 2) < count).reshape(side, side, 2)
    if not hidden.any():
        hidden[int(rng.integers(side)), int(rng.integers(side))] = True
    return hidden.reshape(side, side * 2)


class MaskedTransformerTask(Task):
    """Cross-entropy of the masked tokens under the words."""

    def __init__(self, context: Context) -> None:
        self.context, self.faces, self.tokens = context, context.faces, context.tokens
        self.count = len(self.tokens)
        self.module = context.network("transformer")
        assert isinstance(self.module, MaskedTransformer)
        self.mask_id, self.map_codes = self.module.mask_id, self.module.map_codes

    def batch(self, draws: Sequence[Draw]) -> Batch:
        side = self.tokens["map"].shape[1]
        mirrors = self.context.mirrors(draws)
        hidden = stack([_hidden(d.rng, side) for d in draws])
        states = self.context.drawn_states(draws)
        stores = [self.context.mirrored_tokens if mirrored else self.tokens for mirrored in mirrors]
        maps = stack([tokens["map"][d.index] for tokens, d in zip(stores, draws)]).long()
        landmarks = stack([tokens["landmarks"][d.index] for tokens, d in zip(stores, draws)]).long()
        ids = canvas(maps, landmarks, map_codes=self.map_codes, mask_id=self.mask_id)
        return {"ids": ids, "hidden": hidden, "states": states}

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        ids, hidden, states = batch["ids"], batch["hidden"], batch["states"]
        inputs = torch.where(hidden, self.mask_id, ids)
        logits = module.logits(inputs, states, states.mean(1))  # type: ignore[operator]
        total, parts = torch.zeros((), device=ids.device), {}
        for name, first, last, offset in (
            ("map", 0, self.map_codes, 0),
            ("landmarks", self.map_codes, logits.shape[1], 1),
        ):
            own = logits[:, first:last, :, offset::2]
            target = torch.where(hidden[:, :, offset::2], ids[:, :, offset::2] - first, _IGNORE)
            part = F.cross_entropy(own, target, ignore_index=_IGNORE, reduction="sum")
            parts[name] = part.detach() / hidden[:, :, offset::2].sum().clamp(min=1)
            total = total + part
        return {"loss": total / hidden.sum(), **parts}

    def export(self, root: Path) -> None:
        checkpoints.save("transformer", self.module, root)
