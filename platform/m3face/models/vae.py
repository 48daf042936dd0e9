"""The VAE of the faces: the class of Stable Diffusion, whose encoder may be a closed form.

Odd here: with `fold` 2 the encoder is a linear map of patches, their principal components, and only the decoder is a
network: it adds to the linear map back. So the latents are settled before the first step, and whatever learns in them
need not wait for the decoder. The decoder makes a picture [3, S, S] as [12, S / 2, S / 2] (pixel shuffle, lossless),
since layers at full size cost a small network most of its time. With `fold` 1 it is the stock class.
"""

# B batch, S side of the picture, s side of the latents, C latent channels

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import Tensor, nn
from torch.nn import functional as F

_LOGVAR = -6.0  # of the posterior of a linear encoder, which has none of its own


class FaceVae(AutoencoderKL):
    """`encode` takes pictures [B, 3, S, S] in [-1, 1], `decode` gives them back.

    `out_channels` are those of the folded picture, 3 x fold squared.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: tuple[str, ...] = ("DownEncoderBlock2D",),
        up_block_types: tuple[str, ...] = ("UpDecoderBlock2D",),
        block_out_channels: tuple[int, ...] = (64,),
        layers_per_block: int = 1,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 32,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        latents_mean: tuple[float, ...] | None = None,
        latents_std: tuple[float, ...] | None = None,
        force_upcast: bool = True,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
        mid_block_add_attention: bool = True,
        fold: int = 1,
    ) -> None:
        stock: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "fold", "__class__")}
        super().__init__(**stock)
        self.register_to_config(fold=fold)
        if fold > 1:
            self.flat = nn.Conv2d(3, latent_channels, self.downscale, stride=self.downscale)
            self.unflat = nn.ConvTranspose2d(latent_channels, 3, self.downscale, stride=self.downscale)
            del self.encoder, self.quant_conv
            nn.init.zeros_(self.decoder.conv_out.weight)  # at first the linear map alone
            nn.init.zeros_(self.decoder.conv_out.bias)

    @property
    def downscale(self) -> int:
        """S / s."""
        return int(self.config["fold"]) << (len(self.config["block_out_channels"]) - 1)

    @torch.no_grad()
    def start(self, pictures: Tensor, weight: Tensor) -> None:
        """Principal components of the patches of `pictures` [B, 3, S, S] under pixels' `weight` [B, 1, S, S].

        A component of standard deviation d gets the scale of its square root: diffusion in the latents then meets
        coarse before fine, as in pixels, but details are not drowned. The stock encoder has no such beginning.
        """
        if self.config["fold"] == 1:
            return
        patches = F.unfold(pictures, self.downscale, stride=self.downscale).transpose(1, 2).flatten(0, 1).double()
        heavy = F.unfold(weight, self.downscale, stride=self.downscale).transpose(1, 2).mean(2).flatten().double()
        tint = ((patches * heavy[:, None]).sum(0) / heavy.sum()).view(3, -1).mean(1)
        mean = tint.repeat_interleave(self.downscale**2)
        apart = patches - mean
        values, vectors = torch.linalg.eigh((apart * heavy[:, None]).T @ apart / heavy.sum())
        kept = int(self.config["latent_channels"])
        deviation, components = values[-kept:].clamp(min=1e-12).sqrt(), vectors[:, -kept:]
        to_latent = (components / deviation.sqrt()).T
        self.flat.weight.copy_(to_latent.view_as(self.flat.weight))
        self.flat.bias.copy_(-(to_latent @ mean))  # type: ignore[union-attr]
        back = (components * deviation.sqrt()).T
        self.unflat.weight.copy_(back.view_as(self.unflat.weight))
        self.unflat.bias.copy_(tint)  # type: ignore[union-attr]

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        if self.config["fold"] == 1:
            return super().encode(x, return_dict=return_dict)
        mean = self.flat(x)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, torch.full_like(mean, _LOGVAR)], dim=1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True, generator: Any = None) -> Any:
        fold = self.config["fold"]
        if fold == 1:
            return super().decode(z, return_dict=return_dict)
        picture = self.unflat(z) + F.pixel_shuffle(super().decode(z, return_dict=False)[0], fold)
        return DecoderOutput(sample=picture) if return_dict else (picture,)
