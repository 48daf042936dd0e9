"""Which words a batch comes with, and how they reach a network.

Odd here: our own encoder's slot states are few and equal in every language, so they are cached. Published encoders give
77 states a text, more than the picture itself: their tokens are in the batch and the frozen encoder reads them within
the step. Of those, one may speak to the transformer, with the wanted picture named first, and another to the UNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from m3face import checkpoints
from m3face.data.faces import captions
from m3face.models.text import states_of_tokens
from m3face.tasks.base import Batch, Context, Draw


class Words(Protocol):
    """Words of samples, `prompt_dropout` of them none."""

    def given(self, draws: Sequence[Draw], *, wanted: Sequence[str] = ()) -> dict[str, Tensor]:
        """What a batch needs; `wanted` names the condition that each text is for, where a network must be told."""
        ...

    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """States [B, L, D] and pooled [B, P]."""
        ...


class _CachedWords:
    def __init__(self, context: Context) -> None:
        self._context = context

    def given(self, draws: Sequence[Draw], *, wanted: Sequence[str] = ()) -> dict[str, Tensor]:
        assert not wanted
        return {"states": self._context.drawn_states(draws)}

    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch["states"], batch["states"].mean(1)


class _ReadWords:
    def __init__(self, context: Context, encoder: str, tokenizer: str) -> None:
        self._context = context
        self.encoder = checkpoints.load(encoder, context.weights, device=context.device)
        self.tokenizer = checkpoints.load_tokenizer(context.weights, tokenizer)
        self.prefixes: dict[str, str] = getattr(self.encoder.config, "prefixes", None) or {}

    @cached_property
    def _texts(self) -> list[str]:
        return captions(self._context.data, self._context.faces).texts(0, len(self._context.faces))

    def given(self, draws: Sequence[Draw], *, wanted: Sequence[str] = ()) -> dict[str, Tensor]:
        each, texts = self._context.data.captions_per_face, []
        for place, draw in enumerate(draws):
            which = int(draw.rng.integers(each))
            dropped = draw.rng.random() < self._context.train.prompt_dropout
            first = self.prefixes.get(wanted[place], "") if wanted else ""
            texts.append("" if dropped else first + self._texts[draw.index * each + which])
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        return {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}

    @torch.no_grad()
    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.autocast(batch["input_ids"].device.type, enabled=False):
            states, pooled = states_of_tokens(self.encoder, batch["input_ids"], batch["attention_mask"])
        return states.float(), pooled.float()


def words(context: Context, *, for_faces: bool = False) -> Words:
    """Those of our own encoder, or of the published one that speaks to the transformer, or `for_faces` to the UNet."""
    if for_faces and (context.weights / "face_text_encoder").is_dir():
        return _ReadWords(context, "face_text_encoder", "face_tokenizer")
    if (context.weights / "prompt_reader").is_dir():
        return _CachedWords(context)
    return _ReadWords(context, "text_encoder", "tokenizer")
