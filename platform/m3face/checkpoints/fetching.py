"""Published networks into a weights folder of ours: named as we name them, proved, with a manifest.

Odd here: what is already right is linked, not copied (a hard link where the file system can, and the hub's cache keeps
its own). Four things are not right as published and are put right once, here, so that nothing behind this file knows of
them: M-CLIP's tensors have a wrapper's names and its config does not say how large the BERT is; tokenizers come as word
lists that each want their own class; schedulers come as the class somebody sampled with, while we take DDIM's steps;
and the `sample_size` of a VQ or VAE may be anything, while ours says which size of picture goes in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusers import DDIMScheduler
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, BertConfig

from m3face.checkpoints.folder import publish
from m3face.checkpoints.networks import load, quiet
from m3face.checkpoints.sources import Published
from m3face.errors import CheckpointError
from m3face.models.text import MultilingualClip

_LONGEST = 77  # tokens where a row does not say: CLIP's


def fetch(
    found: list[Published],
    networks: Mapping[str, Mapping[str, Any]],
    out: Path,
    *,
    preset: str,
    image_size: int,
    on_part: Callable[[str], None] = lambda component: None,
) -> Path:
    """A weights folder `out` of all that was `found`, its sources in the manifest; nothing where a part is wrong.

    `networks` and `image_size` are the preset's. Every network is opened once before `out` appears. Raises
    CheckpointError, OutputError.
    """
    sources = {part.component: part.origin for part in found}
    with publish(out, preset=preset, sources=sources) as aside:
        for part in found:
            on_part(part.component)
            target = aside / part.component
            if part.component.endswith("tokenizer"):
                _tokenizer(part, target, int(networks.get(part.component, {}).get("max_length", _LONGEST)))
            elif part.component == "scheduler":
                _scheduler(part, target)
            else:
                _network(part, target, networks.get(part.component, {}))
        _tell_sizes(aside, image_size)
        for part in found:
            if not part.component.endswith("tokenizer"):
                load(part.component, aside, checked=False)
    return out


def _unreadable(part: Published, error: Exception) -> CheckpointError:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return CheckpointError(part.component, f"{part.origin}: {first}", "the layout of its publisher", "copy it again")


def _tokenizer(part: Published, target: Path, longest: int) -> None:
    try:
        with quiet():  # M-CLIP's config names a model that transformers does not know; its tokenizer it does
            tokenizer = AutoTokenizer.from_pretrained(str(part.folder), use_fast=True)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise _unreadable(part, error) from None
    if not tokenizer.is_fast:
        raise CheckpointError(part.component, f"{part.origin} cannot be read fast", "a tokenizer.json", "add one")
    tokenizer.model_max_length = longest
    tokenizer.save_pretrained(str(target))


def _scheduler(part: Published, target: Path) -> None:
    try:
        config = json.loads((part.folder / "scheduler_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(part, error) from None
    known = {name: value for name, value in config.items() if name in _DDIM}
    DDIMScheduler(**known | {"clip_sample": False}).save_pretrained(str(target))


_DDIM = frozenset(DDIMScheduler().config) - {"_use_default_values"}


def _network(part: Published, target: Path, numbers: Mapping[str, Any]) -> None:
    target.mkdir()
    weights = part.weights()
    if part.component == "text_encoder" and (state := _wrapped(part, weights)):
        (target / "config.json").write_text(
            BertConfig(**{**numbers, **_sizes(state)}).to_json_string(), encoding="utf-8"
        )
        save_file(state, target / "model.safetensors", metadata={"format": "pt"})
        return
    if not (part.folder / "config.json").is_file():
        raise CheckpointError(part.component, f"{part.origin} has no config.json", "the publisher's", "copy it again")
    shutil.copyfile(part.folder / "config.json", target / "config.json")
    for file in weights:
        try:
            os.link(file.resolve(), target / file.name)
        except OSError:
            shutil.copyfile(file, target / file.name)


def _wrapped(part: Published, weights: list[Path]) -> dict[str, Tensor]:
    """M-CLIP's tensors under our names; nothing if they are not M-CLIP's."""
    try:
        state = {k: v for file in weights if file.suffix == ".safetensors" for k, v in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise _unreadable(part, error) from None
    if "LinearTransformation.weight" not in state:
        return {}
    return {MultilingualClip.our_name(name): value.contiguous() for name, value in state.items()}


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """What the shapes say of a BERT; only its number of heads they do not say."""
    try:
        vocabulary, width = state["embeddings.word_embeddings.weight"].shape
        return {
            "vocab_size": vocabulary,
            "hidden_size": width,
            "num_hidden_layers": len({m[1] for name in state if (m := re.match(r"encoder\.layer\.(\d+)\.", name))}),
            "intermediate_size": state["encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": state["embeddings.position_embeddings.weight"].shape[0],
            "type_vocab_size": state["embeddings.token_type_embeddings.weight"].shape[0],
            "projection_dim": state["projection.weight"].shape[0],
        }
    except KeyError as error:
        missing = f"has no tensor {error.args[0]}"
        raise CheckpointError("text_encoder", missing, "M-CLIP over a BERT (LaBSE)", "take another") from None


def _tell_sizes(folder: Path, image_size: int) -> None:
    """Write into configs which size of picture goes in; into a VQ, the transformer's grid enlarged by its levels."""
    sizes: dict[str, Callable[[dict[str, Any]], int]] = {"vae": lambda config: image_size}
    if (transformer := folder / "transformer" / "config.json").is_file():
        grid = int(json.loads(transformer.read_text(encoding="utf-8"))["sample_size"])
        sizes |= dict.fromkeys(
            ("map_vq", "landmark_vq"), lambda config: grid << (len(config["block_out_channels"]) - 1)
        )
    for component, size in sizes.items():
        path = folder / component / "config.json"
        if path.is_file():
            config = json.loads(path.read_text(encoding="utf-8"))
            path.write_text(json.dumps(config | {"sample_size": size(config)}, indent=2) + "\n", encoding="utf-8")
