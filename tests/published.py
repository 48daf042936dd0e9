"""Published networks as their publishers lay them out, at a width that fits a test: written with the stock classes.

Odd here: the quirks of the real files are kept: Stable Diffusion's VAE has the attention names of old diffusers, its
CLIP a `text_model.` prefix and a stored `position_ids`, its tokenizer no tokenizer.json, its scheduler is PNDM; M-CLIP
wraps a BERT and its config does not say how large; what is published beside (fp16 copies, pickles) lies there too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AmusedScheduler,
    AutoencoderKL,
    ControlNetModel,
    PNDMScheduler,
    UNet2DConditionModel,
    UVit2DModel,
    VQModel,
)
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

WIDTH = 24  # of the text states; LaBSE has 12 heads, which its files do not say
_LETTERS = "abcdefghijklmnopqrstuvwxyzäéñß |"


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _rename(file: Path, names: Any, **more: torch.Tensor) -> None:
    save_file({names(k): v for k, v in load_file(file).items()} | more, file, metadata={"format": "pt"})


def _bert_words(folder: Path) -> int:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 512})
    return len(words)


def _clip_words(folder: Path) -> int:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    _json(folder / "vocab.json", {word: i for i, word in enumerate(words)})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **ends})
    return len(words)


def write_mclip(folder: Path) -> Path:
    """M-CLIP/LABSE-Vit-L-14: tokenizer and network in one folder."""
    vocabulary = _bert_words(folder)
    bert = BertModel(
        BertConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=12,
            intermediate_size=32,
            max_position_embeddings=96,
        )
    )
    head = torch.nn.Linear(WIDTH, WIDTH)
    state = {f"transformer.{k}": v for k, v in bert.state_dict().items()}
    state |= {f"LinearTransformation.{k}": v for k, v in head.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {"modelBase": "sentence-transformers/LaBSE", "transformerDimSize": WIDTH, "imageDimSize": WIDTH}
    _json(folder / "config.json", {"model_type": "M-CLIP", "architectures": ["MultilingualCLIP"], **sizes})
    return folder


def write_amused(folder: Path) -> Path:
    """amused-256, and m3face/FaceConditioning, which is like it but for its text encoder."""
    transformer = UVit2DModel(
        hidden_size=32,
        cond_embed_dim=WIDTH,
        micro_cond_encode_dim=8,
        micro_cond_embed_dim=40,
        encoder_hidden_size=WIDTH,
        vocab_size=80,
        codebook_size=64,
        in_channels=32,
        block_out_channels=32,
        num_res_blocks=1,
        block_num_heads=2,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        sample_size=16,
    )
    with torch.no_grad():
        for parameter in transformer.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)  # as it begins, it hears hardly anything but the words
    transformer.save_pretrained(folder / "transformer")
    VQModel(
        block_out_channels=(32,) * 3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=8,
        num_vq_embeddings=64,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
        force_upcast=True,
    ).save_pretrained(folder / "vqvae")
    AmusedScheduler(mask_token_id=79).save_pretrained(folder / "scheduler")
    write_mclip(folder / "text_encoder")
    _bert_words(folder / "tokenizer")
    _json(folder / "model_index.json", {"_class_name": "AmusedPipeline", "transformer": ["diffusers", "UVit2DModel"]})
    return folder


def write_stable_diffusion(folder: Path, *, side: int, alt: bool = False) -> Path:
    """stable-diffusion-v1-5 for pictures of `side` pixels; with `alt` as BAAI lays out AltDiffusion."""
    latent = side // 8
    UNet2DConditionModel(
        sample_size=latent,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
    ).save_pretrained(folder / "unet")
    vae = AutoencoderKL(
        block_out_channels=(32,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=side,
    )
    vae.save_pretrained(folder / "vae")
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def old_name(name: str) -> str:
        for new, before in old.items():
            name = name.replace(new, before)
        return name

    _rename(folder / "vae" / "diffusion_pytorch_model.safetensors", old_name)
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another copy")
    (folder / "vae" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    PNDMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    if alt:
        _alt_encoder(folder)
        return folder
    vocabulary = _clip_words(folder / "tokenizer")
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            projection_dim=WIDTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
        )
    ).save_pretrained(folder / "text_encoder")
    places = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    _rename(folder / "text_encoder" / "model.safetensors", lambda name: f"text_model.{name}", **places)
    return folder


def _alt_encoder(folder: Path) -> None:
    vocabulary = _bert_words(folder / "tokenizer")
    RobertaSeriesModelWithTransformation(
        RobertaSeriesConfig(
            vocab_size=vocabulary,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=96,
            type_vocab_size=1,
            project_dim=WIDTH,
            has_pre_transformation=True,
            pad_token_id=0,
        )
    ).save_pretrained(folder / "text_encoder")


def write_controlnet(folder: Path, unet: Path) -> Path:
    """A branch of m3face/FaceControlNet: the network in the root. Its zero convolutions get numbers, as trained."""
    network = ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(unet))
    for parameter in network.parameters():
        if not bool(parameter.any()):
            torch.nn.init.normal_(parameter, std=0.05)
    network.save_pretrained(folder)
    return folder


def write_published(root: Path, *, side: int = 128, alt: bool = False) -> dict[str, str]:
    """Everything under `root`; the sources by component, for `m3face fetch --from`."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        words = write_mclip(root / "mclip")
        amused = write_amused(root / "amused")
        base = write_stable_diffusion(root / "base", side=side, alt=alt)
        masks = write_controlnet(root / "controlnet-mask", base / "unet")
        landmarks = write_controlnet(root / "controlnet-landmarks", base / "unet")
    folders = {
        "tokenizer": words,
        "text_encoder": words,
        "transformer": amused / "transformer",
        "map_vq": amused / "vqvae",
        "landmark_vq": amused / "vqvae",
        "face_tokenizer": base / "tokenizer",
        "face_text_encoder": base / "text_encoder",
        "vae": base / "vae",
        "unet": base / "unet",
        "scheduler": base / "scheduler",
        "controlnet_mask": masks,
        "controlnet_landmarks": landmarks,
    }
    return {component: f"dir:{folder}" for component, folder in folders.items()}
