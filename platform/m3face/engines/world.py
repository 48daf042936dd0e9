"""Who trains together: the ranks of a run, and the few things that they tell each other.

Odd here: with one worker nothing is sent and nothing is rounded, so a run alone is what it was before there were
several. Whatever may fail on one worker only is done through `first`: an error of one is an error of all, since a
worker that goes on alone waits for the others for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from m3face.errors import M3FaceError

Result = TypeVar("Result")
Item = TypeVar("Item")

_BUCKET = 64 * 2**20  # bytes of gradients that travel together


@dataclass(frozen=True)
class World:
    """Rank `rank` of `size` workers; torch's default process group joins them where there is more than one."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    """Where tensors must lie to be sent: cuda under nccl."""

    @property
    def leads(self) -> bool:
        """The one who writes and reports."""
        return self.rank == 0

    def share(self, whole: Sequence[Item]) -> Sequence[Item]:
        """This worker's part of a global batch: as many as everyone, in order."""
        part = len(whole) // self.size
        return whole[self.rank * part : (self.rank + 1) * part]

    def any(self, mine: bool) -> bool:
        """Whether it is so for one worker at least."""
        if self.size == 1:
            return mine
        flag = torch.tensor(float(mine), device=self.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the workers."""
        if self.size == 1:
            return values
        sent = values.detach().to(self.device, copy=True)
        distributed.all_reduce(sent)
        return (sent / self.size).to(values.device)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Every gradient becomes its mean over the workers; one that nobody has stays none."""
        if self.size == 1:
            return
        given = list(parameters)
        has = torch.tensor([float(p.grad is not None) for p in given], device=self.device)
        distributed.all_reduce(has, distributed.ReduceOp.MAX)
        theirs = [p for p, somebody in zip(given, has.tolist()) if somebody]
        for p in theirs:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        for bucket in _buckets([p.grad for p in theirs if p.grad is not None]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(flat)
            flat /= self.size
            for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket])):
                gradient.copy_(mean.view_as(gradient))

    def first(self, act: Callable[[], Result]) -> Result:
        """What `act` gives on the first worker, told to all. Its M3FaceError is raised on all."""
        if self.size == 1:
            return act()
        told: list[Any] = [None, None]
        broken: Exception | None = None
        if self.leads:
            try:
                told[0] = act()
            except M3FaceError as error:
                told[1] = error
            except Exception as error:  # told too, lest the others wait; raised here as it came
                told[1], broken = RuntimeError(f"the first worker failed: {error!r}"), error
        distributed.broadcast_object_list(told, 0, device=torch.device(self.device))
        if broken is not None:
            raise broken
        if told[1] is not None:
            raise told[1]
        result: Result = told[0]
        return result


def _buckets(gradients: Sequence[Tensor]) -> Iterable[list[Tensor]]:
    held: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if held and (size >= _BUCKET or gradient.dtype != held[0].dtype):
            yield held
            held, size = [], 0
        held.append(gradient)
        size += gradient.numel() * gradient.element_size()
    if held:
        yield held
