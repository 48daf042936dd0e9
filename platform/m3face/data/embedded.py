"""Faces as unit vectors: of identity, by our own embedder, and of CLIP, by a model that lies in a local folder.

Odd here: nothing in training reads these yet; they are for searching, filtering and judging a dataset.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from m3face.checkpoints import load
from m3face.data.encoded import pictures, weights_key
from m3face.data.store import Arrays, ArrayStore, Progress, Spread, build_store, here, key_digest
from m3face.errors import CheckpointError


class _IdentityEncoder(nn.Module):
    """Pictures uint8 [B, S, S, 3] to unit vectors of identity."""

    def __init__(self, weights: Path, *, device: str) -> None:
        super().__init__()
        self.network = load("identity_embedder", weights, device=device)
        self.dimensions = int(self.network.config["dimensions"])

    @torch.inference_mode()
    def forward(self, images: NDArray[np.uint8]) -> Arrays:
        return {"vector": self.network(pictures(images).to(self.network.device)).cpu().numpy()}


class _ClipEncoder(nn.Module):
    """Pictures uint8 [B, S, S, 3] to CLIP's unit vectors."""

    def __init__(self, folder: Path, *, device: str) -> None:
        super().__init__()
        try:
            self.processor = CLIPImageProcessorPil.from_pretrained(str(folder), local_files_only=True)
            network, found = CLIPVisionModelWithProjection.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0][:200]
            allowed, remedy = "a CLIP model in safetensors with its preprocessor_config.json", "copy the whole folder"
            raise CheckpointError("clip", f"{folder}: {first}", allowed, remedy) from None
        if missing := sorted(found["missing_keys"]):
            allowed = "the vision tower and projection of a CLIP model"
            raise CheckpointError("clip", f"{folder} lacks the tensor {missing[0]}", allowed, "name another folder")
        self.network: Any = network.to(device).eval().requires_grad_(False)
        self.dimensions = int(network.config.projection_dim)

    @torch.inference_mode()
    def forward(self, images: NDArray[np.uint8]) -> Arrays:
        seen = self.processor(images=list(images), return_tensors="pt").pixel_values
        vectors = self.network(pixel_values=seen.to(self.network.device)).image_embeds
        return {"vector": F.normalize(vectors.float(), dim=-1).cpu().numpy()}


def identities(
    root: Path, faces: ArrayStore, weights: Path, *, device: str, spread: Spread = here, on_progress: Progress = None
) -> ArrayStore:
    """`vector` fp16 [dimensions] for every face; the cosine of two says whether they show one person."""
    encoder = _IdentityEncoder(weights, device=device)
    key = {"encoder": weights_key(weights, "identity_embedder")}
    return _vectors(root, "identities", faces, encoder, key, spread, on_progress)


def clip_embeddings(
    root: Path, faces: ArrayStore, folder: Path, *, device: str, spread: Spread = here, on_progress: Progress = None
) -> ArrayStore:
    """`vector` fp16 [dimensions] for every face, of the CLIP model in `folder` (transformers' layout, safetensors)."""
    encoder = _ClipEncoder(folder, device=device)
    return _vectors(root, "clip", faces, encoder, {"encoder": _folder_key(folder)}, spread, on_progress)


def _folder_key(folder: Path) -> str:
    """A digest of the files that decide what a model of others says."""
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors"))
    hashes = {}
    for path in files:
        with path.open("rb") as stream:
            hashes[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return key_digest(hashes)


def _vectors(
    root: Path,
    name: str,
    faces: ArrayStore,
    encoder: _IdentityEncoder | _ClipEncoder,
    key: dict[str, str],
    spread: Spread,
    on_progress: Progress,
) -> ArrayStore:
    return build_store(
        root,
        name,
        key={**faces.key, **key},
        count=len(faces),
        fields={"vector": ("float16", (encoder.dimensions,))},
        read=lambda first, last: np.asarray(faces["image"][first:last]),
        encode=encoder,
        chunk=100,
        spread=spread,
        on_progress=on_progress,
    )
