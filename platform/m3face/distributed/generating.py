"""`jobs/generate.py`: sentences in, a dataset of faces that nobody has out.

Odd here: making faces is one step of a recipe like that of `jobs/preprocess.py`, so parts, shards, card and going on
after a stop are the same. What was asked for is read before Ray starts and travels to the workers as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3face import __version__, presets
from m3face.config.generate import GenerateConfig, WishesConfig
from m3face.data.rows import Row, Step
from m3face.data.shards import Plan
from m3face.data.splitting import split
from m3face.data.store import key_digest
from m3face.distributed.filling import Say
from m3face.distributed.making import make_dataset, open_target
from m3face.pipelines.generating import check_weights
from m3face.pipelines.many_faces import Asked, FaceMaker, asked_for, wished_row
from m3face.stages import open_stage
from m3face.stages.requests import CONDITIONS

_NOT_CONTENT = {"output", "prompts", "max_errors", "weights"}


class Generate:
    """The recipe: rows that say what they are to become, and the three stages that make it of them."""

    annotates = True

    def __init__(self, config: WishesConfig, asked: Sequence[Asked], name: str, digest: str, device: str) -> None:
        self._config, self._asked, self._name, self._digest, self._device = config, asked, name, digest, device

    def begin(self, indices: range) -> list[Row]:
        ids = (f"{self._name}-{index:07d}" for index in indices)
        return [wished_row(self._asked[i], id, self._config.licence) for i, id in zip(indices, ids, strict=True)]

    def annotator(self) -> Step:
        preset = presets.get(self._config.preset)
        more: dict[str, dict[str, Any]] = {
            "text": {"longest": preset.prompt_characters},
            "conditions": {"micro_batch": self._config.micro_batch},
            "face": {"micro_batch": self._config.micro_batch},
        }
        location = self._config.weights or preset.weights
        stages = {name: open_stage(name, location, device=self._device, **given) for name, given in more.items()}
        return FaceMaker(stages, preset, self._digest, steps=self._config.steps, guidance=self._config.guidance)

    def end(self, rows: list[Row]) -> list[Row]:
        return split(self._config.split)(rows)


def make_plan(config: WishesConfig, asked: Sequence[Asked], digest: str) -> Plan:
    """Everything that decides what comes out; of a file its content counts and not its name."""
    settings: dict[str, Any] = config.model_dump(mode="json", exclude=_NOT_CONTENT)
    if config.prompts:
        settings["prompts"] = hashlib.sha256(Path(config.prompts).expanduser().read_bytes()).hexdigest()
    settings = {"m3face": __version__, "rows": len(asked), "weights": digest, **settings}
    languages = config.grid.languages if config.grid is not None else ()
    return Plan(rows=len(asked), shards=config.shards, settings=settings, languages=languages)


def generate_dataset(config: GenerateConfig, say: Say = print) -> dict[str, Any]:
    """Make the dataset, or what is missing of it, and return its report.

    Raises ConfigError, CheckpointError (the weights), DataError (too many bad rows), OutputError (the target) and
    Cancelled.
    """
    data = config.data
    storage, asked = open_target(data.output, config.storage), asked_for(data)
    digest = check_weights(data.weights or presets.get(data.preset).weights, CONDITIONS)
    plan = make_plan(data, asked, digest)
    name, device = f"generated-{key_digest(plan.settings)}", "cuda" if config.placement.gpus else "cpu"
    recipe = Generate(data, asked, name, digest, device)
    return make_dataset(
        storage, plan, recipe, config.placement, config.storage, copies="keep", max_errors=data.max_errors, say=say
    )
