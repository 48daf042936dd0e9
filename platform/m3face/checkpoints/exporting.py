"""Weights as stock diffusers, transformers and PEFT name them, for whoever has no m3face.

Odd here: nothing is loaded and no number changes: a network's file is copied as it is, and its config loses what only
ours knows. Two of our classes add to a stock one; where their own part is in use there is no stock class that could say
the same, so such a network is left out and the reason told, rather than written with another meaning.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from m3face.checkpoints.folder import publish
from m3face.errors import CheckpointError

_PLACES = {
    "unet": "unet",
    "vae": "vae",
    "scheduler": "scheduler",
    "face_text_encoder": "text_encoder",
    "face_tokenizer": "tokenizer",
    "controlnet_mask": "controlnet",
    "controlnet_landmarks": "controlnet_1",
    **{name: f"conditions/{name}" for name in ("text_encoder", "tokenizer", "transformer", "map_vq", "landmark_vq")},
}
"""Component -> folder: on top a Stable Diffusion pipeline, and beside it what writes the conditions."""

_OURS: dict[str, tuple[str, str, Any, str]] = {
    "vae": ("AutoencoderKL", "fold", 1, "a linear encoder over folded pictures"),
    "transformer": ("UVit2DModel", "modality_codes", [], "positions and two pictures on one canvas"),
}
"""Component -> the stock class, our own key, the value at which it is that class, and what ours adds otherwise."""

_PIPELINE = {
    "vae": ["diffusers", "AutoencoderKL"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
_FILES = ("config.json", "scheduler_config.json", "tokenizer.json", "adapter_config.json")
_LORA = "_lora"


def export_diffusers(folder: Path, out: Path) -> dict[str, str]:
    """Write what `folder` (of components) holds to `out`; those left out, with the reason.

    `out` opens as a whole with StableDiffusionControlNetPipeline where VAE, UNet, scheduler and a ControlNet are there.
    Raises CheckpointError where nothing is left, and OutputError.
    """
    present = sorted(path.name for path in folder.iterdir() if any((path / file).is_file() for file in _FILES))
    reasons = {name: reason for name in present if (reason := _left_out(folder, name))}
    kept = [name for name in present if name not in reasons]
    if not kept:
        first = f"{next(iter(reasons))}: {next(iter(reasons.values()))}" if reasons else "it has no network"
        allowed = "a network that a stock class can hold"
        raise CheckpointError("export", f"{folder} has nothing for stock diffusers; {first}", allowed)
    places = {name: _PLACES[name] for name in kept}
    if "controlnet_mask" not in kept and "controlnet_landmarks" in kept:
        places["controlnet_landmarks"] = "controlnet"
    with publish(out, format_of="diffusers") as aside:
        for name, place in places.items():
            shutil.copytree(folder / name, aside / place)
            if name in _OURS:
                _as_stock(aside / place / "config.json", *_OURS[name][:2])
        if set(places.values()) >= {*_PIPELINE, "controlnet"}:
            index = _index(aside, places.values())
            (aside / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return reasons


def export_peft(folder: Path, out: Path) -> None:
    """Copy the LoRA adapters of a training, `<component>_lora`, to `out/<component>`: PEFT's own layout already.

    Raises CheckpointError where `folder` has none, and OutputError.
    """
    adapters = [path.parent for path in sorted(folder.glob(f"*{_LORA}/adapter_config.json"))]
    if not adapters:
        remedy = "for whole networks: --to diffusers"
        raise CheckpointError("export", f"{folder} has no LoRA adapter", "a run with train.lora", remedy)
    with publish(out, format_of="peft") as aside:
        for adapter in adapters:
            target = aside / adapter.name.removesuffix(_LORA)
            target.mkdir()
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(adapter / name, target / name)


def _left_out(folder: Path, name: str) -> str:
    """Why the component has no stock class; empty where it has one."""
    if name.endswith(_LORA):
        return "it is an adapter: --to peft"
    if name not in _PLACES:
        return "stock libraries have no such network"
    if name in _OURS:
        stock, key, plain, more = _OURS[name]
        config = json.loads((folder / name / "config.json").read_text(encoding="utf-8"))
        if config.get(key, plain) != plain:
            return f"it has {more}, which {stock} has not"
    return ""


def _as_stock(path: Path, stock: str, key: str) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop(key, None)
    path.write_text(json.dumps(config | {"_class_name": stock}, indent=2) + "\n", encoding="utf-8")


def _index(folder: Path, places: Iterable[str]) -> dict[str, Any]:
    """What DiffusionPipeline reads first. AltDiffusion's encoder it cannot open itself: that is then handed to it."""
    nothing: list[str | None] = [None, None]
    words: dict[str, list[str | None]] = {"text_encoder": nothing, "tokenizer": nothing}
    if "text_encoder" in places and "tokenizer" in places:
        kind = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))["model_type"]
        if kind == "clip_text_model":
            words = {
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            }
    several = "MultiControlNetModel" if "controlnet_1" in places else "ControlNetModel"
    return {
        "_class_name": "StableDiffusionControlNetPipeline",
        **_PIPELINE,
        **words,
        "controlnet": ["diffusers", several],
        "feature_extractor": nothing,
        "image_encoder": nothing,
        "safety_checker": nothing,
        "requires_safety_checker": False,
    }
