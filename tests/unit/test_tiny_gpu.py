"""`make tiny-gpu`: the plan is whole and in order, and the machinery runs, resumes and moves house, tried on the CPU.

Odd here: no GPU takes part. The plan's own numbers are held to be valid settings, not to fit into ten minutes.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import diffusers
import pytest
import torch
import yaml

from jobs import tiny_gpu
from m3face import checkpoints, presets
from m3face.config import COMPONENTS, load_config
from tests.chain import CONFIGS, FACES

pytestmark = pytest.mark.usefixtures("one_thread")

NEEDS: dict[str, set[str]] = {
    "text_encoder": set(),
    "faces": set(),
    "map_vq": {"faces"},
    "landmark_vq": {"faces"},
    "transformer": {"text_encoder", "map_vq", "landmark_vq", "faces"},
    "vae": {"faces"},
    "latent_reader": {"vae", "faces"},
    "unet": {"text_encoder", "vae", "latent_reader", "faces"},
    **{name: {"faces", "vae"} for name in ("parser", "landmark_detector", "attribute_classifier", "identity_embedder")},
}


@pytest.fixture(scope="module")
def plan() -> tiny_gpu.Plan:
    return tiny_gpu.Plan.read(tiny_gpu.HERE / "tiny_gpu.yaml")


def test_the_plan_trains_every_network_once(plan: tiny_gpu.Plan) -> None:
    items = [item.component for call in plan.calls for lane in call for item in lane]
    with_the_unet = {f"controlnet_{name}" for name in load_config(CONFIGS / "tiny_unet.yaml").train.conditions}
    assert sorted(items) == sorted({*COMPONENTS, "faces"} - with_the_unet) == sorted(NEEDS)


def test_nothing_begins_before_what_it_needs(plan: tiny_gpu.Plan) -> None:
    done: set[str] = set()
    for call in plan.calls:
        for lane in call:
            here = set(done)
            for item in lane:
                assert NEEDS[item.component] <= here, item.component
                here.add(item.component)
        done |= {item.component for lane in call for item in lane}


def test_every_call_is_under_ten_minutes_with_settings_that_hold(plan: tiny_gpu.Plan) -> None:
    assert 0 < plan.minutes < 10
    settings = [item.settings(plan, "home") for call in plan.calls for lane in call for item in lane]
    faces = {config.data.model_copy(update={"flip": False}) for config in settings}
    assert len(faces) == 1  # one set of faces, one set of caches but for their mirror images
    for config in settings:
        assert config.train.steps > config.train.warmup_steps


@pytest.mark.parametrize("component", COMPONENTS)
def test_no_file_reaches_16_megabytes(component: str) -> None:
    row = presets.get("tiny").networks
    with torch.device("meta"):
        if component.startswith("controlnet"):
            unet = checkpoints.build("unet", row["unet"])
            network = diffusers.ControlNetModel.from_unet(unet, load_weights_from_unet=False, **row[component])
        else:
            network = checkpoints.build(component, row[component])
    assert 0 < 2 * sum(value.numel() for value in network.state_dict().values()) < 15.9 * 2**20


def test_without_a_gpu_it_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tiny_gpu.main(["--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "no CUDA GPU" in printed.err
    assert not (tmp_path / "out").exists()


def test_a_small_plan_runs_resumes_and_moves_house(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lanes = [[{"component": "faces"}, {"component": "parser"}], [{"component": "landmark_detector"}]]
    calls = [lanes, [[{"component": "attribute_classifier"}]]]
    plan, out = tmp_path / "plan.yaml", tmp_path / "out"
    small = [f"data.count={FACES}", "train.steps=2", "train.batch_size=4", "weights=pkg:tiny"]
    plan.write_text(yaml.safe_dump({"minutes": 9, "overrides": small, "calls": calls}))

    def call(number: int, home: str, *more: str) -> int:
        where = [f"--plan={plan}", f"--out={out}", f"--home={tmp_path / home}", "--device=cpu"]
        return tiny_gpu.main([*where, f"--call={number}", *more])

    assert call(1, "home") == 0
    printed = capfd.readouterr().out
    assert "call 1 of 2: faces > parser  |  landmark_detector" in printed
    assert "parser 2/2 loss=" in printed
    checkpoints.verify(out, parts=["parser", "landmark_detector"])

    shutil.rmtree(tmp_path / "home")  # another machine: only what came back is left
    assert call(2, "elsewhere", "--lane=0", f"--until={time.time()}") == tiny_gpu.AGAIN
    assert call(2, "elsewhere") == 0
    checkpoints.verify(out, parts=["parser", "landmark_detector", "attribute_classifier"])
    capfd.readouterr()
    assert call(1, "elsewhere", "--lane=0", f"--until={time.time() + 99}") == 0
    assert "parser" not in capfd.readouterr().out  # a finished network is not trained again
