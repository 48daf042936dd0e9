"""How large a stock ControlNet wants its condition, which its configuration does not say.

Odd here: each level of the condition's embedding but the first halves it, down to the size of the latents.
"""

from __future__ import annotations

from typing import Any


def condition_side(controlnet: Any, latent_side: int) -> int:
    """Pixels a side of the condition for latents of `latent_side`: that times two to the number of halvings."""
    return latent_side << (len(controlnet.config["conditioning_embedding_out_channels"]) - 1)
