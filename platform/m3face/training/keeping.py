"""The checkpoints of one run, in a folder or on S3: which is the newest, getting it, adding one.

Odd here: a checkpoint is complete when its manifest is there. In a folder it appears by rename; on S3 its files are
sent first and the manifest last, behind the training's back. Nobody else is asked what there is.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from m3face import checkpoints
from m3face.data.storage import S3, open_storage
from m3face.errors import CheckpointError, ConfigError, OutputError

_KEEP = 2
_STEP = "step-"
MANIFEST = "manifest.json"


def step_name(step: int) -> str:
    """The folder of the checkpoint after so many steps."""
    return f"{_STEP}{step:07d}"


class RunFolder:
    """The run at `address`; `local` is a folder of this machine for it: the run's own, unless that is on S3."""

    def __init__(self, address: str, local: Path) -> None:
        self.address, self.remote = address, address.startswith(S3)
        self.local = local if self.remote else Path(address)
        self._storage = open_storage(address, field="storage")
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._sending: Future[None] | None = None

    def prepare(self) -> None:
        """The local folder is there and can be written. Raises OutputError."""
        try:
            self.local.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            field = "storage" if not self.remote else "runs"
            raise OutputError(field, f"{self.local}: {error.strerror}", "a folder that can be written") from None

    def newest(self) -> str | None:
        """The name of the newest complete checkpoint."""
        return next(iter(reversed(self._complete())), None)

    def _complete(self) -> list[str]:
        steps = [name for name in self._storage.folders("") if name.startswith(_STEP)]
        return [name for name in steps if self._storage.exists(f"{name}/{MANIFEST}")]

    def fetch(self, name: str) -> Path:
        """A local folder with the verified checkpoint `name`; the local copy of one on S3, where that is the same."""
        folder = self.local / name
        if self.remote:
            manifest = self._storage.read(f"{name}/{MANIFEST}")
            if not (folder / MANIFEST).is_file() or (folder / MANIFEST).read_bytes() != manifest:
                self._download(name, folder)
        checkpoints.verify(folder)
        return folder

    def _download(self, name: str, folder: Path) -> None:
        """Into a folder of this process's own first: another worker of the machine may do the same."""
        self.local.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.local, prefix=".fetched-") as scratch:
            aside = Path(scratch) / name
            self._get(name, aside)
            if folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
            try:
                aside.rename(folder)
            except OSError:  # somebody else was as fast
                if not (folder / MANIFEST).is_file():
                    raise

    def _get(self, name: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        for file in self._storage.names(name):
            (folder / file).write_bytes(self._storage.read(f"{name}/{file}"))
        for sub in self._storage.folders(name):
            self._get(f"{name}/{sub}", folder / sub)

    def publish(self, step: int, write: Callable[[Path], None], **facts: Any) -> None:
        """A checkpoint of what `write` puts into a folder. What cannot be written leaves the one before as it is."""
        self.sent()
        folder = self.local / step_name(step)
        with _told(folder), checkpoints.publish(folder, **facts) as aside:
            write(aside)
        if self.remote:
            self._sending = self._sender.submit(self._send, folder)
        else:
            self._forget()

    def _send(self, folder: Path) -> None:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
        for file in [*files, folder / MANIFEST]:
            self._storage.publish(f"{folder.name}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        self._forget()

    def _forget(self) -> None:
        """Remove all but the newest complete ones, and what lies unfinished before them."""
        kept = self._complete()[-_KEEP:]
        for name in [n for n in self._storage.folders("") if n.startswith(_STEP) and n not in kept and n < kept[-1]]:
            self._storage.remove(f"{name}/{MANIFEST}")  # first, or a kill leaves half of one that looks whole
            self._storage.remove(name)
        if self.remote:
            for old in sorted(self.local.glob(f"{_STEP}*"))[:-_KEEP]:
                shutil.rmtree(old, ignore_errors=True)

    def send_file(self, name: str) -> None:
        """Keep a local file beside the checkpoints."""
        if self.remote:
            self._storage.publish(name, (self.local / name).read_bytes())

    def fetch_file(self, name: str) -> None:
        """The file beside the checkpoints, where this machine has none."""
        if self.remote and not (self.local / name).exists() and self._storage.exists(name):
            (self.local / name).write_bytes(self._storage.read(name))

    def sent(self) -> None:
        """Wait until the last checkpoint has arrived; raises what went wrong on its way."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What a disk says, as one line."""
    allowed = "a disk that takes a checkpoint"
    remedy = "free some space; the checkpoint before is whole, and the same command goes on from it"
    try:
        yield
    except OSError as error:
        raise OutputError("storage", f"{folder}: {error.strerror or error}", allowed, remedy) from None
    except SafetensorError as error:
        raise OutputError("storage", f"{folder}: {error}", allowed, remedy) from None


def begin_from(address: str) -> Path:
    """The checkpoint that `resume` names. Raises CheckpointError, ConfigError."""
    folder = Path(address).expanduser()
    if not folder.is_dir():
        raise ConfigError("resume", repr(address), "auto or the folder of a checkpoint", "see --explain")
    checkpoints.verify(folder)
    if not (folder / "trainer").is_dir():
        raise CheckpointError("resume", f"{folder} has no trainer", "a checkpoint of a training", "set train.start")
    return folder
