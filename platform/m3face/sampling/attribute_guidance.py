"""Guidance by a reader of attributes (classifier guidance: Dhariwal & Nichol 2021, equation 10, in clean latents).

Odd here: the gradient is taken at the clean latents that a prediction stands for, and through the reader alone. What
goes back through the UNet as well would cost three times the picture.
"""

# B batch, C channels, h latent side

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_LEAST_SIGNAL = 0.02
"""Of what the UNet is given, as a share of its variance: from less it predicts the mean of all faces."""


def pulled(
    predicted: Tensor,
    latents: Tensor,
    timestep: Tensor,
    *,
    scheduler: Any,
    score: Callable[[Tensor], Tensor],
    strength: float,
) -> Tensor:
    """What the UNet predicted of noisy `latents` [B, C, h, h], with its clean latents moved up the slope of `score`.

    `score(clean [B, C, h, h]) -> [B]` is a log probability; each row's own is climbed. The step is `strength` times the
    gradient times the share of noise, so little of it is left when the picture is nearly done. Knows velocity and
    noise (`prediction_type` of the scheduler).
    """
    signal = scheduler.alphas_cumprod[int(timestep)].to(latents)
    if signal < _LEAST_SIGNAL:
        return predicted
    keep, rest = signal.sqrt(), (1 - signal).sqrt()
    velocity = scheduler.config["prediction_type"] == "v_prediction"
    clean = keep * latents - rest * predicted if velocity else (latents - rest * predicted) / keep
    with torch.inference_mode(False), torch.enable_grad():
        at = clean.clone().detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(score(at).sum(), at)
    clean = clean + strength * (1 - signal) * slope
    return (keep * latents - clean) / rest if velocity else (latents - keep * clean) / rest
