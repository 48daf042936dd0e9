"""`jobs/precompute.py`: the caches that training reads, computed by actors, each with one copy of the encoder.

Odd here: this process alone reads faces and writes caches, so they may lie on its own disk. The arrays are those of a
plain build, bit for bit on one number of threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3face import checkpoints, presets
from m3face.config.precompute import PrecomputeConfig
from m3face.data import embedded, encoded
from m3face.data.faces import captions, faces
from m3face.data.storage import s3_environment
from m3face.data.store import ArrayStore, Spread
from m3face.distributed.actors import Actors
from m3face.distributed.cluster import cluster, shortage, worker_environment
from m3face.errors import ConfigError
from m3face.training.run import home

Say = Callable[[str], None]

_NEEDS: Mapping[str, tuple[str, ...]] = {
    "text_states": ("text_encoder", "tokenizer", "prompt_reader"),
    "tokens": ("map_vq", "landmark_vq"),
    "latents": ("vae",),
    "identities": ("identity_embedder",),
}
_EVERY_S = 10.0


class Told:
    """`on_progress` of one cache as plain lines: how far, how fast, how long to go."""

    def __init__(self, what: str, say: Say) -> None:
        self._what, self._say = what, say
        self._start = self._told = time.monotonic()
        self._before: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._before is None:  # what an earlier job had made, and a chunk
            self._before, self._start = done, now
        if now - self._told >= _EVERY_S and done > self._before:
            self._told = now
            rate = (done - self._before) / (now - self._start)
            left = (total - done) / rate / 60
            self._say(f"{self._what} {done}/{total} faces, {rate:.1f} faces/s, {left:.0f} min left")


def precompute(config: PrecomputeConfig, say: Say = print) -> list[Path]:
    """Make the caches that are not there yet, or what is missing of them, and return their folders.

    Raises ConfigError, CheckpointError (weights), DataError (the dataset) and OutputError (no room).
    """
    preset = presets.get(config.preset)
    if config.data.size != preset.image_size:
        raise ConfigError("data.size", str(config.data.size), f"{preset.image_size}, that of {preset.name}")
    root, placement = home(config), config.placement
    weights = root / "weights" / preset.name if config.weights is None else presets.weights_folder(config.weights)
    if needs := [part for cache in config.caches for part in _NEEDS.get(cache, ())]:
        checkpoints.verify(weights, parts=needs)  # before hours of decoding
    variables = s3_environment(config.storage)
    os.environ.update(variables)
    cpus, gpus = placement.workers * placement.cpus, placement.workers * placement.gpus
    with cluster(held=cpus):
        if lacks := shortage(cpus=cpus, gpus=gpus):
            say(f"the cluster has {lacks}: some workers wait for more")
        with Actors(placement, worker_environment(variables)) as spread:
            folders = []
            for store in _stores(config, weights, root / "caches", spread, say):
                say(f"{len(store)} faces: {store.folder}")
                folders.append(store.folder)
    return folders


def _stores(config: PrecomputeConfig, weights: Path, caches: Path, spread: Spread, say: Say) -> Iterator[ArrayStore]:
    def telling(what: str) -> dict[str, Any]:
        return {"spread": spread, "on_progress": Told(what, say)}

    own = faces(config.data, caches, **telling("faces"))
    if "faces" in config.caches:
        yield own
    frozen: dict[str, Any] = {"root": caches, "faces": own, "weights": weights, "device": "cpu"}
    if "text_states" in config.caches:
        yield encoded.text_states(**frozen, captions=captions(config.data, own), **telling("text states"))
    for mirrored in (False, True) if config.data.flip else (False,):
        which = " of mirrored faces" if mirrored else ""
        if "tokens" in config.caches:
            yield encoded.condition_tokens(**frozen, mirrored=mirrored, **telling(f"tokens{which}"))
        if "latents" in config.caches:
            yield encoded.latents(**frozen, mirrored=mirrored, **telling(f"latents{which}"))
    if "identities" in config.caches:
        yield embedded.identities(**frozen, **telling("identities"))
    if "clip" in config.caches:
        place = {**frozen, "folder": Path(config.clip).expanduser()}
        del place["weights"]
        yield embedded.clip_embeddings(**place, **telling("clip embeddings"))
