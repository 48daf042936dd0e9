"""Several workers without Ray: processes of this machine, joined by gloo.

Odd here: what they do is a function of a module, called as `act(world, *given)`; its answers come back in order.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

_LONGEST_S = 540


def _one(rank: int, size: int, store: str, act: Callable[..., Any], given: tuple[Any, ...], answers: Any) -> None:
    os.environ |= {"LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    import torch
    from torch import distributed

    from m3face.engines import World

    torch.set_num_threads(1)
    try:
        distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
        answer = pickle.dumps(act(World(rank, size), *given))  # a queue would send tensors as handles
        answers.put((rank, answer, ""))
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))
        raise


def together(size: int, act: Callable[..., Any], *given: Any) -> list[Any]:
    """What `act(world, *given)` gives on each of `size` workers."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        workers = [context.Process(target=_one, args=(r, size, store, act, given, answers)) for r in range(size)]
        for worker in workers:
            worker.start()
        try:
            found = [answers.get(timeout=_LONGEST_S) for _ in workers]
            broken = [trouble for _, _, trouble in found if trouble]
            assert not broken, broken[0]
        finally:
            for worker in workers:
                worker.join(30)
                worker.kill()
    return [pickle.loads(answer) for _, answer, _ in sorted(found, key=lambda one: one[0])]
