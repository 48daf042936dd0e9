"""An encoder of nothing, light enough for an actor to start at once, with ways to fail."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from m3face.errors import DataError


class Squares:
    """Numbers to their squares; `dies` is a file that is made when the process ends in the middle of a chunk."""

    def __init__(self, dies: Path | None = None, refuses: bool = False) -> None:
        self.dies, self.refuses = dies, refuses

    def __call__(self, numbers: range) -> dict[str, Any]:
        if 40 in numbers:
            if self.refuses:
                raise DataError("face 40", "is wrong", "a right one", "leave it out")
            if self.dies is not None and not self.dies.exists():
                self.dies.touch()
                os._exit(1)
        return {"square": np.array(numbers) ** 2}
