"""Words to states, in any language, and what they ask for.

Odd here: texts run one by one, since padding to the longest of a batch would change the last bits of the others. The
states of the empty text go along with each result: guidance compares with them. A published encoder has no slots and no
reader of prompts, wants each condition named before the words (its config says how), and a second encoder may stand
beside it that speaks to the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from m3face import checkpoints
from m3face.captions import detect_language
from m3face.errors import M3FaceError
from m3face.models.text import MultilingualClip, PromptReader, read_mentions, slot_states, token_states
from m3face.stages.batching import Group, run_groups
from m3face.stages.prompts import LONGEST_PROMPT, check_prompt
from m3face.stages.requests import OnStep, TextRequest, TextResult, TextStates, Words
from m3face.stages.weights import weights_folder


class TextEncoder:
    """`run([TextRequest])` gives a `TextResult` each: states [slots or tokens, width], language, mentions.

    `reader` is None for a published encoder; `face` is the (encoder, tokenizer) that speaks to the picture, if another.
    """

    Request: ClassVar[type[TextRequest]] = TextRequest

    def __init__(
        self,
        encoder: Any,
        tokenizer: Any,
        reader: PromptReader | None,
        *,
        face: tuple[Any, Any] | None = None,
        longest: int = LONGEST_PROMPT,
    ) -> None:
        self.encoder, self.tokenizer, self.reader, self.face, self.longest = encoder, tokenizer, reader, face, longest
        self.prefixes: dict[str, str] = getattr(encoder.config, "prefixes", {})
        self._empty: dict[str, TextStates] = {}

    @classmethod
    def from_checkpoint(cls, location: str, *, device: str = "cpu", longest: int = LONGEST_PROMPT) -> Self:
        """The encoder of the weights at `location`; raises CheckpointError."""
        folder: Path = weights_folder(location)
        encoder = checkpoints.load("text_encoder", folder, device=device)
        published = isinstance(encoder, MultilingualClip)
        face = None
        if (folder / "face_text_encoder").is_dir():
            speaker = checkpoints.load("face_text_encoder", folder, device=device)
            face = (speaker, checkpoints.load_tokenizer(folder, "face_tokenizer"))
        reader = None if published else checkpoints.load("prompt_reader", folder, device=device)
        return cls(encoder, checkpoints.load_tokenizer(folder), reader, face=face, longest=longest)

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
        said = self.prefixes.get("mask", "") + prompt
        states, text = self._encode(said)
        tokens, most = len(self.tokenizer(said, verbose=False).input_ids), int(self.tokenizer.model_max_length)
        warnings = (f"prompt: {tokens} tokens, of which the last {tokens - most} were not read",)
        return [
            TextResult(
                text=text,
                empty=self._nothing("conditions"),
                language=detect_language(prompt),
                mentions=() if self.reader is None else read_mentions(self.reader(states)[0].cpu()),
                warnings=warnings if tokens > most else (),
                said=self._otherwise(prompt),
            )
        ]

    def _otherwise(self, prompt: str) -> dict[Any, Words]:
        """What is wanted other than for the label map."""
        said = {}
        if "landmarks" in self.prefixes:
            text = self._encode(self.prefixes["landmarks"] + prompt)[1]
            said["landmarks"] = Words(text=text, empty=self._nothing("conditions"))
        if self.face is not None:
            said["face"] = Words(text=self._encode_for_face(prompt), empty=self._nothing("face"))
        return said

    def _nothing(self, whom: str) -> TextStates:
        """The states of no words, which no prefix stands before."""
        if whom not in self._empty:
            self._empty[whom] = self._encode_for_face("") if whom == "face" else self._encode("")[1]
        return self._empty[whom]

    def _encode(self, prompt: str) -> tuple[Tensor, TextStates]:
        if self.reader is None:
            states, pooled = token_states(self.encoder, self.tokenizer, [prompt])
            return states, _plain(states, pooled)
        states = slot_states(self.encoder, self.tokenizer, [prompt], slots=int(self.reader.config["slots"]))
        return states, _plain(states, states.float().cpu().mean(1))

    def _encode_for_face(self, prompt: str) -> TextStates:
        assert self.face is not None
        return _plain(*token_states(*self.face, [prompt]))


def _plain(states: Tensor, pooled: Tensor) -> TextStates:
    return TextStates(states=states[0].float().cpu().numpy(), pooled=pooled[0].float().cpu().numpy())
