"""The rows, and where their weights lie.

Odd here: `networks` holds constructor arguments of the stock classes (diffusers, transformers), which training starts
from; inference never reads them, since a weights folder carries each network's own `config.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import platformdirs

from m3face.errors import CheckpointError, ConfigError
from m3face.presets.published import M3FACE_NETWORKS, M3FACE_SOURCES, SD15_NETWORKS, SD15_SOURCES

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Preset:
    """One row. `weights` is "pkg:NAME" (shipped in the package), "cache:NAME" (trained or fetched here) or "dir:PATH".

    `sources` says where others published its networks, by component: `m3face fetch` brings them into `weights`.

    `cpu_threads` are those that one face is worth on a CPU: networks as small as `tiny` gain nothing from a second one
    and wait ten times as long for each other where the cores are shared. None leaves it to torch, as training
    always does: its batches are large enough.
    """

    name: str
    weights: str
    image_size: int
    prompt_characters: int = 600
    condition_steps: int = 24
    condition_guidance: float = 3.0
    condition_attempts: int = 1
    face_steps: int = 20
    face_guidance: float = 5.0
    attribute_guidance: float = 0.0
    cpu_threads: int | None = None
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


_TEXT_WIDTH = 192
_SLOTS = 16
_MAP_CODES = 512
_LANDMARK_CODES = 256


def _vq(channels_in: int, channels_out: int, codes: int, widths: tuple[int, ...]) -> dict[str, Any]:
    return {
        "in_channels": channels_in,
        "out_channels": channels_out,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "block_out_channels": widths,
        "layers_per_block": 1,
        "latent_channels": 16,
        "vq_embed_dim": 16,
        "num_vq_embeddings": codes,
        "norm_num_groups": 1,
        "mid_block_add_attention": False,
        "lookup_from_codebook": True,
        "sample_size": 64,
    }


_TINY = Preset(
    name="tiny",
    weights="pkg:tiny",
    image_size=128,
    cpu_threads=1,
    condition_attempts=4,
    attribute_guidance=15.0,
    networks={
        "tokenizer": {"vocab_size": 8000, "slots": _SLOTS, "max_length": 144},
        "text_encoder": {
            "vocab_size": 8000,
            "hidden_size": _TEXT_WIDTH,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 4 * _TEXT_WIDTH,
            "max_position_embeddings": 144,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.07,  # at 0.02 and this width the slots hardly hear the words at first
        },
        "prompt_reader": {"width": _TEXT_WIDTH, "slots": _SLOTS, "hidden": 192},
        "map_vq": _vq(19, 19, _MAP_CODES, (32, 48, 64)),
        "landmark_vq": _vq(3, 68, _LANDMARK_CODES, (24, 40, 64)),
        "transformer": {
            "hidden_size": 192,
            "cond_embed_dim": _TEXT_WIDTH,
            "micro_cond_encode_dim": 32,
            "micro_cond_embed_dim": 160,
            "encoder_hidden_size": _TEXT_WIDTH,
            "vocab_size": _MAP_CODES + _LANDMARK_CODES + 1,
            "codebook_size": _MAP_CODES + _LANDMARK_CODES,
            "in_channels": 96,
            "block_out_channels": 96,
            "num_res_blocks": 1,
            "downsample": True,
            "upsample": True,
            "block_num_heads": 4,
            "num_hidden_layers": 6,
            "num_attention_heads": 4,
            "intermediate_size": 384,
            "sample_size": 16,
            "modality_codes": (_MAP_CODES, _LANDMARK_CODES),
        },
        "vae": {
            "fold": 2,
            "in_channels": 12,
            "out_channels": 12,
            "down_block_types": ("DownEncoderBlock2D",) * 3,
            "up_block_types": ("UpDecoderBlock2D",) * 3,
            "block_out_channels": (32, 64, 96),
            "layers_per_block": 1,
            "latent_channels": 24,
            "norm_num_groups": 1,  # groups of two channels normalise the colour of the whole picture away
            "sample_size": 128,
            "mid_block_add_attention": False,
        },
        "latent_reader": {"channels": 24, "width": 64},
        "unet": {
            "sample_size": 16,
            "in_channels": 24,
            "out_channels": 24,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (96, 128),
            "layers_per_block": 1,
            "cross_attention_dim": _TEXT_WIDTH,
            "addition_embed_type": "text",  # pooled words beside the time, so that every layer hears them
            "attention_head_dim": 4,
            "norm_num_groups": 8,
        },
        "scheduler": {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "prediction_type": "v_prediction",
            "clip_sample": False,
            "set_alpha_to_one": True,
            "timestep_spacing": "trailing",
            "rescale_betas_zero_snr": True,
        },
        "controlnet_mask": {"conditioning_channels": 19, "conditioning_embedding_out_channels": (24, 48, 96)},
        "controlnet_landmarks": {
            "conditioning_channels": 3,
            "conditioning_embedding_out_channels": (24, 48, 96),
        },
        "parser": {"widths": (24, 48, 64, 96)},
        "landmark_detector": {"widths": (24, 48, 64, 96)},
        "attribute_classifier": {"widths": (24, 48, 96, 128)},
        "identity_embedder": {"widths": (24, 48, 64, 96), "dimensions": 128},
    },
)

_SD15 = Preset(
    name="sd15",
    weights="cache:sd15",
    image_size=512,
    condition_steps=12,
    condition_guidance=10.0,
    face_steps=20,
    face_guidance=7.5,
    networks=SD15_NETWORKS,
    sources=SD15_SOURCES,
)

_M3FACE = replace(_SD15, name="m3face", weights="cache:m3face", networks=M3FACE_NETWORKS, sources=M3FACE_SOURCES)

_PRESETS: dict[str, Preset] = {p.name: p for p in (_TINY, _SD15, _M3FACE)}


def get(name: str) -> Preset:
    """The row called `name`; ConfigError names the choices."""
    try:
        return _PRESETS[name]
    except KeyError:
        raise ConfigError("preset", f"{name!r} is unknown", ", ".join(_PRESETS)) from None


def cached(name: str) -> Path:
    """Where weights called `name` lie that were trained or fetched on this machine, whether or not they exist."""
    return Path(platformdirs.user_cache_dir("m3face")) / "weights" / name


def weights_folder(location: str) -> Path:
    """The folder behind "pkg:NAME", "cache:NAME" or "dir:PATH"; CheckpointError if there is none."""
    scheme, _, rest = location.partition(":")
    remedy = "train them (make tiny, then make ship-tiny) or give another location"
    if scheme == "pkg" and rest:
        folder = _HERE / rest
    elif scheme == "cache" and rest:
        folder = cached(rest)
        if rest in _PRESETS and _PRESETS[rest].sources:
            remedy = f"bring the published networks here: m3face fetch {rest}"
    elif scheme == "dir" and rest:
        try:
            folder = Path(rest).expanduser()
        except RuntimeError as error:
            raise ConfigError("weights", f"{location!r}: {error}", "'dir:PATH'") from None
    else:
        allowed = "'pkg:NAME', 'cache:NAME' or 'dir:PATH'"
        raise ConfigError("weights", f"{location!r}", allowed, f"did you mean 'dir:{location}'?")
    try:
        there = folder.is_dir()
    except OSError as error:
        raise CheckpointError("weights", f"{folder}: {error.strerror}", "a folder of weights") from None
    if not there:
        raise CheckpointError("weights", f"no folder {folder}", "a folder of weights", remedy)
    return folder
