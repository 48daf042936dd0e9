"""Archive and dataset on S3, against a server that refuses each file once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m3face.config.dataset import PreprocessConfig, StorageConfig
from m3face.data.storage import open_storage, s3_environment
from m3face.errors import OutputError
from tests.archives import imagefolder

pytest.importorskip("moto")
s3fs = pytest.importorskip("s3fs")

pytestmark = pytest.mark.ray


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def endpoint(root: Path) -> Iterator[str]:
    """The address of a server with an empty bucket "faces"."""
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.ray.s3_server", str(port)], cwd=root, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(150):
            try:
                urllib.request.urlopen(f"{address}/_refused", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the S3 server ended"
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def bucket(endpoint: str) -> str:
    client = s3fs.S3FileSystem(endpoint_url=endpoint)
    if not client.exists("faces"):
        client.mkdir("faces")
    return endpoint


def refused(endpoint: str) -> int:
    with urllib.request.urlopen(f"{endpoint}/_refused", timeout=5) as answer:
        return int(answer.read())


@pytest.fixture
def reached(bucket: str) -> str:
    """This process speaks to the server, as a job makes it do."""
    os.environ.update(s3_environment(StorageConfig(endpoint=bucket, retries=3)))
    s3fs.S3FileSystem.clear_instance_cache()
    return bucket


def test_a_folder_on_s3_is_a_storage_like_any_other(reached: str, tmp_path: Path) -> None:
    storage = open_storage("s3://faces/flaky/one/")
    before = refused(reached)
    assert storage.is_empty() and storage.names("a") == [] and not storage.exists("a/x")
    storage.publish("a/x", b"1")
    storage.publish("a/x", b"2")
    with storage.workspace("anywhere") as scratch:
        (scratch / "y").write_bytes(b"3" * 1000)
        storage.publish_file("a/y", scratch / "y")
    assert storage.names("a") == ["x", "y"] and not storage.is_empty()
    assert storage.read("a/x") == b"2"
    with storage.open("a/y") as file:
        file.seek(999)
        assert file.read() == b"3"
    assert refused(reached) >= before + 4, "both were put and both were read at the second try"
    storage.remove("a")
    storage.remove("a")
    assert storage.is_empty()


def test_an_unreachable_bucket_is_named(reached: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match=r"data.output: s3://nowhere/x: .*; allowed: a reachable bucket; check"):
        open_storage("s3://nowhere/x").is_empty()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{_free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    storage, expected = open_storage("s3://faces/x"), r"data.output: s3://faces/x.*; allowed: a reachable bucket; check"
    for touch in (storage.is_empty, lambda: storage.publish("x", b""), lambda: storage.exists("x")):
        with pytest.raises(OutputError, match=expected) as error:
            touch()
        assert "\n" not in str(error.value)


def test_from_s3_to_s3_equals_from_folder_to_folder(small_ray: None, bucket: str, tmp_path: Path) -> None:
    from m3face.distributed.preparing import prepare_dataset

    imagefolder(tmp_path / "archive", 6)
    os.environ.update(s3_environment(StorageConfig(endpoint=bucket)))
    s3fs.S3FileSystem.clear_instance_cache()
    client = s3fs.S3FileSystem()
    client.put(str(tmp_path / "archive"), "faces/flaky-archive", recursive=True)

    def run(source: str, output: str) -> dict[str, Any]:
        never = {"when": "never"}
        data = {
            "source": {"layout": "imagefolder", "path": source},
            "output": output,
            "align": {"size": 64},
            "shards": {"rows": 4, "chunk": 2, "pictures": "png"},
            **dict.fromkeys(("parser", "landmarks", "attributes"), never),
        }
        config = {"data": data, "storage": {"endpoint": bucket, "retries": 4}}
        return prepare_dataset(PreprocessConfig.model_validate(config), say=lambda line: None)

    before = refused(bucket)
    there = run("s3://faces/flaky-archive", "s3://faces/flaky/dataset")
    assert refused(bucket) > before
    here = run(str(tmp_path / "archive"), str(tmp_path / "dataset"))
    assert there["rows"] == 6 and there["files"] == here["files"], "the same files, by their hashes"
    storage = open_storage("s3://faces/flaky/dataset")
    s3fs.S3FileSystem.clear_instance_cache()
    assert storage.read("README.md").decode().replace("s3://faces/flaky-archive", "") == (
        (tmp_path / "dataset/README.md").read_text()
    )
    assert storage.names("data") == sorted(path.name for path in (tmp_path / "dataset/data").iterdir())
    assert storage.names(".work") == storage.names(".work/parts") == []
