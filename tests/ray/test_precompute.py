"""Caches made by actors are those of a plain build, bit for bit, whatever happens to the actors on the way."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from m3face.config.dataset import PlacementConfig
from m3face.config.job import run_job
from m3face.config.precompute import PrecomputeConfig
from m3face.data import embedded, encoded
from m3face.data.faces import captions, faces
from m3face.data.store import ArrayStore, build_store, here
from m3face.distributed.actors import Actors
from m3face.distributed.cluster import worker_environment
from m3face.distributed.precomputing import precompute
from m3face.errors import CheckpointError, ConfigError, DataError
from tests.ray.squares import Squares
from tests.written import rendered_row, write_dataset

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("small_ray", "one_thread")]

FACES = 210  # three chunks of a hundred, and four of 64
EVERY = ("faces", "text_states", "tokens", "latents", "identities", "clip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of six faces, again and again."""
    six = [rendered_row(index, size=64) for index in range(6)]
    rows = [replace(six[index % 6], id=f"face-{index}") for index in range(FACES)]
    return write_dataset(tmp_path_factory.mktemp("dataset") / "faces", rows, rows=100, chunk=50)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model of a few thousand fresh parameters, in the layout of the real ones."""
    import torch
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

    folder = tmp_path_factory.mktemp("clip")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=8, **sizes)
        CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def _config(folder: Path, weights: Path, runs: Path, **more: Any) -> PrecomputeConfig:
    data = {"source": "dataset", "path": str(folder), "flip": True, **more.pop("data", {})}
    fields = {"weights": f"dir:{weights}", "runs": str(runs), "data": data, "placement": {"workers": 2}, **more}
    return PrecomputeConfig.model_validate(fields)


def _plainly(config: PrecomputeConfig, weights: Path, clip: Path, root: Path) -> list[ArrayStore]:
    """The same caches in one process."""
    own = faces(config.data, root, spread=here)
    more: dict[str, Any] = {"root": root, "faces": own, "device": "cpu"}
    stores = [own, encoded.text_states(**more, weights=weights, captions=captions(config.data, own))]
    for mirrored in (False, True):
        stores.append(encoded.condition_tokens(**more, weights=weights, mirrored=mirrored))
        stores.append(encoded.latents(**more, weights=weights, mirrored=mirrored))
    return [
        *stores,
        embedded.identities(**more, weights=weights),
        embedded.clip_embeddings(**more, folder=clip),
    ]


def test_every_cache_is_that_of_a_plain_build(folder: Path, random_weights: Path, clip: Path, tmp_path: Path) -> None:
    config = _config(folder, random_weights, tmp_path, caches=EVERY, clip=str(clip))
    said: list[str] = []
    made = [ArrayStore(path) for path in precompute(config, said.append)]
    plain = _plainly(config, random_weights, clip, tmp_path / "plain")
    assert [store.folder.name for store in made] == [store.folder.name for store in plain]
    assert all(store.folder.parent == tmp_path / "caches" for store in made)
    for one, other in zip(made, plain):
        assert len(one) == FACES
        for path in other.folder.glob("*.npy"):
            assert np.array_equal(one[path.stem], other[path.stem]), path
    vectors = made[-1]["vector"].astype(np.float32)
    assert np.allclose((vectors**2).sum(1), 1, atol=1e-2)
    assert said[-1] == f"{FACES} faces: {made[-1].folder}"


def test_what_is_there_is_not_made_again(folder: Path, random_weights: Path, tmp_path: Path) -> None:
    config = _config(folder, random_weights, tmp_path, caches=("latents",), data={"flip": False})

    def stopped(encode: Any, given: Any) -> Any:
        """The chunk in the middle only, with something else in it."""
        first, read = list(given)[1]
        yield first, {name: np.full_like(values, 7) for name, values in encode(read).items()}
        raise KeyboardInterrupt

    own = faces(config.data, tmp_path / "caches", spread=here)
    with pytest.raises(KeyboardInterrupt):
        encoded.latents(tmp_path / "caches", own, random_weights, device="cpu", spread=stopped)
    (made,) = (ArrayStore(path) for path in precompute(config, lambda _: None))
    plain = encoded.latents(tmp_path / "plain", own, random_weights, device="cpu")
    for name in ("mean", "std"):
        assert np.array_equal(made[name][:100], plain[name][:100])
        assert (made[name][100:200] == 7).all()
        assert np.array_equal(made[name][200:], plain[name][200:])
    before = {path: path.stat().st_mtime_ns for path in made.folder.iterdir()}
    assert precompute(config, lambda _: None) == [made.folder]
    assert {path: path.stat().st_mtime_ns for path in made.folder.iterdir()} == before


def test_a_cache_of_other_weights_is_refused_by_name(folder: Path, random_weights: Path, tmp_path: Path) -> None:
    config = _config(folder, random_weights, tmp_path, caches=("latents",), data={"flip": False})
    (made,) = precompute(config, lambda _: None)
    index = made / "index.json"
    encoder = ArrayStore(made).key["encoder"]
    index.write_text(index.read_text().replace(encoder, "0" * 12))  # old arrays under the new name
    with pytest.raises(DataError, match=f"^cache {made.name}: was made with encoder='000000000000'; .*'{encoder}'"):
        precompute(config, lambda _: None)


# -------------------------------------------------------------------------------------------------------- bare actors
def _squares(root: Path, encode: Squares, workers: int = 2) -> ArrayStore:
    numbers: dict[str, Any] = {"key": {"n": 1}, "count": 95, "chunk": 10, "fields": {"square": ("int64", ())}}
    with Actors(PlacementConfig(workers=workers), worker_environment({})) as spread:
        return build_store(root, "squares", encode=encode, spread=spread, **numbers)


def test_an_actor_that_dies_is_begun_anew(tmp_path: Path) -> None:
    store = _squares(tmp_path, Squares(dies=tmp_path / "died"))
    assert (tmp_path / "died").exists()
    assert np.array_equal(store["square"], np.arange(95) ** 2)


def test_what_an_encoder_refuses_arrives_as_it_was_raised(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _squares(tmp_path, Squares(refuses=True))
    assert str(caught.value) == "face 40: is wrong; allowed: a right one; leave it out"
    assert type(caught.value) is DataError
    assert np.array_equal(_squares(tmp_path, Squares())["square"], np.arange(95) ** 2)


# ------------------------------------------------------------------------------------------------------------ refusals
def test_what_cannot_be_made_is_told_before_anything_is_read(
    folder: Path, random_weights: Path, tmp_path: Path
) -> None:
    shutil.copytree(random_weights, tmp_path / "weights")
    shutil.rmtree(tmp_path / "weights" / "vae")
    with pytest.raises(CheckpointError, match="vae"):
        precompute(_config(folder, tmp_path / "weights", tmp_path / "runs"), lambda _: None)
    with pytest.raises(ConfigError, match="^data.size: 64; allowed: 128"):
        precompute(_config(folder, random_weights, tmp_path / "runs", data={"size": 64}), lambda _: None)
    assert not (tmp_path / "runs").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    config = _config(folder, random_weights, tmp_path / "runs", caches=("clip",), clip=str(empty))
    with pytest.raises(CheckpointError, match=f"^clip: {empty}: "):
        precompute(config, lambda _: None)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.path=''",), "data.path is empty"),
        (("data.path=x", "caches=[clip]"), "clip names the folder"),
        (("data.path=x", "caches=[states]"), "'text_states'"),
        (("data.path=x", "placement.workers=0"), "placement.workers"),
        (("data.path=/nowhere/at/all",), "/nowhere/at/all has no shards of the split 'train'"),
    ],
)
def test_the_job_answers_in_one_line(overrides: tuple[str, ...], said: str, root: Path, capsys: Any) -> None:
    module = _job(root)
    arguments = ["--config", str(root / "jobs/configs/precompute_tiny.yaml"), "--set", *overrides]
    code = run_job(module.PrecomputeConfig, module.work, "", arguments)
    error = capsys.readouterr().err
    assert code in (2, 4)
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def _job(root: Path) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("precompute_job", root / "jobs" / "precompute.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
