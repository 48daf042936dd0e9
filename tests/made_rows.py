"""Rows of people who do not exist, and a dataset filled with them in this process: what the tests of shards share."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

import numpy as np

from m3face.config.dataset import ShardConfig
from m3face.data.rows import Question, Row
from m3face.synthetic import make_sample


@lru_cache
def _sample(look: int) -> Any:
    return make_sample(3, look, size=64)


def full_row(index: int = 0, **changes: Any) -> Row:
    """Row `index`: a person of its own, by what the row says; by the picture one of four."""
    sample = _sample(index % 4)
    row = Row(
        id=f"face-{index}",
        image=sample.image,
        label_map=sample.label_map,
        landmarks=sample.landmarks,
        attributes=dict(sample.attributes),
        captions={"en": [f"Face {index}.", "Someone."], "fa": ["یک چهره"]},
        qa=[Question(question="Who?", answer="Nobody.", kind="appearance", language="en")],
        source="synthetic",
        licence="CC0-1.0",
        identity=f"person-{index}",
        split=("train", "train", "validation", "test", "train")[index % 5],
        notes={"hash": f"{index:064x}"},
    )
    return replace(row, **changes)


def bare_row(index: int = 0) -> Row:
    """One that went wrong."""
    return Row(id=f"bad-{index}", source="ffhq", error=f"{index}.png: is cut off; allowed: a whole file; copy it again")


def same(one: Row, other: Row) -> None:
    """Every field but the notes is equal, arrays in their types too."""
    for field in fields(Row):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "notes":
            continue
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b, field.name


def small_plan(count: int, **shards: Any) -> Any:
    """Shards of 8 rows in chunks of 3, unless said otherwise."""
    from m3face.data.shards import Plan

    config = ShardConfig(**{"rows": 8, "chunk": 3, "pictures": "png", **shards})
    return Plan(rows=count, shards=config, settings={"rows": count, "shards": config.model_dump()}, languages=("en",))


def fill(storage: Any, plan: Any, rows: list[Row], *, stop_after: int | None = None) -> None:
    """Write the parts that are not there yet, as the job's tasks do."""
    from m3face.data.shards import unfinished_chunks, write_part

    for done, chunk in enumerate(unfinished_chunks(storage, plan)):
        if done == stop_after:
            raise KeyboardInterrupt
        write_part(storage, plan, chunk, [rows[index] for index in chunk])


def publish(storage: Any, plan: Any, *, stop_after: int | None = None) -> dict[str, Any]:
    """Decide, publish the shards that are not there yet, and finish, as the job does."""
    from functools import partial

    from m3face.data.card import finish, publish_sheet
    from m3face.data.filtering import set_aside_copies
    from m3face.data.publishing import decide, publish_shard, unfinished_shards

    decision = decide(storage, plan, partial(set_aside_copies, mode="exact"))
    publish_sheet(storage, plan, decision)
    copies = {int(index): first for index, first in decision["copies"].items()}
    for done, number in enumerate(unfinished_shards(storage, plan)):
        if done == stop_after:
            raise KeyboardInterrupt
        publish_shard(storage, plan, number, copies)
    return finish(storage, plan, decision)
