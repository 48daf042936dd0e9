"""The directory format: write aside, publish by rename, verify, load.

`model/` (and a preset's weights folder) is a diffusers directory: one folder a network with `config.json` and
safetensors, which stock diffusers and transformers open. `manifest.json`, written last, holds a format number and the
SHA-256 of every file.

Odd here: what needs torch is imported at its first use, so that a damaged file is named before torch is loaded.
"""

from typing import TYPE_CHECKING, Any

from m3face.checkpoints.exporting import export_diffusers, export_peft
from m3face.checkpoints.folder import FORMAT, publish, read_manifest, verify, write_manifest
from m3face.checkpoints.sources import Published, locate

if TYPE_CHECKING:
    from m3face.checkpoints.fetching import fetch
    from m3face.checkpoints.networks import build, load, load_tokenizer, save, save_tokenizer

__all__ = [
    "FORMAT",
    "Published",
    "build",
    "export_diffusers",
    "export_peft",
    "fetch",
    "load",
    "load_tokenizer",
    "locate",
    "publish",
    "read_manifest",
    "save",
    "save_tokenizer",
    "verify",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    if name in ("build", "load", "load_tokenizer", "save", "save_tokenizer"):
        from m3face.checkpoints import networks

        return getattr(networks, name)
    if name == "fetch":
        from m3face.checkpoints import fetching

        return fetching.fetch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
