"""Who answers a flow: stages in this process. (Over Serve handles: `m3face.distributed`.)"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from m3face.errors import M3FaceError
from m3face.stages import Preview, Stage

OnCall = Callable[[str, int, Sequence[Preview | None]], "Collection[int] | None"]
"""`on_call(stage, step, previews)`: a stage's `on_step` with its name in front."""


class Call(Protocol):
    """`await call("face", request)` gives the result, or raises the `M3FaceError`."""

    async def __call__(self, name: str, request: Any) -> Any: ...


def in_process(stages: Mapping[str, Stage], *, on_call: OnCall | None = None) -> Call:
    """A `call` that runs stages of this process; `stages` by the names of `m3face.stages.STAGES`."""

    async def call(name: str, request: Any) -> Any:
        def report(step: int, previews: Sequence[Preview | None]) -> Collection[int] | None:
            return None if on_call is None else on_call(name, step, previews)

        (result,) = stages[name].run([request], on_step=report)
        if isinstance(result, M3FaceError):
            raise result
        return result

    return call
