"""`m3face export`: what comes out opens in stock diffusers, transformers and PEFT and says the same as ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
    UVit2DModel,
    VQModel,
)
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import RobertaSeriesModelWithTransformation
from transformers import AutoTokenizer, BertModel

from m3face import checkpoints, presets
from m3face.cli import run
from m3face.faces import PALETTE, draw_landmarks
from m3face.sampling import initial_noise
from m3face.stages import FaceRequest, TextRequest, open_stage
from m3face.synthetic import make_sample
from tests.published import write_published

pytestmark = pytest.mark.usefixtures("one_thread")


def _noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["sd15", "m3face"])
def fetched(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    home = tmp_path_factory.mktemp(request.param)
    sources = write_published(home / "published", alt=request.param == "m3face")
    found = [checkpoints.locate(component, place) for component, place in sources.items()]
    networks = presets.get(request.param).networks
    return checkpoints.fetch(found, networks, home / "ours", preset=request.param, image_size=128)


def _pipeline(folder: Path) -> Any:
    words: dict[str, Any] = {}
    if "CLIP" not in (folder / "model_index.json").read_text():  # AltDiffusion's: no pipeline opens that by itself
        encoder = RobertaSeriesModelWithTransformation.from_pretrained(folder / "text_encoder")
        words = {"text_encoder": encoder, "tokenizer": AutoTokenizer.from_pretrained(folder / "tokenizer")}
    pipe = StableDiffusionControlNetPipeline.from_pretrained(folder, torch_dtype=torch.float32, **words)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@torch.inference_mode()
def test_the_stock_pipeline_opens_an_export_and_makes_our_face(fetched: Path, tmp_path: Path) -> None:
    assert run(["export", f"dir:{fetched}", str(tmp_path / "out")]) == 0
    sample, prompt = make_sample(0, 1, size=128), "eine alte frau"
    stages: dict[str, Any] = {name: open_stage(name, f"dir:{fetched}") for name in ("text", "face")}
    (said,) = stages["text"].run([TextRequest(prompt=prompt)])
    words = said.words_for("face")
    request = FaceRequest(
        text=words.text,
        empty=words.empty,
        seed=3,
        label_map=sample.label_map,
        landmarks=sample.landmarks,
        steps=2,
        guidance=7.5,
    )
    (face,) = stages["face"].run([request])
    pipe = _pipeline(tmp_path / "out")
    drawings = [PALETTE[sample.label_map], draw_landmarks(sample.landmarks, size=128)]
    stock = pipe(
        prompt,
        image=[torch.from_numpy(drawing.copy()).permute(2, 0, 1)[None].float() / 255 for drawing in drawings],
        latents=initial_noise([3], (4, 16, 16)),
        num_inference_steps=2,
        guidance_scale=7.5,
        output_type="np",
    ).images[0]
    assert np.abs(face.picture / 255 - stock).max() <= 0.5 / 255 + 1e-4


@torch.inference_mode()
def test_what_writes_conditions_opens_too(fetched: Path, tmp_path: Path) -> None:
    assert run(["export", f"dir:{fetched}", str(tmp_path / "out")]) == 0
    folder = tmp_path / "out" / "conditions"
    ids = torch.randint(64, (1, 16, 16), generator=torch.Generator().manual_seed(0))
    asked = (ids, _noise(0, 1, 77, 24), _noise(1, 1, 24), torch.tensor([[64.0, 64.0, 0.0, 0.0, 6.0]]))
    cases: dict[str, tuple[Any, tuple[torch.Tensor, ...]]] = {
        "transformer": (UVit2DModel, asked),
        "map_vq": (VQModel, (_noise(2, 1, 3, 64, 64),)),
        "text_encoder": (BertModel, (torch.arange(5, 20)[None],)),
    }
    for component, (cls, inputs) in cases.items():
        network, found = cls.from_pretrained(folder / component, output_loading_info=True)
        assert not found["missing_keys"]
        assert set(found["unexpected_keys"]) <= {"projection.weight", "projection.bias"}
        theirs, ours = (n(*inputs) for n in (network.eval(), checkpoints.load(component, fetched)))
        if not isinstance(theirs, torch.Tensor):
            theirs, ours = theirs[0], ours[0]
        assert torch.equal(theirs, ours)


@torch.inference_mode()
def test_tiny_exports_what_stock_classes_can_hold_and_says_what_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(["export", "pkg:tiny", "--to", "diffusers", str(out)]) == 0
    told = capsys.readouterr()
    assert told.out.split() == [str(out)]
    left = {line.split()[2].rstrip(":") for line in told.err.splitlines() if line.startswith("left out ")}
    assert {"vae", "transformer", "prompt_reader", "parser"} <= left
    assert "left out vae: it has a linear encoder over folded pictures, which AutoencoderKL has not" in told.err
    assert not (out / "model_index.json").exists()  # without a stock VAE there is no pipeline to open
    words = _noise(1, 1, 16, 192)
    latents, picture = (
        _noise(0, 1, presets.get("tiny").networks["unet"]["in_channels"], 16, 16),
        _noise(2, 1, 19, 64, 64),
    )
    stock, ours = UNet2DConditionModel.from_pretrained(out / "unet"), _tiny("unet")
    assert torch.equal(*(unet.eval()(latents, 500, words, return_dict=False)[0] for unet in (stock, ours)))
    stock, ours = ControlNetModel.from_pretrained(out / "controlnet"), _tiny("controlnet_mask")
    answers = [net.eval()(latents, 500, words, picture, return_dict=False)[1] for net in (stock, ours)]
    assert torch.equal(*answers)
    stock, ours = BertModel.from_pretrained(out / "conditions" / "text_encoder"), _tiny("text_encoder")
    answers = [net.eval()(torch.arange(2, 30)[None]).last_hidden_state for net in (stock.float(), ours)]
    assert torch.equal(*answers)


def _tiny(component: str) -> Any:
    return checkpoints.load(component, presets.weights_folder("pkg:tiny"))


def test_a_vae_and_a_transformer_of_ours_without_our_parts_are_stock(tmp_path: Path) -> None:
    numbers = {k: v for k, v in presets.get("tiny").networks["transformer"].items() if k != "modality_codes"}
    vae = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    ours = {
        "vae": checkpoints.build("vae", {**vae, "block_out_channels": (32, 32), "fold": 1}),
        "transformer": checkpoints.build("transformer", numbers),
    }
    for component, network in ours.items():
        checkpoints.save(component, network, tmp_path / "weights")
    checkpoints.write_manifest(tmp_path / "weights")
    assert run(["export", str(tmp_path / "weights"), str(tmp_path / "out")]) == 0
    for component, cls, place in (
        ("vae", AutoencoderKL, "vae"),
        ("transformer", UVit2DModel, "conditions/transformer"),
    ):
        config = json.loads((tmp_path / "out" / place / "config.json").read_text())
        assert config["_class_name"] == cls.__name__
        stock, mine = cls.from_pretrained(tmp_path / "out" / place), checkpoints.load(component, tmp_path / "weights")
        assert stock.state_dict().keys() == mine.state_dict().keys()
        assert all(torch.equal(value, mine.state_dict()[name]) for name, value in stock.state_dict().items())


def _run_folder(home: Path) -> Path:
    """A run of two checkpoints, as training leaves it; the networks of both are equal but for one number."""
    network = ControlNetModel.from_unet(
        checkpoints.build("unet", presets.get("tiny").networks["unet"]),
        **presets.get("tiny").networks["controlnet_landmarks"],
    )
    for step in (1, 2):
        torch.nn.init.constant_(network.conv_in.bias, step)
        with checkpoints.publish(home / f"step-000000{step}") as aside:
            checkpoints.save("controlnet_landmarks", network, aside / "model")
            (aside / "trainer").mkdir()
            (aside / "trainer" / "state.safetensors").write_bytes(b"moments")
    return home


def test_a_run_gives_its_newest_checkpoint(tmp_path: Path) -> None:
    assert run(["export", str(_run_folder(tmp_path / "run")), str(tmp_path / "out")]) == 0
    network = ControlNetModel.from_pretrained(tmp_path / "out" / "controlnet")
    assert network.config["conditioning_channels"] == 3
    assert (network.conv_in.bias == 2).all()
    assert not (tmp_path / "out" / "trainer").exists()


@torch.inference_mode()
def test_an_adapter_opens_in_peft(tmp_path: Path) -> None:
    from peft import PeftModel

    from m3face.models.adapters import add_adapter, save_adapter

    def base() -> Any:
        return UNet2DConditionModel.from_pretrained(presets.weights_folder("pkg:tiny") / "unet").eval()

    tuned = add_adapter(base(), rank=2, seed=0)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    with checkpoints.publish(tmp_path / "run" / "step-0000001") as aside:
        save_adapter(tuned, aside / "model" / "unet_lora")
    assert run(["export", str(tmp_path / "run"), str(tmp_path / "none")]) == 3  # --to diffusers
    assert run(["export", str(tmp_path / "run"), str(tmp_path / "out"), "--to", "peft"]) == 0
    asked = (_noise(0, 1, 24, 16, 16), 500, _noise(1, 1, 16, 192))
    theirs, plain = PeftModel.from_pretrained(base(), tmp_path / "out" / "unet").eval(), base()
    answers = [net(*asked, return_dict=False)[0] for net in (tuned.eval(), theirs, plain)]
    assert torch.equal(answers[0], answers[1])
    assert not torch.allclose(answers[0], answers[2])


@pytest.mark.parametrize(
    ("case", "line", "code"),
    [
        ("peft of a whole network", "has no LoRA adapter; allowed: a run with train.lora", 3),
        ("nothing stock", "nothing for stock diffusers; parser: stock libraries have no such network", 3),
        ("damaged", "is damaged", 3),
        ("no folder", "no folder", 3),
        ("not finished", "has no manifest.json", 3),
        ("a folder in use", "is there already", 5),
        ("another layout", "--to", 2),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    case: str, line: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, out, more = tmp_path / "weights", tmp_path / "out", []
    component = "parser" if case == "nothing stock" else "map_vq"
    shutil.copytree(presets.weights_folder("pkg:tiny") / component, home / component)
    if case != "not finished":
        checkpoints.write_manifest(home)
    if case == "damaged":
        (home / component / "config.json").write_text("{}")
    if case == "no folder":
        home = tmp_path / "elsewhere"
    if case == "a folder in use":
        (out / "mine").mkdir(parents=True)
    if case in ("peft of a whole network", "another layout"):
        more = ["--to", "peft" if case.startswith("peft") else "onnx"]
    assert run(["export", str(home), str(out), *more]) == code
    (error,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert line in error
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"weights"} | ({"out"} if out.exists() else set()))
    assert not out.exists() or [p.name for p in out.iterdir()] == ["mine"]
