"""Where checkpoints lie: whole or not there, the newest found, a full disk survived, a signal heard."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from m3face import checkpoints
from m3face.errors import CheckpointError, ConfigError, OutputError
from m3face.training.keeping import MANIFEST, RunFolder, begin_from, step_name
from m3face.training.run import run_address
from m3face.training.stopping import told_to_stop
from tests.chain import CONFIGS


def _weights(size: int = 10) -> dict[str, torch.Tensor]:
    return {"x": torch.full((size,), 1.0)}


def _write(folder: Path) -> None:
    (folder / "trainer").mkdir()
    save_file(_weights(), folder / "trainer" / "state.safetensors")


def test_the_two_newest_complete_ones_are_kept(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path), tmp_path)
    run.prepare()
    assert run.newest() is None
    for step in (2, 4):
        run.publish(step, _write, parent=None)
    (tmp_path / step_name(5)).mkdir()  # unfinished, and older than the next
    run.publish(6, _write, parent=None)
    half = tmp_path / step_name(8)
    half.mkdir()  # no manifest: it was not finished
    assert run.newest() == step_name(6)
    assert run.fetch(step_name(6)) == tmp_path / step_name(6)
    assert sorted(p.name for p in tmp_path.iterdir()) == [step_name(4), step_name(6), step_name(8)]
    run.publish(8, _write, parent=None)
    assert run.newest() == step_name(8)
    assert sorted(p.name for p in tmp_path.iterdir()) == [step_name(6), step_name(8)]


def test_a_damaged_checkpoint_is_told(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path), tmp_path)
    run.publish(2, _write, parent=None)
    (tmp_path / step_name(2) / "trainer" / "state.safetensors").unlink()
    with pytest.raises(CheckpointError, match="state.safetensors is missing"):
        run.fetch(step_name(2))


def test_an_error_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path), tmp_path)
    run.publish(2, _write, parent=None)

    def breaks(folder: Path) -> None:
        _write(folder)
        raise OSError(28, os.strerror(28))

    with pytest.raises(OutputError, match="storage: .*step-0000004: No space left on device; allowed: a disk.*; free"):
        run.publish(4, breaks, parent=None)
    assert [p.name for p in tmp_path.iterdir()] == [step_name(2)] == [run.newest()]


FULL_DISK = """
import sys, torch
from pathlib import Path
from safetensors.torch import save_file
from m3face import checkpoints
from m3face.errors import OutputError
from m3face.training.keeping import RunFolder
folder = Path(sys.argv[1])
run = RunFolder(str(folder), folder)
write = lambda aside: save_file({"x": torch.zeros(400_000)}, aside / "state.safetensors")
run.publish(1, write)
try:
    run.publish(2, write)
except OutputError as error:
    print(error)
checkpoints.verify(folder / run.newest())
print(*sorted(p.name for p in folder.iterdir()))
"""


def test_a_disk_that_is_full_half_way_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """A real one, of three megabytes, for two checkpoints of 1.6."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("mounting a small disk needs root and unshare")
    mount = 'mount -t tmpfs -o size=3m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-m", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, FULL_DISK]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.stderr.startswith(("mount:", "unshare:")):  # forbidden here; a failure of ours begins otherwise
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    complaint, left = done.stdout.splitlines()
    assert complaint.startswith("storage: ") and "free some space" in complaint and "No space" in complaint
    assert left == step_name(1)


def test_a_run_begins_from_the_checkpoint_that_resume_names(tmp_path: Path) -> None:
    RunFolder(str(tmp_path), tmp_path).publish(2, _write, parent=None)
    assert begin_from(str(tmp_path / step_name(2))) == tmp_path / step_name(2)
    with pytest.raises(ConfigError, match="resume: 'latest'; allowed: auto or the folder of a checkpoint"):
        begin_from("latest")
    with checkpoints.publish(tmp_path / "model") as aside:
        (aside / "x").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="has no trainer"):
        begin_from(str(tmp_path / "model"))
    (tmp_path / step_name(2) / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match="not finished"):
        begin_from(str(tmp_path / step_name(2)))


def test_storage_is_where_runs_lie(tmp_path: Path) -> None:
    from m3face.config import load_config

    def address(*more: str) -> str:
        return run_address(load_config(CONFIGS / "tiny_vae.yaml", [f"runs={tmp_path}", *more]))

    assert address() == f"{tmp_path}/runs/tiny/vae"
    assert address("storage=/shared/") == "/shared/tiny/vae"
    assert address("storage=s3://bucket/x") == "s3://bucket/x/tiny/vae"


def test_a_signal_is_noted_once_and_the_next_one_acts() -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: came.append(number))
    try:
        with told_to_stop() as told:
            assert told() == ""
            os.kill(os.getpid(), signal.SIGTERM)
            assert told() == "SIGTERM" and came == []
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGTERM] * 2, "the handler of before is back"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_hears_no_signal() -> None:
    said: list[str] = []

    def other() -> None:
        with told_to_stop() as told:
            said.append(told())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert said == [""]
