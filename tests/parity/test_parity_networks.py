"""Ours against stock diffusers and transformers: same weights, same answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AmusedScheduler,
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
    UVit2DModel,
    VQModel,
)
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from safetensors.torch import load_file, save_file
from transformers import BertModel

from m3face import checkpoints, presets
from m3face.errors import CheckpointError
from m3face.models.masked_transformer import MaskedTransformer
from m3face.models.vq import landmark_picture, map_picture
from m3face.sampling import decode_masked, initial_noise
from m3face.stages import FaceRequest, TextStates, open_stage

TINY = presets.get("tiny").networks
LATENT = (TINY["vae"]["latent_channels"], 16, 16)


def _noise(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _states(seed: int) -> TextStates:
    states = _noise(seed, 16, 192).numpy()
    return TextStates(states=states, pooled=states.mean(0))


@torch.inference_mode()
def test_without_positions_our_transformer_is_the_stock_class() -> None:
    arguments = {k: v for k, v in TINY["transformer"].items() if k != "modality_codes"}
    ours, stock = MaskedTransformer(**arguments).eval(), UVit2DModel(**arguments).eval()
    stock.load_state_dict(ours.state_dict())
    ids = torch.randint(0, 700, (2, 16, 32), generator=torch.Generator().manual_seed(0))
    inputs = (ids, _noise(1, 2, 16, 192), _noise(2, 2, 192), torch.zeros(2, 5))
    assert torch.equal(ours(*inputs), stock(*inputs))


@torch.inference_mode()
def test_without_folding_our_vae_is_the_stock_class(tmp_path: Path) -> None:
    """A folder of Stable Diffusion's VAE opens as ours, and says the same; and ours as theirs."""
    AutoencoderKL(block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
                  up_block_types=("UpDecoderBlock2D",) * 2).save_pretrained(tmp_path / "vae")  # fmt: skip
    checkpoints.write_manifest(tmp_path)
    stock, ours = AutoencoderKL.from_pretrained(tmp_path / "vae").eval(), checkpoints.load("vae", tmp_path)
    picture, latent = _noise(0, 2, 3, 32, 32), _noise(1, 2, 4, 16, 16)
    assert ours.downscale == 2
    ours.start(picture, torch.ones(2, 1, 32, 32))  # a stock encoder has nothing to settle
    assert torch.equal(ours.encode(picture).latent_dist.parameters, stock.encode(picture).latent_dist.parameters)
    assert torch.equal(ours.decode(latent).sample, stock.decode(latent).sample)
    assert torch.equal(ours.decode(latent, return_dict=False)[0], stock.decode(latent, return_dict=False)[0])
    checkpoints.save("vae", ours, tmp_path / "again")
    again = AutoencoderKL.from_pretrained(tmp_path / "again" / "vae", torch_dtype=torch.float32).eval()
    assert torch.allclose(again.decode(latent).sample, stock.decode(latent).sample, atol=1e-2)  # kept in half precision


@torch.inference_mode()
def test_with_positions_columns_differ(random_weights: Path) -> None:
    ours = checkpoints.load("transformer", random_weights)
    masked = torch.full((1, 16, 32), ours.mask_id)
    logits = ours.logits(masked, _noise(1, 1, 16, 192), _noise(2, 1, 192))
    assert not torch.allclose(logits[0, :, 8, 8], logits[0, :, 8, 10])
    assert (logits[0, 512:, :, 0::2] == -1e4).all() and (logits[0, :512, :, 1::2] == -1e4).all()


def test_at_temperature_zero_we_decode_as_amused_does() -> None:
    """One step of both writes the likeliest id everywhere; their later masking draws other noise than ours."""
    fixed = _noise(0, 1, 9, 4, 4) * 3
    start = torch.full((1, 4, 4), 9)
    ours = decode_masked(lambda ids: fixed, start, mask_id=9, steps=1, generators=[torch.Generator()], temperature=1e-6)
    scheduler = AmusedScheduler(mask_token_id=9)
    scheduler.set_timesteps(1, temperature=(0, 0))
    theirs = scheduler.step(fixed * 1e6, scheduler.timesteps[0], start, 1, torch.Generator().manual_seed(0))
    assert torch.equal(ours, theirs.prev_sample)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@torch.inference_mode()
def test_our_faces_are_those_of_the_stock_pipeline(random_weights: Path, guidance: float) -> None:
    stage: Any = open_stage("face", f"dir:{random_weights}")
    label_map = np.random.default_rng(0).integers(0, 19, (16, 16), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    points = np.random.default_rng(1).uniform(20, 110, (68, 2)).astype(np.float32)
    text, empty = _states(1), _states(2)
    (face,) = stage.run(
        [FaceRequest(text=text, empty=empty, seed=4, label_map=label_map, landmarks=points, steps=4, guidance=guidance)]
    )
    nets = [stage.controlnets["mask"], stage.controlnets["landmarks"]]
    pipe = StableDiffusionControlNetPipeline(
        vae=stage.vae,
        text_encoder=None,
        tokenizer=None,
        unet=stage.unet,
        controlnet=MultiControlNetModel(nets),
        scheduler=DDIMScheduler.from_config(stage.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.control_image_processor.config.do_convert_rgb = False
    stock = pipe(
        image=[
            map_picture(torch.from_numpy(label_map)[None], channels=19, size=64),
            landmark_picture(points[None], size=128, new=64),
        ],
        prompt_embeds=torch.from_numpy(text.states)[None],
        negative_prompt_embeds=torch.from_numpy(empty.states)[None],
        latents=initial_noise([4], LATENT),
        num_inference_steps=4,
        guidance_scale=guidance,
        output_type="np",
    ).images[0]
    assert np.abs(face.picture / 255 - stock).max() <= 0.5 / 255 + 1e-4


_STOCK: dict[str, tuple[Any, tuple[torch.Tensor, ...]]] = {
    "text_encoder": (BertModel, (torch.arange(2, 22)[None],)),
    "map_vq": (VQModel, (_noise(0, 1, 19, 64, 64),)),
    "landmark_vq": (VQModel, (_noise(0, 1, 3, 64, 64),)),
    "unet": (UNet2DConditionModel, (_noise(0, 1, *LATENT), torch.tensor(500), _noise(1, 1, 16, 192))),
    "controlnet_mask": (
        ControlNetModel,
        (_noise(0, 1, *LATENT), torch.tensor(500), _noise(1, 1, 16, 192), _noise(2, 1, 19, 64, 64)),
    ),
}


@pytest.mark.parametrize("component", _STOCK)
@torch.inference_mode()
def test_stock_classes_open_our_folder_and_say_the_same(component: str, random_weights: Path) -> None:
    cls, inputs = _STOCK[component]
    stock = cls.from_pretrained(str(random_weights / component), torch_dtype=torch.float32).eval()
    ours = checkpoints.load(component, random_weights)
    theirs, mine = (network(*inputs, return_dict=False)[0] for network in (stock, ours))
    if isinstance(mine, list | tuple):
        theirs, mine = theirs[-1], mine[-1]
    assert torch.equal(theirs, mine)


def _copy(random_weights: Path, component: str, home: Path) -> Path:
    shutil.copytree(random_weights / component, home / component)
    return home / component / "config.json"


def test_an_unknown_key_of_a_config_is_refused(random_weights: Path, tmp_path: Path) -> None:
    path = _copy(random_weights, "unet", tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_blok": 3}))
    checkpoints.write_manifest(tmp_path)
    with pytest.raises(CheckpointError, match="layers_per_blok"):
        checkpoints.load("unet", tmp_path)


@pytest.mark.parametrize(
    ("component", "tensor"), [("parser", "head.bias"), ("text_encoder", "embeddings.LayerNorm.bias")]
)
def test_weights_of_another_network_are_one_line(
    random_weights: Path, tmp_path: Path, component: str, tensor: str
) -> None:
    _copy(random_weights, component, tmp_path)
    (file,) = (tmp_path / component).glob("*.safetensors")
    state = load_file(file)
    kept = state.pop(tensor)
    for what, name in (("missing", tensor), ("unexpected", "stranger")):
        save_file(state, file, metadata={"format": "pt"})
        checkpoints.write_manifest(tmp_path)
        with pytest.raises(CheckpointError, match=f"{what} tensor {name}"):
            checkpoints.load(component, tmp_path)
        state |= {tensor: kept, "stranger": torch.zeros(2)}


def test_a_damaged_file_is_named(random_weights: Path, tmp_path: Path) -> None:
    path = _copy(random_weights, "vae", tmp_path)
    checkpoints.write_manifest(tmp_path)
    path.write_text(path.read_text() + " ")
    with pytest.raises(CheckpointError, match=str(path)):
        checkpoints.load("vae", tmp_path)
