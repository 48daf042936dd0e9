"""The chain of the preset `tiny` on a machine with a GPU, in few calls of under ten minutes each.

    python jobs/tiny_gpu.py --out DIR             # every call in order, each again until it is finished
    python jobs/tiny_gpu.py --out DIR --call 2    # one call; exit code 75: it ran out of time, make it again

Odd here: a lane of a call is a process of its own, since these networks are far too small to fill a GPU. The machine
may be bare: torch, diffusers, transformers, pydantic, pyyaml and platformdirs are enough, the package is found beside
this file, all cores render the faces. It may be another machine than last time: what `--out` has is not trained again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "platform"))

from m3face.checkpoints import verify  # noqa: E402 - found through the line above
from m3face.config import Closed, Component, RunConfig, load_config, one_line  # noqa: E402
from m3face.errors import CheckpointError, ConfigError, M3FaceError  # noqa: E402

AGAIN = 75  # EX_TEMPFAIL: nothing is wrong, the call is to be made again
_CALLS_AT_MOST, _TOO_LATE_S = 8, 20  # a call still unfinished then never will be; with less time nothing new is begun


class Item(Closed):
    component: Component | Literal["faces"]
    overrides: tuple[str, ...] = ()

    def settings(self, plan: Plan, home: str) -> RunConfig:
        """The recipe with the plan's numbers laid over it; `faces` needs only those that all recipes share."""
        name = "vae" if self.component == "faces" else self.component
        return load_config(HERE / f"configs/tiny_{name}.yaml", [*plan.overrides, *self.overrides, f"runs={home}"])


class Plan(Closed):
    minutes: float
    overrides: tuple[str, ...] = ()
    calls: tuple[tuple[tuple[Item, ...], ...], ...]  # a call is lanes, a lane is items

    @staticmethod
    def read(path: Path) -> Plan:
        try:
            return Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError("--plan", f"{path}: {error.strerror}", "a readable plan") from None
        except ValidationError as error:
            raise one_line(error, where=str(path)) from None


def say(what: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
    if metrics or done == total or done % 1000 == 0:
        print(f"{what} {done}/{total}", *(f"{k}={v:.4g}" for k, v in metrics.items()), flush=True)


def render(config: RunConfig, caches: Path) -> None:
    """The faces, on all cores; at once if they are there."""
    from m3face.data.people import people

    wanted = config.data.model_dump(include={"count", "seed", "size"})
    people(caches, **wanted, processes=os.cpu_count() or 1, on_progress=partial(say, "faces", metrics={}))


def finished(weights: Path, component: str) -> bool:
    with suppress(CheckpointError):
        verify(weights, parts=[component])
        return True
    return False


def run_lane(plan: Plan, items: Sequence[Item], options: argparse.Namespace) -> int:
    """Train the items that are not finished yet; AGAIN when time is up."""
    from m3face.training.run import home, train

    for item in items:
        config = item.settings(plan, options.home)
        if item.component == "faces":
            render(config, home(config) / "caches")
        elif not finished(home(config) / "weights" / config.preset, item.component):
            left = options.until - time.time()
            if left < _TOO_LATE_S or train(config, report=say, device=options.device, deadline_s=left) is None:
                return AGAIN
    return 0


def run_call(plan: Plan, number: int, options: argparse.Namespace) -> int:
    """Every lane of a call as a process; what is finished is then in `--out`, whole and with a manifest."""
    from m3face.training.run import home, place, publish_weights

    call, out, until = plan.calls[number - 1], Path(options.out), time.time() + plan.minutes * 60
    first = Item(component="faces").settings(plan, options.home)
    weights = home(first) / "weights" / first.preset
    if out.is_dir() and not weights.is_dir():
        place(out, weights)
    if not any(item.component == "faces" for lane in call for item in lane):
        render(first, home(first) / "caches")  # another machine than last time
    same = [f"--{name}={getattr(options, name)}" for name in ("out", "home", "plan", "device")]
    command = [sys.executable, __file__, *same, f"--call={number}", f"--until={until}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(call)))}
    lanes = [subprocess.Popen([*command, f"--lane={lane}"], env=environment) for lane in range(len(call))]
    codes = [lane.wait() for lane in lanes]
    if weights.is_dir():
        publish_weights(weights, out)
    return next((code for code in codes if code not in (0, AGAIN)), max(codes))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the preset tiny on a machine with a GPU.")
    parser.add_argument("--out", required=True, help="folder of the finished weights")
    parser.add_argument("--call", type=int, default=0, help="make this call only (from 1)")
    parser.add_argument("--home", help="folder of runs and caches; OUT.work if none")
    parser.add_argument("--plan", default=str(HERE / "tiny_gpu.yaml"), help="the plan file")
    parser.add_argument("--device", default="cuda", help="cpu tries a plan without a GPU")
    parser.add_argument("--lane", type=int, help=argparse.SUPPRESS)  # what a call gives to its processes
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.home = options.home or f"{options.out}.work"
    plan = Plan.read(Path(options.plan))
    if not 0 <= options.call <= len(plan.calls):
        raise ConfigError("--call", str(options.call), f"1 to {len(plan.calls)}", "leave it out for all")
    if options.lane is not None:
        return run_lane(plan, plan.calls[options.call - 1][options.lane], options)
    import torch  # not before: a lane that has nothing to do is over in a moment

    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: tiny-gpu: no CUDA GPU here; allowed: a machine with one; make tiny needs none", file=sys.stderr)
        return 2
    for number in [options.call] if options.call else range(1, len(plan.calls) + 1):
        lanes = [" > ".join(item.component for item in lane) for lane in plan.calls[number - 1]]
        print(f"call {number} of {len(plan.calls)}: {'  |  '.join(lanes)}", flush=True)
        for _ in range(1 if options.call else _CALLS_AT_MOST):
            if (code := run_call(plan, number, options)) != AGAIN:
                break
        if code:
            print(f"call {number}: {'not finished, make it again' if code == AGAIN else 'failed'}", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except M3FaceError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
