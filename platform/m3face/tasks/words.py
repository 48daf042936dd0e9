"""The text encoder: learns what words ask for, and to say it equally in every language (M-CLIP's teacher learning).

Odd here: the teacher is the same network reading English. Every wish is put into English and into two other languages;
all must be read right, and the others' slot states must match the English ones, which do not move towards them. Wishes
come from the renderer's distribution of people, without rendering.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from m3face import checkpoints
from m3face.captions import choose_keys, realise
from m3face.faces import LANGUAGES
from m3face.models.text import NOT_NAMED, mention_targets, train_tokenizer
from m3face.synthetic import sample_attributes
from m3face.tasks.base import Batch, Context, Draw, Task

_TEACHER = "en"
_OTHERS = tuple(code for code in LANGUAGES if code != _TEACHER)
_STUDENTS = 2  # other languages a wish
_TOKENIZER_TEXTS = 30_000
_LENGTH_GROUPS = 4  # texts run in groups of like length: half the padding
_EPOCH = 1_000_000  # wishes are drawn anew for ever; an epoch is only a unit of the cursor


class TextEncoderTask(Task):
    """Reader loss on both texts plus the distance of the other language's slot states from the English ones."""

    count = _EPOCH

    def __init__(self, context: Context) -> None:
        preset = context.preset.networks
        self.slots = int(preset["tokenizer"]["slots"])
        self.tokenizer = train_tokenizer(self._corpus(), **preset["tokenizer"])
        self.module = nn.ModuleDict(
            {"encoder": context.network("text_encoder"), "reader": context.network("prompt_reader")}
        )

    @staticmethod
    def _corpus() -> list[str]:
        texts = []
        for index in range(_TOKENIZER_TEXTS):
            rng = np.random.default_rng([7, index])
            attributes, language = sample_attributes(rng), list(LANGUAGES)[index % len(LANGUAGES)]
            texts.append(realise(choose_keys(attributes, rng), language, rng).text)
        return texts

    def batch(self, draws: Sequence[Draw]) -> Batch:
        texts: list[str] = []
        targets: list[Tensor] = []
        for draw in draws:
            rng = draw.rng
            if rng.random() < 0.01:
                texts += [""] * (1 + _STUDENTS)
                targets += [mention_targets(())] * (1 + _STUDENTS)
                continue
            keys = choose_keys(sample_attributes(rng), rng)
            others = [_OTHERS[i] for i in rng.choice(len(_OTHERS), _STUDENTS, replace=False)]
            for language in (_TEACHER, *others):
                said = realise(keys, language, rng, typos=0.04 if rng.random() < 0.25 else 0.0)
                texts.append(said.text)
                targets.append(mention_targets(said.mentions))
        encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return {
            "input_ids": encoded.input_ids,
            "attention_mask": encoded.attention_mask,
            "target": torch.stack(targets),
        }

    def _states(self, encoder: nn.Module, batch: Batch) -> Tensor:
        lengths = batch["attention_mask"].sum(1)
        order = lengths.argsort(stable=True)
        parts = []
        for rows in order.chunk(_LENGTH_GROUPS):
            longest = int(lengths[rows].max())
            ids, mask = batch["input_ids"][rows, :longest], batch["attention_mask"][rows, :longest]
            parts.append(encoder(input_ids=ids, attention_mask=mask).last_hidden_state[:, : self.slots].float())
        return torch.cat(parts)[order.argsort()]

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        states = self._states(module["encoder"], batch)  # type: ignore[index]
        logits = module["reader"](states).float()  # type: ignore[index]
        target = batch["target"]
        each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
        weight = torch.where(target == NOT_NAMED, 1.0, 4.0)
        reading = (each * weight).sum(1).mean()
        by_wish, said = states.unflatten(0, (-1, 1 + _STUDENTS)), target.unflatten(0, (-1, 1 + _STUDENTS))
        same = (said[:, 1:] == said[:, :1]).all(2).float()  # a language may lack the words for a part of a wish
        apart = (by_wish[:, 1:] - by_wish[:, :1].detach()).square().mean((2, 3))
        matching = (apart * same).sum() / same.sum().clamp(min=1)
        wrong = (logits.argmax(-1) != target) & ((target != NOT_NAMED) | (logits.argmax(-1) != NOT_NAMED))
        named = (target != NOT_NAMED).sum().clamp(min=1)
        return {
            "loss": reading + 4.0 * matching,
            "reading": reading,
            "matching": matching,
            "wrong_per_named": wrong.sum() / named,
        }

    def export(self, root: Path) -> None:
        checkpoints.save_tokenizer(self.tokenizer, root)
        checkpoints.save("text_encoder", self.module["encoder"], root)  # type: ignore[index]
        checkpoints.save("prompt_reader", self.module["reader"], root)  # type: ignore[index]
