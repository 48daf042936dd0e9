"""What a loss needs of the other workers: counts, sums and rows of the whole batch, whose share this worker has.

Odd here: a loss that is a plain mean over its samples needs none of this, since workers have equal shares and their
gradients are averaged. One that divides by a count, weighs by labels or compares samples does: the mean of the
workers' losses must be the loss of the whole batch. Alone, everything is what it was, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_gather


def over_workers(value: Tensor) -> Tensor:
    """The mean of `value` over the workers, without a gradient: what to divide a sum by."""
    if not _several():
        return value
    total = value.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


def share_of(own: Tensor) -> Tensor:
    """What a weighted mean counts beside those of the other workers: 1 alone.

    `own` is the sum of the weights of this worker's part of the batch.
    """
    return own / over_workers(own)


def from_workers(rows: Tensor) -> tuple[Tensor, int]:
    """Rows [n, ..] of all workers in the order of the global batch, and where this worker's begin.

    Gradients come back to whose rows they are.
    """
    if not _several():
        return rows, 0
    return torch.cat(list(all_gather(rows.contiguous()))), distributed.get_rank() * len(rows)


def _several() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
