"""Stores of arrays: built once, finished where they stopped, kept apart by what they were made from."""

from __future__ import annotations

import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from m3face.data.people import LOOKS, attribute_codes, attribute_values, people
from m3face.data.store import ArrayStore, build_store, in_processes, key_digest
from m3face.errors import DataError, OutputError
from m3face.synthetic import make_sample

FIELDS = {"square": ("int64", ()), "pair": ("float32", (2,))}


class Squares:
    """Numbers of samples to their arrays; notes the first of each range, and fails at the range `fails_at`."""

    def __init__(self, *, fails_at: int = -1) -> None:
        self.asked: list[int] = []
        self.fails_at = fails_at

    def __call__(self, samples: range) -> dict[str, NDArray[Any]]:
        if samples.start == self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(samples.start)
        numbers = np.array(samples)
        return {"square": numbers**2, "pair": np.stack([numbers, -numbers], axis=1).astype(np.float32)}


def _build(root: Path, encode: Any, **more: Any) -> ArrayStore:
    numbers: dict[str, Any] = {"key": {"kind": "squares", "power": 2}, "count": 25, "chunk": 10, **more}
    return build_store(root, "numbers", fields=FIELDS, encode=encode, **numbers)


def test_built_once_then_opened(tmp_path: Path) -> None:
    squares, told = Squares(), []
    store = _build(tmp_path, squares, on_progress=lambda done, total: told.append((done, total)))
    assert squares.asked == [0, 10, 20]
    assert told == [(10, 25), (20, 25), (25, 25)]
    assert len(store) == 25
    assert np.array_equal(store["square"], np.arange(25) ** 2)
    assert store["pair"][7].tolist() == [7, -7]
    assert store.key == {"kind": "squares", "power": 2}
    again = Squares()
    assert _build(tmp_path, again).folder == store.folder
    assert again.asked == []


def test_an_interrupted_build_goes_on_at_the_first_unmarked_chunk(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path, Squares(fails_at=10))
    assert [p.suffix for p in tmp_path.iterdir()] == [".building"]  # nothing half-made bears the store's name
    with pytest.raises(DataError, match="no readable index"):
        ArrayStore(next(tmp_path.iterdir()))
    squares = Squares()
    store = _build(tmp_path, squares)
    assert squares.asked == [10, 20]
    assert np.array_equal(store["square"], np.arange(25) ** 2)
    assert [p.name for p in tmp_path.iterdir()] == [store.folder.name]


def test_another_key_is_another_folder(tmp_path: Path) -> None:
    one = _build(tmp_path, Squares())
    other = _build(tmp_path, Squares(), key={"kind": "squares", "power": 3})
    assert one.folder != other.folder
    assert key_digest({"a": 1, "b": 2}) == key_digest({"b": 2, "a": 1}) != key_digest({"a": 2, "b": 2})


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"kind": "squares", "power": 3}, "power=2; allowed: power=3"),
        ({"kind": "squares"}, "power=2; allowed: power=None"),
        ({"kind": "squares", "power": 2, "encoder": "abc"}, "encoder=None; allowed: encoder='abc'"),
    ],
)
def test_require_names_the_part_that_differs(wanted: dict[str, Any], said: str, tmp_path: Path) -> None:
    store = _build(tmp_path, Squares())
    assert store.require({"power": 2, "kind": "squares"}) is store
    with pytest.raises(DataError) as caught:
        store.require(wanted)
    assert said in str(caught.value)
    assert store.folder.name in str(caught.value)


class Slow(Squares):
    """Tells by its file that it has begun, and takes a while."""

    def __init__(self, began: Path) -> None:
        super().__init__()
        self.began = began

    def __call__(self, samples: range) -> dict[str, NDArray[Any]]:
        self.began.touch()
        time.sleep(0.1)
        return super().__call__(samples)


def test_of_two_processes_that_want_one_store_one_waits(tmp_path: Path) -> None:
    root, began = tmp_path / "root", tmp_path / "began"
    other = multiprocessing.get_context("fork").Process(target=_build, args=(root, Slow(began)))
    other.start()
    while not began.exists():
        time.sleep(0.005)
    squares = Squares()
    store = _build(root, squares)
    other.join()
    assert other.exitcode == 0
    assert squares.asked == []
    assert np.array_equal(store["square"], np.arange(25) ** 2)
    assert [p.name for p in root.iterdir()] == [store.folder.name]


def test_what_is_read_cannot_be_written(tmp_path: Path) -> None:
    store = _build(tmp_path, Squares())
    with pytest.raises(ValueError, match="read-only"):
        store["square"][0] = 1


def test_processes_make_what_one_process_makes(tmp_path: Path) -> None:
    told: list[int] = []
    stores = [
        _build(tmp_path / "here", Squares()),
        _build(tmp_path / "there", Squares(), spread=in_processes(2), on_progress=lambda done, _: told.append(done)),
    ]
    assert len(told) == 3 and told[-1] == 25
    for name in FIELDS:
        assert np.array_equal(stores[0][name], stores[1][name])


def test_chunks_may_come_back_in_any_order_and_from_what_was_read(tmp_path: Path) -> None:
    def backwards(encode: Any, given: Any) -> Any:
        return reversed([(number, encode(read)) for number, read in given])

    def encode(numbers: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {"square": numbers**2, "pair": np.stack([numbers, -numbers], axis=1)}

    told: list[tuple[int, int]] = []
    store = _build(tmp_path, encode, read=np.arange, spread=backwards, on_progress=lambda *facts: told.append(facts))
    assert told == [(5, 25), (15, 25), (25, 25)]
    assert np.array_equal(store["square"], np.arange(25) ** 2)


def test_only_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    """Of a build that lost its middle, in whatever order its chunks came."""

    def without_the_middle(encode: Any, given: Any) -> Any:
        read = dict(given)
        yield from ((number, encode(read[number])) for number in (20, 0))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _build(tmp_path, Squares(), spread=without_the_middle)
    squares = Squares()
    store = _build(tmp_path, squares)
    assert squares.asked == [10]
    assert np.array_equal(store["square"], np.arange(25) ** 2)


def test_a_worker_that_fails_ends_the_build_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="^face 10: is wrong"):
        _build(tmp_path, Refuses(), spread=in_processes(2))


class Refuses(Squares):
    def __call__(self, samples: range) -> dict[str, NDArray[Any]]:
        if 10 in samples:
            raise DataError("face 10", "is wrong", "a right one")
        return super().__call__(samples)


def test_a_disk_without_room_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    squares = Squares()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, before[1]))  # a file cannot grow past it, as on a full disk
    try:
        with pytest.raises(OutputError, match=r"^cache: .*numbers-.*; allowed: 0\.3 GB of free space; free some"):
            _build(tmp_path, squares, count=20_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert squares.asked == []
    assert not list(tmp_path.rglob("*.npy"))
    assert len(_build(tmp_path, squares)) == 25


def test_people_come_in_pairs_and_equal_the_renderer(tmp_path: Path) -> None:
    told: list[int] = []
    store = people(tmp_path, count=5, seed=3, size=64, processes=2, on_progress=lambda done, _total: told.append(done))
    assert told == [5]
    for index in (0, 3, 4):
        sample = make_sample(3, index // LOOKS, size=64, variant=index % LOOKS)
        assert np.array_equal(store["image"][index], sample.image)
        assert np.array_equal(store["label_map"][index], sample.label_map)
        assert np.array_equal(store["landmarks"][index], sample.landmarks)
        assert attribute_values(store["attributes"][index]) == sample.attributes
        assert np.array_equal(attribute_codes(sample.attributes), store["attributes"][index])
