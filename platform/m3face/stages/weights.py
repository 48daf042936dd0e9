"""What every `from_checkpoint` needs of a weights folder."""

from __future__ import annotations

import json
from pathlib import Path

from m3face.errors import BadInput, CheckpointError
from m3face.presets import weights_folder
from m3face.stages.requests import TextStates

__all__ = ["check_states", "picture_size", "weights_folder"]


def picture_size(folder: Path) -> int:
    """Pixels a side of the faces that these networks were trained on: the `sample_size` of the VAE's config."""
    path = folder / "vae" / "config.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["sample_size"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            "weights", f"{path} names no sample_size", "the config of a trained VAE", "copy the folder again"
        ) from None


def check_states(text: TextStates, empty: TextStates, *, width: int, pooled: int | None = None) -> None:
    """BadInput if the words, or no words, were encoded for networks of another width or number of states.

    `pooled` is the width of the pooled vector, where it is not that of the states.
    """
    wanted = (len(text.states), width)
    pooled = width if pooled is None else pooled
    for field, states in (("text", text), ("empty", empty)):
        if states.states.shape != wanted or states.pooled.shape != (pooled,):
            raise BadInput(
                field,
                f"has states {list(states.states.shape)} and pooled {list(states.pooled.shape)}",
                f"states {list(wanted)} and pooled {[pooled]}",
                "encode the prompt with the text encoder of the same weights",
            )
