"""The settings of `jobs/preprocess.py`: from an archive to training-ready shards."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from m3face.config.schema import Closed
from m3face.faces import LANGUAGES

Layout = Literal[
    "celebamask-hq", "celeba", "m3celeba", "ffhq", "imagefolder", "webdataset", "parquet", "synthetic"
]
LabelOrder = Literal["merged", "raw", "face-parsing"]


def _known_languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [code for code in codes if code not in LANGUAGES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no language here; known are {', '.join(LANGUAGES)}")
    if len(set(codes)) < len(codes):
        raise ValueError("a language is named twice")
    return codes


Languages = Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_known_languages)]


class SourceConfig(Closed):
    """Where the faces come from."""

    layout: Layout = Field(description="how the archive is laid out")
    path: str = Field(default="", description="folder or s3:// address of the archive; synthetic has none")
    label_order: LabelOrder | None = Field(
        default=None,
        description="what the numbers of the archive's label maps mean; needed where a layout holds merged maps",
    )
    licence: str = Field(default="", description="licence of the pictures; empty is the layout's own, where it has one")
    count: int | None = Field(default=None, ge=1, description="at most so many faces; synthetic needs it")
    seed: int = Field(default=1, ge=0, description="seed of synthetic people")
    size: int = Field(default=512, ge=64, le=512, description="pixels a side of synthetic people")


class AlignConfig(Closed):
    """Turning and cropping by the landmarks (a similarity transform on eyes and mouth), and the size of the result."""

    on: bool = Field(default=False, description="align; off keeps the archive's own crop and only resizes")
    size: int = Field(default=512, ge=64, le=2048, description="pixels a side of the faces written")


class AnnotatorConfig(Closed):
    """Who fills one column, and when."""

    by: str = Field(
        default="pkg:tiny",
        pattern=r"^(pkg|dir|segformer|mediapipe|insightface):.",
        description="'pkg:NAME' or 'dir:PATH' (our weights), 'segformer:PATH', 'mediapipe:PYTHON', 'insightface:PATH'",
    )
    when: Literal["missing", "always", "never"] = Field(default="missing", description="fill, replace or leave alone")


class CaptionConfig(Closed):
    """Sentences from attributes."""

    by: Literal["grammar", "endpoint", "none"] = Field(default="grammar", description="who writes")
    languages: Languages = Field(default=("en", "fr", "de", "it", "es"), description="ISO 639-1 codes")
    each: int = Field(default=3, ge=1, le=32, description="captions a language (M3CelebA has 3)")
    url: str = Field(default="", description="endpoint: base address of an OpenAI-compatible service")
    model: str = Field(default="", description="endpoint: name of the model")
    key_variable: str = Field(default="OPENAI_API_KEY", description="endpoint: environment variable with the key")
    requests: int = Field(default=1000, ge=1, description="endpoint: most requests that the whole job may make")
    retries: int = Field(default=4, ge=0, description="endpoint: how often a failed request is tried again")
    translate: str = Field(
        default="", description="folder of a seq2seq model (NLLB, SeamlessM4T): languages but the first are translated"
    )

    @model_validator(mode="after")
    def _endpoint_is_named(self) -> CaptionConfig:
        if self.by == "endpoint" and not (self.model and self.url.startswith(("http://", "https://"))):
            raise ValueError("captions by an endpoint need url (http:// or https://) and model")
        return self


class QaConfig(Closed):
    """Question-answer pairs (UniF2aceD)."""

    each: int = Field(default=0, ge=0, le=64, description="pairs a face, spread over the kinds and languages")
    languages: Languages = Field(default=("en",), description="ISO 639-1 codes")


class FilterConfig(Closed):
    """What is set aside. A row set aside stays in its shard with its `error` filled; readers pass over it."""

    min_side: int = Field(default=64, ge=16, description="pixels of the shorter side before resizing")
    max_pixels: int = Field(default=64_000_000, ge=4096, description="pixels that a picture may decode to")
    min_sharpness: float = Field(default=0.0, ge=0, description="least Laplacian energy; 0 keeps blurred ones")
    duplicates: Literal["keep", "exact", "near"] = Field(default="exact", description="which copies are set aside")


class SplitConfig(Closed):
    """Shares of people, not of pictures: nobody is in two splits. An archive's own split wins where it has one."""

    validation: float = Field(default=0.05, ge=0, lt=1)
    test: float = Field(default=0.05, ge=0, lt=1)
    own: bool = Field(default=True, description="use the archive's split lists where it has them")

    @model_validator(mode="after")
    def _leaves_training(self) -> SplitConfig:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test leave nobody to train on: their sum must be below 1")
        return self


class ShardConfig(Closed):
    """How the result is cut."""

    rows: int = Field(default=1024, ge=1, description="source rows a shard; 512 px faces come to 64-256 MB")
    chunk: int = Field(default=32, ge=1, description="source rows that travel together; all that a killed job repeats")
    format: Literal["rows", "m3celeba", "webdataset"] = Field(default="rows", description="columns and container")
    pictures: Literal["jpeg", "png"] = Field(
        default="jpeg", description="files of the faces: JPEG of quality 95, or PNG (for renders); maps are PNG always"
    )


class DatasetConfig(Closed):
    """`jobs/preprocess.py`: one archive in, one dataset out."""

    source: SourceConfig
    output: str = Field(default="", description="new or unfinished folder, or s3:// address, of the dataset")
    align: AlignConfig = Field(default_factory=AlignConfig)
    parser: AnnotatorConfig = Field(default_factory=AnnotatorConfig)
    landmarks: AnnotatorConfig = Field(default_factory=AnnotatorConfig)
    attributes: AnnotatorConfig = Field(default_factory=AnnotatorConfig)
    captions: CaptionConfig = Field(default_factory=CaptionConfig)
    qa: QaConfig = Field(default_factory=QaConfig)
    filter: FilterConfig = Field(default_factory=FilterConfig)
    split: SplitConfig = Field(default_factory=SplitConfig)
    shards: ShardConfig = Field(default_factory=ShardConfig)
    seed: int = Field(default=0, ge=0, description="seed of every draw (captions, questions)")
    max_errors: float = Field(default=0.05, ge=0, le=1, description="share of bad rows past which the job fails")


class PlacementConfig(Closed):
    """How the job spreads over the cluster; the result does not depend on it."""

    workers: int = Field(default=1, ge=1, description="annotator processes, each with one copy of every model")
    cpus: float = Field(default=1.0, gt=0, description="CPUs of an annotator process")
    gpus: float = Field(default=0.0, ge=0, description="GPUs of an annotator process")
    threads: int = Field(default=1, ge=1, description="torch threads of an annotator process")


class StorageConfig(Closed):
    """How s3:// addresses are reached; credentials come from the environment, as for every S3 client."""

    endpoint: str = Field(default="", description="address of an S3 server that is not Amazon's")
    retries: int = Field(default=5, ge=0, description="how often a failed request is tried again")


class PreprocessConfig(Closed):
    """The whole job file."""

    data: DatasetConfig
    placement: PlacementConfig = Field(default_factory=PlacementConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
