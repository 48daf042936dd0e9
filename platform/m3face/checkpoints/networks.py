"""Which class a folder holds, and loading it without surprises.

Odd here: diffusers only logs an unknown key of `config.json` and then builds with the default width, so keys are
compared with the constructor first. Weights are stored in half precision and computed in fp32.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from m3face.checkpoints.folder import TRAIN_OR_COPY, verify
from m3face.errors import CheckpointError
from m3face.models.annotators import AttributeClassifier, IdentityEmbedder, LandmarkDetector, Parser
from m3face.models.masked_transformer import MaskedTransformer
from m3face.models.text import PromptReader
from m3face.models.vae import FaceVae

_CLASSES: dict[str, type[Any]] = {
    "text_encoder": BertModel,
    "prompt_reader": PromptReader,
    "map_vq": VQModel,
    "landmark_vq": VQModel,
    "transformer": MaskedTransformer,
    "vae": FaceVae,
    "unet": UNet2DConditionModel,
    "controlnet_mask": ControlNetModel,
    "controlnet_landmarks": ControlNetModel,
    "scheduler": DDIMScheduler,
    "parser": Parser,
    "landmark_detector": LandmarkDetector,
    "attribute_classifier": AttributeClassifier,
    "identity_embedder": IdentityEmbedder,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of a tenth of a second, and no advice that does not apply to us."""
    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    before = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            library.enable_progress_bar()


def build(component: str, arguments: Mapping[str, Any]) -> Any:
    """A fresh network (or scheduler) of `component`'s class from constructor arguments."""
    cls = _CLASSES[component]
    if cls is BertModel:
        return BertModel(BertConfig(**arguments), add_pooling_layer=False)
    return cls(**arguments)


def _check_keys(component: str, folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError("weights", f"{folder} has no config.json", "a trained network", TRAIN_OR_COPY) from None
    except ValueError:
        raise CheckpointError("weights", f"{folder / 'config.json'} is not JSON", "JSON", "copy it again") from None
    constructors = [c.__dict__["__init__"] for c in _CLASSES[component].__mro__ if "__init__" in c.__dict__]
    known = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
    strangers = [key for key in config if not key.startswith("_") and key not in known]
    if strangers:
        raise CheckpointError(
            "weights",
            f"{folder / 'config.json'} has the unknown key {strangers[0]!r}",
            f"arguments of {_CLASSES[component].__name__}",
            "correct the spelling",
        )


def load(component: str, root: Path, *, device: str | torch.device = "cpu", checked: bool = True) -> Any:
    """The network in `root/component`, fp32, in eval mode; its files are compared with the manifest when `checked`."""
    folder = root / component
    if checked:
        if not folder.is_dir():
            raise CheckpointError("weights", f"{folder} is missing", "a trained network", TRAIN_OR_COPY)
        verify(root, parts=[component])
    cls = _CLASSES[component]
    if cls is DDIMScheduler:
        return DDIMScheduler.from_pretrained(str(folder))
    if cls is not BertModel:
        _check_keys(component, folder)
    arguments: dict[str, Any] = {"add_pooling_layer": False} if cls is BertModel else {}
    try:
        with _quiet():
            network, found = cls.from_pretrained(
                str(folder), torch_dtype=torch.float32, output_loading_info=True, **arguments
            )
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise CheckpointError("weights", f"{folder}: {first}", "weights of this network", "copy it again") from None
    for what in ("missing", "unexpected"):
        if names := sorted(found[f"{what}_keys"]):
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(
                "weights",
                f"{folder} has the {what} tensor {names[0]}{more}",
                f"the tensors of {cls.__name__}",
                "it is another network, or another version of it: train or copy it again",
            )
    return network.to(device).eval().requires_grad_(False)


_OURS_ALONE = (
    "_use_default_values",  # names that from_config resets to the class's own values, whatever was registered
    "_name_or_path",  # the folder on this machine that a fine-tuning started from
)


def save(component: str, network: nn.Module | Any, root: Path, *, half: bool = True) -> None:
    """Write `root/component` with safetensors, in fp16 unless told otherwise; `network` itself is not changed."""
    folder = root / component
    if not isinstance(network, nn.Module):
        network.save_pretrained(str(folder))
        return
    if half:
        state = {name: value.detach().to(torch.float16) for name, value in network.state_dict().items()}
        with _quiet():
            if isinstance(network, BertModel):
                copy: Any = BertModel(network.config, add_pooling_layer=False)
            else:
                cls: Any = type(network)
                config: Any = network.config
                copy = cls.from_config({name: value for name, value in config.items() if name not in _OURS_ALONE})
            copy.to(torch.float16).load_state_dict(state)
        network = copy
    with _quiet():
        network.save_pretrained(str(folder), safe_serialization=True)  # type: ignore[operator]


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, root: Path) -> None:
    """Write `root/tokenizer`."""
    tokenizer.save_pretrained(str(root / "tokenizer"))


def load_tokenizer(root: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a weights folder."""
    folder = root / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError("weights", f"{folder} has no tokenizer.json", "a trained tokenizer", "copy it again")
    return PreTrainedTokenizerFast.from_pretrained(str(folder))
