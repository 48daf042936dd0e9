"""One body for every task: what `fit` and the checkpoints rely on, with the real networks and recipes of `tiny`.

Odd here: gradients are looked at in the third step, since a ControlNet begins with zero convolutions that let none
through to what lies before them.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.config import COMPONENTS
from m3face.data.encoded import pictures, weights_key
from m3face.engines import TorchEngine
from m3face.errors import M3FaceError
from m3face.models.latent_reader import LatentReader, surprise
from m3face.tasks import make_task
from m3face.tasks.base import weighed
from m3face.tasks.tokens import shape_error
from m3face.tasks.vae import texture_error
from m3face.training import draws_of_step
from m3face.training.run import newest_checkpoint, train
from tests.chain import Chain, silent

pytestmark = pytest.mark.usefixtures("one_thread")

PARTS = {
    "text_encoder": {"encoder.": "text_encoder", "reader.": "prompt_reader"},
    "map_vq": {"network.": "map_vq"},
    "landmark_vq": {"network.": "landmark_vq"},
    "unet": {"unet.": "unet", "mask.": "controlnet_mask", "landmarks.": "controlnet_landmarks"},
}
"""Prefix of a trained parameter's name to the folder that holds it, where it is not the component's own."""

SCAFFOLD = {"text_encoder": "word_reader."}
"""Prefix of what is trained to help the training and thrown away at the export."""

SETTLED = {"vae": {"flat.weight", "flat.bias"}}
"""What has a closed form, found before the first step, and is not trained."""


def _state(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{n}.{k}": v.clone() for n, m in modules.items() for k, v in m.state_dict().items()}


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_task(component: str, chain: Chain) -> None:
    context = chain.context(component)
    task = make_task(component, context)
    frozen = {n: m for n, m in vars(task).items() if isinstance(m, nn.Module) and m is not task.module}
    before = _state(frozen)
    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    assert len(list(task.module.parameters())) == len(engine.parameters)

    def batches(step: int) -> Any:
        return task.batch(draws_of_step(step, batch_size=4, count=task.count, seed=0))

    task.begin(batches)
    for step in range(3):
        metrics = engine.step(batches(step))
        assert all(value == value and abs(value) < float("inf") for value in metrics.values()), metrics
    unreached = {n for n, p in engine.parameters.items() if p.grad is None or not bool((p.grad != 0).any())}
    assert unreached == SETTLED.get(component, set())

    assert not any(p.requires_grad or p.grad is not None for m in frozen.values() for p in m.parameters())
    assert all(torch.equal(value, before[name]) for name, value in _state(frozen).items())
    again = task.batch(draws_of_step(1, batch_size=4, count=task.count, seed=0))
    assert all(torch.equal(value, again[name]) for name, value in batches(1).items())


@pytest.mark.parametrize("component", COMPONENTS)
def test_export_loads_as_it_was_trained(component: str, chain: Chain) -> None:
    weights = chain.until(component)
    run = newest_checkpoint(chain.home / "runs" / "tiny" / component)
    assert run is not None
    state = load_file(run / "trainer" / "state.safetensors")
    kind = "average/" if any(name.startswith("average/") for name in state) else "master/"
    assert (kind == "average/") == bool(chain.config(component).train.ema)
    trained = {name.removeprefix(kind): value for name, value in state.items() if name.startswith(kind)}
    seen = 0
    for prefix, part in PARTS.get(component, {"": component}).items():
        again = part != component and part in COMPONENTS  # a later run of its own has replaced it
        for folder in (run / "model",) if again else (weights, run / "model"):
            loaded = checkpoints.load(part, folder, checked=folder == weights)
            for name, value in loaded.named_parameters():
                assert torch.equal(value, trained[prefix + name].half().float()), f"{part}.{name}"
        seen += len(list(loaded.parameters()))
    helpers = [name for name in trained if name.startswith(SCAFFOLD.get(component, "-"))]
    assert bool(helpers) == (component in SCAFFOLD)
    assert seen == len(trained) - len(helpers)


@pytest.mark.parametrize("component", COMPONENTS)
def test_fine_tuning_begins_with_the_given_weights(component: str, chain: Chain, tmp_path: Path) -> None:
    weights = chain.until(component)
    task = make_task(component, chain.context(component, f"train.start=dir:{weights}", "seed=5"))
    task.module.eval()
    task.export(tmp_path)
    files = [p.relative_to(tmp_path) for p in tmp_path.rglob("*.safetensors")]
    assert {f.parts[0] for f in files} == set(PARTS.get(component, {"": component}).values())
    for file in files:
        begun, given = load_file(tmp_path / file), load_file(weights / file)
        assert str(weights) not in (tmp_path / file).with_name("config.json").read_text("utf-8"), file
        assert begun.keys() == given.keys() and all(torch.equal(begun[name], given[name]) for name in given), file
    for tokenizer in tmp_path.glob("tokenizer/tokenizer.json"):
        assert tokenizer.read_bytes() == (weights / "tokenizer" / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("component", ["map_vq", "landmark_vq", "vae"])
def test_fine_tuning_does_not_begin_anew(
    component: str, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = chain.until(component)
    task = make_task(component, chain.context(component))
    begun: list[str] = []
    monkeypatch.setattr(type(task), "begin", lambda self, batches: begun.append(component))
    (tmp_path / "caches").symlink_to(chain.home / "caches")
    train(chain.config(component, f"runs={tmp_path}", "train.steps=1", f"train.start=dir:{weights}"), report=silent)
    assert begun == []


def test_a_fine_tuned_text_encoder_is_held_to_the_states_it_began_with(chain: Chain) -> None:
    """The teacher is the weights that it starts from, on plain English, where they read it right."""
    context = chain.context("text_encoder", "train.start=pkg:tiny", "train.learning_rate=0.0001")
    task: Any = make_task("text_encoder", context)
    before = _state({"teacher": task.teacher})
    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    batch = task.batch(draws_of_step(0, batch_size=12, count=task.count, seed=0))
    said = batch["target"].unflatten(0, (12, -1)).clone()
    said[0] = (said[0] + 1) % 3  # what the teacher reads is not what was said here
    states, same = task._taught(batch, torch.zeros(12, 3, 16, 192), said)
    assert states.shape == (12, 1, 16, 192) and same.shape == (12, 3)
    assert not bool(same[0].any()) and int(same[1:].sum()) > 6
    followed = (said == batch["teacher_target"].unsqueeze(1)).all(2)
    assert bool((followed | (same == 0)).all())
    first, *_ = [engine.step(batch) for _ in range(3)]
    assert 0 < first["matching"] < 0.5 and first["wrong_per_named"] < 0.5
    assert all(torch.equal(value, before[name]) for name, value in _state({"teacher": task.teacher}).items())
    assert not any(p.requires_grad for p in task.teacher.parameters())


def test_fine_tuning_from_nothing_is_one_line(chain: Chain, tmp_path: Path) -> None:
    weights = chain.until("vae")
    (tmp_path / "empty").mkdir()
    checkpoints.write_manifest(tmp_path / "empty")
    for start, field in (("nowhere", "weights"), (f"dir:{tmp_path}/empty", "weights")):
        with pytest.raises(M3FaceError) as found:
            given = [f"train.start={start}", f"runs={tmp_path}/runs", f"weights=dir:{weights}"]
            train(chain.config("parser", *given), report=silent)
        assert found.value.field == field
    assert not (tmp_path / "runs").exists()


def test_the_scale_of_the_latents_is_measured_and_kept(chain: Chain) -> None:
    vae = checkpoints.load("vae", chain.until("vae"), checked=True)
    with torch.no_grad():
        means = vae.encode(pictures(chain.context("unet").faces["image"][:])).latent_dist.mean
    assert math.isclose(vae.config["scaling_factor"], 1 / float(means.std()), rel_tol=0.01)
    assert vae.config["scaling_factor"] != AutoencoderKL().config["scaling_factor"]  # the class's own, of SD 1


def test_the_encoder_is_settled_before_the_first_step(chain: Chain) -> None:
    context = chain.context("vae")
    task: Any = make_task("vae", context)
    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    task.begin(lambda step: task.batch(draws_of_step(step, batch_size=4, count=task.count, seed=0)))
    before = {name: p.detach().clone() for name, p in task.module.named_parameters()}
    for step in range(3):
        engine.step(task.batch(draws_of_step(step, batch_size=4, count=task.count, seed=0)))
    moved = {name.split(".")[0] for name, p in task.module.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"decoder", "post_quant_conv", "unflat"}


def test_texture_is_an_error_of_how_much_not_of_where() -> None:
    """The same strands moved by a pixel or turned over are as much texture; none and twice as much are not."""
    strands = 0.3 * torch.sin(torch.arange(64) * 2.0).expand(1, 3, 64, 64)
    moved, soft = strands.roll(1, dims=-1), torch.zeros_like(strands)
    wrong = [float(texture_error(p, strands)) for p in (moved, -strands, soft, 2 * strands)]
    assert wrong[1] < 1e-6 and wrong[0] < 0.15 * wrong[2]
    assert math.isclose(wrong[2], wrong[3], rel_tol=0.02)


def test_what_never_had_a_gradient_resumes_too(chain: Chain, tmp_path: Path) -> None:
    """The encoder of the VAE: no moments to save, and none to ask for."""
    context = chain.context("vae", f"train.start=dir:{chain.until('vae')}")
    batches = [make_task("vae", context).batch(draws_of_step(s, batch_size=2, count=24, seed=0)) for s in range(2)]
    engines = []
    for _ in range(2):
        task = make_task("vae", context)
        engines.append(TorchEngine(task.module, task.losses, context.train, device="cpu"))
    unbroken, resumed = engines
    unbroken.step(batches[0])
    unbroken.save_state(tmp_path)
    resumed.load_state(tmp_path)
    for engine in engines:
        engine.step(batches[1])
    assert resumed.steps_done == 2
    assert all(torch.equal(p, resumed.parameters[name]) for name, p in unbroken.parameters.items())


def test_a_reader_of_latents_sees_only_what_lies_at_its_points() -> None:
    """Its points are not told: where latents are alike, far from a border, any cell will do."""
    torch.manual_seed(0)
    reader, latents = LatentReader(4, 8), torch.randn(2, 4, 24, 24)
    first, second = torch.full((2, 68, 2), 0.25), torch.full((2, 68, 2), 0.75)
    assert not torch.allclose(reader(latents, first), reader(latents, second))
    alike = torch.zeros_like(latents)
    left, right = (reader(alike, torch.full((2, 68, 2), at)) for at in (0.45, 0.45 + 2 / 24))
    assert torch.allclose(left, right, atol=1e-5)


def test_what_is_predicted_reads_as_the_face_does(chain: Chain) -> None:
    """Perfect velocities read as the clean latents themselves do, but for the noisiest steps, which nobody reads."""
    task: Any = make_task("unet", chain.context("unet"))
    batch = dict(task.batch(draws_of_step(0, batch_size=4, count=task.count, seed=0)))
    batch["time"] = torch.tensor([10, 300, 600, 999])
    noisy, velocity = task._noisy(batch)
    with torch.no_grad():
        each = surprise(task.reader(batch["clean"], batch["points"]), batch["attributes"])
        found = task._surprise(batch, noisy, velocity)
    assert math.isclose(float(found), float(each[:3].sum() / 4), rel_tol=1e-4)


def test_a_wish_weighs_its_share_of_the_errors() -> None:
    at = torch.randn(3, 5).requires_grad_()
    errors, wish = (at * 7).square().mean(), at.sin().sum()
    norms = [
        torch.autograd.grad(x, at, retain_graph=True)[0].norm() for x in (errors, weighed(wish, errors, at, share=0.3))
    ]
    assert torch.isclose(norms[1], 0.3 * norms[0])


def test_the_error_of_a_shape_knows_neither_place_nor_size() -> None:
    """An eye that lies elsewhere is the same eye; one half as high is another, by the same share at any size."""
    eye = torch.tensor([[0.0, 0.0], [1, -1], [2, -1], [3, 0], [2, 1], [1, 1]])[None] / 100
    assert float(shape_error(torch.full_like(eye, 0.05), eye)) < 1e-6
    narrow = eye * torch.tensor([1.0, 0.5]) - eye
    errors = [float(shape_error(narrow * size, eye * size)) for size in (1, 4)]
    assert errors[0] > 0.1 and math.isclose(*errors, rel_tol=1e-5)


def test_latents_outlive_a_better_decoder_but_not_another_encoder(chain: Chain, tmp_path: Path) -> None:
    shutil.copytree(chain.until("vae"), tmp_path / "weights")
    before = weights_key(tmp_path / "weights", "vae")
    file = tmp_path / "weights" / "vae" / "diffusion_pytorch_model.safetensors"
    for part, same in (("decoder.conv_out.bias", True), ("unflat.bias", True), ("flat.bias", False)):
        state = load_file(file)
        state[part] = state[part] + 1
        save_file(state, file, metadata={"format": "pt"})
        checkpoints.write_manifest(tmp_path / "weights")
        assert (weights_key(tmp_path / "weights", "vae") == before) == same, part


def test_conditions_reach_only_the_rows_that_see_them(chain: Chain) -> None:
    """Whoever shares the batch: each row is predicted as it is alone, also where nobody sees a condition."""
    task: Any = make_task("unet", chain.context("unet"))
    task.module.eval()
    for network in (task.module["mask"], task.module["landmarks"]):
        for parameter in network.parameters():
            if not bool(parameter.any()):
                torch.nn.init.normal_(parameter, std=0.05)  # the zero convolutions of a fresh ControlNet say nothing
    batch = dict(task.batch(draws_of_step(0, batch_size=4, count=task.count, seed=0)))

    def loss(with_mask: list[bool], with_landmarks: list[bool], rows: slice = slice(None)) -> float:
        """The weighed errors: how much the reader's opinion weighs is a matter of the whole batch."""
        seen = {"with_mask": torch.tensor(with_mask), "with_landmarks": torch.tensor(with_landmarks)}
        parts = task.losses(task.module, {name: v[rows] for name, v in (batch | seen).items()})
        return float(parts["errors"])

    mask, landmarks = [True, False, True, False], [True, True, False, False]
    alone = [loss(mask, landmarks, slice(row, row + 1)) for row in range(4)]
    assert math.isclose(loss(mask, landmarks), sum(alone) / 4, rel_tol=1e-4)
    nobody = loss([False] * 4, [False] * 4)
    with torch.no_grad():
        plain = task.module["unet"](*(task._noisy(batch)[0], batch["time"], batch["states"])).sample
    assert math.isclose(nobody, float(F.mse_loss(plain, task._noisy(batch)[1])), rel_tol=1e-6)
    assert abs(loss(mask, landmarks) - nobody) > 1e-4


def test_a_cell_weighs_by_its_labels_where_the_map_is_shown(chain: Chain) -> None:
    task: Any = make_task("unet", chain.context("unet"))
    batch = dict(task.batch(draws_of_step(0, batch_size=4, count=task.count, seed=0)))
    batch["with_mask"] = torch.tensor([True, True, False, True])
    batch["label_map"][3] = 1
    batch["label_map"][3, :8, 8:16] = 4  # one cell of eye in a picture of skin
    weight = task._weight(batch, 16)
    assert weight.shape == (4, 1, 16, 16) and bool((weight[2] == 1).all())
    eye, skin = weight[3, 0, 0, 1], weight[3, 0, 0, 0]
    assert math.isclose(eye, task.class_weight[4], rel_tol=1e-5)
    assert math.isclose(skin, task.class_weight[1], rel_tol=1e-5)
    assert float(eye) > 2 * float(skin)
    assert int((weight[3] == skin).sum()) == 255
    everybody = task.class_weight[torch.from_numpy(np.array(task.faces["label_map"])).long()]
    assert 0.8 < float(everybody.mean()) <= 1.01  # 1 but for what the rarest lose to the limit


@pytest.mark.parametrize(("component", "share"), [("unet", 0.3 + 0.7 * 0.2), ("controlnet_mask", 0.2)])
def test_the_unet_sees_more_of_the_noisiest_steps(component: str, share: float, chain: Chain) -> None:
    task: Any = make_task(component, chain.context(component))
    times = torch.cat([task.batch(draws_of_step(s, batch_size=96, count=task.count, seed=1))["time"] for s in range(8)])
    assert abs(float((times >= 800).float().mean()) - share) < 0.06  # four deviations of 768 draws
    assert int(times.max()) <= 999 and int(times.min()) < 50


@torch.no_grad()
def test_annotators_see_what_the_vae_makes_of_some_pictures_and_leave_the_others(chain: Chain) -> None:
    task: Any = make_task("parser", chain.context("parser"))
    batch = dict(task.batch(draws_of_step(0, batch_size=4, count=task.count, seed=0)))
    batch["again"] = torch.tensor([False, True, False, True])
    seen = task._seen(batch)
    assert torch.equal(seen[[0, 2]], batch["picture"][[0, 2]])
    latents = task.vae.encode(batch["picture"][1:2]).latent_dist.mean + batch["rough"][1:2]
    assert torch.allclose(seen[1:2], task.vae.decode(latents).sample.clamp(-1, 1), atol=1e-5)
    assert torch.equal(task._seen(batch | {"again": torch.zeros(4, dtype=torch.bool)}), batch["picture"])


@pytest.mark.parametrize("condition", ["mask", "landmarks"])
def test_a_fresh_controlnet_changes_nothing(condition: str, chain: Chain) -> None:
    component = f"controlnet_{condition}"
    task: Any = make_task(component, chain.context(component))
    batch = dict(task.batch(draws_of_step(0, batch_size=4, count=task.count, seed=0)))
    if condition == "landmarks":
        batch["both"] = torch.zeros(4)  # without the trained mask ControlNet beside it
    noisy, target = task._noisy(batch)
    with torch.no_grad():
        loss = task.losses(task.module, batch)["loss"]
        alone = task.unet(noisy, batch["time"], batch["states"]).sample
    assert torch.equal(loss, F.mse_loss(alone, target))


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.1, 0.06, 0.14), (0.9, 0.86, 0.94), (1, 1, 1)])
def test_prompt_dropout_drops_the_share_it_names(share: float, low: float, high: float, chain: Chain) -> None:
    context = chain.context("unet", f"train.prompt_dropout={share}")
    draws = [d for step in range(10) for d in draws_of_step(step, batch_size=100, count=24, seed=5)]
    states = context.drawn_states(draws)
    dropped = (states == context.empty_states).all(dim=(1, 2)).float().mean()
    assert low <= float(dropped) <= high


def test_half_of_the_landmark_samples_see_both_conditions(chain: Chain) -> None:
    task = make_task("controlnet_landmarks", chain.context("controlnet_landmarks"))
    both = task.batch(draws_of_step(0, batch_size=200, count=task.count, seed=0))["both"]
    assert 0.4 < float(both.mean()) < 0.6


def test_the_mask_of_the_transformer_hides_something_in_every_sample(chain: Chain) -> None:
    task = make_task("transformer", chain.context("transformer"))
    hidden = task.batch(draws_of_step(0, batch_size=200, count=task.count, seed=0))["hidden"]
    share = hidden.float().mean((1, 2))
    assert float(share.min()) > 0
    whole_modality = hidden[..., 0::2].all(dim=(1, 2)) != hidden[..., 1::2].all(dim=(1, 2))
    assert 0.1 < float(whole_modality.float().mean()) < 0.35
