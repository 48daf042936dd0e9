"""A folder as storage: whole files or none, and each failure as one line that names the setting."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from m3face.config.dataset import StorageConfig
from m3face.data.storage import open_storage, s3_environment
from m3face.errors import DataError, OutputError


def test_files_are_published_whole_and_found_again(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"))
    assert storage.is_empty() and storage.names("a") == [] and not storage.exists("a/x")
    storage.publish("a/x", b"1")
    storage.publish("a/x", b"2")
    with storage.workspace(".work/scratch") as scratch:
        (scratch / "y").write_bytes(b"3")
        storage.publish_file("a/y", scratch / "y")
    assert storage.names("a") == ["x", "y"] and not storage.is_empty()
    assert storage.read("a/x") == b"2"
    with storage.open("a/y") as file:
        file.seek(0)
        assert file.read() == b"3"
    assert not any((tmp_path / "out/.work/scratch").iterdir())
    storage.remove("a/x")
    storage.remove("a/x")
    storage.remove("a")
    assert not storage.exists("a")


def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(str(tmp_path))
    storage.publish("x", b"before")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="data.output: .*x: No space left on device; allowed: free space; .*kept"):
        storage.publish("x", b"after")
    with pytest.raises(OutputError, match="No space left"), storage.workspace("scratch") as scratch:
        (scratch / "y").write_bytes(b"3")
        storage.publish_file("y", scratch / "y")
    assert storage.read("x") == b"before" and storage.names("") == ["x"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scratch", "x"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = open_storage(str(tmp_path / "file"))
    with pytest.raises(OutputError, match=r"data.output: .*file: Not a directory; allowed: a place that can be read"):
        storage.is_empty()
    with pytest.raises(OutputError, match="data.output: .*: (Not a directory|File exists)"):
        storage.publish("x", b"")


def test_a_missing_file_is_an_error_of_the_kind_that_was_asked_for(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path), field="data.source.path", kind=DataError)
    with pytest.raises(DataError, match=r"data.source.path: .*x: No such file"):
        storage.read("x")


@pytest.mark.parametrize("address", ["", "s3://", "http://somewhere/faces"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(OutputError, match="data.output: "):
        open_storage(address)


def test_settings_reach_every_client_of_a_process() -> None:
    assert s3_environment(StorageConfig(retries=2)) == {"AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": "3"}
    assert s3_environment(StorageConfig(endpoint="http://here"))["AWS_ENDPOINT_URL"] == "http://here"
