"""Where others published a network: a place on the hub or a folder, and which of its files are read.

Odd here: no torch, so that a missing branch, a machine without a network and a pickle are each one line at once. Only
safetensors, JSON and word lists are read: a pickle (.bin, .ckpt, .pt) can run anything when it is opened.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from m3face.errors import CheckpointError, ConfigError

_HUB = re.compile(r"(?P<repo>[^/@\s]+/[^/@\s]+)(@(?P<revision>[^/\s]+))?(/(?P<folder>\S+))?")
_READ = ("*.json", "*.txt", "*.model", "*.safetensors")
_VARIANTS = ("*.fp16.*", "*.non_ema.*")
_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
_PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl"})
_FORM = "'hub:OWNER/REPO@BRANCH/FOLDER' or 'dir:PATH'"


@dataclass(frozen=True)
class Published:
    """A folder of somebody's network on this machine, and where it came from, with the commit if from the hub."""

    component: str
    folder: Path
    origin: str

    def weights(self) -> list[Path]:
        """The network's safetensors (and their index); CheckpointError where there are only pickles, or nothing."""
        remedy = f"convert it where you trust it (docs/real_weights.md), then --from {self.component}=dir:PATH"
        return safetensors_in(self.folder, field=self.component, name=self.origin, remedy=remedy)


def safetensors_in(folder: Path, *, field: str, name: str, remedy: str) -> list[Path]:
    """The weights of the network in `folder`, with their index; CheckpointError where a pickle or nothing is."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = [path for path in files if _WEIGHTS.fullmatch(path.name)]
    if found:
        return found
    pickles = [path.name for path in files if path.suffix in _PICKLES]
    got = f"{name} has {pickles[0] + ', a pickle' if pickles else 'no weights in safetensors'}"
    raise CheckpointError(field, got, "model.safetensors or diffusion_pytorch_model.safetensors", remedy)


def locate(component: str, location: str) -> Published:
    """The folder behind a source, downloaded if it is not in the hub's cache. Raises ConfigError, CheckpointError."""
    scheme, _, rest = location.partition(":")
    if scheme == "dir" and rest:
        folder = Path(rest).expanduser()
        if not folder.is_dir():
            raise CheckpointError(component, f"no folder {folder}", "a folder of a published network", "correct --from")
        return Published(component, folder, location)
    match = _HUB.fullmatch(rest) if scheme == "hub" else None
    if match is None:
        raise ConfigError(component, repr(location), _FORM, "correct --from")
    return _from_hub(component, location, match["repo"], match["revision"], match["folder"])


def _from_hub(component: str, location: str, repo: str, revision: str | None, folder: str | None) -> Published:
    from huggingface_hub import errors, snapshot_download

    def refused(why: str, remedy: str) -> CheckpointError:
        return CheckpointError(component, f"{location}: {why}", "a public place on the hub", remedy)

    other = f"give another: --from {component}=hub:OWNER/REPO@BRANCH/FOLDER or dir:PATH"
    inside = f"{folder}/" if folder else ""
    try:
        snapshot = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[inside + pattern for pattern in _READ],
            ignore_patterns=[*_VARIANTS, *([] if folder else ["*/*"])],  # `*` of these patterns also matches a slash
        )
    except errors.RevisionNotFoundError:
        raise refused("no such branch", other) from None
    except errors.GatedRepoError:
        raise refused("its owner wants to be asked", f"ask there and log in to the hub, or {other}") from None
    except errors.RepositoryNotFoundError:
        raise refused("no such repository", other) from None
    except ValueError as error:  # a name that no repository can have
        raise ConfigError(component, f"{location}: {str(error).splitlines()[0]}", _FORM, "correct --from") from None
    except Exception as error:  # the client lets through whatever its HTTP and storage libraries raise
        remedy = f"fetch on a machine with a network, or --from {component}=dir:PATH"
        why = f"not in the hub's cache, and the hub cannot be reached ({type(error).__name__})"
        raise refused(why, remedy) from None
    found = Path(snapshot) / inside
    if not found.is_dir() or not any(found.iterdir()):
        raise refused(f"nothing to read in {folder or 'it'}: no safetensors, JSON or word list", other)
    return Published(component, found, f"{location} ({Path(snapshot).name})")
