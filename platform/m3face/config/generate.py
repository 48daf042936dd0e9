"""The settings of `jobs/generate.py`: which faces to make up, and where to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from m3face.config.dataset import PlacementConfig, ShardConfig, SplitConfig, StorageConfig
from m3face.config.schema import Closed
from m3face.faces import ATTRIBUTES, LANGUAGES


def _value(given: Any) -> Any:
    """YAML takes a bare yes or no for a boolean."""
    return {True: "yes", False: "no"}[given] if isinstance(given, bool) else given


Value = Annotated[str, BeforeValidator(_value)]


class GridConfig(Closed):
    """Every combination of values, languages and seeds, each a sentence of the grammar."""

    attributes: dict[str, tuple[Value, ...]] = Field(
        min_length=1, description="attribute to the values it takes in turn"
    )
    languages: tuple[str, ...] = Field(default=("en",), min_length=1, description="ISO 639-1 codes of the sentences")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="seeds of each combination")

    @model_validator(mode="after")
    def _names_are_known(self) -> GridConfig:
        for name, values in self.attributes.items():
            if name not in ATTRIBUTES:
                raise ValueError(f"attributes has {name!r}, which is none of {', '.join(ATTRIBUTES)}")
            known = ATTRIBUTES[name].values
            if wrong := [value for value in values if value not in known]:
                raise ValueError(f"attributes.{name} has {wrong[0]!r}, which is none of {', '.join(known)}")
            if not values:
                raise ValueError(f"attributes.{name} is empty: give it one or more of {', '.join(known)}")
        if wrong := [code for code in self.languages if code not in LANGUAGES]:
            raise ValueError(f"languages has {wrong[0]!r}, which is none of {', '.join(LANGUAGES)}")
        if negative := [seed for seed in self.seeds if seed < 0]:
            raise ValueError(f"seeds has {negative[0]}: seeds are 0 or more")
        return self


class WishesConfig(Closed):
    """What decides the dataset that comes out."""

    prompts: str = Field(
        default="",
        description="file of sentences: .txt, one a line, or .jsonl of {prompt, seed, language}, the last two optional",
    )
    grid: GridConfig | None = Field(default=None, description="combinations of attributes, instead of a file")
    output: str = Field(default="", description="new or unfinished folder, or s3:// address, of the dataset")
    preset: str = Field(default="tiny", description="row of presets: steps, guidance, the length of a prompt")
    weights: str | None = Field(default=None, description="'pkg:NAME' or 'dir:PATH'; the preset's own if none")
    seed: int = Field(
        default=0, ge=0, description="seed of the first sentence of a file, counting upward; of a grid's words"
    )
    steps: int | None = Field(default=None, ge=1, le=1000, description="of the picture; the preset's if none")
    guidance: float | None = Field(default=None, ge=0, le=30, description="how hard words pull; the preset's if none")
    micro_batch: int = Field(default=1, ge=1, description="faces that a network makes at once: 1 is right on a CPU")
    licence: str = Field(default="", description="licence of the faces, as the dataset will say")
    split: SplitConfig = Field(default_factory=SplitConfig)
    shards: ShardConfig = Field(default=ShardConfig(pictures="png"))
    max_errors: float = Field(default=0.05, ge=0, le=1, description="share of bad rows past which the job fails")

    @model_validator(mode="after")
    def _one_source(self) -> WishesConfig:
        if bool(self.prompts) == (self.grid is not None):
            raise ValueError("give either prompts or grid")
        if self.shards.pictures != "png":
            raise ValueError("shards.pictures must be png: it holds the whole note of who made a face")
        return self


class GenerateConfig(Closed):
    """The whole job file."""

    data: WishesConfig
    placement: PlacementConfig = Field(default_factory=PlacementConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
