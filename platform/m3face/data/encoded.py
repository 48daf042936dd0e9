"""What frozen encoders say of every face, computed once: text states, tokens, latents, embeddings.

Odd here: a key holds the hash of the encoder's own weight files beside the key of the faces, so weights that change
make another cache. Of the VAE only what encodes counts: a better decoder leaves latents, and all that learned in them,
as they are. Mirrored faces have caches of their own, so who wants them later computes only those. An encoder is a
module that takes what was read of some faces and gives arrays: where it runs is the builder's affair (`Spread`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from diffusers import VQModel
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from m3face.checkpoints import load, load_tokenizer, read_manifest
from m3face.data.store import Arrays, ArrayStore, Progress, Spread, build_store, here, key_digest
from m3face.faces import flip_landmarks, flip_map
from m3face.models.text import slot_states
from m3face.models.vae import FaceVae
from m3face.models.vq import encode_landmarks, encode_maps

_CHUNK = 100  # faces
_TEXTS = 64  # that run together

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


def _mirrored(mirrored: bool) -> dict[str, Any]:
    """The part of a key that tells mirrored faces from those as they are."""
    return {"mirrored": True} if mirrored else {}


class Captions(Protocol):
    """`each` texts a face; `key` is what decides them beside the faces."""

    @property
    def each(self) -> int: ...

    @property
    def key(self) -> Mapping[str, Any]: ...

    def texts(self, first: int, last: int) -> list[str]:
        """Those of faces `first` to `last` - 1, face by face."""
        ...


class _StateEncoder(nn.Module):
    """Texts, so many a face, to the slot states of all."""

    def __init__(self, weights: Path, each: int, *, device: str) -> None:
        super().__init__()
        self.encoder, self.tokenizer = load("text_encoder", weights, device=device), load_tokenizer(weights)
        self.slots = int(json.loads((weights / "prompt_reader" / "config.json").read_text())["slots"])
        self.shape = (each, self.slots, int(self.encoder.config.hidden_size))

    @torch.inference_mode()
    def forward(self, texts: Sequence[str]) -> Arrays:
        order = np.argsort([len(t) for t in texts], kind="stable")  # texts of one length share a batch: less padding
        states = np.empty((len(texts), *self.shape[1:]), dtype=np.float16)
        for start in range(0, len(texts), _TEXTS):
            rows = order[start : start + _TEXTS]
            found = slot_states(self.encoder, self.tokenizer, [texts[r] for r in rows], slots=self.slots)
            states[rows] = found.cpu().numpy()
        return {"states": states.reshape(-1, *self.shape)}


def text_states(
    root: Path,
    faces: ArrayStore,
    weights: Path,
    *,
    captions: Captions,
    device: str,
    spread: Spread = here,
    on_progress: Progress = None,
) -> ArrayStore:
    """`states` fp16 [captions, slots, width] for every face."""
    encoder = _StateEncoder(weights, captions.each, device=device)
    return build_store(
        root,
        "text-states",
        key={**faces.key, **captions.key, "encoder": weights_key(weights, "text_encoder", "tokenizer")},
        count=len(faces),
        fields={"states": ("float16", encoder.shape)},
        read=captions.texts,
        encode=encoder,
        spread=spread,
        on_progress=on_progress,
    )


class _TokenEncoder(nn.Module):
    """(label maps uint8 [B, S, S], landmarks fp32 [B, 68, 2]) to the token ids of both."""

    def __init__(self, weights: Path, *, device: str) -> None:
        super().__init__()
        self.map_vq: VQModel = load("map_vq", weights, device=device)
        self.landmark_vq: VQModel = load("landmark_vq", weights, device=device)
        side = int(self.map_vq.config["sample_size"]) >> (len(self.map_vq.config["block_out_channels"]) - 1)
        self.shape = (side, side)

    @torch.inference_mode()
    def forward(self, conditions: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> Arrays:
        maps, landmarks = conditions
        return {
            "map": encode_maps(self.map_vq, torch.from_numpy(np.array(maps)).to(self.map_vq.device)).cpu().numpy(),
            "landmarks": encode_landmarks(self.landmark_vq, landmarks, size=maps.shape[-1]).cpu().numpy(),
        }


def condition_tokens(
    root: Path,
    faces: ArrayStore,
    weights: Path,
    *,
    device: str,
    mirrored: bool = False,
    spread: Spread = here,
    on_progress: Progress = None,
) -> ArrayStore:
    """`map` and `landmarks` int16 [h, w] token ids for every face, as it is or mirrored."""
    encoder = _TokenEncoder(weights, device=device)
    size = int(faces.key["size"])

    def read(first: int, last: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        maps, landmarks = (np.asarray(faces[name][first:last]) for name in ("label_map", "landmarks"))
        if mirrored:
            return flip_map(maps), np.stack([flip_landmarks(points, size=size) for points in landmarks])
        return maps, landmarks

    return build_store(
        root,
        "tokens",
        key={**faces.key, "encoder": weights_key(weights, "map_vq", "landmark_vq"), **_mirrored(mirrored)},
        count=len(faces),
        fields={"map": ("int16", encoder.shape), "landmarks": ("int16", encoder.shape)},
        read=read,
        encode=encoder,
        chunk=_CHUNK,
        spread=spread,
        on_progress=on_progress,
    )


class _LatentEncoder(nn.Module):
    """Pictures uint8 [B, S, S, 3] to mean and deviation of the VAE's posterior."""

    def __init__(self, weights: Path, *, device: str) -> None:
        super().__init__()
        self.vae: FaceVae = load("vae", weights, device=device)

    @torch.inference_mode()
    def forward(self, images: NDArray[np.uint8]) -> Arrays:
        posterior = self.vae.encode(pictures(images).to(self.vae.device)).latent_dist
        return {"mean": posterior.mean.float().cpu().numpy(), "std": posterior.std.float().cpu().numpy()}


def latents(
    root: Path,
    faces: ArrayStore,
    weights: Path,
    *,
    device: str,
    mirrored: bool = False,
    spread: Spread = here,
    on_progress: Progress = None,
) -> ArrayStore:
    """`mean` and `std` fp16 [C, h, w] of the VAE's posterior for every face, as it is or mirrored, unscaled."""
    encoder = _LatentEncoder(weights, device=device)

    def read(first: int, last: int) -> NDArray[np.uint8]:
        images = np.asarray(faces["image"][first:last])
        return np.ascontiguousarray(images[:, :, ::-1]) if mirrored else images

    side = int(faces.key["size"]) // encoder.vae.downscale
    shape = (int(encoder.vae.config["latent_channels"]), side, side)
    return build_store(
        root,
        "latents",
        key={**faces.key, "encoder": weights_key(weights, "vae"), **_mirrored(mirrored)},
        count=len(faces),
        fields={"mean": ("float16", shape), "std": ("float16", shape)},
        read=read,
        encode=encoder,
        chunk=_CHUNK,
        spread=spread,
        on_progress=on_progress,
    )


@torch.inference_mode()
def empty_states(weights: Path, *, device: str) -> torch.Tensor:
    """The slot states of the empty text, fp32 [slots, width]: what guidance takes as "no words"."""
    encoder = _StateEncoder(weights, 1, device=device)
    return slot_states(encoder.encoder, encoder.tokenizer, [""], slots=encoder.slots)[0].cpu().clone()
