"""What training makes of a dataset's faces: mirrored in everything or in nothing, and two pictures of one person."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3face.config import DataConfig, RunConfig, TrainConfig
from m3face.data import encoded
from m3face.data.faces import faces
from m3face.data.store import here
from m3face.errors import CheckpointError, DataError
from m3face.faces import flip_landmarks, flip_map
from m3face.presets import get
from m3face.tasks import Context, make_task
from m3face.training import draws_of_step
from m3face.training.run import train
from tests.written import rendered_row, write_dataset

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 64


def _config(folder: Path, **more: Any) -> DataConfig:
    return DataConfig.model_validate({"source": "dataset", "path": str(folder), "size": SIZE, **more})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces."""
    rows = [rendered_row(index, size=SIZE) for index in range(2)]
    return write_dataset(tmp_path_factory.mktemp("dataset") / "faces", rows)


def test_mirrored_caches_are_the_caches_of_mirrored_faces(folder: Path, random_weights: Path, tmp_path: Path) -> None:
    flipped = [
        replace(
            row,
            image=np.ascontiguousarray(row.image[:, ::-1]),
            label_map=flip_map(row.label_map),
            landmarks=flip_landmarks(row.landmarks, size=SIZE),
        )
        for row in (rendered_row(index, size=SIZE) for index in range(2))
        if row.image is not None and row.label_map is not None and row.landmarks is not None
    ]
    plain = faces(_config(folder), tmp_path, spread=here)
    turned = faces(_config(write_dataset(tmp_path / "turned", flipped)), tmp_path, spread=here)
    for build, names in ((encoded.latents, ("mean", "std")), (encoded.condition_tokens, ("map", "landmarks"))):
        mirrored = build(tmp_path, plain, random_weights, device="cpu", mirrored=True)
        wanted = build(tmp_path, turned, random_weights, device="cpu")
        as_it_is = build(tmp_path, plain, random_weights, device="cpu")
        for name in names:
            assert np.array_equal(mirrored[name], wanted[name]), (build, name)
        assert not np.array_equal(mirrored[names[0]], as_it_is[names[0]])
        assert mirrored.folder != as_it_is.folder and "mirrored" not in as_it_is.key


def _context(folder: Path, weights: Path, caches: Path, component: str, **data: Any) -> Context:
    """What a task of the preset `tiny` learns from, on faces that are enlarged to its size."""
    return Context(
        preset=get("tiny"),
        weights=weights,
        caches=caches,
        data=_config(folder, **{"size": 128, **data}),
        train=TrainConfig(component=component, steps=1),
        seed=0,
        device="cpu",
    )


def test_a_mirrored_sample_is_mirrored_in_everything(folder: Path, random_weights: Path, tmp_path: Path) -> None:
    context = _context(folder, random_weights, tmp_path, "controlnet_mask", flip=True)
    draws = draws_of_step(0, batch_size=8, count=2, seed=0)
    batch = make_task("controlnet_mask", context).batch(draws)
    mirrored = batch["mirrored"].tolist()
    assert 0 < sum(mirrored) < 8
    scale = float(context.frozen("vae").config["scaling_factor"])
    for place, draw in enumerate(draws_of_step(0, batch_size=8, count=2, seed=0)):
        turned = draw.rng.random() < 0.5
        assert turned == mirrored[place]
        own, latents = context.faces["label_map"][draw.index], context.latents
        if turned:
            own, latents = flip_map(own), context.mirrored_latents
        mean, std = (latents[name][draw.index].astype(np.float32) for name in ("mean", "std"))
        clean = (mean + std * draw.rng.standard_normal(mean.shape, dtype=np.float32)) * scale
        assert np.array_equal(batch["clean"][place], clean.astype(np.float32))
        assert np.array_equal(batch["label_map"][place], own)

    without = _context(folder, random_weights, tmp_path, "controlnet_mask")
    plain = make_task("controlnet_mask", without).batch(draws_of_step(0, batch_size=8, count=2, seed=0))
    assert not plain["mirrored"].any()
    assert np.array_equal(plain["label_map"], np.stack([context.faces["label_map"][d.index] for d in draws]))


def test_mirrored_tokens_are_read_where_the_draw_says_so(folder: Path, random_weights: Path, tmp_path: Path) -> None:
    context = _context(folder, random_weights, tmp_path, "transformer", flip=True)
    task: Any = make_task("transformer", context)
    draws = draws_of_step(0, batch_size=8, count=2, seed=0)
    turned = context.mirrors(draws_of_step(0, batch_size=8, count=2, seed=0))
    assert 0 < sum(turned) < 8
    ids = task.batch(draws)["ids"]
    for place, draw in enumerate(draws):
        store = context.mirrored_tokens if turned[place] else context.tokens
        assert np.array_equal(ids[place, :, 0::2], store["map"][draw.index])
        assert np.array_equal(ids[place, :, 1::2] - task.map_codes, store["landmarks"][draw.index])


def test_pairs_of_pictures_are_of_one_person(random_weights: Path, tmp_path: Path) -> None:
    who = ["a", "b", "a", "", "b", "a", "c"]
    rows = [replace(rendered_row(0, size=SIZE), id=f"face-{i}", identity=name) for i, name in enumerate(who)]
    folder = write_dataset(tmp_path / "faces", rows)
    task: Any = make_task("identity_embedder", _context(folder, random_weights, tmp_path, "identity_embedder"))
    assert task.count == 2
    draws = [draw for step in range(30) for draw in draws_of_step(step, batch_size=2, count=2, seed=0)]
    assert {tuple(sorted(task._pair(draw))) for draw in draws} == {(0, 2), (0, 5), (2, 5), (1, 4)}
    alone = write_dataset(tmp_path / "alone", [replace(row, identity=row.id) for row in rows])
    with pytest.raises(DataError, match="0 people have two pictures or more; allowed: at least 2"):
        make_task("identity_embedder", _context(alone, random_weights, tmp_path, "identity_embedder"))


def test_a_dataset_that_changed_under_its_path_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "faces"
    config = RunConfig.model_validate(
        {
            "runs": str(tmp_path / "runs"),
            "data": {"source": "dataset", "path": str(path)},
            "train": {"component": "landmark_vq", "steps": 2, "batch_size": 2},
        }
    )
    for first in (0, 2):
        shutil.rmtree(path, ignore_errors=True)
        write_dataset(path, [rendered_row(index, size=128) for index in range(first, first + 2)])
        if first == 0:
            assert train(config, report=lambda *_: None, device="cpu", deadline_s=0.0) is None
    with pytest.raises(CheckpointError) as caught:
        train(config, report=lambda *_: None, device="cpu")
    assert caught.value.field == "data" and "faces are others" in caught.value.got
