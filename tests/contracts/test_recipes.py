"""What the papers' recipes add to a task: each against its own formula, on fresh networks of `tiny`."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from diffusers import ControlNetModel, UVit2DModel, VQModel
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import ResNetBackbone, ResNetConfig

from m3face import checkpoints, presets
from m3face.captions import choose_keys, detect_language, realise
from m3face.checkpoints import locate
from m3face.config import RunConfig, TrainConfig
from m3face.data.dataset import Dataset
from m3face.engines import TorchEngine
from m3face.errors import CheckpointError, ConfigError
from m3face.models.adapters import merge_adapter
from m3face.models.masked_transformer import split_canvas
from m3face.models.text import token_states, train_tokenizer
from m3face.presets import get
from m3face.synthetic import sample_attributes
from m3face.tasks import Context, drawings, make_task, tokens
from m3face.tasks.drawings import DrawingTask
from m3face.tasks.masked import _hidden
from m3face.training import draws_of_step
from m3face.training.run import train
from tests.chain import silent
from tests.published import WIDTH, write_published
from tests.written import rendered_row, write_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

FACES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four faces of 128 pixels."""
    home = tmp_path_factory.mktemp("recipes")
    return write_dataset(home / "faces", [rendered_row(index, size=128) for index in range(FACES)])


@pytest.fixture(scope="module")
def given(folder: Path, random_weights: Path) -> Any:
    """`given(component, data={...}, **train)`: what the task of `component` is made from."""

    def context(component: str, *, data: dict[str, Any] | None = None, **train: Any) -> Context:
        settings = {"component": component, "steps": 4, "batch_size": 2, "precision": "fp32", **train}
        faces = {"source": "dataset", "path": str(folder), **(data or {})}
        config = RunConfig.model_validate({"data": faces, "train": settings})
        return Context(
            preset=get("tiny"),
            weights=random_weights,
            caches=folder.parent / "caches",
            data=config.data,
            train=config.train,
            seed=0,
            device="cpu",
        )

    return context


def _batch(task: Any, step: int = 0, size: int = 2) -> dict[str, Any]:
    return dict(task.batch(draws_of_step(step, batch_size=size, count=task.count, seed=0)))


# -- the masked transformer
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_smoothed_label_goes_to_all_codes_of_its_modality(smoothing: float, given: Any) -> None:
    task: Any = make_task("transformer", given("transformer", label_smoothing=smoothing))
    batch = _batch(task)
    ids, hidden, states = (batch[name] for name in ("ids", "hidden", "states"))
    with torch.no_grad():
        loss = task.losses(task.module, batch)["loss"]
        logits = task.module.logits(torch.where(hidden, task.mask_id, ids), states, states.mean(1))
    total = 0.0
    own = split_canvas(ids, map_codes=task.map_codes)
    for offset, (first, last) in enumerate(((0, task.map_codes), (task.map_codes, logits.shape[1]))):
        log = logits[:, first:last, :, offset::2].log_softmax(1).permute(0, 2, 3, 1)
        target = F.one_hot(own[offset], last - first) * (1 - smoothing) + smoothing / (last - first)
        total -= float(((log * target).sum(-1) * hidden[:, :, offset::2]).sum())
    assert math.isclose(float(loss), total / int(hidden.sum()), rel_tol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.15, 0.7])
def test_a_share_of_the_masks_is_one_rectangle_of_cells(share: float) -> None:
    side, seen = 16, 0
    for seed in range(600):
        mask = _hidden(np.random.default_rng(seed), side, contiguous=share).reshape(side, side, 2)
        cells = np.asarray(mask.all(-1))
        rows, columns = np.flatnonzero(cells.any(1)), np.flatnonzero(cells.any(0))
        box = np.zeros_like(cells)
        if len(rows):
            box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        seen += bool(len(rows) and np.array_equal(box, cells) and np.array_equal(mask.any(-1), cells))
    by_chance = 0.02  # a mask of all or of a single cell is a rectangle too
    assert share - 0.06 <= seen / 600 <= share + 0.06 + by_chance


# -- weighing of time steps
@pytest.mark.parametrize("component", ["unet", "controlnet_mask", "controlnet_landmarks"])
@pytest.mark.parametrize("predicts", ["v_prediction", "epsilon"])
def test_min_snr_weighs_an_error_of_the_clean_latents_alike(component: str, predicts: str, given: Any) -> None:
    """By the definition: whatever is predicted, the loss is min(SNR, 5) times the error of the clean latents."""
    task: Any = make_task(component, given(component, min_snr=5.0))
    task.scheduler.register_to_config(prediction_type=predicts)
    batch = _batch(task)
    batch["time"] = torch.tensor([40, 700])
    noisy, target = task._noisy(batch)
    assert torch.equal(target, batch["noise"]) == (predicts == "epsilon")
    signal = task.scheduler.alphas_cumprod[batch["time"]].view(-1, 1, 1, 1)
    assert float(signal[0] / (1 - signal[0])) > 5 > float(signal[1] / (1 - signal[1]))
    predicted = target + 0.1 * torch.randn_like(target)
    if predicts == "epsilon":
        clean = (noisy - (1 - signal).sqrt() * predicted) / signal.sqrt()
    else:
        clean = signal.sqrt() * noisy - (1 - signal).sqrt() * predicted
    wanted = ((signal / (1 - signal)).clamp(max=5) * (clean - batch["clean"]).square()).mean()
    found = (task._step_weight(batch) * (predicted - target).square()).mean()
    assert torch.isclose(found, wanted, rtol=1e-3)


def test_min_snr_is_finite_without_any_signal(given: Any) -> None:
    task: Any = make_task("controlnet_mask", given("controlnet_mask", min_snr=5.0))
    batch = _batch(task) | {"time": torch.tensor([999, 999])}
    assert task._step_weight(batch).flatten().tolist() == [0.0, 0.0]  # a velocity there says nothing of the face
    task.scheduler.register_to_config(prediction_type="epsilon")
    assert task._step_weight(batch).flatten().tolist() == [1.0, 1.0]


def test_min_snr_weighs_the_loss_of_every_task(given: Any) -> None:
    for component in ("unet", "controlnet_mask"):
        losses = []
        for limit in (0.0, 5.0):
            task: Any = make_task(component, given(component, min_snr=limit))
            task.module.eval()
            batch = _batch(task, size=1) | {"time": torch.tensor([40])}
            with torch.no_grad():
                losses.append(float(task.losses(task.module, batch)["loss"]))
            signal = float(task.scheduler.alphas_cumprod[40])
        ratio = signal / (1 - signal)
        assert math.isclose(losses[1], losses[0] * 5 / (ratio + 1), rel_tol=1e-4)


def test_settings_of_recipes_are_bounded() -> None:
    for name, value in (("label_smoothing", 1.0), ("contiguous", 0.8), ("min_snr", -1), ("min_snr", math.nan)):
        with pytest.raises(ValueError, match=name):
            TrainConfig.model_validate({"component": "transformer", "steps": 1, name: value})


# -- adapters
@pytest.mark.parametrize("component", ["transformer", "unet", "controlnet_mask", "controlnet_landmarks"])
def test_only_adapters_train_and_stock_peft_opens_them(
    component: str, given: Any, random_weights: Path, tmp_path: Path
) -> None:
    start = f"dir:{random_weights}"
    task: Any = make_task(component, given(component, lora=2, start=start, learning_rate=0.03, warmup_steps=0))
    whole: Any = make_task(component, given(component, start=start))
    for each in (task, whole):
        each.module.eval()
    batch = _batch(task)
    with torch.no_grad():  # a fresh adapter changes nothing
        assert torch.equal(task.losses(task.module, batch)["loss"], whole.losses(whole.module, batch)["loss"])
    engine = TorchEngine(task.module, task.losses, task.context.train, device="cpu")
    assert engine.parameters and all(".lora_" in name for name in engine.parameters)
    before = {n: v.clone() for n, v in task.module.state_dict().items()}
    for step in range(2):  # one half of an adapter is zero at first and lets nothing through to the other
        engine.step(_batch(task, step))
    assert all(p.grad is not None and bool(p.grad.any()) for p in engine.parameters.values())
    moved = {n for n, v in task.module.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == set(engine.parameters)

    task.module.eval()
    task.export(tmp_path)
    folder = tmp_path / f"{component}_lora"
    assert str(random_weights) not in (folder / "adapter_config.json").read_text()
    assert not (tmp_path / component).exists()
    opened = peft.PeftModel.from_pretrained(checkpoints.load(component, random_weights), folder)
    merged = merge_adapter(checkpoints.load(component, random_weights), folder)
    assert type(merged) is type(checkpoints.load(component, random_weights))
    with torch.no_grad():
        trained = task.losses(task.module, batch)["loss"]
        network = opened.get_base_model()
        others = [{"unet": each} if component == "unet" else each for each in (network, merged)]
        found = [task.losses(other, batch)["loss"] for other in others]
        plain = whole.losses(whole.module, batch)["loss"]
    assert all(torch.isclose(each, trained, rtol=1e-5) for each in found)
    assert not torch.isclose(plain, trained, rtol=1e-4)


@pytest.mark.parametrize("component", ["transformer", "controlnet_mask"])
def test_adapters_killed_and_resumed_equal_unbroken_ones(
    component: str, folder: Path, random_weights: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(random_weights, base)

    def config(home: str, steps: int) -> RunConfig:
        train = {"component": component, "steps": steps, "batch_size": 2, "lora": 2, "start": f"dir:{base}"}
        more = {"schedule": "constant", "checkpoint_every": 2, "report_to": "none", "warmup_steps": 1, "ema": 0.9}
        data = {"source": "dataset", "path": str(folder)}
        (tmp_path / home).mkdir(exist_ok=True)
        if not (tmp_path / home / "caches").exists():
            (tmp_path / home / "caches").symlink_to(folder.parent / "caches")
        return RunConfig.model_validate(
            {"runs": str(tmp_path / home), "weights": f"dir:{random_weights}", "data": data, "train": train | more}
        )

    weights = train(config("whole", 4), report=silent, device="cpu")
    assert train(config("broken", 2), report=silent, device="cpu") is not None
    assert train(config("broken", 4), report=silent, device="cpu") is not None
    names = ["trainer/state.safetensors", f"model/{component}_lora/adapter_model.safetensors"]
    for name in names:
        one, other = (
            load_file(tmp_path / home / "runs" / "tiny" / component / "step-0000004" / name)
            for home in ("whole", "broken")
        )
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert weights is not None and (weights / f"{component}_lora" / "adapter_config.json").is_file()
    assert not (weights / component).exists()

    file = base / component / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    save_file({key: value + 1 for key, value in state.items()}, file, metadata={"format": "pt"})
    checkpoints.write_manifest(base)
    with pytest.raises(CheckpointError, match="changed since the run began") as caught:
        train(config("broken", 6), report=silent, device="cpu")
    assert caught.value.field == "train.start"


def test_adapters_without_peft_are_one_line(given: Any, random_weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"peft is not installed.*pip install 'm3face\[train\]'"):
        make_task("transformer", given("transformer", lora=2, start=f"dir:{random_weights}"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"component": "vae", "start": "pkg:tiny"}, "is for transformer, unet"),
        ({"component": "unet"}, "train.start names the weights"),
        ({"component": "unet", "start": "pkg:tiny", "conditions": ["mask"]}, "whole networks train"),
    ],
)
def test_adapters_stand_beside_something(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig.model_validate({"steps": 1, "lora": 4, **settings})


# -- latents within the step, and augmentation
@pytest.mark.parametrize("component", ["unet", "controlnet_mask", "controlnet_landmarks"])
@pytest.mark.parametrize("flip", [False, True])
def test_latents_of_the_step_are_those_of_the_cache(component: str, flip: bool, given: Any) -> None:
    """Without augmentation the two ways give one batch, to a rounding in half precision."""
    more = {"conditions": ["mask", "landmarks"]} if component == "unet" else {}
    cached, online = (
        make_task(component, given(component, data={"flip": flip, "online": on}, **more)) for on in (False, True)
    )
    of_cache, pictured = _batch(cached, size=6), _batch(online, size=6)
    assert "clean" not in pictured and "picture" not in of_cache
    of_step = dict(online.with_latents(pictured))  # type: ignore[attr-defined]
    clean = of_step.pop("clean")
    assert torch.allclose(clean, of_cache.pop("clean"), rtol=2e-3, atol=2e-3 * float(clean.std()))
    assert of_step.keys() - {"picture", "drawn"} == of_cache.keys()
    assert all(torch.equal(value, of_step[name]) for name, value in of_cache.items())
    assert bool(of_cache["mirrored"].any()) == flip


def test_latents_of_the_step_need_no_cache_and_leave_the_vae_alone(given: Any, tmp_path: Path) -> None:
    context = replace(given("controlnet_landmarks", data={"augment": True}), caches=tmp_path)
    task: Any = make_task("controlnet_landmarks", context)
    before = {n: v.clone() for n, v in task.vae.state_dict().items()}
    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    for step in range(3):
        engine.step(_batch(task, step))
    assert all(p.grad is not None and bool(p.grad.any()) for p in engine.parameters.values())
    assert all(torch.equal(v, before[n]) for n, v in task.vae.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in task.vae.parameters())
    assert {p.name.rpartition("-")[0] for p in tmp_path.iterdir()} == {"faces", "text-states"}
    one, again = (_batch(task, 1) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in one.items())


def test_augmentation_changes_face_and_conditions_and_nothing_else(given: Any) -> None:
    online, augmented = (
        make_task("controlnet_landmarks", given("controlnet_landmarks", data=how))
        for how in ({"online": True, "flip": True}, {"augment": True})
    )
    plain, changed = (_batch(task, size=64) for task in (online, augmented))
    assert plain.keys() == changed.keys()
    assert torch.equal(plain["mirrored"], changed["mirrored"]) and torch.equal(plain["drawn"], changed["drawn"])
    lit, bent, moved = (
        (plain[name] != changed[name]).flatten(1).any(1) for name in ("picture", "label_map", "drawing")
    )
    assert 0.2 < float(lit.float().mean()) < 0.6 and 0.05 < float(bent.float().mean()) < 0.4
    assert torch.equal(bent, moved)  # the map and the landmarks of a face bend together


@pytest.mark.parametrize(
    ("component", "data", "said"),
    [
        ("vae", {"online": True}, "data.online is for unet"),
        ("unet", {"augment": True}, "data.augment is for controlnet_mask, controlnet_landmarks, not unet"),
    ],
)
def test_only_who_learns_from_latents_encodes_them(component: str, data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RunConfig.model_validate({"data": data, "train": {"component": component, "steps": 1}})


# -- VQ networks of drawings
@pytest.fixture(scope="module")
def drawn(given: Any) -> Any:
    """`drawn(component, **train)`: the context of a fresh VQ network with three channels in and out."""
    tiny = get("tiny")
    numbers = {"in_channels": 3, "out_channels": 3, "num_vq_embeddings": 32, "block_out_channels": (8, 16, 16)}
    vq = {**tiny.networks["map_vq"], **numbers, "norm_num_groups": 4}
    preset = replace(tiny, networks={**tiny.networks, "map_vq": vq, "landmark_vq": vq})
    return lambda component, **train: replace(given(component, **train), preset=preset)


def _backbone_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    numbers = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    ResNetBackbone(ResNetConfig(**numbers, out_features=["stage1", "stage2"])).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("component", ["map_vq", "landmark_vq"])
def test_what_comes_out_of_a_vq_network_decides_how_it_learns(component: str, given: Any, drawn: Any) -> None:
    assert isinstance(make_task(component, drawn(component)), DrawingTask)
    assert not isinstance(make_task(component, given(component)), DrawingTask)


@pytest.mark.parametrize("component", ["map_vq", "landmark_vq"])
@pytest.mark.parametrize("perceptual", [False, True])
def test_a_vq_network_of_drawings_learns_and_is_what_is_kept(
    component: str, perceptual: bool, drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawings, "_LEARNS_FIRST", 4)
    more = {"perceptual": f"dir:{_backbone_folder(tmp_path / 'backbone')}"} if perceptual else {}
    context = drawn(component, warmup_steps=0, learning_rate=0.003, steps=100, **more)
    task: Any = make_task(component, context)
    frozen = {} if task.perceptual is None else {n: v.clone() for n, v in task.perceptual.state_dict().items()}
    assert bool(frozen) == perceptual
    task.begin(lambda step: _batch(task, step))
    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    said = [engine.step(_batch(task, step)) for step in range(8)]
    assert all("please" not in each for each in said[:4]) and all("please" in each for each in said[4:])
    assert all(("perceptual" in each) == perceptual for each in said)
    assert said[-1]["plain"] < 0.97 * said[0]["plain"]
    last = [n for n in engine.parameters if n.startswith("discriminator.")][-1]
    unreached = {n for n, p in engine.parameters.items() if p.grad is None or not bool(p.grad.any())}
    assert unreached <= {last}  # its bias: within the margins of the hinge real and made weigh each other up
    assert all(torch.equal(value, frozen[n]) for n, value in (task.perceptual.state_dict().items() if frozen else ()))

    task.module.eval()
    task.export(tmp_path / "model")
    assert [p.name for p in (tmp_path / "model").iterdir()] == [component]
    kept = VQModel.from_pretrained(tmp_path / "model" / component)
    assert kept.state_dict().keys() == task.module.network.state_dict().keys()


def test_the_discriminators_weight_is_that_of_the_errors_in_the_last_layer(drawn: Any) -> None:
    task: Any = make_task("map_vq", drawn("map_vq"))
    batch, module = _batch(task), task.module
    last = module.network.decoder.conv_out.weight
    before = task.losses(module, batch)["loss"]
    module.age.fill_(drawings._LEARNS_FIRST)
    parts = task.losses(module, batch)
    norm_of = lambda loss: torch.autograd.grad(loss, last, retain_graph=True)[0].norm()  # noqa: E731
    weight = norm_of(parts["plain"]) / norm_of(parts["please"])
    assert torch.isclose(parts["loss"] - before, weight * parts["please"], rtol=1e-3)
    assert torch.isclose(
        norm_of(parts["loss"] - parts["codebook"] - parts["plain"]), norm_of(parts["plain"]), rtol=1e-3
    )

    real, made = (
        module.discriminator(shown) for shown in (task.picture(batch), task.coded(module, task.picture(batch))[0])
    )
    hinge = (1 - real).clamp(min=0).mean() + (1 + made).clamp(min=0).mean()
    assert torch.isclose(parts["discriminator"], hinge, rtol=1e-4)
    pleased = torch.autograd.grad(parts["please"], list(module.discriminator.parameters()), allow_unused=True)
    assert all(each is None for each in pleased)  # to please it teaches it nothing


def test_codes_of_a_published_network_stay_where_nobody_chooses_them(
    drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_RESTART_EVERY", 1)
    monkeypatch.setattr(tokens, "_DEAD_BELOW", 1e9)
    context = drawn("map_vq", weight_decay=0.0, warmup_steps=0)
    task: Any = make_task("map_vq", context)
    codes = task.module.network.quantize.embedding.weight
    with torch.no_grad():
        codes[-1] = 100.0
    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    before = codes.detach().clone()
    engine.step(_batch(task))
    assert torch.equal(codes[-1], before[-1]) and not torch.equal(codes, before)


def test_a_vq_network_of_drawings_goes_on_as_if_never_stopped(
    drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawings, "_LEARNS_FIRST", 1)  # the step after the stop is the first that hears it
    engines = []
    for _ in range(2):
        context = drawn("map_vq")
        task: Any = make_task("map_vq", context)
        engines.append(TorchEngine(task.module, task.losses, context.train, device="cpu"))
    unbroken, resumed = engines
    unbroken.step(_batch(task, 0))
    unbroken.save_state(tmp_path)
    resumed.load_state(tmp_path)
    metrics = [engine.step(_batch(task, 1)) for engine in engines]
    assert metrics[0] == metrics[1] and "please" in metrics[0]
    assert all(torch.equal(value, resumed.parameters[name]) for name, value in unbroken.parameters.items())


def test_a_perceptual_network_that_is_none_is_one_line(drawn: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        make_task("map_vq", drawn("map_vq", perceptual=f"dir:{tmp_path}"))
    assert caught.value.field == "train.perceptual" and "\n" not in str(caught.value)


# -- the text adapter
@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multilingual BERT and an English CLIP at a small width, each with its tokenizer."""
    root = tmp_path_factory.mktemp("speakers")
    rngs = [np.random.default_rng(seed) for seed in range(20)]  # of English alone: other scripts are read as bytes
    texts = [realise(choose_keys(sample_attributes(rng), rng), "en", rng).text for rng in rngs]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        numbers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        for folder, length in (("tokenizer", 64), ("face_tokenizer", 12)):
            words = train_tokenizer(texts, vocab_size=400, slots=1, max_length=length)
            words.save_pretrained(str(root / folder))
        bert = {**numbers, "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "initializer_range": 0.2}
        checkpoints.save("text_encoder", checkpoints.build("text_encoder", {**bert, "vocab_size": 400}), root)
        clip = {**numbers, "hidden_size": 24, "vocab_size": 400, "max_position_embeddings": 12}
        told = {"model_type": "clip_text_model", "bos_token_id": 0, "eos_token_id": 2, **clip}
        checkpoints.save("face_text_encoder", checkpoints.build("face_text_encoder", told), root)
    checkpoints.write_manifest(root)
    return root


@pytest.fixture(scope="module")
def adapting(speakers: Path, folder: Path) -> Any:
    """`adapting(source, **train)`: what a text adapter is made from; parallel captions of grammars or of a dataset."""
    numbers = {"hidden": 32, "heads": 2, "num_layers": 1}
    preset = replace(get("tiny"), networks={"text_adapter": numbers})

    def context(source: str = "synthetic", **train: Any) -> Context:
        settings = {"component": "text_adapter", "steps": 60, "precision": "fp32", "warmup_steps": 0, **train}
        data = {"source": source, "path": str(folder) if source == "dataset" else ""}
        config = RunConfig.model_validate({"data": data, "train": settings})
        caches = folder.parent / "caches"
        return Context(preset, speakers, caches, config.data, config.train, seed=0, device="cpu")

    return context


@pytest.mark.parametrize("source", ["synthetic", "dataset"])
def test_a_text_adapter_learns_what_the_english_encoder_says(source: str, adapting: Any, tmp_path: Path) -> None:
    context = adapting(source, learning_rate=0.003)
    task: Any = make_task("text_adapter", context)
    before = {n: v.clone() for part in (task.student, task.teacher) for n, v in part.state_dict().items()}
    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    said = [engine.step(_batch(task, step, size=8)) for step in range(40)]
    assert all(p.grad is not None and bool(p.grad.any()) for p in engine.parameters.values())
    assert np.mean([s["loss"] for s in said[-5:]]) < 0.75 * np.mean([s["loss"] for s in said[:5]])
    assert all(torch.equal(v, before[n]) for part in (task.student, task.teacher) for n, v in part.state_dict().items())
    one, again = (_batch(task, 3, size=8) for _ in range(2))
    assert all(torch.equal(value, again[name]) for name, value in one.items())

    task.module.eval()
    task.export(tmp_path)
    kept = checkpoints.load("text_adapter", tmp_path, checked=False)
    with torch.no_grad():
        given, wanted = task._states(one)
        states = kept(given, one["attention_mask"])
    assert states.shape == wanted.shape == (8, 12, 24)
    more = F.pad(one["attention_mask"], (0, 3)), F.pad(given, (0, 0, 0, 3), value=7.0)
    with torch.no_grad():
        assert torch.allclose(kept(more[1], more[0]), states, atol=1e-5)  # padding says nothing


def test_pairs_say_the_same_in_english_and_in_every_language(adapting: Any) -> None:
    task: Any = make_task("text_adapter", adapting(prompt_dropout=0.25))
    pairs = [task._pair(d) for d in draws_of_step(0, batch_size=300, count=task.count, seed=0)]
    assert 0.15 < sum(pair == ("", "") for pair in pairs) / 300 < 0.35
    spoken = {detect_language(text) for _, text in pairs if text}
    assert spoken >= {"en", "fa", "hi", "ja", "ru"}
    assert {detect_language(english) for english, _ in pairs if len(english) > 60} <= {"en"}


def test_pairs_of_a_dataset_are_the_captions_of_one_number(adapting: Any, folder: Path) -> None:
    task: Any = make_task("text_adapter", adapting("dataset"))
    rows = [row["captions"] for row in Dataset(str(folder), "train").every("captions")]
    assert task.count == FACES * 2 * 2  # two captions in English and in Persian; English teaches itself too
    assert all((row["en"][k], row["fa"][k]) in task.pairs for row in rows for k in range(2))


def test_a_text_adapter_goes_on_as_if_never_stopped(adapting: Any, tmp_path: Path) -> None:
    engines = []
    for _ in range(2):
        context = adapting()
        task: Any = make_task("text_adapter", context)
        engines.append(TorchEngine(task.module, task.losses, context.train, device="cpu"))
    unbroken, resumed = engines
    unbroken.step(_batch(task, 0))
    unbroken.save_state(tmp_path)
    resumed.load_state(tmp_path)
    assert unbroken.step(_batch(task, 1)) == resumed.step(_batch(task, 1))
    assert all(torch.equal(value, resumed.parameters[name]) for name, value in unbroken.parameters.items())


# -- published networks
@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Any:
    """`published(component, **train)`: the context of a row whose networks others published, at a small width."""
    root = tmp_path_factory.mktemp("published")
    sources, row = write_published(root), get("sd15")
    found = [locate(component, source) for component, source in sources.items()]
    weights = checkpoints.fetch(found, row.networks, root / "ours", preset="sd15", image_size=128)

    def context(component: str, **train: Any) -> Context:
        settings = {"component": component, "steps": 4, "precision": "fp32", "warmup_steps": 0, **train}
        if component != "text_adapter":
            settings["start"] = f"dir:{weights}"
        data = {"source": "dataset", "path": str(folder), "flip": True}
        config = RunConfig.model_validate({"data": data, "train": settings})
        preset, caches = replace(row, image_size=128), folder.parent / "caches"
        return Context(preset, weights, caches, config.data, config.train, seed=0, device="cpu")

    return context


@pytest.mark.parametrize("component", ["transformer", "unet", "controlnet_mask", "controlnet_landmarks"])
def test_published_networks_learn_from_what_their_own_encoder_says(component: str, published: Any) -> None:
    context = published(component, prompt_dropout=0.0)
    task: Any = make_task(component, context)
    before = {n: v.clone() for n, v in task.words.encoder.state_dict().items()}
    batch = _batch(task, size=4)
    if component == "transformer":
        told, said, prefixes = "text_encoder", "tokenizer", list(task.words.prefixes.values())
    else:
        told, said, prefixes = "face_text_encoder", "face_tokenizer", [""]
    encoder, tokenizer = checkpoints.load(told, context.weights), checkpoints.load_tokenizer(context.weights, said)
    rows = list(Dataset(context.data.path, "train").every("captions"))
    texts = [t for row in rows for some in row["captions"].values() for t in some or ()]
    with torch.no_grad():
        states, pooled = task.words.read(batch)
        for row, ids in enumerate(batch["input_ids"]):
            text = next(p + t for p in prefixes for t in texts if torch.equal(_ids(tokenizer, p + t), ids))
            alone, pool = token_states(encoder, tokenizer, [text])
            assert torch.allclose(states[row], alone[0], atol=1e-5) and torch.allclose(pooled[row], pool[0], atol=1e-5)

    engine = TorchEngine(task.module, task.losses, context.train, device="cpu")
    for step in range(2):
        engine.step(_batch(task, step, size=4))
    moved = [n for n, p in engine.parameters.items() if p.grad is not None and bool(p.grad.any())]
    assert len(moved) > 0.9 * len(engine.parameters)
    assert all(torch.equal(v, before[n]) for n, v in task.words.encoder.state_dict().items())


def _ids(tokenizer: Any, text: str) -> torch.Tensor:
    return tokenizer([text], padding="max_length", truncation=True, return_tensors="pt").input_ids[0]


def test_a_published_transformer_writes_one_picture_that_its_words_name(published: Any) -> None:
    task: Any = make_task("transformer", published("transformer", label_smoothing=0.1, prompt_dropout=0.5))
    batch = _batch(task, size=64)
    empty = _ids(task.words.tokenizer, "")
    dropped = (batch["input_ids"] == empty).all(1)
    assert 0.3 < float(dropped.float().mean()) < 0.7
    side = batch["ids"].shape[1:]
    assert side == (16, 16) and bool(batch["hidden"].flatten(1).any(1).all())
    maps, drawings = (task.tokens[name][:] for name in ("map", "landmarks"))
    turned = [task.context.mirrored_tokens[name][:] for name in ("map", "landmarks")]
    named = [_ids(task.words.tokenizer, task.words.prefixes[name]) for name in ("mask", "landmarks")]
    for row in (~dropped).nonzero().flatten().tolist():
        differs = int((named[0] != named[1]).nonzero()[0])
        kind = int(batch["input_ids"][row, differs] == named[1][differs])
        ids = batch["ids"][row].numpy()
        stores = (maps, turned[0]) if kind == 0 else (drawings, turned[1])
        assert any(np.array_equal(ids, own) for store in stores for own in store)

    few = {name: value[:3] for name, value in batch.items()}
    with torch.no_grad():
        loss = task.losses(task.module, few)["loss"]
        inputs = torch.where(few["hidden"], task.mask_id, few["ids"])
        logits = task.module.logits(inputs, *task.words.read(few), side=task.side).permute(0, 2, 3, 1)[few["hidden"]]
    wanted = F.cross_entropy(logits, few["ids"][few["hidden"]], label_smoothing=0.1)
    assert torch.isclose(loss, wanted, rtol=1e-4)


def test_a_text_adapter_fits_published_encoders(published: Any) -> None:
    task: Any = make_task("text_adapter", published("text_adapter"))
    batch = _batch(task)
    given, wanted = task._states(batch)
    assert task.module(given, batch["attention_mask"]).shape == wanted.shape == (2, 77, WIDTH)


@pytest.mark.parametrize("component", ["transformer", "controlnet_mask"])
def test_a_published_directory_goes_through_training(
    component: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Smaller pictures than the row's own; stock classes open what comes out."""
    row = replace(get("sd15"), image_size=128)
    monkeypatch.setitem(presets.rows._PRESETS, "sd15", row)
    sources = write_published(tmp_path / "published", side=row.image_size)
    found = [locate(component, source) for component, source in sources.items() if "controlnet" not in component]
    weights = checkpoints.fetch(found, row.networks, tmp_path / "ours", preset="sd15", image_size=row.image_size)
    start = {"start": f"dir:{weights}"} if component == "transformer" else {}
    settings = {"component": component, "steps": 2, "batch_size": 2, "report_to": "none", **start}
    data = {"source": "dataset", "path": str(folder), "size": row.image_size, "count": 2}
    config = {"preset": "sd15", "weights": f"dir:{weights}", "runs": str(tmp_path / "runs")}
    placed = train(RunConfig.model_validate({**config, "data": data, "train": settings}), report=silent, device="cpu")
    assert placed is not None
    stock: Any = UVit2DModel if component == "transformer" else ControlNetModel
    ours, theirs = checkpoints.load(component, placed), stock.from_pretrained(placed / component)
    assert all(torch.equal(v, theirs.state_dict()[n].float()) for n, v in ours.state_dict().items())
