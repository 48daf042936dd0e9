"""Label maps and landmarks to tokens and back, around a stock VQModel.

Odd here: what goes in follows the network's own config. 19 input channels take the one-hot map (averaged down to the
network's `sample_size`, so a pixel half hair and half skin says so) and 19 output channels are class logits, enlarged
*before* the arg max, so edges stay smooth and no colour is ever invented. A 3-channel network, as published, gets the
palette drawing in [0, 1] and is snapped back. Landmarks: the drawing in, 68 maps out, and the centre of mass of each
map's softmax is the point, so there are always 68. A published network gives a drawing, whose points are traced.
"""

# B batch, K classes or points, N codes, h w token grid

from __future__ import annotations

import numpy as np
import torch
from diffusers import VQModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from m3face.faces import CLASSES, COUNT, PALETTE, draw_landmarks, from_colours, resize_map, trace_landmarks


def quantize(vq: VQModel, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(quantized latents with straight-through gradient, codebook + commitment loss, ids [B, h, w])."""
    latents = vq.encode(picture).latents.float()
    quantized, loss, (_, _, ids) = vq.quantize(latents)
    return quantized, loss, ids.reshape(latents.shape[0], *latents.shape[2:])


def decode_latents(vq: VQModel, quantized: Tensor) -> Tensor:
    """The decoder's output for already quantized latents."""
    return vq.decoder(vq.post_quant_conv(quantized))


def _decode_ids(vq: VQModel, ids: Tensor) -> Tensor:
    shape = (*ids.shape, vq.config["vq_embed_dim"] or vq.config["latent_channels"])
    return decode_latents(vq, vq.quantize.get_codebook_entry(ids.reshape(-1), shape))


def map_picture(label_maps: Tensor, *, channels: int, size: int) -> Tensor:
    """What the network sees of uint8 [B, H, W] maps: fp32 [B, channels, size, size] in [0, 1]."""
    if channels == len(CLASSES):
        picture = F.one_hot(label_maps.long(), len(CLASSES)).permute(0, 3, 1, 2).float()
    else:
        picture = torch.from_numpy(PALETTE).to(label_maps.device)[label_maps.long()].permute(0, 3, 1, 2) / 255
    return F.interpolate(picture, size=(size, size), mode="area")


def map_logits(decoded: Tensor, *, size: int) -> Tensor:
    """Class logits [B, 19, size, size] from a decoder with 19 output channels."""
    return F.interpolate(decoded, size=(size, size), mode="bilinear", align_corners=False)


def encode_maps(vq: VQModel, label_maps: Tensor) -> Tensor:
    """Token ids [B, h, w] of uint8 maps [B, H, W]."""
    picture = map_picture(label_maps, channels=vq.config["in_channels"], size=vq.config["sample_size"])
    return quantize(vq, picture.to(vq.device))[2]


def decode_maps(vq: VQModel, ids: Tensor, *, size: int) -> Tensor:
    """uint8 maps [B, size, size] from token ids [B, h, w]."""
    decoded = _decode_ids(vq, ids).float()
    if vq.config["out_channels"] == len(CLASSES):
        return map_logits(decoded, size=size).argmax(1).to(torch.uint8)
    snapped = [from_colours(drawing)[0] for drawing in _drawings(decoded)]
    return torch.from_numpy(np.stack([resize_map(label_map, size) for label_map in snapped]))


def _drawings(decoded: Tensor) -> NDArray[np.uint8]:
    """RGB uint8 [B, S, S, 3] of decoded pictures [B, 3, S, S] in [0, 1]."""
    return (decoded.clamp(0, 1).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).cpu().numpy()


def decode_drawings(vq: VQModel, ids: Tensor) -> NDArray[np.uint8]:
    """What a network with 3 output channels draws of `ids`: RGB uint8 [B, S, S, 3] of its own size."""
    return _drawings(_decode_ids(vq, ids).float())


def landmark_picture(points: NDArray[np.float32], *, size: int, new: int) -> Tensor:
    """The drawings of [B, 68, 2] points (pixels of `size`) as fp32 [B, 3, new, new] in [0, 1]."""
    drawn = np.stack([draw_landmarks(p, size=size, new=new) for p in points])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255


def soft_argmax(maps: Tensor, *, reach: float = 0.1) -> Tensor:
    """Centres of mass of softmaxed maps: [B, K, H, W] logits to [B, K, 2] (x, y) in units of the picture, about 0..1.

    The maps cover the picture and `reach` of its side beyond each border, since a jaw may lie outside.
    """
    batch, count, height, width = maps.shape
    weight = maps.float().flatten(2).softmax(-1).reshape(batch, count, height, width)
    xs = (torch.arange(width, device=maps.device) + 0.5) / width * (1 + 2 * reach) - reach
    ys = (torch.arange(height, device=maps.device) + 0.5) / height * (1 + 2 * reach) - reach
    return torch.stack([(weight.sum(2) * xs).sum(-1), (weight.sum(3) * ys).sum(-1)], dim=-1)


def encode_landmarks(vq: VQModel, points: NDArray[np.float32], *, size: int) -> Tensor:
    """Token ids [B, h, w] of [B, 68, 2] points in pixels of `size`."""
    picture = landmark_picture(points, size=size, new=vq.config["sample_size"])
    return quantize(vq, picture.to(vq.device))[2]


def decode_landmarks(vq: VQModel, ids: Tensor, *, size: int) -> Tensor:
    """Points [B, 68, 2] in pixels of `size` from token ids [B, h, w].

    A drawing that lacks a part of the face raises BadInput.
    """
    if vq.config["out_channels"] == COUNT:
        return soft_argmax(_decode_ids(vq, ids)) * size
    return torch.from_numpy(np.stack([trace_landmarks(d, size=size) for d in decode_drawings(vq, ids)]))
