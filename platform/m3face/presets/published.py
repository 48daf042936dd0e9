"""The published networks that the rows `sd15` and `m3face` name: constructor arguments, and where they lie.

Odd here: these are facts about other people's files, so each says where it was learned. A source is
"hub:OWNER/REPO@BRANCH/FOLDER" (branch and folder may be left out) or "dir:PATH"; `m3face fetch` brings it into a
weights folder of ours. *Unverified* marks what no public file confirmed: give another with `--from`.
"""

from __future__ import annotations

from typing import Any

Networks = dict[str, dict[str, Any]]

_SD15 = "hub:stable-diffusion-v1-5/stable-diffusion-v1-5"  # the mirror of runwayml/stable-diffusion-v1-5, taken down
# Unverified: the authors' code says BAAI, not which. Their ControlNet's 1.46 GB are those of a UNet that reads states
# 1024 wide, as m18's (over Stable Diffusion 2.1) does; with 768 (m9, over 1.5) it would be 1.45.
_ALT = "hub:BAAI/AltDiffusion-m18"

# Stable Diffusion 1.5: the files unet/config.json, vae/config.json, text_encoder/config.json
_DIFFUSION: Networks = {
    "vae": {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "norm_num_groups": 32,
        "sample_size": 512,
        "scaling_factor": 0.18215,
    },
    "unet": {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "norm_num_groups": 32,
    },
    "scheduler": {
        "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
    # the stock ControlNet for 8-fold latents; three channels: the palette drawing, the drawing of the landmarks
    "controlnet_mask": {"conditioning_channels": 3, "conditioning_embedding_out_channels": (16, 32, 96, 256)},
    "controlnet_landmarks": {"conditioning_channels": 3, "conditioning_embedding_out_channels": (16, 32, 96, 256)},
}

# LaBSE (a BERT of 12 layers) with M-CLIP's linear layer, as M3Face reads it; 77 states like CLIP. The prompt says which
# picture is wanted (the authors' aMUSEd fork): one transformer writes label maps and landmarks.
_WORDS: Networks = {
    "tokenizer": {"max_length": 77},
    "text_encoder": {
        "vocab_size": 501153,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "projection_dim": 768,
        "use_attention_mask": True,
        "prefixes": {"mask": "Generate face mask | ", "landmarks": "Generate face landmark | "},
    },
}

# aMUSEd: transformer/config.json of amused-256, vqvae/config.json of amused-512 (the two share it)
_VQ: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 5,
    "up_block_types": ("UpDecoderBlock2D",) * 5,
    "block_out_channels": (128, 256, 256, 512, 768),
    "layers_per_block": 2,
    "latent_channels": 64,
    "num_vq_embeddings": 8192,
    "norm_num_groups": 32,
    "mid_block_add_attention": False,
    "lookup_from_codebook": True,
    "force_upcast": True,
    "sample_size": 256,
}
_CONDITIONS: Networks = {
    "map_vq": _VQ,
    "landmark_vq": _VQ,
    "transformer": {
        "hidden_size": 1024,
        "cond_embed_dim": 768,
        "micro_cond_encode_dim": 256,
        "micro_cond_embed_dim": 1280,
        "encoder_hidden_size": 768,
        "vocab_size": 8256,
        "codebook_size": 8192,
        "in_channels": 768,
        "block_out_channels": 768,
        "num_res_blocks": 3,
        "downsample": False,
        "upsample": False,
        "block_num_heads": 12,
        "num_hidden_layers": 22,
        "num_attention_heads": 16,
        "intermediate_size": 2816,
        "sample_size": 16,
    },
}

_CLIP: dict[str, Any] = {
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
    "bos_token_id": 0,
    "eos_token_id": 2,
}

# AltDiffusion-m18: XLM-R large and a linear layer to the width of Stable Diffusion 2.1's UNet. Unverified in detail.
_XLM_R: dict[str, Any] = {
    "model_type": "xlm-roberta",
    "vocab_size": 250002,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "project_dim": 1024,
    "has_pre_transformation": True,
    "use_attention_mask": True,
}

_UNET_2_1 = {
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}

_FACE_TOKENIZER = {"face_tokenizer": {"max_length": 77}}

SD15_NETWORKS: Networks = _WORDS | _CONDITIONS | _DIFFUSION | {"face_text_encoder": _CLIP} | _FACE_TOKENIZER
M3FACE_NETWORKS: Networks = SD15_NETWORKS | {
    "face_text_encoder": _XLM_R,
    "unet": _DIFFUSION["unet"] | _UNET_2_1,
}

SD15_SOURCES = {
    "tokenizer": "hub:M-CLIP/LABSE-Vit-L-14",
    "text_encoder": "hub:M-CLIP/LABSE-Vit-L-14",
    "transformer": "hub:amused/amused-256/transformer",
    "map_vq": "hub:amused/amused-256/vqvae",
    "landmark_vq": "hub:amused/amused-256/vqvae",
    "face_tokenizer": f"{_SD15}/tokenizer",
    "face_text_encoder": f"{_SD15}/text_encoder",
    "vae": f"{_SD15}/vae",
    "unet": f"{_SD15}/unet",
    "scheduler": f"{_SD15}/scheduler",
}
"""No ControlNet: those are what one trains, and they begin as copies of the UNet."""

M3FACE_SOURCES = {
    "tokenizer": "hub:m3face/FaceConditioning/tokenizer",
    "text_encoder": "hub:m3face/FaceConditioning/text_encoder",
    "transformer": "hub:m3face/FaceConditioning/transformer",
    "map_vq": "hub:m3face/FaceConditioning/vqvae",
    "landmark_vq": "hub:m3face/FaceConditioning/vqvae",
    "face_tokenizer": f"{_ALT}/tokenizer",
    "face_text_encoder": f"{_ALT}/text_encoder",
    "vae": f"{_ALT}/vae",
    "unet": f"{_ALT}/unet",
    "scheduler": f"{_ALT}/scheduler",
    "controlnet_mask": "hub:m3face/FaceControlNet@mask-mlin",  # unverified: the name of this branch
    "controlnet_landmarks": "hub:m3face/FaceControlNet@landmark-mlin",
}
"""The multilingual setting; docs/real_weights.md says what to give `--from` for the English one."""
