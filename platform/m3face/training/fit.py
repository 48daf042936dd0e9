"""The loop, and which samples a step sees.

Odd here: every draw is a function of (seed, epoch, position in the epoch), so a resumed run sees what an unbroken one
would have seen, and nothing of the data order needs saving but the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from m3face.engines import Batch, Engine
from m3face.tasks.base import Draw

_ORDER, _SAMPLE = 0, 1  # streams of random numbers


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


def draws_of_step(step: int, *, batch_size: int, count: int, seed: int) -> list[Draw]:
    """The draws of the global batch of `step` (from 0) over `count` samples, each epoch in its own order."""
    draws = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, count)
        index = int(_order(seed, epoch, count)[place])
        draws.append(Draw(index, np.random.default_rng([seed, _SAMPLE, epoch, place])))
    return draws


def fit(
    engine: Engine,
    batches: Callable[[int], Sequence[Batch]],
    *,
    first: int,
    last: int,
    on_step: Callable[[int, Mapping[str, float]], bool | None],
) -> int:
    """Train steps `first` .. `last` - 1; `on_step(steps done, metrics)` returns True to stop. The steps done.

    `batches(step)` is this worker's share of the global batch, in one pass or more.
    """
    for step in range(first, last):
        if on_step(step + 1, engine.step(*batches(step))):
            return step + 1
    return last
