"""A whole weights folder of fresh networks: right shapes, no knowledge. For tests of wiring and equality only.

Odd here: a fresh ControlNet ends in zero convolutions and would change nothing, so those get small random numbers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import ControlNetModel

from m3face import checkpoints, presets
from m3face.models.text import train_tokenizer

_TEXTS = ("a young woman with long brown hair", "un homme âgé, barbe grise", "молодой мужчина в очках", "長い髪の女性")


def write_untrained_weights(root: Path) -> Path:
    """Every component of `tiny` under `root`, with a manifest."""
    networks = presets.get("tiny").networks
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = train_tokenizer(
            _TEXTS, vocab_size=400, slots=networks["tokenizer"]["slots"], max_length=networks["tokenizer"]["max_length"]
        )
        checkpoints.save_tokenizer(tokenizer, root)
        unet = checkpoints.build("unet", networks["unet"])
        for component, arguments in networks.items():
            if component == "tokenizer":
                continue
            if component.startswith("controlnet"):
                network = ControlNetModel.from_unet(unet, **arguments)
                for parameter in network.parameters():
                    if not bool(parameter.any()):
                        torch.nn.init.normal_(parameter, std=0.05)
            else:
                network = unet if component == "unet" else checkpoints.build(component, arguments)
            checkpoints.save(component, network, root)
    checkpoints.write_manifest(root)
    return root
