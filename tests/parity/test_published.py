"""The published networks, for which there is no network here: names, shapes and answers against the stock classes.

Odd here: full sizes exist on the meta device only, where a tensor has a shape and no numbers; numbers are compared at a
width that fits a test, in folders laid out as their publishers lay them out (tests/published.py). The configurations
below are written out a second time on purpose: they are what the presets are compared with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)
from diffusers.pipelines.deprecated.amused.pipeline_amused import AmusedPipeline
from safetensors.torch import load_file
from transformers import AutoTokenizer, BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

from m3face import checkpoints, presets
from m3face.errors import CheckpointError
from m3face.faces import PALETTE, draw_landmarks
from m3face.models import vq
from m3face.models.text import MultilingualClip
from m3face.models.vq import decode_drawings, encode_landmarks, encode_maps, landmark_picture, map_picture
from m3face.sampling import decode_masked, initial_noise
from m3face.stages import ConditionRequest, FaceRequest, TextRequest, TextResult, open_stage
from m3face.synthetic import make_sample
from tests.published import write_published

pytestmark = pytest.mark.usefixtures("one_thread")

# ---------------------------------------------------------------------------------- full size, on the meta device
# Where a number was learned: [file] the publisher's config.json, as public repositories quote it; [default] the stock
# class's own default, which that class took from the publication; [size] agrees with the published file's size.


class PublishedMClip(torch.nn.Module):
    """M-CLIP's own module: the names in pytorch_model.bin are `transformer.*` and `LinearTransformation.*`."""

    def __init__(self) -> None:
        super().__init__()
        labse = BertConfig(vocab_size=501153)  # [file] LaBSE's config; the rest is BERT-base [default]
        self.transformer = BertModel(labse)
        self.LinearTransformation = torch.nn.Linear(768, 768)  # [file] transformerDimSize, imageDimSize


def _unet(**more: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(**{"sample_size": 64, "cross_attention_dim": 768} | more)  # [default] is 1.5's


_SD_2_1 = {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}  # [size]

STOCK: dict[tuple[str, str], Any] = {
    ("sd15", "text_encoder"): PublishedMClip,
    # [default]: UVit2DModel's own are amused-256's, but for the grid, which no tensor knows of
    ("sd15", "transformer"): lambda: UVit2DModel(sample_size=16),
    # [file] amused vqvae/config.json
    ("sd15", "map_vq"): lambda: VQModel(
        block_out_channels=(128, 256, 256, 512, 768),
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        layers_per_block=2,
        latent_channels=64,
        num_vq_embeddings=8192,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    ),
    # [file] stable-diffusion-v1-5 vae/config.json
    ("sd15", "vae"): lambda: AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    ),
    ("sd15", "unet"): _unet,
    ("sd15", "controlnet_mask"): lambda: ControlNetModel(cross_attention_dim=768),  # [default] is 1.5's
    # [file] stable-diffusion-v1-5 text_encoder/config.json: CLIP ViT-L/14
    ("sd15", "face_text_encoder"): lambda: CLIPTextModel(
        CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768, eos_token_id=2
        )
    ),
    ("m3face", "unet"): lambda: _unet(**_SD_2_1),
    ("m3face", "controlnet_landmarks"): lambda: ControlNetModel(**_SD_2_1),
    # XLM-R large [file]; the layer to the UNet's width [size]; the pre-transformation is unverified
    ("m3face", "face_text_encoder"): lambda: RobertaSeriesModelWithTransformation(
        RobertaSeriesConfig(
            vocab_size=250002,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=514,
            type_vocab_size=1,
            project_dim=1024,
            has_pre_transformation=True,
        )
    ),
}
GIGABYTES = {
    ("sd15", "text_encoder"): 1.89,  # pytorch_model.bin of M-CLIP/LABSE-Vit-L-14
    ("sd15", "controlnet_mask"): 1.45,  # every ControlNet over Stable Diffusion 1.5
    ("m3face", "controlnet_landmarks"): 1.46,  # m3face/FaceControlNet, branch landmark-mlin
}
"""fp32 files as the hub lists them."""


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def _ours(preset: str, component: str) -> torch.nn.Module:
    networks = presets.get(preset).networks
    if component.startswith("controlnet"):
        network: torch.nn.Module = ControlNetModel.from_unet(_ours(preset, "unet"), **networks[component])
    else:
        network = checkpoints.build(component, networks[component])
    return network


@pytest.mark.parametrize(("preset", "component"), STOCK)
def test_at_full_size_every_tensor_has_the_published_name_and_shape(preset: str, component: str) -> None:
    with torch.device("meta"):
        ours, stock = _ours(preset, component), STOCK[preset, component]()
    theirs = _shapes(stock)
    if isinstance(ours, MultilingualClip):
        theirs = {MultilingualClip.our_name(name): shape for name, shape in theirs.items()}
    assert len(theirs) > 30
    assert _shapes(ours) == theirs
    if (preset, component) in GIGABYTES:
        size = sum(value.numel() for value in ours.parameters()) * 4 / 1e9
        assert round(size, 2) == GIGABYTES[preset, component]


def test_what_a_preset_names_it_can_build_and_fetch() -> None:
    names = {"sd15", "m3face"}
    for name in names:
        row = presets.get(name)
        made_by_training = set() if name == "m3face" else {"controlnet_mask", "controlnet_landmarks"}
        assert set(row.networks) - set(row.sources) == made_by_training
        compared = {c for preset, c in STOCK if preset in ("sd15", name)}
        same = {"landmark_vq": "map_vq", "controlnet_landmarks": "controlnet_mask"}
        for component in row.networks:
            if component.endswith("tokenizer") or component == "scheduler":
                continue
            assert same.get(component, component) in compared


# -------------------------------------------------------------------------------------- small, with numbers


class Sets:
    """Published folders and what `fetch` made of them."""

    def __init__(self, home: Path, *, preset: str) -> None:
        self.home = home
        self.sources = write_published(home / "published", alt=preset == "m3face")
        row = presets.get(preset)
        found = [checkpoints.locate(component, place) for component, place in self.sources.items()]
        self.weights = checkpoints.fetch(found, row.networks, home / "ours", preset=preset, image_size=128)

    def folder(self, component: str) -> str:
        return self.sources[component].removeprefix("dir:")

    def pipeline(self) -> Any:
        """The stock pipeline over the published folders themselves."""
        load = {"torch_dtype": torch.float32}
        encoder: Any = RobertaSeriesModelWithTransformation
        if "CLIPTextModel" in (Path(self.folder("face_text_encoder")) / "config.json").read_text():
            encoder = CLIPTextModel
        nets = [ControlNetModel.from_pretrained(self.folder(f"controlnet_{c}"), **load) for c in ("mask", "landmarks")]
        pipe = StableDiffusionControlNetPipeline(
            vae=AutoencoderKL.from_pretrained(self.folder("vae"), **load),
            text_encoder=encoder.from_pretrained(self.folder("face_text_encoder"), dtype=torch.float32),
            tokenizer=AutoTokenizer.from_pretrained(self.folder("face_tokenizer"), model_max_length=77),
            unet=UNet2DConditionModel.from_pretrained(self.folder("unet"), **load),
            controlnet=MultiControlNetModel(nets),
            scheduler=DDIMScheduler.from_pretrained(self.folder("scheduler"), clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Sets:
    return Sets(tmp_path_factory.mktemp("sd15"), preset="sd15")


@pytest.fixture(scope="module")
def alt(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Sets:
    return Sets(tmp_path_factory.mktemp("alt"), preset="m3face")


@pytest.fixture(params=["sd15", "m3face"])
def sets(request: pytest.FixtureRequest) -> Iterator[Sets]:
    yield request.getfixturevalue({"sd15": "sd15", "m3face": "alt"}[request.param])


PROMPT = "eine alte frau mit braunen haaren"


def _words(sets: Sets, prompt: str = PROMPT) -> TextResult:
    stage: Any = open_stage("text", f"dir:{sets.weights}")
    (result,) = stage.run([TextRequest(prompt=prompt)])
    assert isinstance(result, TextResult)
    return result


@torch.inference_mode()
def test_the_face_is_told_what_the_stock_pipeline_tells_it(sets: Sets) -> None:
    asked, empty = sets.pipeline().encode_prompt(PROMPT, "cpu", 1, True)
    words = _words(sets).words_for("face")
    assert words.text.states.shape == (77, 24)
    assert np.array_equal(words.text.states, asked[0].numpy())
    assert np.array_equal(words.empty.states, empty[0].numpy())
    assert not np.array_equal(words.empty.states, words.text.states)


@torch.inference_mode()
def test_conditions_are_told_m_clips_states_each_with_its_own_beginning(sd15: Sets) -> None:
    state = load_file(Path(sd15.folder("text_encoder")) / "model.safetensors")
    config = BertConfig.from_pretrained(sd15.weights / "text_encoder")
    bert, linear = BertModel(config).eval(), torch.nn.Linear(24, 24)
    bert.load_state_dict({k.removeprefix("transformer."): v for k, v in state.items() if k.startswith("transformer.")})
    linear.load_state_dict({k: state[f"LinearTransformation.{k}"] for k in ("weight", "bias")})
    tokenizer = AutoTokenizer.from_pretrained(sd15.folder("tokenizer"))
    words = _words(sd15)
    said = {"Generate face mask | " + PROMPT: words.text, "": words.empty}
    said["Generate face landmark | " + PROMPT] = words.words_for("landmarks").text
    assert words.mentions == ()
    for text, ours in said.items():
        batch = tokenizer(text, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        output = bert(**batch, output_hidden_states=True)
        assert np.allclose(ours.states, output.hidden_states[-2][0].numpy(), atol=1e-6)
        assert np.allclose(ours.pooled, linear(output.pooler_output)[0].numpy(), atol=1e-6)
    assert len({ours.states.tobytes() for ours in said.values()}) == 3


def test_a_stock_bert_opens_the_fetched_m_clip(sd15: Sets) -> None:
    ours = checkpoints.load("text_encoder", sd15.weights)
    stock = BertModel.from_pretrained(sd15.weights / "text_encoder").eval()
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        assert torch.equal(stock(ids).pooler_output, ours(ids).pooler_output)


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@torch.inference_mode()
def test_a_face_is_that_of_the_stock_pipeline_over_the_published_folders(sets: Sets, guidance: float) -> None:
    label_map = np.random.default_rng(0).integers(0, 19, (16, 16), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    points = make_sample(0, 1, size=128).landmarks
    words = _words(sets).words_for("face")
    stage: Any = open_stage("face", f"dir:{sets.weights}")
    request = FaceRequest(
        text=words.text, empty=words.empty, seed=4, label_map=label_map, landmarks=points, steps=3, guidance=guidance
    )
    (face,) = stage.run([request])
    drawings = [PALETTE[label_map], draw_landmarks(points, size=128)]
    stock = sets.pipeline()(
        PROMPT,
        image=[torch.from_numpy(drawing.copy()).permute(2, 0, 1)[None].float() / 255 for drawing in drawings],
        latents=initial_noise([4], (4, 16, 16)),
        num_inference_steps=3,
        guidance_scale=guidance,
        output_type="np",
    ).images[0]
    assert face.picture.shape == (128, 128, 3)
    assert np.abs(face.picture / 255 - stock).max() <= 0.5 / 255 + 1e-4


@torch.inference_mode()
def test_a_drawing_is_that_of_the_stock_amused_pipeline(sd15: Sets) -> None:
    """One step, so sure that chance has no say; over more steps aMUSEd's own noise differs from ours."""
    ours = checkpoints.load("transformer", sd15.weights)
    stock = UVit2DModel.from_pretrained(sd15.folder("transformer"))
    for network in (ours, stock):
        network.mlm_layer.conv2.weight.mul_(1e5)
    map_vq = checkpoints.load("map_vq", sd15.weights)
    vqvae = VQModel.from_pretrained(sd15.folder("map_vq"))
    words = _words(sd15)
    states, pooled, no_states, no_pooled = (
        torch.from_numpy(value)[None]
        for value in (words.text.states, words.text.pooled, words.empty.states, words.empty.pooled)
    )
    pipe = AmusedPipeline(
        vqvae=vqvae, tokenizer=None, text_encoder=None, transformer=stock, scheduler=AmusedScheduler(mask_token_id=79)
    )
    pipe.set_progress_bar_config(disable=True)
    start = torch.randint(64, (1, 16, 16), generator=torch.Generator().manual_seed(0))
    # among what is masked alone, a network without positions writes one id everywhere: here every other cell is known
    start[:, ::2, ::2] = start[:, 1::2, 1::2] = ours.mask_id
    theirs = pipe(
        latents=start,
        prompt_embeds=pooled,
        encoder_hidden_states=states,
        negative_prompt_embeds=no_pooled,
        negative_encoder_hidden_states=no_states,
        num_inference_steps=1,
        guidance_scale=10.0,
        output_type="np",
    ).images[0]
    both = [torch.cat(pair) for pair in ((states, no_states), (pooled, no_pooled))]

    def logits(ids: torch.Tensor) -> torch.Tensor:
        asked, empty = ours.logits(torch.cat([ids, ids]), *both, side=64).chunk(2)
        return empty + 10 * (asked - empty)

    ids = decode_masked(logits, start, mask_id=79, steps=1, generators=[torch.Generator()], temperature=1e-6)
    assert len(ids[:, ::2, ::2].unique()) > 1
    assert np.abs(decode_drawings(map_vq, ids)[0] / 255 - theirs).max() <= 0.5 / 255 + 1e-5


@torch.inference_mode()
def test_tokens_of_a_picture_are_those_of_the_stock_network(sd15: Sets) -> None:
    map_vq, stock = checkpoints.load("map_vq", sd15.weights), VQModel.from_pretrained(sd15.folder("map_vq"))
    sample = make_sample(0, 0, size=128)
    maps = torch.from_numpy(sample.label_map)[None]
    pictures = {
        "mask": (encode_maps(map_vq, maps), map_picture(maps, channels=3, size=64)),
        "landmarks": (
            encode_landmarks(map_vq, sample.landmarks[None], size=128),
            landmark_picture(sample.landmarks[None], size=128, new=64),
        ),
    }
    for ours, picture in pictures.values():
        theirs = stock.quantize(stock.encode(picture).latents)[2][2].reshape(1, 16, 16)
        assert torch.equal(ours, theirs)


def _condition(sets: Sets, seed: int, **fields: Any) -> ConditionRequest:
    words = _words(sets)
    landmark_text = words.words_for("landmarks").text
    return ConditionRequest(
        text=words.text, empty=words.empty, landmark_text=landmark_text, seed=seed, steps=3, guidance=10.0, **fields
    )


def test_an_untaught_drawing_is_one_request_s_error_and_what_is_given_stays(sd15: Sets) -> None:
    stage: Any = open_stage("conditions", f"dir:{sd15.weights}", micro_batch=2)
    sample = make_sample(0, 0, size=128)
    requests = [
        _condition(sd15, 1),
        _condition(sd15, 2, landmarks=sample.landmarks),
        _condition(sd15, 2, landmarks=sample.landmarks, label_map=sample.label_map),
    ]
    lost, made, kept = stage.run(requests)
    assert "the drawing has no" in str(lost)
    assert np.array_equal(made.landmarks, sample.landmarks)
    assert made.label_map.shape == (128, 128)
    assert np.array_equal(kept.label_map, sample.label_map)
    (alone,) = stage.run(requests[1:2])
    assert np.array_equal(alone.label_map, made.label_map)


def test_drawn_landmarks_come_back_as_points(sd15: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = make_sample(0, 2, size=128)
    drawing = draw_landmarks(sample.landmarks, size=128, new=256)
    monkeypatch.setattr(vq, "decode_drawings", lambda _vq, ids: np.stack([drawing] * len(ids)))
    stage: Any = open_stage("conditions", f"dir:{sd15.weights}")
    seen: list[Any] = []
    (made,) = stage.run([_condition(sd15, 3)], on_step=lambda _step, previews: seen.append(previews[0]()))
    assert np.hypot(*(made.landmarks - sample.landmarks).T).mean() < 0.02 * 128
    assert len(seen) == 6  # three steps of the map, three of the landmarks
    assert all(preview.ndim == 3 and preview.shape[2] == 3 for preview in seen)


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_a_pickle_in_a_weights_folder_is_never_opened(component: str, sd15: Sets, tmp_path: Path) -> None:
    shutil.copytree(sd15.weights / component, tmp_path / component)
    (file,) = (tmp_path / component).glob("*.safetensors")
    pickle = {"unet": "diffusion_pytorch_model.bin", "text_encoder": "pytorch_model.bin"}[component]
    torch.save(load_file(file), tmp_path / component / pickle)
    file.unlink()
    checkpoints.write_manifest(tmp_path)
    with pytest.raises(CheckpointError, match=f"{pickle}, a pickle; allowed: model.safetensors"):
        checkpoints.load(component, tmp_path)
