"""What is planned is made once, whatever happens in between; nobody else's folder is touched."""

from __future__ import annotations

import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from m3face.data.rows import Row
from m3face.data.storage import Storage, open_storage
from m3face.errors import DataError, OutputError
from tests.made_rows import bare_row, fill, full_row, publish, same, small_plan

pytest.importorskip("pyarrow")

import pyarrow.parquet as pq

from m3face.data.parquet import from_table
from m3face.data.shards import Errors, open_output, part_name, unfinished_chunks, write_part


def some_rows() -> list[Row]:
    """20 rows: one bad, the last a copy of row 2."""
    rows = [full_row(index) for index in range(20)]
    rows[5] = bare_row(5)
    rows[19] = replace(full_row(2), id="face-19")
    rows[19].notes["hash"] = rows[2].notes["hash"]
    return rows


def begun(folder: Path, plan: Any) -> Storage:
    storage = open_storage(str(folder))
    assert open_output(storage, plan) is False
    return storage


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(folder: Path, split: str) -> list[Row]:
    return [row for file in sorted((folder / "data").glob(f"{split}-*")) for row in from_table(pq.read_table(file))]


def test_a_plan_covers_every_row_once_and_no_chunk_is_in_two_shards() -> None:
    for count in (1, 8, 20, 27):
        plan = small_plan(count)
        assert [index for chunk in plan.every_chunk() for index in chunk] == list(range(count))
        assert [i for number in range(plan.count) for i in plan.shard(number)] == list(range(count))
        assert all(
            index in plan.chunk_of(index) and plan.chunk_of(index) in plan.every_chunk() for index in range(count)
        )


def test_rows_end_in_the_file_of_their_split_in_source_order(tmp_path: Path) -> None:
    rows, plan = some_rows(), small_plan(20)
    storage = begun(tmp_path / "out", plan)
    fill(storage, plan, rows)
    facts = publish(storage, plan)
    good = [row for index, row in enumerate(rows) if index not in (5, 19)]
    for split in ("train", "validation", "test"):
        expected = [row for row in good if row.split == split]
        found = read(tmp_path / "out", split)
        assert [row.id for row in found] == [row.id for row in expected]
        for one, other in zip(expected, found, strict=True):
            same(one, other)
    bad, copy = read(tmp_path / "out", "set_aside")
    same(rows[5], bad)
    assert copy.id == "face-19" and copy.error is not None and copy.error.startswith("image: is a copy of face-2;")
    same(replace(rows[19], error=copy.error), copy)
    assert facts["rows"] == 20 and facts["copies"] == 1 and facts["errors"]["rows"] == 1
    names = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert names[0] == "set_aside-00000-of-00003.parquet" and len(names) == 3 * 3 + 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "data",
        "report.json",
        "sheet.png",
    ]


@pytest.mark.parametrize("parts", [0, 1, 4])
@pytest.mark.parametrize("shards", [0, 2])
def test_interrupted_twice_it_becomes_the_same_byte_for_byte(tmp_path: Path, parts: int, shards: int) -> None:
    rows, plan = some_rows(), small_plan(20)
    whole = begun(tmp_path / "whole", plan)
    fill(whole, plan, rows)
    publish(whole, plan)

    storage = begun(tmp_path / "broken", plan)
    with pytest.raises(KeyboardInterrupt):
        fill(storage, plan, rows, stop_after=parts)
    assert len(unfinished_chunks(storage, plan)) == len(list(plan.every_chunk())) - parts
    assert not (tmp_path / "broken/data").exists(), "nothing is published before everything is known"
    assert open_output(storage, plan) is False
    fill(storage, plan, rows)
    with pytest.raises(KeyboardInterrupt):
        publish(storage, plan, stop_after=shards)
    assert open_output(storage, plan) is False
    assert unfinished_chunks(storage, plan) == [], "parts that a shard has let go of are not made again"
    publish(storage, plan)
    assert open_output(storage, plan) is True
    assert every_file(tmp_path / "broken") == every_file(tmp_path / "whole")


def test_killed_while_it_tidies_up_it_is_finished(tmp_path: Path) -> None:
    plan = small_plan(4)
    storage = begun(tmp_path, plan)
    fill(storage, plan, [full_row(index) for index in range(4)])
    publish(storage, plan)
    storage.publish(".work/decision.json", b"left over")
    assert open_output(storage, plan) is True


def test_an_output_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    plan, other = small_plan(4), small_plan(5)
    storage = begun(tmp_path / "one", plan)
    with pytest.raises(OutputError, match="another dataset, made with rows=4; allowed: one made with rows=5; give"):
        open_output(storage, other)
    fill(storage, plan, [full_row(index) for index in range(4)])
    publish(storage, plan)
    before = every_file(tmp_path / "one")
    with pytest.raises(OutputError, match=r"made with shards.chunk=3; allowed: one made with shards.chunk=2;"):
        open_output(storage, small_plan(4, chunk=2))
    assert every_file(tmp_path / "one") == before

    (tmp_path / "two").mkdir()
    (tmp_path / "two/thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="data.output: .*two is not empty; allowed: a new or unfinished folder"):
        open_output(open_storage(str(tmp_path / "two")), plan)
    (tmp_path / "two/report.json").write_text("[]")
    with pytest.raises(OutputError, match="is no dataset of ours"):
        open_output(open_storage(str(tmp_path / "two")), plan)
    assert (tmp_path / "two/thesis.txt").read_text() == "mine"


def test_a_part_is_not_written_where_the_plan_is_not_seen(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "elsewhere"))
    with pytest.raises(OutputError, match="is not to be seen from every node; allowed: a folder that all nodes share"):
        write_part(storage, small_plan(3), range(3), [full_row(index) for index in range(3)])
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_leaves_no_part_and_the_job_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, rows = small_plan(6), [full_row(index) for index in range(6)]
    storage = begun(tmp_path, plan)
    write_part(storage, plan, range(3), rows[:3])

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="data.output: .*No space left on device; allowed: free space;"):
            write_part(storage, plan, range(3, 6), rows[3:])
    assert [path.name for path in (tmp_path / ".work/parts").iterdir()] == ["0000000000.parquet"]
    fill(storage, plan, rows)
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space left on device"):
        patch.setattr(os, "fsync", full)
        publish(storage, plan)
    assert not (tmp_path / "data").exists() and not (tmp_path / "README.md").exists()
    assert publish(storage, plan)["rows"] == 6


def test_a_step_that_loses_a_row_is_caught(tmp_path: Path) -> None:
    plan = small_plan(3)
    storage = begun(tmp_path, plan)
    with pytest.raises(DataError, match="made 2 rows of 3"):
        write_part(storage, plan, range(3), [full_row(), full_row(1)])
    fill(storage, plan, [full_row(), full_row(1, split=""), full_row(2)])
    with pytest.raises(DataError, match="1 good rows of shard 0 have no split"):
        publish(storage, plan)
    assert not (tmp_path / "data").exists()


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    plan = small_plan(3)
    storage = begun(tmp_path, plan)
    fill(storage, plan, [full_row(index) for index in range(3)])
    path = tmp_path / part_name(range(3))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"0000000000.parquet: is damaged .*; remove it and start again"):
        publish(storage, plan)


def test_errors_are_counted_by_kind_and_the_limit_holds_whatever_comes() -> None:
    plan, errors = small_plan(10), Errors()
    for index in (7, 3):
        errors.add(index, f"bad-{index}", str(bare_row(index).error))
    errors.add(8, "x", "label_map: is background everywhere; allowed: a map with at least one part of a face")
    assert errors.kinds == {
        "#; allowed: a whole file": 2,
        "label_map; allowed: a map with at least one part of a face": 1,
    }
    errors.check(plan, 0.3)
    with pytest.raises(
        DataError, match=r"3 of 10 rows are bad \(30.0%\); the first is row 3 \(bad-3\): 3.png: is cut off"
    ) as e:
        errors.check(plan, 0.2)
    assert e.value.exit_code == 4 and "\n" not in str(e.value)
    assert Errors.of(json.loads(json.dumps(errors.summary()))) == errors


@pytest.mark.parametrize(("form", "suffix"), [("m3celeba", "parquet"), ("webdataset", "tar")])
def test_other_formats_keep_what_is_set_aside_in_the_row_schema(tmp_path: Path, form: str, suffix: str) -> None:
    rows, plan = some_rows(), small_plan(20, format=form)
    storage = begun(tmp_path, plan)
    fill(storage, plan, rows)
    facts = publish(storage, plan)
    suffixes = {file["split"]: file["name"].rpartition(".")[2] for file in facts["files"]}
    assert suffixes == {"train": suffix, "validation": suffix, "test": suffix, "set_aside": "parquet"}
    assert [row.id for row in read(tmp_path, "set_aside")] == ["bad-5", "face-19"]
    if form == "m3celeba":
        table = pq.read_table(io.BytesIO((tmp_path / "data/train-00000-of-00003.parquet").read_bytes()))
        assert table["captions_eng"].to_pylist()[0] == ["Face 0.", "Someone."]
