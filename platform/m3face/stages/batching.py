"""From a list of requests to groups that run together, and back to a list in the same order.

Odd here: a network's last bits on a CPU or GPU depend on the batch it runs in, and one flipped token is another face.
So a group always has exactly `micro_batch` members (the last ones repeat when there are fewer), which makes a request's
arithmetic the same alone and beside others. One is right on a CPU, where batching gains little; on a GPU a larger
number buys throughput and makes a lone request pay for the whole group.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from m3face.errors import Cancelled, M3FaceError
from m3face.stages.requests import OnStep, Preview

R = TypeVar("R")
P = TypeVar("P")


class _NobodyLeft(Exception):
    """Every member of a running group was dropped."""


class Group(Generic[P]):
    """Requests that run together. `members` has exactly the fixed size; only the first `count` are real."""

    def __init__(self, members: list[P], indices: list[int], *, total: int, dropped: set[int], on_step: OnStep | None):
        self.members, self.indices = members, indices
        self._total, self._dropped, self._on_step = total, dropped, on_step

    @property
    def count(self) -> int:
        return len(self.indices)

    def step(self, step: int, previews: Callable[[int], Preview]) -> None:
        """Report a step; `previews(member)` makes the preview of one member. Ends the group if nobody is left."""
        if self._on_step is None:
            return
        shown: list[Preview | None] = [None] * self._total
        for member, index in enumerate(self.indices):
            if index not in self._dropped:
                shown[index] = previews(member)
        self._dropped.update(self._on_step(step, shown) or ())
        if self._dropped.issuperset(self.indices):
            raise _NobodyLeft


def run_groups(
    requests: Sequence[Any],
    *,
    prepare: Callable[[Any], P],
    key: Callable[[P], Hashable],
    work: Callable[[Group[P]], Sequence[R]],
    micro_batch: int,
    on_step: OnStep | None = None,
) -> list[R | M3FaceError]:
    """One result or error a request, in order.

    `prepare` checks a request (what it raises of `M3FaceError` is that request's answer); those of equal `key` are put
    into groups of `micro_batch`, and `work` gives a result for each member of a group.
    """
    results: list[R | M3FaceError | None] = [None] * len(requests)
    alike: dict[Hashable, list[tuple[int, P]]] = {}
    for index, request in enumerate(requests):
        try:
            prepared = prepare(request)
        except M3FaceError as error:
            results[index] = error
        else:
            alike.setdefault(key(prepared), []).append((index, prepared))
    dropped: set[int] = set()
    for waiting in alike.values():
        for start in range(0, len(waiting), micro_batch):
            part = [item for item in waiting[start : start + micro_batch] if item[0] not in dropped]
            if not part:
                continue
            indices, members = [index for index, _ in part], [prepared for _, prepared in part]
            members += [members[-1]] * (micro_batch - len(members))
            group = Group(members, indices, total=len(requests), dropped=dropped, on_step=on_step)
            try:
                for index, result in zip(indices, work(group), strict=False):
                    results[index] = result
            except _NobodyLeft:
                continue
    stopped = Cancelled("request", "stopped by its caller", "a request that is let run", "ask again")
    return [stopped if index in dropped or result is None else result for index, result in enumerate(results)]
