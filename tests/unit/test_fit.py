"""Which samples a step sees, and the loop: functions of (seed, epoch, place), whoever asks and whenever."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from m3face.config import TrainConfig
from m3face.engines import TorchEngine
from m3face.engines.base import learning_rate
from m3face.errors import CheckpointError, TrainingError
from m3face.training import draws_of_step, fit
from m3face.training.fit import _order

BATCH, COUNT = 4, 10


def _draws(step: int, seed: int = 0) -> list[tuple[int, float]]:
    return [(d.index, float(d.rng.random())) for d in draws_of_step(step, batch_size=BATCH, count=COUNT, seed=seed)]


def test_draws_are_the_same_after_a_restart() -> None:
    before = [_draws(step) for step in range(12)]
    _order.cache_clear()
    assert [_draws(step) for step in (7, 3, 11)] == [before[step] for step in (7, 3, 11)]


def test_every_sample_is_seen_once_an_epoch_and_each_epoch_has_its_own_order() -> None:
    seen = [index for step in range(5) for index, _ in _draws(step)]
    first, second = seen[:COUNT], seen[COUNT:]
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second


def test_another_seed_another_order_and_other_numbers() -> None:
    assert [i for s in range(5) for i, _ in _draws(s)] != [i for s in range(5) for i, _ in _draws(s, seed=1)]
    numbers = [u for step in range(50) for _, u in _draws(step)]
    assert len(set(numbers)) == len(numbers)  # no two samples, in no two epochs, share their draws


@pytest.mark.parametrize("workers", [2, 4])
def test_the_global_batch_does_not_depend_on_how_it_is_cut(workers: int) -> None:
    """A batch of 4 is the same samples with the same draws as its parts in batches of 4 / workers."""
    part = BATCH // workers
    cut = [
        (d.index, float(d.rng.random()))
        for step in range(3 * workers)
        for d in draws_of_step(step, batch_size=part, count=COUNT, seed=0)
    ]
    assert cut == [draw for step in range(3) for draw in _draws(step)]


def test_learning_rate_warms_up_then_falls_to_a_hundredth() -> None:
    config = TrainConfig(component="vae", steps=1000, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate(config, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=1e-3)
    assert learning_rate(config.model_copy(update={"schedule": "constant"}), 999) == 1.0


def _engine(**more: object) -> TorchEngine:
    torch.manual_seed(0)
    numbers = {"component": "vae", "steps": 9, "warmup_steps": 0, "precision": "fp32", **more}
    config = TrainConfig.model_validate(numbers)

    def losses(module: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"loss": (module(batch["x"]) - batch["y"]).square().mean()}

    return TorchEngine(nn.Linear(3, 1), losses, config, device="cpu")


def _batch(step: int) -> dict[str, Tensor]:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def test_fit_trains_from_first_to_last_and_stops_when_told() -> None:
    steps: list[int] = []
    batches = lambda step: [_batch(step)]  # noqa: E731
    assert fit(_engine(), batches, first=2, last=6, on_step=lambda step, _m: steps.append(step)) == 6
    assert steps == [3, 4, 5, 6]
    assert fit(_engine(), batches, first=0, last=6, on_step=lambda step, _m: step == 4) == 4


def test_a_loss_that_is_not_finite_stops_before_the_update() -> None:
    engine = _engine()
    before = [p.clone() for p in engine.module.parameters()]
    with pytest.raises(TrainingError, match="at step 0"):
        engine.step({"x": torch.full((1, 3), math.nan), "y": torch.zeros(1, 1)})
    assert all(torch.equal(p, b) for p, b in zip(engine.module.parameters(), before, strict=True))


def test_a_gradient_that_is_not_finite_stops_before_the_update() -> None:
    engine = _engine()
    before = [p.clone() for p in engine.module.parameters()]
    root = engine.losses
    engine.losses = lambda module, batch: {"loss": (root(module, batch)["loss"] * 0).sqrt()}  # 0, with a slope of inf
    with pytest.raises(TrainingError, match="gradient is not finite at step 0"):
        engine.step(_batch(0))
    assert all(torch.equal(p, b) for p, b in zip(engine.module.parameters(), before, strict=True))


def test_the_average_is_exported_and_the_trained_weights_come_back() -> None:
    engine = _engine(ema=0.5)
    for step in range(5):
        engine.step(_batch(step))
    trained = {name: p.detach().clone() for name, p in engine.module.named_parameters()}
    back = engine.finished()
    assert not engine.module.training
    assert all(torch.equal(p, engine.average[name]) for name, p in engine.module.named_parameters())
    assert any(not torch.equal(engine.average[name], trained[name]) for name in trained)
    back()
    assert engine.module.training
    assert all(torch.equal(p, trained[name]) for name, p in engine.module.named_parameters())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_state_saved_and_loaded_goes_on_alike(ema: float, tmp_path: Path) -> None:
    engine = _engine(ema=ema)
    for step in range(3):
        engine.step(_batch(step))
    engine.save_state(tmp_path)
    other = _engine(ema=ema)
    other.load_state(tmp_path)
    assert other.steps_done == 3
    for step in range(3, 6):
        assert engine.step(_batch(step)) == other.step(_batch(step))
    for name, parameter in engine.parameters.items():
        assert torch.equal(parameter, other.parameters[name])
        assert not ema or torch.equal(engine.average[name], other.average[name])


def test_state_of_another_network_is_refused_by_name(tmp_path: Path) -> None:
    _engine().save_state(tmp_path)
    engine = _engine()
    engine.parameters["third"] = nn.Parameter(torch.zeros(1))
    with pytest.raises(CheckpointError, match="lacks third"):
        engine.load_state(tmp_path)
