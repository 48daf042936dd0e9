"""A `Spread` over actors: encoders run where there is room, each actor with one copy of the present one.

Odd here: an encoder travels through Ray's object store, what it is to encode follows chunk by chunk, and arrays come
back: workers need no file of ours. The same actors serve one encoder after another, since to start one takes longer
than many a cache. An actor gets chunks once there is room for it, so to want too many stops nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import ray
from ray.exceptions import RayError

from m3face.config.dataset import PlacementConfig
from m3face.data.store import Arrays, Encode
from m3face.distributed.cluster import users_error
from m3face.errors import DataError

_AHEAD = 2  # chunks that an actor has, so that it never waits for the next
_LIVES = 4  # of an actor whose process or node is lost


class _Worker:
    """Keeps the encoder that it was last given."""

    def __init__(self, placement: PlacementConfig) -> None:
        self._placement, self._held = placement, ""
        self._encode: Encode | None = None

    def ready(self) -> None:
        return None

    def encode(self, shared: list[Any], read: Any) -> Arrays:
        if self._held != shared[0].hex():
            self._encode = None  # there may be no room for two
            self._held, self._encode = shared[0].hex(), self._placed(ray.get(shared[0]))
        assert self._encode is not None
        return self._encode(read)

    def _placed(self, encode: Encode) -> Encode:
        """A network on its threads and device; what is none as it is, without torch."""
        torch: Any = sys.modules.get("torch")
        if torch is not None and isinstance(encode, torch.nn.Module):
            torch.set_num_threads(self._placement.threads)
            if self._placement.gpus:
                encode.to("cuda")
        return encode


class Actors:
    """Called, it is a `Spread`. A lost actor begins anew, with its chunks; DataError when it is lost too often.

    All of them end with the `with` block that they are made for.
    """

    def __init__(self, placement: PlacementConfig, environment: Mapping[str, Any]) -> None:
        self._placement, self._environment = placement, dict(environment)
        self._all: list[Any] = []
        self._starting: dict[Any, Any] = {}
        self._free: list[Any] = []

    def _start(self) -> None:
        actor = ray.remote(_Worker).options(
            num_cpus=self._placement.cpus,
            num_gpus=self._placement.gpus or None,
            runtime_env=self._environment,
            max_restarts=_LIVES - 1,
            max_task_retries=_LIVES - 1,
        )
        self._all = [actor.remote(self._placement) for _ in range(self._placement.workers)]
        self._starting = {one.ready.remote(): one for one in self._all}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._all:
            ray.kill(actor)

    def __call__(self, encode: Encode, given: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Arrays]]:
        if not self._all:  # not before: it may be that all is made already
            self._start()
        shared = [ray.put(encode)]  # in a list, else Ray unpacks it for every call
        running: dict[Any, tuple[int, Any]] = {}
        for number, read in given:
            while not self._free:
                yield from self._settled(running)
            actor = self._free.pop(0)
            running[actor.encode.remote(shared, read)] = (number, actor)
        while running:
            yield from self._settled(running)

    def _settled(self, running: dict[Any, tuple[int, Any]]) -> Iterator[tuple[int, Arrays]]:
        """What is done first: a chunk, or the start of an actor."""
        (done,), _ = ray.wait([*self._starting, *running])
        arrays = _result(done)
        if done in self._starting:
            self._free.extend([self._starting.pop(done)] * _AHEAD)
        else:
            number, actor = running.pop(done)
            self._free.append(actor)
            yield number, arrays


def _result(done: Any) -> Arrays:
    try:
        arrays: Arrays = ray.get(done)
    except RayError as error:
        if (cured := users_error(error)) is not None:
            raise cured from None
        first, remedy = str(error).strip().splitlines()[0], "give workers more memory (fewer placement.workers)"
        raise DataError("placement", f"a worker was lost: {first}", "workers that live", remedy) from None
    return arrays
