"""Finished datasets of people who do not exist, for what reads datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from m3face.captions import caption
from m3face.data.rows import Row
from m3face.data.shards import open_output
from m3face.data.storage import open_storage
from m3face.synthetic import make_sample
from tests.made_rows import fill, publish, small_plan

LANGUAGES = ("en", "fa")


def rendered_row(index: int, *, size: int = 64) -> Row:
    """Face `index` to train on, two looks of a person side by side, with two captions in each of two languages."""
    sample = make_sample(5, index // 2, size=size, variant=index % 2)
    rng = np.random.default_rng(index)
    return Row(
        id=f"face-{index}",
        image=sample.image,
        label_map=sample.label_map,
        landmarks=sample.landmarks,
        attributes=dict(sample.attributes),
        captions={code: [caption(sample.attributes, code, rng).text for _ in range(2)] for code in LANGUAGES},
        source="synthetic",
        licence="CC0-1.0",
        identity=sample.identity,
        split="train",
    )


def write_dataset(folder: Path, rows: Sequence[Row], /, **shards: object) -> Path:
    """A finished dataset of `rows`, four a shard unless `shards` says otherwise."""
    storage, plan = open_storage(str(folder)), small_plan(len(rows), **{"rows": 4, "chunk": 2, **shards})
    assert not open_output(storage, plan)
    fill(storage, plan, list(rows))
    publish(storage, plan)
    return folder
