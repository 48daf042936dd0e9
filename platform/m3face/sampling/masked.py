"""Iterative parallel decoding of masked tokens (MaskGIT / Muse; M3Face section 3.1).

Odd here: every random number comes from the request's own generator, on the CPU in fp32, in a fixed order, so a request
gives the same tokens alone or beside others. The same cosine serves training (`masked_share` of a uniform draw) and
sampling (`masked_share` of the progress).
"""

# B batch, N positions, V ids

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Logits = Callable[[Tensor], Tensor]
"""ids int64 [B, h, w] to logits [B, V, h, w]"""


def masked_share(progress: float) -> float:
    """The share of positions hidden at `progress` 0..1 of the sampling, 1 at the start and 0 at the end: a cosine."""
    return math.cos(math.pi / 2 * progress)


def decode_masked(
    logits: Logits,
    ids: Tensor,
    *,
    mask_id: int,
    steps: int,
    generators: Sequence[torch.Generator],
    temperature: float = 1.0,
    confidence_noise: float = 4.0,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Fill every `mask_id` of `ids` [B, h, w]; what is known stays as it is, index for index.

    In each of `steps` steps all masked positions are drawn from the softmax at `temperature`; then the least sure are
    masked again, so that `masked_share` of those masked at the start remain. Sureness is log p plus Gumbel noise that
    fades from `confidence_noise` to 0: with little of it the surest come first, and what can look many ways (an
    earring) loses to what always looks alike (none). `generators` holds one a row of the batch.
    """
    shape = ids.shape
    ids_BN = ids.flatten(1).clone()
    hidden_BN = ids_BN == mask_id
    start_B = hidden_BN.sum(1)
    for step in range(steps):
        logits_BNV = logits(ids_BN.view(shape)).flatten(2).transpose(1, 2).float().cpu() / temperature
        log_p_BNV = logits_BNV.log_softmax(-1)
        draws = [torch.rand(2, ids_BN.shape[1], generator=g) for g in generators]
        uniform_BN = torch.stack([d[0] for d in draws])
        gumbel_BN = -torch.log(-torch.log(torch.stack([d[1] for d in draws]).clamp(1e-9, 1 - 1e-7)))
        total_BNV = log_p_BNV.exp().cumsum(-1)
        drawn_BN = torch.searchsorted(total_BNV, (uniform_BN * total_BNV[..., -1]).unsqueeze(-1)).squeeze(-1)
        drawn_BN = drawn_BN.clamp(max=log_p_BNV.shape[-1] - 1)
        ids_BN = torch.where(hidden_BN, drawn_BN.to(ids_BN.device), ids_BN)
        progress = (step + 1) / steps
        sure_BN = log_p_BNV.gather(-1, drawn_BN.unsqueeze(-1)).squeeze(-1)
        sure_BN = sure_BN + confidence_noise * (1 - progress) * gumbel_BN
        sure_BN = sure_BN.masked_fill(~hidden_BN.cpu(), float("inf"))
        if step + 1 < steps:
            again_B = (start_B.cpu() * masked_share(progress)).floor().long()
            order_BN = sure_BN.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
            hidden_BN = (order_BN < again_B[:, None]).to(ids_BN.device) & hidden_BN
            ids_BN = torch.where(hidden_BN, mask_id, ids_BN)
        if on_step is not None:
            on_step(step, ids_BN.view(shape))
    return ids_BN.view(shape)
