"""The loops alone: over callables, with no network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from m3face import checkpoints
from m3face.presets import get
from m3face.sampling import decode_masked, denoise, initial_noise, masked_share, pulled

MASK, IDS = 9, 9
FIXED = torch.randn(IDS, 4, 4, generator=torch.Generator().manual_seed(3)) * 3


def _logits(ids: Tensor) -> Tensor:
    return FIXED.expand(ids.shape[0], -1, -1, -1)


def _decode(ids: Tensor, *seeds: int, steps: int = 5, temperature: float = 1.0) -> Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return decode_masked(_logits, ids, mask_id=MASK, steps=steps, generators=generators, temperature=temperature)


def _all_masked(rows: int = 1) -> Tensor:
    return torch.full((rows, 4, 4), MASK)


def test_the_masked_share_falls_from_one_to_zero() -> None:
    shares = [masked_share(i / 10) for i in range(11)]
    assert shares[0] == 1 and shares[-1] == pytest.approx(0, abs=1e-12)
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_all_is_written_and_nothing_known_is_touched(steps: int) -> None:
    ids = _all_masked(2)
    ids[0, :2], ids[1, 3, 3] = 4, 7
    done = _decode(ids, 1, 2, steps=steps)
    assert not (done == MASK).any()
    assert (done[0, :2] == 4).all() and done[1, 3, 3] == 7
    assert (ids == MASK).any(), "the argument is not changed"


def test_each_step_leaves_its_share_masked() -> None:
    left: list[int] = []
    decode_masked(
        _logits,
        _all_masked(),
        mask_id=MASK,
        steps=4,
        generators=[torch.Generator().manual_seed(0)],
        on_step=lambda _step, ids: left.append(int((ids == MASK).sum())),
    )
    assert left == [int(16 * masked_share((i + 1) / 4)) for i in range(3)] + [0]


def test_near_temperature_zero_the_likeliest_is_taken() -> None:
    assert torch.equal(_decode(_all_masked(), 1, temperature=1e-6), FIXED.argmax(0)[None])


def test_a_row_is_the_same_alone_and_beside_others() -> None:
    together = _decode(_all_masked(3), 1, 2, 3)
    assert torch.equal(together[1:2], _decode(_all_masked(), 2))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("steps", [1, 20, 60, 61, 103, 121, 999, 1000])
def test_denoising_takes_as_many_steps_as_asked_and_ends_at_what_is_clean(steps: int) -> None:
    scheduler: DDIMScheduler = checkpoints.build("scheduler", get("tiny").networks["scheduler"])
    clean, noise = torch.tensor([[[[0.5, -1.0]]]]), torch.tensor([[[[2.0, 1.0]]]])
    asked: list[int] = []

    def velocity(latents: Tensor, timestep: Tensor) -> Tensor:
        asked.append(int(timestep))
        share = scheduler.alphas_cumprod[timestep]
        return share.sqrt() * (latents - share.sqrt() * clean) / (1 - share).sqrt() - (1 - share).sqrt() * clean

    done = denoise(velocity, noise, scheduler=scheduler, steps=steps)
    assert len(asked) == steps and min(asked) >= 0 and asked == sorted(asked, reverse=True)
    # where the count does not divide 1000 the stock class ends at its first time step: 0.03 of the noise is left
    assert torch.allclose(done, clean, atol=0.1 if 1000 % steps else 1e-4)


def test_noise_belongs_to_the_seed() -> None:
    noise = initial_noise([1, 2, 1], (2, 4, 4))
    assert torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[1])
    assert torch.equal(noise[1:2], initial_noise([2], (2, 4, 4)))


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon"])
def test_a_pull_moves_the_clean_latents_by_its_slope_whatever_is_predicted(kind: str) -> None:
    scheduler = DDIMScheduler(prediction_type=kind, clip_sample=False)
    signal = scheduler.alphas_cumprod[400]
    clean, noise, slope = (torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(3))
    latents = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    predicted = signal.sqrt() * noise - (1 - signal).sqrt() * clean if kind == "v_prediction" else noise
    with torch.inference_mode():
        moved = pulled(
            predicted,
            latents,
            torch.tensor(400),
            scheduler=scheduler,
            score=lambda at: (at * slope).flatten(1).sum(1),
            strength=2.0,
        )
    scheduler.set_timesteps(1000)
    found = scheduler.step(moved, torch.tensor(400), latents).pred_original_sample
    assert torch.allclose(found, clean + 2.0 * (1 - signal) * slope, atol=1e-4)


def test_a_pull_leaves_the_noisiest_steps_alone() -> None:
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    predicted, latents = torch.randn(2, 1, 3, 4, 4).unbind(0)
    given: Any = {"scheduler": scheduler, "score": lambda at: at.flatten(1).sum(1), "strength": 5.0}
    assert torch.equal(pulled(predicted, latents, torch.tensor(999), **given), predicted)
    assert not torch.equal(pulled(predicted, latents, torch.tensor(500), **given), predicted)
