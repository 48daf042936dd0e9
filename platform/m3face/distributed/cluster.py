"""Joining a cluster, or starting one on this machine for as long as a job lasts; and leaving it in order.

Odd here: Ray counts CPUs, it does not pin them. On this machine there is always one more than annotators hold, however
few the cores, else they could not start or nothing could be read for them. Messages of Ray Data are kept off the
screen: what a user can cure arrives as one line, the rest is in Ray's log folder.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayTaskError

import m3face
from m3face.errors import Cancelled, ConfigError, M3FaceError

OBJECT_STORE, IN_FLIGHT = 768 * 2**20, 0.8  # bytes on this machine, and how much of it Ray Data may fill
_GOES_ON = "start the same job again: it goes on from what is finished"


@contextmanager
def cluster(*, held: float) -> Iterator[None]:
    """Ray, joined where RAY_ADDRESS names a cluster (as in every submitted job), else our own.

    `held` is how many CPUs the annotators hold. A SIGTERM or Ctrl-C inside becomes Cancelled.
    """
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if ray.is_initialized():
        with _stoppable():
            yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    own: dict[str, Any] = {"address": address}
    if not address:
        cores = max(os.cpu_count() or 1, math.ceil(held) + 1)
        own = {"address": "local", "num_cpus": cores, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    try:
        ray.init(**own, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        remedy = "unset RAY_ADDRESS to use this machine"
        raise ConfigError("RAY_ADDRESS", f"{address or 'not set'}: {error}", "a running cluster", remedy) from None
    if not address:
        from ray.data import DataContext

        DataContext.get_current().override_object_store_memory_limit_fraction = IN_FLIGHT
    try:
        with _stoppable():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _stoppable() -> Iterator[None]:
    """A signal to end becomes an exception, after Ray has put its own handler in place."""

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        raise Cancelled(signal.Signals(number).name, "told to stop", "a job that runs to its end", _GOES_ON)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def shortage(*, cpus: float, gpus: float) -> str:
    """What the cluster lacks now of so many CPUs and GPUs; "" if nothing."""
    there = ray.cluster_resources()
    lacks = []
    if there.get("CPU", 0) < cpus:
        lacks.append(f"{there.get('CPU', 0):g} CPUs, wanted are {cpus:g}")
    if there.get("GPU", 0) < gpus:
        lacks.append(f"{there.get('GPU', 0):g} GPUs, wanted are {gpus:g}")
    return " and ".join(lacks)


def worker_environment(variables: dict[str, str]) -> dict[str, Any]:
    """The `runtime_env` by which workers find this very package, when it is not installed, and see `variables`."""
    home = Path(m3face.__file__).parents[1]
    if home.name not in ("site-packages", "dist-packages"):
        path = [str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {**variables, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
    return {"env_vars": variables}


def users_error(error: BaseException) -> M3FaceError | None:
    """The error that a user can cure among the causes of what Ray raised."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        if isinstance(one, M3FaceError) and not isinstance(one, RayTaskError):  # Ray's twin carries a traceback
            return one
        seen.add(id(one))
        waiting += [getattr(one, "cause", None), one.__cause__, one.__context__]
    return None
