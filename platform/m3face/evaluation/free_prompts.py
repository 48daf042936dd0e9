"""Prompts in people's own words, each with what it asks for: JSON lines `{language, kind, prompt, asks}`.

Odd here: the grammar's captions cannot say how well *other* wordings are understood. Whoever writes such a file looks
at the list of attributes only. `asks` has one entry a mention, so "no glasses" is two (eyeglasses and sunglasses).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from m3face.errors import BadInput
from m3face.faces import ATTRIBUTES, LANGUAGES, Mention
from m3face.stages.prompts import check_prompt

Kind = Literal["plain", "misspelt", "colloquial", "contradictory", "mixed"]


class _Ask(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    attribute: str
    value: str
    negated: bool = False

    @model_validator(mode="after")
    def _known(self) -> _Ask:
        if self.attribute not in ATTRIBUTES:
            raise ValueError(f"{self.attribute!r} is no attribute")
        if self.value not in ATTRIBUTES[self.attribute].present:
            raise ValueError(f"{self.attribute} is not {self.value!r} but one of {ATTRIBUTES[self.attribute].present}")
        return self


class FreePrompt(BaseModel):
    """One line of the file. A `contradictory` prompt lists only what is beyond doubt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    language: str
    kind: Kind = "plain"
    prompt: str
    asks: tuple[_Ask, ...] = Field(min_length=1)

    @field_validator("prompt")
    @classmethod
    def _readable(cls, prompt: str) -> str:
        try:
            return check_prompt(prompt)
        except BadInput as error:
            raise ValueError(str(error)) from None

    @field_validator("language")
    @classmethod
    def _code(cls, code: str) -> str:
        if code not in LANGUAGES:
            raise ValueError(f"{code!r} is none of {', '.join(LANGUAGES)}")
        return code

    @property
    def mentions(self) -> tuple[Mention, ...]:
        return tuple(Mention(a.attribute, a.value, a.negated) for a in self.asks)


def read_free_prompts(path: Path) -> list[FreePrompt]:
    """The prompts of a file; BadInput names the first line that is wrong."""
    shape = "JSON lines of {language, kind, prompt, asks}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("--prompts", f"{path}: {error}", f"a file of {shape}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(FreePrompt.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                raise BadInput("--prompts", f"{path}, line {number}: {where} {first['msg']}", shape) from None
    if not found:
        raise BadInput("--prompts", f"{path} has no lines", f"at least one of {shape}")
    return found
