"""Low-rank adapters (LoRA) in the attention of a finished network, in PEFT's own layout.

Odd here: the layers are put into the network itself, which keeps its class and its configuration; PEFT's wrapper, which
would hide them, is only needed by whoever reads the folder (`PeftModel.from_pretrained`). peft is no part of the base
install, so it is imported where it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from m3face.errors import ConfigError

_TARGETS = ["to_k", "to_out.0", "to_q", "to_v"]  # the four layers of an attention in diffusers
_PREFIX = "base_model.model."  # PEFT's wrapper and its tuner, as the names in its files have them


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        allowed, remedy = "0, or the extra train", "pip install 'm3face[train]'"
        raise ConfigError("train.lora", "peft is not installed", allowed, remedy) from None
    return peft


def add_adapter(network: nn.Module, *, rank: int, seed: int) -> nn.Module:
    """`network` with fresh adapters that change nothing yet and are all of it that learns."""
    peft = _peft()
    torch.manual_seed(seed)
    changed: nn.Module = peft.inject_adapter_in_model(
        peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS), network
    )
    return changed


def save_adapter(network: Any, folder: Path) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, fp32."""
    peft = _peft()
    folder.mkdir(parents=True)
    config = peft.LoraConfig(r=1, target_modules=_TARGETS)
    config.__dict__.update(network.peft_config["default"].__dict__)
    config.inference_mode, config.target_modules = True, _TARGETS
    config.save_pretrained(str(folder))
    state = peft.get_peft_model_state_dict(network)
    plain = {_PREFIX + name: value.detach().float().cpu().contiguous() for name, value in state.items()}
    save_file(plain, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def merge_adapter(network: nn.Module, folder: Path) -> nn.Module:
    """`network`, which it was trained beside, with the adapter of `folder` added to its weights."""
    peft = _peft()
    merged: nn.Module = peft.PeftModel.from_pretrained(network, str(folder)).merge_and_unload()
    return merged
