"""Denoising of latents over a callable, with a stock diffusers scheduler (DDIM, no noise after the first)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def initial_noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """One fp32 noise a seed, drawn on the CPU before batching: [B, *shape]."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def denoise(
    predict: Callable[[Tensor, Tensor], Tensor],
    latents: Tensor,
    *,
    scheduler: Any,
    steps: int,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Latents [B, C, h, w] from noise, in `steps` calls of `predict(latents, timestep)`.

    `scheduler` is a diffusers scheduler; it is set to `steps` here and must not be shared between threads.
    """
    scheduler.set_timesteps(steps)
    # with trailing spacing the stock class rounds its way to one step too many for some counts (61, 103, ...), the
    # last of them at -1, where all that was made is lost
    scheduler.timesteps = scheduler.timesteps[:steps]
    latents = latents * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(predict(model_input, timestep), timestep, latents).prev_sample
        if on_step is not None:
            on_step(step, latents)
    return latents
