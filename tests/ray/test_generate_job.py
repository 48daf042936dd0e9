"""The job that makes faces up: each is the face of its words alone, also when the job was stopped on the way."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from m3face.config.generate import GenerateConfig
from m3face.config.job import run_job
from m3face.data.faces import DecodeRows
from m3face.errors import Cancelled, CheckpointError, OutputError
from m3face.pipelines.generating import run_wishes
from m3face.pipelines.text_to_face import FaceWish
from m3face.presets import get
from m3face.stages import open_stage

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("small_ray", "one_thread")]

PROMPTS = ("a young woman", "ein alter Mann", "x" * 601, "una chica rubia", "a bald man")


def _config(prompts: Path, weights: Path, output: Path, **data: Any) -> GenerateConfig:
    shards = {"rows": 3, "chunk": 1, "pictures": "png"}
    own = {"prompts": str(prompts), "weights": f"dir:{weights}", "output": str(output), "steps": 2, "seed": 4}
    split = {"validation": 0.3, "test": 0.3}
    return GenerateConfig.model_validate({"data": {**own, "split": split, "shards": shards, "max_errors": 0.2, **data}})


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prompts") / "faces.txt"
    file.write_text("\n".join(PROMPTS))
    return file


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made") / "faces"


@pytest.fixture
def dataset(small_ray: None, prompts: Path, random_weights: Path, made: Path) -> Path:
    """Made once, without a stop."""
    from m3face.distributed.generating import generate_dataset

    if not made.exists():
        generate_dataset(_config(prompts, random_weights, made), say=lambda line: None)
    return made


def _records(folder: Path) -> dict[int, dict[str, Any]]:
    """The rows by their number, with the name of the file that each is in."""
    found = {}
    for file in (folder / "data").iterdir():
        for record in pq.read_table(file).to_pylist():
            found[int(record["id"].rpartition("-")[2])] = {**record, "file": file.name}
    return found


def test_every_face_is_that_of_its_words(dataset: Path, random_weights: Path) -> None:
    records = _records(dataset)
    assert sorted(records) == list(range(len(PROMPTS)))
    assert len({record["id"].rpartition("-")[0] for record in records.values()}) == 1
    assert records[2]["error"].startswith("prompt: has 601 characters") and records[2]["file"].startswith("set_aside")
    del records[2]
    stages = {name: open_stage(name, f"dir:{random_weights}") for name in ("text", "conditions", "face")}
    wishes = [FaceWish.of(get("tiny"), PROMPTS[i], seed=4 + i, face_steps=2) for i in sorted(records)]
    for (number, record), alone in zip(sorted(records.items()), run_wishes(wishes, stages)):
        arrays = DecodeRows(128)._face({**record, "attributes": dict.fromkeys(record["attributes"])} | _known(record))
        assert np.array_equal(arrays["image"], alone.picture)
        assert np.array_equal(arrays["label_map"], alone.label_map)
        assert np.array_equal(arrays["landmarks"], alone.landmarks)
        assert record["file"].startswith(record["split"])
        assert [texts for texts in record["captions"].values() if texts] == [[PROMPTS[number]]]
        info = Image.open(io.BytesIO(record["image"]["bytes"])).info
        assert info["Comment"] == "made by a model, shows no real person"
        assert json.loads(info["m3face"])["seed"] == 4 + number


def _known(record: dict[str, Any]) -> dict[str, Any]:
    """Its attributes with a value each, as the reader of arrays wants them."""
    from m3face.faces import ATTRIBUTES

    return {"attributes": {a.name: record["attributes"][a.name] or a.values[0] for a in ATTRIBUTES.values()}}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stopped_in_the_middle_it_becomes_the_same(
    dataset: Path,
    prompts: Path,
    random_weights: Path,
    tmp_path: Path,
    after_chunks: Callable[[int, Callable[[], None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from m3face.distributed import filling
    from m3face.distributed.generating import generate_dataset

    def stop() -> None:
        raise Cancelled("SIGTERM", "told to stop", "a job that runs to its end")

    plain = filling.Progress.add
    after_chunks(2, stop)
    config = _config(prompts, random_weights, tmp_path / "faces")
    with pytest.raises(Cancelled):
        generate_dataset(config, say=lambda line: None)
    assert not (tmp_path / "faces" / "data").exists()
    monkeypatch.setattr(filling.Progress, "add", plain)
    said: list[str] = []
    generate_dataset(config, say=said.append)
    assert _files(tmp_path / "faces") == _files(dataset)
    generate_dataset(config, say=said.append)
    assert said[-1].endswith("is finished already")
    with pytest.raises(OutputError, match="holds another dataset, made with seed=4; allowed: one made with seed=5"):
        generate_dataset(_config(prompts, random_weights, tmp_path / "faces", seed=5), say=said.append)
    (tmp_path / "other.txt").write_text("someone else")
    with pytest.raises(OutputError, match="made with prompts="):
        generate_dataset(_config(tmp_path / "other.txt", random_weights, tmp_path / "faces"), say=said.append)


def test_what_is_wrong_is_told_before_ray_starts(
    root: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from m3face.distributed import generating, making

    def no_ray(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(making, "cluster", no_ray)
    with pytest.raises(CheckpointError, match="weights"):
        generating.generate_dataset(_config(prompts, tmp_path, tmp_path / "out"), say=lambda line: None)
    spec = spec_from_file_location("generate_job", root / "jobs" / "generate.py")
    assert spec is not None and spec.loader is not None
    job = module_from_spec(spec)
    spec.loader.exec_module(job)
    grid, lines = (str(root / "jobs" / "configs" / f"generate_{name}.yaml") for name in ("grid", "prompts"))
    for arguments, code, said in (
        (["--config", grid], 2, "data.output: is empty"),
        (["--config", grid, "--set", "data.grid.languages=[xx]"], 2, "'xx', which is none of en"),
        (["--config", lines, "--set", "data.prompts=none.txt", f"data.output={tmp_path}/out"], 2, "none.txt: No such"),
        (["--config", "none.yaml"], 2, "none.yaml: No such file"),
    ):
        assert run_job(job.GenerateConfig, job.work, "", arguments) == code
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert not (tmp_path / "out").exists()
