"""Many wishes at once: out of a file of sentences or a grid of attributes, and through the flow of one in batches.

Odd here: the flow is `text_to_face` itself, run for all wishes side by side; its calls wait until every flow has made
one, and then each stage answers all that were put to it. So a face is the same, bit for bit, as when it is asked for
alone (on one device, number of threads and micro batch). A row's attributes are what was asked for, not what was seen.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError

from m3face.captions import realise
from m3face.config import Closed, one_line
from m3face.config.generate import GridConfig, WishesConfig
from m3face.data.parquet import FILE, GENERATED
from m3face.data.rows import Row
from m3face.errors import ConfigError, M3FaceError
from m3face.faces import LANGUAGES
from m3face.pipelines.provenance import png_text
from m3face.pipelines.results import facts_of
from m3face.pipelines.text_to_face import FaceResult, FaceWish, text_to_face
from m3face.presets import Preset
from m3face.stages import Stage
from m3face.stages.requests import LARGEST_SEED

WISH = "wish"
"""The note with what a row is to become."""


@dataclass(frozen=True)
class Asked:
    """One face that is wanted; `attributes` are what the prompt says, where that is known beforehand."""

    prompt: str
    seed: int
    language: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


class _Line(Closed):
    """A line of a .jsonl file of prompts."""

    prompt: str
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    language: str | None = None


def asked_for(config: WishesConfig) -> Sequence[Asked]:
    """All that `config` asks for, in order. Raises ConfigError that names the line of a file that is wrong."""
    return _Grid(config.grid, config.seed) if config.grid is not None else _read(Path(config.prompts), config.seed)


@dataclass(frozen=True)
class _Grid(Sequence[Asked]):
    """Seeds change fastest, then languages, then attributes, the last first. All seeds of a wish share its sentence."""

    config: GridConfig
    seed: int

    @property
    def _shape(self) -> tuple[int, ...]:
        return (*map(len, self.config.attributes.values()), len(self.config.languages), len(self.config.seeds))

    def __len__(self) -> int:
        return prod(self._shape)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        *places, language, seed = (int(place) for place in np.unravel_index(index, self._shape))
        wanted = {name: values[at] for at, (name, values) in zip(places, self.config.attributes.items())}
        rng = np.random.default_rng([self.seed, index // len(self.config.seeds)])
        code = self.config.languages[language]
        said = realise([f"{name}.{value}" for name, value in wanted.items()], code, rng)
        named = {mention.attribute for mention in said.mentions}  # a style may leave out some of many
        attributes = {name: value for name, value in wanted.items() if name in named}
        return Asked(said.text, self.config.seeds[seed], code, attributes)


def _read(path: Path, seed: int) -> list[Asked]:
    if path.suffix not in (".txt", ".jsonl"):
        raise ConfigError("data.prompts", f"{path}", "a .txt or .jsonl file", "rename it after what is in it")
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError("data.prompts", f"{path}: {said}", "a readable text file") from None
    found: list[Asked] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            own = _parse(line, f"{path}, line {number}") if path.suffix == ".jsonl" else _Line(prompt=line)
            given = seed + len(found) if own.seed is None else own.seed
            found.append(Asked(own.prompt.strip(), given, own.language))
    if not found:
        raise ConfigError("data.prompts", f"{path} has no sentence in it", "one sentence or more", "write one a line")
    return found


def _parse(line: str, where: str) -> _Line:
    try:
        own = _Line.model_validate(json.loads(line))
    except ValidationError as error:
        raise one_line(error, where=where) from None
    except ValueError:
        raise ConfigError("data.prompts", f"{where} is not JSON", '{"prompt": "…"} a line') from None
    if own.language is not None and own.language not in LANGUAGES:
        raise ConfigError("data.prompts", f"{where} has the language {own.language!r}", ", ".join(LANGUAGES))
    return own


def wished_row(asked: Asked, id: str, licence: str) -> Row:
    """The row that this face will fill."""
    captions = {} if asked.language is None else {asked.language: [asked.prompt]}
    return Row(
        id=id,
        attributes=dict(asked.attributes),
        captions=captions,
        source=GENERATED,
        licence=licence,
        notes={WISH: asked},
    )


class FaceMaker:
    """The step from wished rows to whole ones. `digest` is the hash of the weights' manifest.

    `steps` and `guidance` are those of the picture; the preset's if none.
    """

    def __init__(
        self,
        stages: Mapping[str, Stage],
        preset: Preset,
        digest: str,
        *,
        steps: int | None = None,
        guidance: float | None = None,
    ) -> None:
        self._stages, self._preset, self._digest = stages, preset, digest
        given = {"face_steps": steps, "face_guidance": guidance}
        self._fields = {name: value for name, value in given.items() if value is not None}

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        wishes = [
            FaceWish.of(self._preset, row.notes[WISH].prompt, seed=row.notes[WISH].seed, **self._fields) for row in rows
        ]
        for row, wish, made in zip(rows, wishes, run_together(wishes, self._stages), strict=True):
            if isinstance(made, M3FaceError):
                row.error = str(made)
            else:
                self._fill(row, wish, made)
        return list(rows)

    def _fill(self, row: Row, wish: FaceWish, made: FaceResult) -> None:
        row.image, row.label_map, row.landmarks = made.picture, made.label_map, made.landmarks
        row.captions = row.captions or {made.text.language: [wish.prompt]}
        row.attributes = row.attributes or {m.attribute: m.value for m in made.text.mentions if not m.negated}
        facts = facts_of(wish, made, preset=self._preset.name, weights=self._digest)
        del facts["seconds"]  # a job that is started again makes the same bytes
        file = io.BytesIO()
        Image.fromarray(made.picture).save(file, "PNG", pnginfo=png_text(facts))
        row.notes[FILE] = file.getvalue()


def run_together(wishes: Sequence[FaceWish], stages: Mapping[str, Stage]) -> list[FaceResult | M3FaceError]:
    """A face or an error for each wish, in order."""
    return asyncio.run(_together(wishes, stages))


async def _together(wishes: Sequence[FaceWish], stages: Mapping[str, Stage]) -> list[FaceResult | M3FaceError]:
    waiting: dict[str, list[tuple[Any, asyncio.Future[Any]]]] = {}

    async def call(name: str, request: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        waiting.setdefault(name, []).append((request, answer))
        return await answer

    flows = [asyncio.ensure_future(text_to_face(wish, call)) for wish in wishes]
    while not all(flow.done() for flow in flows):
        await asyncio.sleep(0)  # every flow that has its answer goes on to its next call
        for name in list(waiting):
            requests, answers = zip(*waiting.pop(name), strict=True)
            for answer, result in zip(answers, stages[name].run(requests), strict=True):
                if isinstance(result, M3FaceError):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)
    return [_outcome(flow) for flow in flows]


def _outcome(flow: asyncio.Future[FaceResult]) -> FaceResult | M3FaceError:
    error = flow.exception()
    return error if isinstance(error, M3FaceError) else flow.result()
