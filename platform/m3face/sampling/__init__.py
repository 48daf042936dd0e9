"""Pure loops over a callable; no network class is known here, and randomness is an argument."""

from m3face.sampling.attribute_guidance import pulled
from m3face.sampling.diffusion import denoise, initial_noise
from m3face.sampling.masked import decode_masked, masked_share

__all__ = ["decode_masked", "denoise", "initial_noise", "masked_share", "pulled"]
