"""The text encoder: learns what words ask for, and to say it equally in every language (M-CLIP's teacher learning).

Odd here: a second reader, thrown away afterwards, looks at each word's state after the first layer and takes the
largest voice: it teaches words their meaning long before the slots have learned to listen (measured: without it the
slots of twelve languages hear nothing for thousands of texts). The teacher is the same network reading English. Every
wish is put into English and into two other languages; all must be read right, and the others' slot states must match
the English ones, which do not move towards them. A fine-tuning (`train.start`) has the weights that it starts from as
its teacher, wherever they read the English right: slot states keep their meaning for the networks that learned on them.
Wishes come from the renderer's distribution of people, without rendering. The tokenizer is not the same when it is
trained again (the library's sums run in the order of a hash map), so a run that goes on takes its own back from the
checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from m3face import checkpoints
from m3face.captions import Caption, choose_keys, realise
from m3face.faces import LANGUAGES, PAIRS
from m3face.models.text import NOT_NAMED, mention_targets, train_tokenizer
from m3face.synthetic import sample_attributes
from m3face.tasks.base import Batch, Context, Draw, Task
from m3face.tasks.global_batch import over_workers

_TEACHER = "en"
_OTHERS = tuple(code for code in LANGUAGES if code != _TEACHER)
_STUDENTS = 2  # other languages a wish
_SHORT = 0.65  # share of wishes of one to four things: they teach which words mean what, long ones to read on
_HASTY, _SLIPS = 0.35, (0.02, 0.3)  # share of wishes typed without care, and of their longer words with a slip
_TOKENIZER_TEXTS = 30_000
_LENGTH_GROUPS = 4  # texts run in groups of like length: half the padding
_QUIET = 3.0  # offset of the word reader, so that many silent words do not add up to a voice
_NOTHING = Caption(text="", language=_TEACHER, style="keywords", mentions=())
_EPOCH = 1_000_000  # wishes are drawn anew for ever; an epoch is only a unit of the cursor


def _reading(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy summed over pairs [B, P, 3]; what is named weighs four times what is not."""
    each = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(target.shape)
    return (each * torch.where(target == NOT_NAMED, 1.0, 4.0)).sum(1).mean()


class TextEncoderTask(Task):
    """Reader loss on both texts plus the distance of the other language's slot states from the English ones."""

    count = _EPOCH

    def __init__(self, context: Context) -> None:
        preset = context.preset.networks
        self.slots = int(preset["tokenizer"]["slots"])
        self._tokenizer_numbers, self._start = preset["tokenizer"], context.start
        self.teacher: nn.ModuleDict | None = None
        if self._start is not None:
            parts = {"encoder": "text_encoder", "reader": "prompt_reader"}
            loaded = {part: checkpoints.load(name, self._start, device=context.device) for part, name in parts.items()}
            self.teacher = nn.ModuleDict(loaded)
        self.module = nn.ModuleDict(
            {
                "encoder": context.network("text_encoder"),
                "reader": context.network("prompt_reader"),
                "word_reader": nn.Linear(int(preset["text_encoder"]["hidden_size"]), len(PAIRS) * 2),
            }
        )

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Trained when first asked for, unless `resume` or the weights to start from have brought one."""
        if self._start is not None:
            return checkpoints.load_tokenizer(self._start)
        return train_tokenizer(self._corpus(), **self._tokenizer_numbers)

    def resume(self, model: Path) -> None:
        self.tokenizer = checkpoints.load_tokenizer(model)

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
        taught: list[Caption] = []
        for draw in draws:
            rng = draw.rng
            if rng.random() < 0.01:
                texts += [""] * (1 + _STUDENTS)
                targets += [mention_targets(())] * (1 + _STUDENTS)
                taught.append(_NOTHING)
                continue
            count = int(rng.integers(1, 5)) if rng.random() < _SHORT else None
            keys = choose_keys(sample_attributes(rng), rng, count=count)
            hasty = rng.random() < _HASTY
            others = [_OTHERS[i] for i in rng.choice(len(_OTHERS), _STUDENTS, replace=False)]
            for language in (_TEACHER, *others):
                said = realise(keys, language, rng, typos=float(rng.uniform(*_SLIPS)) if hasty else 0.0)
                texts.append(said.text)
                targets.append(mention_targets(said.mentions))
            if self.teacher is not None:
                taught.append(realise(keys, _TEACHER, rng))
        batch = {**self._encoded(texts), "target": torch.stack(targets)}
        if self.teacher is not None:
            more = self._encoded([t.text for t in taught])
            batch |= {f"teacher_{name}": value for name, value in more.items()}
            batch["teacher_target"] = torch.stack([mention_targets(t.mentions) for t in taught])
        return batch

    def _encoded(self, texts: Sequence[str]) -> dict[str, Tensor]:
        encoded = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}

    @torch.no_grad()
    def _taught(self, batch: Batch, by_wish: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
        """(states [B, 1, slots, width] to match, whether each of the students [B, n] is to match them)."""
        if self.teacher is None:
            return by_wish[:, :1].detach(), (said[:, 1:] == said[:, :1]).all(2).float()
        ids, mask, target = (batch[f"teacher_{name}"] for name in ("input_ids", "attention_mask", "target"))
        states = self.teacher["encoder"](input_ids=ids, attention_mask=mask).last_hidden_state[:, : self.slots].float()
        right = (self.teacher["reader"](states).argmax(-1) == target).all(1)
        return states.unsqueeze(1), ((said == target.unsqueeze(1)).all(2) & right.unsqueeze(1)).float()

    def _states(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """(slot states, the word reader's logits [B, P, 3]), run in groups of texts of like length."""
        lengths = batch["attention_mask"].sum(1)
        order = lengths.argsort(stable=True)
        states, voices = [], []
        for rows in order.chunk(_LENGTH_GROUPS):
            longest = int(lengths[rows].max())
            ids, mask = batch["input_ids"][rows, :longest], batch["attention_mask"][rows, :longest]
            hidden = module["encoder"](input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states  # type: ignore[index]
            states.append(hidden[-1][:, : self.slots].float())
            said = module["word_reader"](hidden[1][:, self.slots :]).float().unflatten(2, (-1, 2))  # type: ignore[index]
            silent = mask[:, self.slots :, None, None] == 0
            loudest = said.masked_fill(silent, -1e4).logsumexp(1) - _QUIET if said.shape[1] else said.sum(1)
            voices.append(F.pad(loudest, (1, 0)))
        back = order.argsort()
        return torch.cat(states)[back], torch.cat(voices)[back]

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        states, voices = self._states(module, batch)
        logits = module["reader"](states).float()  # type: ignore[index]
        target = batch["target"]
        reading, words = _reading(logits, target), _reading(voices, target)
        by_wish, said = states.unflatten(0, (-1, 1 + _STUDENTS)), target.unflatten(0, (-1, 1 + _STUDENTS))
        taught, same = self._taught(batch, by_wish, said)  # a language may lack the words for a part of a wish
        apart = (by_wish[:, -same.shape[1] :] - taught).square().mean((2, 3))
        matching = (apart * same).sum() / over_workers(same.sum()).clamp(min=1e-3)
        wrong = (logits.argmax(-1) != target) & ((target != NOT_NAMED) | (logits.argmax(-1) != NOT_NAMED))
        named = (target != NOT_NAMED).sum().clamp(min=1)
        return {
            "loss": reading + words + 4.0 * matching,
            "reading": reading,
            "words": words,
            "matching": matching,
            "wrong_per_named": wrong.sum() / named,
        }

    def export(self, root: Path) -> None:
        checkpoints.save_tokenizer(self.tokenizer, root)
        checkpoints.save("text_encoder", self.module["encoder"], root)  # type: ignore[index]
        checkpoints.save("prompt_reader", self.module["reader"], root)  # type: ignore[index]
