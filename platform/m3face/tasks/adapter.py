"""The text adapter: a backbone's own English text encoder teaches what a multilingual encoder should tell the backbone.

Odd here: both encoders stay as they are (M-CLIP's teacher learning trains the student's encoder; here many languages
must go on meaning the same to the other networks that listen to it). Parallel captions come from the grammars, without
end, or from a dataset: the k-th English caption of a row and its k-th in another language, as translation leaves them.
Every teacher's state is aimed at, also those of the padding, which a Stable Diffusion listens to; `prompt_dropout` of
the pairs are without words, since guidance compares with those.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from m3face import checkpoints
from m3face.captions import choose_keys, realise
from m3face.data.dataset import Dataset
from m3face.errors import DataError
from m3face.faces import LANGUAGES
from m3face.models.text import MultilingualClip, states_of_tokens
from m3face.synthetic import sample_attributes
from m3face.tasks.base import Batch, Context, Draw, Task

_TEACHER = "en"
_EPOCH = 1_000_000  # of wishes that are drawn anew for ever

Pair = tuple[str, str]
"""(an English text, the same in some language)."""


class TextAdapterTask(Task):
    """The mean squared distance of the adapter's states from the teacher's."""

    def __init__(self, context: Context) -> None:
        self.dropout = context.train.prompt_dropout
        self.student = context.frozen("text_encoder")
        self.teacher = context.frozen("face_text_encoder")
        context.ask("tokenizer", "face_tokenizer")
        self.tokenizer = checkpoints.load_tokenizer(context.weights)
        self.teacher_tokenizer = checkpoints.load_tokenizer(context.weights, "face_tokenizer")
        self.pairs: list[Pair] | None = None
        if context.data.source == "dataset":
            self.faces = Dataset(context.data.path, context.data.split, most=context.data.count)
            self.pairs = _pairs(self.faces)
        self.count = _EPOCH if self.pairs is None else len(self.pairs)
        sizes = {
            "given": int(self.student.config.hidden_size),
            "places": int(self.teacher_tokenizer.model_max_length),
            "wanted": int(getattr(self.teacher.config, "project_dim", self.teacher.config.hidden_size)),
        }
        self.module = context.network("text_adapter", **sizes)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        pairs = [self._pair(draw) for draw in draws]
        asked = self.teacher_tokenizer(
            [en for en, _ in pairs], padding="max_length", truncation=True, return_tensors="pt"
        )
        said = self.tokenizer([text for _, text in pairs], padding=True, truncation=True, return_tensors="pt")
        return {
            "input_ids": said.input_ids,
            "attention_mask": said.attention_mask,
            "teacher_input_ids": asked.input_ids,
            "teacher_attention_mask": asked.attention_mask,
        }

    def _pair(self, draw: Draw) -> Pair:
        if draw.rng.random() < self.dropout:
            return "", ""
        if self.pairs is not None:
            return self.pairs[draw.index]
        rng = draw.rng
        keys, language = choose_keys(sample_attributes(rng), rng), list(LANGUAGES)[int(rng.integers(len(LANGUAGES)))]
        english, other = realise(keys, _TEACHER, rng), realise(keys, language, rng)
        same = set(english.mentions) == set(other.mentions)  # a language may lack the words for a part of it
        return english.text, (other if same else english).text

    @torch.no_grad()
    def _states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(what the multilingual encoder says, what the teacher says of the same in English)."""
        with torch.autocast(batch["input_ids"].device.type, enabled=False):
            ids, mask = batch["input_ids"], batch["attention_mask"]
            if isinstance(self.student, MultilingualClip):
                given = self.student.read(ids, mask)[0]
            else:
                given = self.student(input_ids=ids, attention_mask=mask).last_hidden_state
            wanted = states_of_tokens(self.teacher, batch["teacher_input_ids"], batch["teacher_attention_mask"])[0]
        return given.float(), wanted.float()

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        given, wanted = self._states(batch)
        loss = (module(given, batch["attention_mask"]).float() - wanted).square().mean()
        return {"loss": loss, "unexplained": loss.detach() / (wanted - wanted.mean(0)).square().mean().clamp(min=1e-9)}

    def export(self, root: Path) -> None:
        checkpoints.save("text_adapter", self.module, root)


def _pairs(dataset: Dataset) -> list[Pair]:
    """Every caption of a row in every language with the English one of its number; DataError if there is none."""
    found: list[Pair] = []
    for row in dataset.every("captions"):
        captions: dict[str, Any] = row["captions"] or {}
        english = captions.get(_TEACHER) or []
        for code in LANGUAGES:
            found += zip(english, captions.get(code) or [])
    if not found:
        got, remedy = f"{dataset.path} has no English captions", "data.captions.by=grammar of jobs/preprocess.py"
        raise DataError("data.path", got, "captions in English and other languages", remedy)
    return found
