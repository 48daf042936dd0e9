"""Two workers are one: on plain torch and under DeepSpeed, at every stage of ZeRO, and their state files are one kind.

Odd here: both workers go through all cases in one start of two processes, since starting them is most of the time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from m3face.config import TrainConfig
from m3face.engines import Batch, Engine, World, make_engine, save_state
from m3face.errors import ConfigError
from tests.together import together

pytest.importorskip("deepspeed")

BATCH, STEPS, HALF_WAY = 8, 6, 3

CASES: dict[str, dict[str, Any]] = {
    "torch": {},
    "torch twice": {"accumulate": 2},
    **{f"zero {stage}": {"engine": "deepspeed", "zero": stage} for stage in range(4)},
    "zero 1 twice": {"engine": "deepspeed", "zero": 1, "accumulate": 2},
    "zero 3 twice": {"engine": "deepspeed", "zero": 3, "accumulate": 2},
    **{f"zero {s} bf16": {"engine": "deepspeed", "zero": s, "precision": "bf16"} for s in range(4)},
    **{f"zero {s} offload": {"engine": "deepspeed", "zero": s, "offload": True} for s in (1, 2, 3)},
}
FP32 = [name for name, more in CASES.items() if more.get("precision") != "bf16"]


def _network() -> nn.Module:
    """Of sizes that no two workers can share evenly."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(1, 7).requires_grad_(False)  # it never learns
    return nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), norm, nn.SiLU(), nn.Flatten(), nn.Linear(7 * 9, 5))


def _losses(module: nn.Module, batch: Batch) -> dict[str, Tensor]:
    error = (module(batch["x"]).float() - batch["y"]).square().mean()
    return {"loss": error, "root": error.detach().sqrt()}


def _engine(world: World, **more: Any) -> Engine:
    numbers = {"component": "unet", "steps": 20, "batch_size": BATCH, "warmup_steps": 2, "ema": 0.9, "clip_norm": 0.5}
    config = TrainConfig.model_validate({**numbers, "precision": "fp32", "workers": world.size, **more})
    return make_engine(_network(), _losses, config, device="cpu", world=world)


def _passes(world: World, step: int, count: int) -> list[Batch]:
    x = torch.randn(BATCH, 3, 3, 3, generator=torch.Generator().manual_seed(step))
    mine = world.share(list(x))
    part = len(mine) // count
    passes = [torch.stack(list(mine[i : i + part])) for i in range(0, len(mine), part)]
    return [{"x": part, "y": part.flatten(1)[:, :5]} for part in passes]


def _train(engine: Engine, world: World, until: int, passes: int = 1) -> list[dict[str, float]]:
    return [engine.step(*_passes(world, step, passes)) for step in range(engine.steps_done, until)]


def _all_cases(world: World, root: Path) -> dict[str, Any]:
    """Losses of six steps, of six with a stop after three, and of the plain engine that goes on after three."""
    found: dict[str, Any] = {}
    for name, more in CASES.items():
        engine, passes = _engine(world, **more), int(more.get("accumulate", 1))
        first = _train(engine, world, HALF_WAY, passes)
        state = engine.state()
        folder = root / name
        if world.leads:
            folder.mkdir()
            save_state(state, folder)
        rest = _train(engine, world, STEPS, passes)
        end = engine.state()
        back = engine.finished()
        exported = {n: p.detach().float().clone() for n, p in engine.module.named_parameters()}
        back()
        resumed = _engine(world, **more)
        resumed.load_state(folder)
        again = _train(resumed, world, STEPS, passes)
        same = resumed.state()
        plain = _engine(world, precision=more.get("precision", "fp32"))
        plain.load_state(folder)
        found[name] = {
            "first": first,
            "rest": rest,
            "again": again,
            "by the plain engine": _train(plain, world, STEPS),
            "state": {n: v.clone() for n, v in end.items()},
            "alike": [n for n in end if not torch.equal(end[n], same[n])],
            "exported": exported if world.leads else {},
        }
    return found


def _told(world: World) -> str:
    """What this worker hears of an error that only the first one met."""

    def fails() -> None:
        raise ConfigError("a", "b", "c")

    try:
        world.first(fails)
    except ConfigError as error:
        return str(error)
    return "nothing"


def _averaged(world: World) -> list[float | None]:
    """The gradients after averaging: had by both, by the first alone, by nobody."""
    both, first, nobody = (torch.zeros(1, requires_grad=True) for _ in range(3))
    both.grad = torch.tensor([1.0 + world.rank])
    if world.leads:
        first.grad = torch.tensor([4.0])
    world.average_gradients([both, first, nobody])
    return [None if p.grad is None else float(p.grad) for p in (both, first, nobody)]


def _everything(world: World, root: Path) -> dict[str, Any]:
    return {"told": _told(world), "averaged": _averaged(world), "any": world.any(world.rank == 1)} | _all_cases(
        world, root
    )


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root: Path = tmp_path_factory.mktemp("cases")
    first, second = together(2, _everything, root)
    assert all(second[name]["state"] == {} for name in CASES), "one worker has it all"
    for name in ("told", "averaged", "any"):
        assert first[name] == second[name]
    assert [second[n]["first"] for n in CASES] == [first[n]["first"] for n in CASES], "all are told the same metrics"
    return {**first, "root": root}


def test_workers_tell_each_other_errors_gradients_and_flags(cases: dict[str, Any]) -> None:
    assert cases["told"] == "a: b; allowed: c"
    assert cases["averaged"] == [1.5, 2.0, None]
    assert cases["any"] is True
    assert _averaged(World()) == [1.0, 4.0, None]


@pytest.fixture(scope="module")
def alone() -> list[dict[str, float]]:
    world = World()
    engine = _engine(world)
    return _train(engine, world, STEPS)


def _apart(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    return max(abs(a[name] - b[name]) for a, b in zip(one, other, strict=True) for name in ("loss", "gradient_norm"))


@pytest.mark.parametrize("name", CASES)
def test_the_losses_are_those_of_one_worker(name: str, cases: dict[str, Any], alone: list[dict[str, float]]) -> None:
    own = cases[name]["first"] + cases[name]["rest"]
    assert [m["rate"] for m in own] == [m["rate"] for m in alone]
    assert _apart(own, alone) < (1e-5 if name in FP32 else 2e-2)


@pytest.mark.parametrize("name", CASES)
def test_stopped_and_gone_on_is_bit_equal(name: str, cases: dict[str, Any]) -> None:
    assert cases[name]["again"] == cases[name]["rest"]
    assert cases[name]["alike"] == []


@pytest.mark.parametrize("name", CASES)
def test_the_plain_engine_goes_on_from_any_state(name: str, cases: dict[str, Any]) -> None:
    assert _apart(cases[name]["by the plain engine"], cases[name]["rest"]) < (1e-5 if name in FP32 else 2e-2)


@pytest.mark.parametrize("name", CASES)
def test_the_state_is_whole_in_fp32_by_name_and_its_average_is_exported(name: str, cases: dict[str, Any]) -> None:
    state, reference = cases[name]["state"], cases["torch"]["state"]
    assert state.keys() == reference.keys()
    assert all(state[n].shape == reference[n].shape and state[n].dtype == reference[n].dtype for n in state)
    apart = max(float((state[n] - reference[n]).abs().max()) for n in state)
    assert apart < (1e-5 if name in FP32 else 2e-2)
    exported = cases[name]["exported"]
    assert torch.equal(exported.pop("1.weight"), torch.ones(7)) and torch.equal(exported.pop("1.bias"), torch.zeros(7))
    assert all(torch.equal(exported[n], state[f"average/{n}"]) for n in exported)
    assert any(not torch.equal(exported[n], state[f"master/{n}"]) for n in exported)


@pytest.mark.parametrize("name", ["torch", "zero 1", "zero 3"])
def test_one_worker_goes_on_from_the_state_of_two(
    name: str, cases: dict[str, Any], alone: list[dict[str, float]]
) -> None:
    folder = cases["root"] / name
    world = World()
    engine = _engine(world)
    engine.load_state(folder)
    assert engine.steps_done == HALF_WAY == int(load_file(folder / "state.safetensors")["steps_done"])
    assert _apart(_train(engine, world, STEPS), alone[HALF_WAY:]) < 1e-5
