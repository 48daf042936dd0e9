"""Archives of faces in every published layout, each behind numbers: `open_source(config)` is a `Source`."""

from __future__ import annotations

from m3face.config.dataset import Layout, SourceConfig
from m3face.data.pictures import MOST_PIXELS
from m3face.data.rows import Source
from m3face.data.sources.archive import FIELD, Archive
from m3face.data.sources.base import ArchiveSource
from m3face.data.sources.celeba import Celeba
from m3face.data.sources.celebamask_hq import CelebaMaskHq
from m3face.data.sources.ffhq import Ffhq
from m3face.data.sources.imagefolder import ImageFolder
from m3face.data.sources.m3celeba import M3Celeba
from m3face.data.sources.orders import LABEL_ORDERS
from m3face.data.sources.parquet import Parquet
from m3face.data.sources.webdataset import WebDataset
from m3face.errors import ConfigError, DataError

LAYOUTS: dict[Layout, type[ArchiveSource]] = {
    "celebamask-hq": CelebaMaskHq,
    "celeba": Celeba,
    "imagefolder": ImageFolder,
    "webdataset": WebDataset,
    "m3celeba": M3Celeba,
    "parquet": Parquet,
    "ffhq": Ffhq,
}
"""What has an archive, the most particular first: the first one that lacks nothing is what an archive is."""


def open_source(config: SourceConfig, *, max_pixels: int = MOST_PIXELS) -> Source:
    """The archive that `config` names. Lists are read, and of the pictures only the first where its map needs an order.

    Raises DataError for a path that does not exist, an archive without what its layout needs or without faces, and
    wrong lists; ConfigError for settings that do not fit.
    """
    if config.layout == "synthetic":
        from m3face.data.sources.synthetic import Synthetic  # the renderer, which no archive needs

        return Synthetic(config)
    if not config.path:
        raise ConfigError(FIELD, "is empty", "a folder or an s3:// address", f"where is the {config.layout} archive?")
    archive, layout = Archive(config.path), LAYOUTS[config.layout]
    lacks = layout.missing(archive)
    if lacks is not None:
        raise DataError(
            FIELD, f"{config.path} lacks {lacks}", f"{config.layout}: {layout.needs}", _remedy(archive, config.layout)
        )
    source = layout(config, archive, max_pixels)
    if not len(source):
        raise DataError(FIELD, f"{config.path} holds no face", f"{config.layout}: {layout.needs}")
    source.check_order()
    return source


def detect(archive: Archive) -> Layout:
    """The layout of an archive. Raises DataError where it is none."""
    for name, layout in LAYOUTS.items():
        if layout.missing(archive) is None:
            return name
    allowed = "; ".join(f"{name} ({layout.needs})" for name, layout in LAYOUTS.items())
    raise DataError(FIELD, f"{archive.location} is in no layout known here", allowed, "is it one folder further down?")


def _remedy(archive: Archive, layout: Layout) -> str:
    """A word on what the archive may be instead."""
    try:
        return f"is it {detect(archive)}?"
    except (ConfigError, DataError):
        return f"is the {layout} archive in another folder?"


__all__ = ["LABEL_ORDERS", "LAYOUTS", "Archive", "detect", "open_source"]
