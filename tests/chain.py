"""The whole chain of the preset `tiny`, trained for two steps on 24 faces: what the slow tests share.

Odd here: these are the real recipes of jobs/configs and the real networks; only counts are small. A component is
trained when it is first asked for, with everything before it, so one test alone runs too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from m3face import checkpoints, presets
from m3face.config import COMPONENTS, RunConfig, load_config
from m3face.tasks import Context
from m3face.training.run import train

CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
FACES = 24
_SMALL = (f"data.count={FACES}", "data.captions_per_face=2", "train.steps=2", "train.batch_size=4")


def silent(_what: str, _done: int, _total: int, _metrics: Mapping[str, float]) -> None:
    return None


class Chain:
    """A folder of runs in which the networks train in order."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.weights = home / "weights" / "tiny"
        self._left = list(COMPONENTS)

    def config(self, component: str, *overrides: str) -> RunConfig:
        """The recipe of `component` at small counts, in this folder."""
        return load_config(CONFIGS / f"tiny_{component}.yaml", [*_SMALL, f"runs={self.home}", *overrides])

    def context(self, component: str, *overrides: str) -> Context:
        """What the task of `component` is made from; everything before it is trained."""
        self.until(component, inclusive=False)
        config = self.config(component, *overrides)
        return Context(
            preset=presets.get(config.preset),
            weights=self.weights,
            caches=self.home / "caches",
            data=config.data,
            train=config.train,
            seed=config.seed,
            device="cpu",
        )

    def until(self, component: str, *, inclusive: bool = True) -> Path:
        """The weights folder with every network up to `component` in it."""
        last = COMPONENTS.index(component) + inclusive
        while self._left and COMPONENTS.index(self._left[0]) < last:
            train(self.config(self._left[0]), report=silent, device="cpu")
            self._left.pop(0)
        return self.weights

    def copy(self, home: Path, component: str) -> Chain:
        """Another folder with the frozen networks of `component` and the same caches, and no run."""
        self.until(component, inclusive=False)
        (self.home / "caches").mkdir(exist_ok=True)
        home.mkdir(parents=True, exist_ok=True)
        (home / "caches").symlink_to(self.home / "caches")
        other = Chain(home)
        if self.weights.is_dir():
            later = COMPONENTS[COMPONENTS.index(component) :]
            shutil.copytree(self.weights, other.weights, ignore=shutil.ignore_patterns(*later))
            checkpoints.write_manifest(other.weights)
        other._left = list(COMPONENTS[COMPONENTS.index(component) :])
        return other
