"""Captions in other languages by a translation model in a local folder (NLLB-200, SeamlessM4T).

Odd here: a row's captions are translated by themselves, never beside those of other rows, so a translation does not
depend on its neighbours in a batch. NLLB-200 and SeamlessM4T were published under CC BY-NC 4.0: captions made with them
are not for commercial use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from m3face.data.rows import Row, Step, each
from m3face.errors import CheckpointError, ConfigError
from m3face.faces import LANGUAGES

NLLB: dict[str, str] = {
    "en": "eng_Latn", "fr": "fra_Latn", "de": "deu_Latn", "it": "ita_Latn", "es": "spa_Latn", "pt": "por_Latn",
    "fa": "pes_Arab", "ar": "arb_Arab", "zh": "zho_Hans", "ja": "jpn_Jpan", "hi": "hin_Deva", "ru": "rus_Cyrl",
}  # fmt: skip
"""Codes of NLLB-200 (FLORES-200)."""

SEAMLESS: dict[str, str] = {code: language.code3 for code, language in LANGUAGES.items()}
"""Codes of SeamlessM4T."""

_CODES = {"m2m_100": NLLB, "nllb-moe": NLLB, "seamless_m4t": SEAMLESS, "seamless_m4t_v2": SEAMLESS}
_LONGEST = 256  # tokens of a caption

Translate = Callable[[Sequence[str], str, str], list[str]]
"""(texts, from, to) to as many texts; languages are ISO 639-1."""


def translate_captions(languages: Sequence[str], translate: Translate) -> Step:
    """A step that gives every row captions in `languages` from those in the first; what is there already stays."""
    first, *others = languages

    def work(row: Row) -> None:
        for language in others:
            if row.captions.get(first) and not row.captions.get(language):
                row.captions[language] = translate(row.captions[first], first, language)

    return each(work)


class Seq2Seq:
    """A `Translate` by a model in `folder`, which is opened when it is first asked. Raises ConfigError at once for a
    folder of something else."""

    def __init__(self, folder: str, *, device: str = "cpu") -> None:
        self.folder, self.device = folder, device
        try:
            kind = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))["model_type"]
            self._codes = _CODES[kind]
        except (OSError, ValueError, TypeError, KeyError):
            raise ConfigError(
                "captions.translate",
                f"{folder} is no folder of a translation model",
                f"a local folder of transformers whose config.json names {', '.join(_CODES)}",
                "copy the model there; nothing is downloaded",
            ) from None

    @cached_property
    def _opened(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            model = AutoModelForSeq2SeqLM.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise CheckpointError("captions.translate", first, "a whole folder", "copy it again") from None
        return tokenizer, model.to(self.device).eval()

    def __call__(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        import torch

        tokenizer, model = self._opened
        tokenizer.src_lang = self._codes[source]
        code = self._codes[target]
        inputs = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True).to(self.device)
        if self._codes is SEAMLESS:
            wanted: dict[str, Any] = {"tgt_lang": code}
        else:
            number = tokenizer.convert_tokens_to_ids(code)
            if number == tokenizer.unk_token_id:
                raise CheckpointError("captions.translate", f"the model does not know {code}", "NLLB-200's languages")
            wanted = {"forced_bos_token_id": number}
        with torch.inference_mode():
            made = model.generate(**inputs, **wanted, max_new_tokens=_LONGEST, do_sample=False)
        return [text.strip() for text in tokenizer.batch_decode(made, skip_special_tokens=True)]
