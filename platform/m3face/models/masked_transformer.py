"""The masked transformer that writes label maps and landmarks (M3Face's Muse; the class of aMUSEd).

Odd here: UVit2DModel has no position encoding, so this thin subclass adds learned row, column and modality embeddings
after `embed`; without them it is the stock class. Map and landmarks of one face share one canvas: the two tokens of a
cell stand side by side, so a [h, w] grid of each becomes [h, 2 w]. Ids of the second modality are shifted by the first
one's codebook; the mask id is the last one; a position's logits over the other modality's ids are forbidden.
A published transformer has none of this: it writes one picture at a time, and is told the picture's size.
"""

# B batch, h w token grid, V codes of both modalities together, M modality (0 map, 1 landmarks)

from __future__ import annotations

from typing import Any

import torch
from diffusers import UVit2DModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

MAP, LANDMARKS = 0, 1
_AESTHETIC = 6.0  # the last of aMUSEd's five numbers, an aesthetic score: width, height, crop, crop, score


def canvas(map_ids: Tensor, landmark_ids: Tensor, *, map_codes: int, mask_id: int) -> Tensor:
    """One canvas [B, h, 2 w] from two grids [B, h, w]; landmark ids are shifted, masked positions stay masked."""
    shifted = torch.where(landmark_ids == mask_id, landmark_ids, landmark_ids + map_codes)
    return torch.stack([map_ids, shifted], dim=-1).flatten(2)


def split_canvas(ids: Tensor, *, map_codes: int) -> tuple[Tensor, Tensor]:
    """The two grids [B, h, w] of a finished canvas [B, h, 2 w]."""
    map_ids, landmark_ids = ids.unflatten(2, (-1, 2)).unbind(-1)
    return map_ids, landmark_ids - map_codes


class MaskedTransformer(UVit2DModel):
    """`forward(ids [B, h, 2 w], states, pooled) -> logits [B, V, h, 2 w]` with the other modality forbidden.

    `modality_codes` are the codebook sizes (map, landmarks); an empty tuple makes this the stock class.
    """

    @register_to_config
    def __init__(
        self,
        hidden_size: int = 1024,
        cond_embed_dim: int = 768,
        micro_cond_encode_dim: int = 256,
        micro_cond_embed_dim: int = 1280,
        encoder_hidden_size: int = 768,
        vocab_size: int = 8256,
        codebook_size: int = 8192,
        in_channels: int = 768,
        block_out_channels: int = 768,
        num_res_blocks: int = 3,
        downsample: bool = False,
        upsample: bool = False,
        block_num_heads: int = 12,
        num_hidden_layers: int = 22,
        num_attention_heads: int = 16,
        intermediate_size: int = 2816,
        sample_size: int = 16,
        modality_codes: tuple[int, ...] = (),
    ) -> None:
        stock: dict[str, Any] = {
            k: v for k, v in locals().items() if k not in ("self", "modality_codes") and not k.startswith("_")
        }
        super().__init__(**stock)
        self.register_to_config(modality_codes=tuple(modality_codes))
        if modality_codes:
            self.row = nn.Parameter(torch.randn(block_out_channels, sample_size, 1) * 0.02)
            self.column = nn.Parameter(torch.randn(block_out_channels, 1, sample_size) * 0.02)
            self.modality = nn.Parameter(torch.randn(block_out_channels, len(modality_codes)) * 0.02)
            self.embed.register_forward_hook(self._add_positions)
            allowed = torch.zeros(len(modality_codes), codebook_size)
            first = 0
            for modality, codes in enumerate(modality_codes):
                allowed[modality, first : first + codes] = 1
                first += codes
            self.register_buffer("forbidden", allowed == 0, persistent=False)

    def _add_positions(self, _module: nn.Module, _args: Any, embedded: Tensor) -> Tensor:
        count = self.modality.shape[1]
        column = self.column.repeat_interleave(count, dim=2)
        modality = self.modality.repeat(1, self.column.shape[2]).unsqueeze(1)
        return embedded + (self.row + column + modality).to(embedded.dtype)

    @property
    def mask_id(self) -> int:
        """The id of a token yet to be written: the last one of the vocabulary."""
        return int(self.config["vocab_size"]) - 1

    @property
    def map_codes(self) -> int:
        """Codes of the map on the common canvas; 0 where there is none."""
        return int(self.config["modality_codes"][MAP]) if self.config["modality_codes"] else 0

    def logits(self, ids: Tensor, states: Tensor, pooled: Tensor, *, side: int = 0) -> Tensor:
        """Stock forward: fp32 [B, V, h, 2 w] of the canvas, forbidden ids at -10,000 (finite: guidance subtracts).

        Without `modality_codes`, [B, V, h, w] of one picture of `side` pixels, uncropped, of the usual aesthetic score.
        """
        told = (0, 0, 0, 0, 0) if self.map_codes else (side, side, 0, 0, _AESTHETIC)
        size_condition = torch.tensor(told, dtype=torch.float32, device=ids.device).expand(ids.shape[0], -1)
        logits = self(ids, states, pooled, size_condition).float()
        if not self.map_codes:
            return logits
        count = self.modality.shape[1]
        forbidden = self.forbidden.T.repeat(1, ids.shape[2] // count)  # [V, 2 w]
        return logits.masked_fill(forbidden[None, :, None, :], -1e4)
