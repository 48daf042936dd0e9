"""Every language for a backbone that knows only English: a multilingual encoder's states to those it listens to.

Odd here: the words of two languages stand in other places and are cut into other pieces, so states are not mapped one
by one. Each place of the backbone's text asks all states of the other encoder for what belongs there.
"""

# B batch, L tokens, D width of the multilingual states, T places of the backbone's text, C width of its cross-attention

from __future__ import annotations

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn


class TextAdapter(ModelMixin, ConfigMixin):
    """States [B, L, D] and their mask [B, L], 0 for padding, to states [B, T, C].

    `given` is D, `places` is T, `wanted` is C.
    """

    @register_to_config
    def __init__(
        self, given: int, places: int, wanted: int, hidden: int = 768, heads: int = 12, num_layers: int = 3
    ) -> None:
        super().__init__()
        self.inner = nn.Linear(given, hidden)
        self.queries = nn.Parameter(torch.randn(places, hidden) * 0.02)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                hidden, heads, 4 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.outer = nn.Linear(hidden, wanted)

    def forward(self, states_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        heard = self.inner(states_BLD)
        said = self.queries.expand(len(heard), -1, -1)
        for layer in self.layers:
            said = layer(said, heard, memory_key_padding_mask=mask_BL == 0)
        return self.outer(self.norm(said))
