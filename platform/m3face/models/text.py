"""Words to states: 16 slots and a head that reads what they ask for, or a published encoder's states of all tokens.

Odd here: the encoder itself is a stock BertModel. The tokenizer puts 16 slot tokens in front of every text, and only
their states leave this file: fixed length, no padding questions, and equal across languages by training, while the
word states behind them stay language-specific. The tokenizer normalises by NFKC and lower case only (stripping
accents would destroy Hindi, Japanese and Persian) and falls back to bytes, so no text is unknown to it.
Published encoders know no slots: every text is padded or cut to the same number of tokens, and all their states count.
"""

# B batch, L tokens, S slots, D width, P (attribute, value) pairs, 3 = not named | asked | negated

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import Unigram
from torch import Tensor, nn
from transformers import BertModel, PreTrainedTokenizerFast

from m3face.faces import PAIRS, Mention

NOT_NAMED, ASKED, NEGATED = 0, 1, 2


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, slots: int, max_length: int) -> PreTrainedTokenizerFast:
    """A Unigram tokenizer with byte fallback learned from `texts`; every encoding begins with the slot tokens."""
    slot_tokens = [f"[SLOT_{i}]" for i in range(slots)]
    specials = ["[PAD]", "[UNK]", *slot_tokens]
    data = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size - len(data), special_tokens=specials, unk_token="[UNK]", show_progress=False
    )
    draft = Tokenizer(Unigram())
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    draft.normalizer = normalizer
    draft.pre_tokenizer = pre_tokenizers.Metaspace()
    draft.train_from_iterator(texts, trainer)
    # the trainer knows nothing of bytes: rebuild the same pieces with the 256 byte pieces beside them
    pieces = sorted(draft.get_vocab().items(), key=lambda item: item[1])
    scores = dict(map(tuple, json.loads(draft.to_str())["model"]["vocab"]))
    lowest = min(scores.values()) - 1.0
    vocab = [(piece, scores[piece]) for piece, _ in pieces] + [(piece, lowest) for piece in data]
    tokenizer = Tokenizer(Unigram(vocab, unk_id=1, byte_fallback=True))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([*slot_tokens, "$A"]),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in slot_tokens],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        extra_special_tokens=slot_tokens,
        model_max_length=max_length,
        padding_side="right",
        truncation_side="right",
    )


def slot_states(encoder: BertModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, slots: int) -> Tensor:
    """The states of the slot tokens, [B, S, D]; longer texts are cut at the tokenizer's `model_max_length`."""
    batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(encoder.device)
    hidden_BLD = encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    return hidden_BLD[:, :slots]


class MultilingualClip(BertModel):
    """M-CLIP as M3Face reads it: a stock BertModel, and a linear layer on its pooled state.

    `config.projection_dim` is the width of that layer's answer, `config.prefixes` what is put before a prompt for each
    condition. The published file has the same tensors under other names: `our_name` maps those to ours.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.projection = nn.Linear(config.hidden_size, config.projection_dim)
        self.post_init()

    @staticmethod
    def our_name(published: str) -> str:
        """What a tensor of M-CLIP's files is called here: as in a stock BertModel, and `projection.*`."""
        head, _, rest = published.partition(".")
        return f"projection.{rest}" if head == "LinearTransformation" else rest

    def read(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Token states [B, L, D] of the last layer but one, and pooled [B, P], which is not M-CLIP's mean of states."""
        output = self(input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True)
        return output.hidden_states[-2], self.projection(output.pooler_output)


def token_states(encoder: Any, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """States [B, L, D] and pooled [B, P] of a published encoder, L being the tokenizer's `model_max_length`.

    CLIP's text model sees its padding, as its pipelines let it; the others are masked (`config.use_attention_mask`).
    """
    batch = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").to(encoder.device)
    return states_of_tokens(encoder, batch.input_ids, batch.attention_mask)


def states_of_tokens(encoder: Any, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """`token_states` of tokens [B, L]."""
    mask = attention_mask if getattr(encoder.config, "use_attention_mask", False) else None
    if isinstance(encoder, MultilingualClip):
        return encoder.read(input_ids, mask)
    output = encoder(input_ids=input_ids, attention_mask=mask, return_dict=True)
    states = output[0]  # of AltDiffusion's encoder: already brought to the width of the UNet
    pooled = output.get("pooler_output")
    return states, states[:, 0] if pooled is None else pooled


class PromptReader(ModelMixin, ConfigMixin):
    """Slot states to what the words say of each (attribute, value) pair: logits [B, P, 3]."""

    @register_to_config
    def __init__(self, width: int, slots: int, hidden: int, pairs: int = len(PAIRS)) -> None:
        super().__init__()
        self.inner = nn.Linear(slots * width, hidden)
        self.outer = nn.Linear(hidden, pairs * 3)

    def forward(self, states_BSD: Tensor) -> Tensor:
        hidden = nn.functional.gelu(self.inner(states_BSD.flatten(1)))
        return self.outer(hidden).unflatten(1, (-1, 3))


def mention_targets(mentions: Sequence[Mention]) -> Tensor:
    """What the reader should say of these mentions: int64 [P] of NOT_NAMED, ASKED or NEGATED."""
    target = torch.zeros(len(PAIRS), dtype=torch.long)
    for mention in mentions:
        target[PAIRS.index((mention.attribute, mention.value))] = NEGATED if mention.negated else ASKED
    return target


def read_mentions(logits_P3: Tensor) -> tuple[Mention, ...]:
    """The mentions behind the reader's logits of one text; of an attribute's asked values only the surest counts."""
    choice = logits_P3.argmax(-1).tolist()
    surest: dict[str, tuple[float, str]] = {}
    found = []
    for (attribute, value), pick, logits in zip(PAIRS, choice, logits_P3.tolist(), strict=True):
        if pick == ASKED:
            surest[attribute] = max(surest.get(attribute, (float("-inf"), "")), (logits[ASKED], value))
        elif pick == NEGATED:
            found.append(Mention(attribute, value, negated=True))
    found += [Mention(attribute, value) for attribute, (_, value) in surest.items()]
    return tuple(sorted(found))
