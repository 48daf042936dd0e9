"""The job on Ray makes what the steps make in this process, also when it was stopped on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from m3face.config.dataset import PreprocessConfig
from m3face.data.filtering import HASH, set_aside_copies
from m3face.data.rows import Row
from m3face.data.sources import open_source
from m3face.errors import Cancelled, ConfigError, DataError, OutputError
from m3face.pipelines.preparing import prepare, steps
from tests.archives import celebamask_hq
from tests.made_rows import same

pytestmark = pytest.mark.ray

COUNT = 10


def settings(archive: Path, output: Path, **more: object) -> PreprocessConfig:
    data = {
        "source": {"layout": "celebamask-hq", "path": str(archive)},
        "output": str(output),
        "align": {"size": 64},
        "captions": {"languages": ["en", "hi"], "each": 2},
        "qa": {"each": 2},
        "shards": {"rows": 6, "chunk": 2, "pictures": "png"},
        "split": {"validation": 0.2, "test": 0.2},
        "max_errors": 0.2,
        **more,
    }
    return PreprocessConfig.model_validate({"data": data})


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As published, but for a picture that is cut off and one that is there twice."""
    folder = tmp_path_factory.mktemp("archive") / "CelebAMask-HQ"
    celebamask_hq(folder, COUNT)
    pictures = sorted((folder / "CelebA-HQ-img").iterdir(), key=lambda path: int(path.stem))
    pictures[4].write_bytes(pictures[4].read_bytes()[:200])
    pictures[9].write_bytes(pictures[1].read_bytes())
    return folder


@pytest.fixture(scope="session")
def made(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made") / "faces"


@pytest.fixture
def dataset(small_ray: None, archive: Path, made: Path) -> Path:
    """Made once, without a stop."""
    from m3face.distributed.preparing import prepare_dataset

    if not made.exists():
        prepare_dataset(settings(archive, made), say=lambda line: None)
    return made


def read(folder: Path) -> dict[str, tuple[str, Row]]:
    """Each row by its id, with the split that its file is named after."""
    import pyarrow.parquet as pq

    from m3face.data.parquet import from_table

    found: dict[str, tuple[str, Row]] = {}
    for file in sorted((folder / "data").iterdir()):
        for row in from_table(pq.read_table(file)):
            assert row.id not in found, "twice"
            found[row.id] = (file.name.split("-")[0], row)
    return found


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_row_by_row_as_in_this_process(dataset: Path, archive: Path, one_thread: None) -> None:
    config = settings(archive, dataset).data
    source = open_source(config.source)
    rows = prepare(source.read(range(len(source))), [step for group in steps(config) for step in group])
    copies = set_aside_copies([None if row.error else row.notes[HASH] for row in rows], "exact")
    assert copies == {9: 1} and [index for index, row in enumerate(rows) if row.error] == [4]
    found = read(dataset)
    assert len(found) == COUNT
    for index, row in enumerate(rows):
        split, other = found[row.id]
        if index in copies:
            assert other.error is not None and other.error.startswith(f"image: is a copy of {rows[1].id};")
            row.error = other.error
        same(row, other)
        assert split == ("set_aside" if row.error else row.split)
    assert all(row.landmarks is not None and row.captions["hi"] and row.qa for row in rows if row.error is None)


def test_stopped_in_the_middle_it_becomes_the_same(
    dataset: Path, archive: Path, tmp_path: Path, after_chunks: Callable[[int, Callable[[], None]], None]
) -> None:
    from m3face.distributed import filling
    from m3face.distributed.preparing import prepare_dataset

    def stop() -> None:
        raise Cancelled("SIGTERM", "told to stop", "a job that runs to its end")

    plain = filling.Progress.add
    after_chunks(2, stop)
    with pytest.raises(Cancelled):
        prepare_dataset(settings(archive, tmp_path / "faces"), say=lambda line: None)
    finished = len(list((tmp_path / "faces/.work/parts").iterdir()))
    assert finished >= 2 and not (tmp_path / "faces/data").exists()

    filling.Progress.add = plain  # type: ignore[method-assign]
    said: list[str] = []
    prepare_dataset(settings(archive, tmp_path / "faces"), say=said.append)
    assert every_file(tmp_path / "faces") == every_file(dataset)
    prepare_dataset(settings(archive, tmp_path / "faces"), say=said.append)
    assert said[-1].endswith("is finished already")


def test_too_many_bad_rows_end_the_job_by_name(small_ray: None, archive: Path, tmp_path: Path) -> None:
    from m3face.distributed.preparing import prepare_dataset

    strict = partial(settings, archive, tmp_path / "faces", parser={"when": "never"}, landmarks={"when": "never"})
    strict = partial(strict, attributes={"when": "never"}, qa={"each": 0})
    expected = r"data.max_errors: 1 of 10 rows are bad \(10.0%\); the first is row 4 "
    with pytest.raises(DataError, match=expected) as error:
        prepare_dataset(strict(max_errors=0.05), say=lambda line: None)
    assert error.value.exit_code == 4 and type(error.value) is DataError
    assert not (tmp_path / "faces/data").exists()
    facts = prepare_dataset(strict(max_errors=0.1), say=lambda line: None)
    assert facts["errors"]["rows"] == 1 and facts["errors"]["first"][0] == 4
    assert json.loads((tmp_path / "faces/report.json").read_text())["errors"] == json.loads(json.dumps(facts["errors"]))


def test_an_error_in_a_worker_arrives_as_one_line(small_ray: None, archive: Path, tmp_path: Path) -> None:
    from m3face.distributed.preparing import prepare_dataset

    def remove_the_plan(line: str) -> None:
        (tmp_path / "faces/.work/plan.json").unlink(missing_ok=True)

    with pytest.raises(OutputError, match="data.output: .* is not to be seen from every node") as error:
        prepare_dataset(
            settings(archive, tmp_path / "faces", attributes={"when": "never"}, landmarks={"when": "never"}),
            say=remove_the_plan,
        )
    assert type(error.value) is OutputError and "\n" not in str(error.value)


def test_a_budget_is_one_for_all_processes(small_ray: None) -> None:
    import ray

    from m3face.distributed.preparing import Budget

    budget = Budget(3)
    asked = [ray.remote(lambda budget: budget()).options(num_cpus=0.5).remote(budget) for _ in range(4)]
    assert sorted(ray.get(asked)) == [False, True, True, True] and budget() is False


def test_what_is_wrong_is_told_before_ray_starts(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m3face.distributed import making, preparing

    def no_ray(**_: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(making, "cluster", no_ray)
    run = partial(preparing.prepare_dataset, say=lambda line: None)
    with pytest.raises(ConfigError, match="data.output: is empty"):
        run(PreprocessConfig.model_validate({"data": {"source": {"layout": "ffhq"}}}))
    with pytest.raises(DataError, match="data.source.path: .* does not exist"):
        run(settings(tmp_path / "nothing", tmp_path / "out"))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty"):
        run(settings(archive, tmp_path / "thesis"))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="'faces' would lie in the submitted job's own copy"):
        run(settings(archive, Path("faces")))
    assert not (tmp_path / "out").exists()
