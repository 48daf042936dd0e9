"""A signal to end, noted: what works goes on to the next place where it may stop.

Odd here: only the main thread of a process hears signals; elsewhere nobody is ever told to stop.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any


def never() -> bool:
    """Nobody says stop."""
    return False


@contextmanager
def told_to_stop() -> Iterator[Callable[[], str]]:
    """A function that gives the name of the signal that came (SIGTERM or SIGINT), "" while none has.

    A second one ends the process as it would without this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    told: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
        told.append(signal.Signals(number).name)
        _restore(before)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: told[0] if told else ""
    finally:
        _restore(before)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
