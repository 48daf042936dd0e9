"""Every objective on two workers is what it is on one: the same losses, from the same draws in the same batches.

Odd here: real networks of `tiny`, which know nothing, and two processes that train all of them in one start.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from m3face.config import RunConfig, load_config
from m3face.engines import World
from m3face.training.run import train
from tests.chain import CONFIGS, silent
from tests.together import together

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("one_thread")]

QUICK = ("controlnet_mask",)
LONG = ("text_encoder", "map_vq", "transformer", "vae", "unet", "parser", "attribute_classifier", "identity_embedder")


def _config(component: str, home: Path, weights: Path, *more: str) -> RunConfig:
    start = [f"train.start=dir:{weights}"] if component == "text_encoder" else []  # else each trains a tokenizer anew
    return load_config(
        CONFIGS / f"tiny_{component}.yaml",
        [
            *("data.count=8", "train.steps=3", "train.batch_size=4", "train.log_every=1", "train.warmup_steps=0"),
            *("train.precision=fp32", "train.report_to=none", f"runs={home}", f"weights=dir:{weights}"),
            *start,
            *more,
        ],
    )


def _restart_early() -> None:
    """Dead codes are put anew within these steps, so that this is compared too."""
    from m3face.tasks import tokens

    tokens._RESTART_EVERY = 2


def _train_all(world: World, components: Sequence[str], home: Path, weights: Path) -> None:
    _restart_early()
    for component in components:
        config = _config(component, home, weights, f"train.workers={world.size}")
        train(config, report=silent, device="cpu", world=world)


def _metrics(home: Path, component: str) -> list[dict[str, float]]:
    file = home / "runs" / "tiny" / component / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def _same(components: Sequence[str], folder: Path, weights: Path) -> None:
    alone, both = folder / "alone", folder / "both"
    both.mkdir()
    _train_all(World(), components, alone, weights)
    (both / "caches").symlink_to(alone / "caches")
    together(2, _train_all, components, both, weights)
    for component in components:
        one, two = _metrics(alone, component), _metrics(both, component)
        assert [m["step"] for m in one] == [m["step"] for m in two] == [1, 2, 3]
        for step, (a, b) in enumerate(zip(one, two, strict=True)):
            assert math.isclose(a["loss"], b["loss"], rel_tol=1e-5, abs_tol=1e-5), (component, step, a, b)
            assert math.isclose(a["gradient_norm"], b["gradient_norm"], rel_tol=1e-3, abs_tol=1e-5), (component, a, b)


def test_a_controlnet_on_two_workers_is_the_one_on_one(random_weights: Path, tmp_path: Path) -> None:
    _same(QUICK, tmp_path, random_weights)


def test_every_objective_on_two_workers_is_the_one_on_one(random_weights: Path, tmp_path: Path) -> None:
    _same(LONG, tmp_path, random_weights)
