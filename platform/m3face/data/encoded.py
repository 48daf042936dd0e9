"""What frozen encoders say of every face, computed once: text states, tokens, latents.

Odd here: a key holds the hash of the encoder's own weight files beside the key of the faces, so weights that change
make another cache. Of the VAE only what encodes counts: a better decoder leaves latents, and all that learned in them,
as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import VQModel
from numpy.typing import NDArray
from safetensors import safe_open

from m3face.captions import Caption, caption, wording_digest
from m3face.checkpoints import load, load_tokenizer, read_manifest
from m3face.data.people import attribute_values
from m3face.data.store import ArrayStore, build_store, key_digest
from m3face.faces import LANGUAGES
from m3face.models.text import slot_states
from m3face.models.vae import FaceVae
from m3face.models.vq import encode_landmarks, encode_maps

Progress = Callable[[int, int], None] | None

_DENSE = (8, 15)  # things that every second caption names; the others name six on average, a mustache one in thirty
_CAPTIONS = 2  # raise it when captions are drawn otherwise, so that old caches are left behind

_DECODES = ("decoder.", "post_quant_conv.", "unflat.")


def weights_key(weights: Path, *components: str) -> str:
    """A digest of the manifest's hashes of these components' files; of a VAE, of the tensors that encode."""
    files = read_manifest(weights)["files"]
    key: dict[str, Any] = {name: h for name, h in files.items() if name.split("/")[0] in components}
    for name in [n for n in key if n.startswith("vae/")]:
        del key[name]
        if name.endswith(".safetensors"):
            with safe_open(weights / name, framework="pt") as tensors:
                for tensor in sorted(t for t in tensors.keys() if not t.startswith(_DECODES)):
                    value: torch.Tensor = tensors.get_tensor(tensor)
                    plain = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
                    key[f"vae/{tensor}"] = [*value.shape, hashlib.sha256(plain).hexdigest()]
    return key_digest(key)


def pictures(images: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [B, S, S, 3] to fp32 [B, 3, S, S] in [-1, 1]."""
    return torch.from_numpy(np.require(images, requirements=["C", "W"])).permute(0, 3, 1, 2).float() / 127.5 - 1


def face_caption(faces: ArrayStore, index: int, which: int, *, split: str = "train") -> Caption:
    """Caption number `which` of face `index`: language, wording and style are functions of the two.

    Every second one names much of the face, or what is rare would hardly ever be heard.
    """
    rng = np.random.default_rng([int(faces.key["seed"]), index, which])
    language = list(LANGUAGES)[int(rng.integers(len(LANGUAGES)))]
    typos = 0.04 if rng.random() < 0.2 else 0.0
    count = int(rng.integers(*_DENSE)) if which % 2 else None
    return caption(attribute_values(faces["attributes"][index]), language, rng, split=split, count=count, typos=typos)


def text_states(
    root: Path, faces: ArrayStore, weights: Path, *, captions_per_face: int, device: str, on_progress: Progress = None
) -> ArrayStore:
    """`states` fp16 [captions, slots, width] for every face."""
    encoder, tokenizer = load("text_encoder", weights, device=device), load_tokenizer(weights)
    slots = int(json.loads((weights / "prompt_reader" / "config.json").read_text())["slots"])

    @torch.inference_mode()
    def produce(first: int, last: int) -> dict[str, NDArray[Any]]:
        texts = [face_caption(faces, i, k).text for i in range(first, last) for k in range(captions_per_face)]
        order = np.argsort([len(t) for t in texts], kind="stable")  # texts of one length share a batch: less padding
        states = np.empty((len(texts), slots, encoder.config.hidden_size), dtype=np.float16)
        for start in range(0, len(texts), 64):
            rows = order[start : start + 64]
            states[rows] = slot_states(encoder, tokenizer, [texts[r] for r in rows], slots=slots).cpu().numpy()
        return {"states": states.reshape(last - first, captions_per_face, *states.shape[1:])}

    shape = (captions_per_face, slots, encoder.config.hidden_size)
    return build_store(
        root,
        "text-states",
        key={
            **faces.key,
            "captions": [_CAPTIONS, captions_per_face],
            "wording": wording_digest(),
            "encoder": weights_key(weights, "text_encoder", "tokenizer"),
        },
        count=len(faces),
        fields={"states": ("float16", shape)},
        produce=produce,
        on_progress=on_progress,
    )


def condition_tokens(
    root: Path, faces: ArrayStore, weights: Path, *, device: str, on_progress: Progress = None
) -> ArrayStore:
    """`map` and `landmarks` int16 [h, w] token ids for every face."""
    map_vq: VQModel = load("map_vq", weights, device=device)
    landmark_vq: VQModel = load("landmark_vq", weights, device=device)
    size = int(faces.key["size"])

    @torch.inference_mode()
    def produce(first: int, last: int) -> dict[str, NDArray[Any]]:
        maps = torch.from_numpy(np.array(faces["label_map"][first:last])).to(device)
        return {
            "map": encode_maps(map_vq, maps).cpu().numpy(),
            "landmarks": encode_landmarks(landmark_vq, faces["landmarks"][first:last], size=size).cpu().numpy(),
        }

    side = int(map_vq.config["sample_size"]) >> (len(map_vq.config["block_out_channels"]) - 1)
    return build_store(
        root,
        "tokens",
        key={**faces.key, "encoder": weights_key(weights, "map_vq", "landmark_vq")},
        count=len(faces),
        fields={"map": ("int16", (side, side)), "landmarks": ("int16", (side, side))},
        produce=produce,
        chunk=100,
        on_progress=on_progress,
    )


def latents(root: Path, faces: ArrayStore, weights: Path, *, device: str, on_progress: Progress = None) -> ArrayStore:
    """`mean` and `std` fp16 [C, h, w] of the VAE's posterior for every face, unscaled."""
    vae: FaceVae = load("vae", weights, device=device)

    @torch.inference_mode()
    def produce(first: int, last: int) -> dict[str, NDArray[Any]]:
        posterior = vae.encode(pictures(faces["image"][first:last]).to(device)).latent_dist
        return {"mean": posterior.mean.float().cpu().numpy(), "std": posterior.std.float().cpu().numpy()}

    side = int(faces.key["size"]) // vae.downscale
    shape = (int(vae.config["latent_channels"]), side, side)
    return build_store(
        root,
        "latents",
        key={**faces.key, "encoder": weights_key(weights, "vae")},
        count=len(faces),
        fields={"mean": ("float16", shape), "std": ("float16", shape)},
        produce=produce,
        chunk=100,
        on_progress=on_progress,
    )


@torch.inference_mode()
def empty_states(weights: Path, *, device: str) -> torch.Tensor:
    """The slot states of the empty text, fp32 [slots, width]: what guidance takes as "no words"."""
    encoder, tokenizer = load("text_encoder", weights, device=device), load_tokenizer(weights)
    slots = int(json.loads((weights / "prompt_reader" / "config.json").read_text())["slots"])
    return slot_states(encoder, tokenizer, [""], slots=slots)[0].cpu().clone()
