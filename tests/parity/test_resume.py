"""A run that was killed and goes on ends where an unbroken one ends, bit for bit (one CPU, one thread count).

Odd here: the kill is an exception out of the report of step 3, after its update and before any checkpoint of it, so
the run that goes on makes step 3 again. Warm-up ends at step 2, so the cosine is part of what is compared.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from m3face import checkpoints
from m3face.config import COMPONENTS
from m3face.data import encoded
from m3face.data.people import people
from m3face.errors import CheckpointError, ConfigError, DataError
from m3face.models.masked_transformer import MaskedTransformer
from m3face.models.text import train_tokenizer
from m3face.tasks import tokens, words
from m3face.training.run import newest_checkpoint, publish_weights, train
from tests.chain import FACES, Chain, silent

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ("map_vq", "transformer", "text_encoder")
LONG = tuple(component for component in COMPONENTS if component not in QUICK)
STEPS = ("train.steps=4", "train.warmup_steps=2", "train.checkpoint_every=2", "train.log_every=1")


class Killed(BaseException):
    """Not an Exception: nothing in the library may catch it."""


def _dies_at(step: int) -> Any:
    def report(_what: str, done: int, _total: int, metrics: Mapping[str, float]) -> None:
        if metrics and done == step:
            raise Killed

    return report


def _metrics(run: Path) -> dict[int, dict[str, float]]:
    """The last line of each step, without the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: {k: v for k, v in line.items() if k not in ("step", "seconds")} for line in lines}


@pytest.mark.parametrize("component", [*QUICK, *(pytest.param(c, marks=pytest.mark.full) for c in LONG)])
def test_killed_and_resumed_equals_unbroken(
    component: str, chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "_RESTART_EVERY", 2)  # dead codes are put anew within these four steps
    whole, broken = chain.copy(tmp_path / "whole", component), chain.copy(tmp_path / "broken", component)
    if component == "text_encoder":
        # two fresh runs never have equal tokenizers (tests/unit/test_models.py says why), so both get this one
        trained = train_tokenizer(words.TextEncoderTask._corpus(), vocab_size=8000, slots=16, max_length=144)
        monkeypatch.setattr(words, "train_tokenizer", lambda *_args, **_numbers: trained)

    assert train(whole.config(component, *STEPS), report=silent, device="cpu") == whole.weights
    with pytest.raises(Killed):
        train(broken.config(component, *STEPS), report=_dies_at(3), device="cpu")
    run = broken.home / "runs" / "tiny" / component
    assert newest_checkpoint(run) == run / "step-0000002"
    if component == "text_encoder":
        monkeypatch.setattr(words, "train_tokenizer", None)  # a run that goes on has its own in the checkpoint
    assert train(broken.config(component, *STEPS), report=silent, device="cpu") == broken.weights

    for folder in ("trainer", "model"):
        of = [c.home / "runs" / "tiny" / component / "step-0000004" / folder for c in (whole, broken)]
        files = {p.relative_to(of[0]) for p in of[0].rglob("*.safetensors")}
        assert files == {p.relative_to(of[1]) for p in of[1].rglob("*.safetensors")} != set()
        for file in files:
            one, other = (load_file(folder / file) for folder in of)
            assert one.keys() == other.keys()
            assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert _metrics(whole.home / "runs" / "tiny" / component) == _metrics(run)
    assert sorted(_metrics(run)) == [1, 2, 3, 4]


def test_a_deadline_stops_with_a_checkpoint_and_the_next_call_goes_on(chain: Chain, tmp_path: Path) -> None:
    home = chain.copy(tmp_path / "home", "parser")
    config = home.config("parser", "train.steps=3")
    assert train(config, report=silent, device="cpu", deadline_s=0.0) is None
    assert newest_checkpoint(home.home / "runs" / "tiny" / "parser") is not None
    assert not (home.weights / "parser").exists()
    assert train(config, report=silent, device="cpu") == home.weights
    checkpoints.verify(home.weights, parts=["parser"])


@pytest.mark.parametrize(
    ("override", "field"),
    [
        ("train.batch_size=5", "train.batch_size"),
        ("train.learning_rate=0.5", "train.learning_rate"),
        ("train.ema=0.5", "train.ema"),
        ("seed=3", "seed"),
        ("data.seed=2", "data"),
    ],
)
def test_other_settings_are_refused_by_name(override: str, field: str, chain: Chain) -> None:
    chain.until("map_vq")
    with pytest.raises(CheckpointError) as caught:
        train(chain.config("map_vq", override), report=silent, device="cpu")
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "device", "field"), [("data.size=64", "cpu", "data.size"), ("seed=0", "tpu", "--device")]
)
def test_what_cannot_be_trained_is_refused_before_a_folder_is_made(
    override: str, device: str, field: str, tmp_path: Path
) -> None:
    config = Chain(tmp_path / "home").config("vae", override)
    with pytest.raises(ConfigError) as caught:
        train(config, report=silent, device=device)
    assert caught.value.field == field and not (tmp_path / "home").exists()


def test_a_missing_frozen_network_is_named_before_a_face_is_rendered(tmp_path: Path) -> None:
    config = Chain(tmp_path / "home").config("unet")
    with pytest.raises(CheckpointError):
        train(config, report=silent, device="cpu")
    assert not (tmp_path / "home").exists()


def test_frozen_networks_are_read_where_weights_says_and_nothing_is_written_there(chain: Chain, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(chain.until("vae"), theirs)
    before = sorted((p.relative_to(theirs), p.stat().st_mtime_ns) for p in theirs.rglob("*"))
    home = tmp_path / "home"
    home.mkdir()
    (home / "caches").symlink_to(chain.home / "caches")
    placed = train(Chain(home).config("unet", f"weights=dir:{theirs}"), report=silent, device="cpu")
    assert placed == home / "weights" / "tiny"
    assert sorted(p.name for p in placed.iterdir() if p.is_dir()) == [
        "controlnet_landmarks",
        "controlnet_mask",
        "scheduler",
        "unet",
    ]
    assert before == sorted((p.relative_to(theirs), p.stat().st_mtime_ns) for p in theirs.rglob("*"))


def test_a_damaged_neighbour_is_told_and_not_blessed(chain: Chain, tmp_path: Path) -> None:
    home = chain.copy(tmp_path / "home", "parser")
    file = home.weights / "map_vq" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        train(home.config("parser"), report=silent, device="cpu")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoints.verify(home.weights, parts=["map_vq"])


def test_other_frozen_networks_are_refused_by_name(chain: Chain, tmp_path: Path) -> None:
    home = chain.copy(tmp_path / "home", "transformer")
    config = home.config("transformer", "train.steps=3", "train.checkpoint_every=1")
    assert train(config, report=silent, device="cpu", deadline_s=0.0) is None
    file = home.weights / "map_vq" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["quantize.embedding.weight"] = state["quantize.embedding.weight"] + 1
    save_file(state, file)
    checkpoints.write_manifest(home.weights)
    with pytest.raises(CheckpointError) as caught:
        train(config, report=silent, device="cpu")
    assert caught.value.field == "map_vq"


def test_the_moving_average_begins_after_the_codebook(chain: Chain, tmp_path: Path) -> None:
    """With a decay of nearly 0 the average is the weights themselves: k-means included."""
    home = chain.copy(tmp_path / "home", "map_vq")
    train(home.config("map_vq", "train.steps=1", "train.ema=1e-9"), report=silent, device="cpu")
    state = load_file(home.home / "runs" / "tiny" / "map_vq" / "step-0000001" / "trainer" / "state.safetensors")
    name = "network.quantize.embedding.weight"
    assert torch.allclose(state[f"average/{name}"], state[f"master/{name}"])


def test_finished_runs_place_their_network_again_and_train_nothing(chain: Chain) -> None:
    weights = chain.until("map_vq")
    before = (weights / "map_vq" / "diffusion_pytorch_model.safetensors").read_bytes()
    shutil.rmtree(weights / "map_vq")
    train(chain.config("map_vq"), report=_dies_at(0), device="cpu")
    assert (weights / "map_vq" / "diffusion_pytorch_model.safetensors").read_bytes() == before
    checkpoints.verify(weights, parts=["map_vq"])


KILLED_IN_PUBLISH = """
import os, pathlib, sys
from m3face.checkpoints import folder
target, real = pathlib.Path(sys.argv[1]), os.replace
def replace(source, to):
    if pathlib.Path(to) == target:
        os._exit(9)
    real(source, to)
folder.os.replace = replace
with folder.publish(target) as aside:
    (aside / "weights.bin").write_bytes(b"new")
"""


def test_a_kill_before_the_rename_leaves_what_was_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with checkpoints.publish(run / "step-0000002") as aside:
        (aside / "weights.bin").write_bytes(b"old")
    command = [sys.executable, "-c", KILLED_IN_PUBLISH, str(run / "step-0000004")]
    assert subprocess.run(command, check=False).returncode == 9
    assert newest_checkpoint(run) == run / "step-0000002"
    checkpoints.verify(run / "step-0000002")
    assert (run / "step-0000002" / "weights.bin").read_bytes() == b"old"
    assert [p.name for p in run.glob("step-*")] == ["step-0000002"]  # what was half-written has no such name


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), checkpoints.publish(tmp_path / "new") as aside:
        (aside / "half").write_bytes(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_checkpoint_opens_in_the_stock_libraries(component: str, chain: Chain) -> None:
    """Without m3face's loader, and with equal values; ours only where a class is ours."""
    import diffusers
    import transformers

    weights = chain.until(component)
    stock: dict[str, Any] = {
        "text_encoder": transformers.AutoModel,
        "map_vq": diffusers.VQModel,
        "landmark_vq": diffusers.VQModel,
        "unet": diffusers.UNet2DConditionModel,
        "controlnet_mask": diffusers.ControlNetModel,
        "controlnet_landmarks": diffusers.ControlNetModel,
        "transformer": MaskedTransformer,
    }
    ours = checkpoints.load(component, weights)
    cls = stock.get(component, type(ours))
    run = newest_checkpoint(chain.home / "runs" / "tiny" / component)
    assert run is not None
    opened = cls.from_pretrained(run / "model" / component)
    state = opened.state_dict()
    assert all(torch.equal(value, state[name].float()) for name, value in ours.state_dict().items())
    if component == "text_encoder":
        tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model" / "tokenizer")
        text = "Eine Frau mit Brille 🙂"
        assert tokenizer(text).input_ids == checkpoints.load_tokenizer(weights)(text).input_ids
    if component == "unet":
        assert diffusers.DDIMScheduler.from_pretrained(run / "model" / "scheduler").config.rescale_betas_zero_snr


def _published(chain: Chain, target: Path) -> Path:
    publish_weights(chain.until("map_vq"), target, components=["map_vq", "text_encoder", "tokenizer"])
    return target


def test_damage_is_named(chain: Chain, tmp_path: Path) -> None:
    weights = _published(chain, tmp_path / "weights")
    checkpoints.load("map_vq", weights)
    file = weights / "map_vq" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()

    for spoil, words_said in (
        (lambda: file.write_bytes(whole[:1000]), "is damaged"),
        (lambda: file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1])), "is damaged"),
        (file.unlink, "is missing"),
    ):
        spoil()
        with pytest.raises(CheckpointError, match=f"{file.name} {words_said}"):
            checkpoints.load("map_vq", weights)
    with pytest.raises(CheckpointError, match="unet is missing"):
        checkpoints.load("unet", weights)
    checkpoints.load("text_encoder", weights)  # its neighbours are none the worse
    (weights / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no manifest\.json"):
        checkpoints.load("text_encoder", weights)


def test_a_misspelt_config_key_is_refused_by_name(chain: Chain, tmp_path: Path) -> None:
    weights = _published(chain, tmp_path / "weights")
    config = weights / "map_vq" / "config.json"
    config.write_text(config.read_text().replace('"norm_num_groups"', '"norm_num_group"'))
    checkpoints.write_manifest(weights)
    with pytest.raises(CheckpointError, match="'norm_num_group'"):
        checkpoints.load("map_vq", weights)


def test_a_cache_made_by_other_weights_is_left_aside_and_refused(chain: Chain, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(chain.until("landmark_vq"), weights)
    faces = people(chain.home / "caches", count=FACES, seed=1, size=128)

    def tokens_of() -> Any:
        return encoded.condition_tokens(tmp_path / "caches", faces, weights, device="cpu")

    first = tokens_of()
    assert tokens_of().folder == first.folder
    vq = checkpoints.load("map_vq", weights)
    vq.quantize.embedding.weight.mul_(-1)
    checkpoints.save("map_vq", vq, weights)
    checkpoints.write_manifest(weights)
    second = tokens_of()
    assert second.folder != first.folder
    assert not np.array_equal(first["map"], second["map"])
    shutil.rmtree(second.folder)
    shutil.copytree(first.folder, second.folder)  # the old arrays under the new name
    with pytest.raises(DataError, match="was made with encoder="):
        tokens_of()
