"""Words to states, in any language, and what they ask for.

Odd here: texts run one by one, since padding to the longest of a batch would change the last bits of the others. The
states of the empty text go along with each result: guidance compares with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch

from m3face import checkpoints
from m3face.captions import detect_language
from m3face.errors import M3FaceError
from m3face.models.text import PromptReader, read_mentions, slot_states
from m3face.stages.batching import Group, run_groups
from m3face.stages.prompts import LONGEST_PROMPT, check_prompt
from m3face.stages.requests import OnStep, TextRequest, TextResult, TextStates
from m3face.stages.weights import weights_folder


class TextEncoder:
    """`run([TextRequest])` gives a `TextResult` each: states [slots, width], language, mentions."""

    Request: ClassVar[type[TextRequest]] = TextRequest

    def __init__(self, encoder: Any, tokenizer: Any, reader: PromptReader, *, longest: int = LONGEST_PROMPT) -> None:
        self.encoder, self.tokenizer, self.reader, self.longest = encoder, tokenizer, reader, longest
        self.slots = int(reader.config["slots"])
        self._empty: TextStates | None = None

    @classmethod
    def from_checkpoint(cls, location: str, *, device: str = "cpu", longest: int = LONGEST_PROMPT) -> Self:
        """The encoder of the weights at `location`; raises CheckpointError."""
        folder = weights_folder(location)
        return cls(
            checkpoints.load("text_encoder", folder, device=device),
            checkpoints.load_tokenizer(folder),
            checkpoints.load("prompt_reader", folder, device=device),
            longest=longest,
        )

    def run(self, requests: Sequence[TextRequest], *, on_step: OnStep | None = None) -> list[TextResult | M3FaceError]:
        """One result or error a request, in order."""
        return run_groups(
            requests,
            prepare=lambda request: check_prompt(request.prompt, limit=self.longest),
            key=lambda prompt: None,
            work=self._work,
            micro_batch=1,
            on_step=on_step,
        )

    @torch.inference_mode()
    def _work(self, group: Group[str]) -> list[TextResult]:
        (prompt,) = group.members
        if self._empty is None:
            self._empty = self._encode("")[1]
        states, text = self._encode(prompt)
        tokens, most = len(self.tokenizer(prompt, verbose=False).input_ids), int(self.tokenizer.model_max_length)
        warnings = (f"prompt: {tokens} tokens, of which the last {tokens - most} were not read",)
        return [
            TextResult(
                text=text,
                empty=self._empty,
                language=detect_language(prompt),
                mentions=read_mentions(self.reader(states)[0].cpu()),
                warnings=warnings if tokens > most else (),
            )
        ]

    def _encode(self, prompt: str) -> tuple[torch.Tensor, TextStates]:
        states = slot_states(self.encoder, self.tokenizer, [prompt], slots=self.slots)
        plain = states[0].float().cpu()
        return states, TextStates(states=plain.numpy(), pooled=plain.mean(0).numpy())
