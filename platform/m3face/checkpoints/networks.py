"""Which class a folder holds, and loading it without surprises.

Odd here: diffusers only logs an unknown key of `config.json` and then builds with the default width, so keys are
compared with the constructor first. Weights are stored in half precision and computed in fp32. A text encoder's class
is told by its config: ours is a plain BertModel, published ones are of three other kinds.
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
from diffusers.pipelines.deprecated.alt_diffusion.modeling_roberta_series import (
    RobertaSeriesConfig,
    RobertaSeriesModelWithTransformation,
)
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from m3face.checkpoints.folder import TRAIN_OR_COPY, verify
from m3face.checkpoints.sources import safetensors_in
from m3face.errors import CheckpointError
from m3face.models.annotators import AttributeClassifier, IdentityEmbedder, LandmarkDetector, Parser
from m3face.models.latent_reader import LatentReader
from m3face.models.masked_transformer import MaskedTransformer
from m3face.models.text import MultilingualClip, PromptReader
from m3face.models.text_adapter import TextAdapter
from m3face.models.vae import FaceVae

_CLASSES: dict[str, type[Any]] = {
    "text_encoder": PreTrainedModel,
    "face_text_encoder": PreTrainedModel,
    "prompt_reader": PromptReader,
    "map_vq": VQModel,
    "landmark_vq": VQModel,
    "transformer": MaskedTransformer,
    "vae": FaceVae,
    "latent_reader": LatentReader,
    "unet": UNet2DConditionModel,
    "controlnet_mask": ControlNetModel,
    "controlnet_landmarks": ControlNetModel,
    "scheduler": DDIMScheduler,
    "parser": Parser,
    "landmark_detector": LandmarkDetector,
    "attribute_classifier": AttributeClassifier,
    "identity_embedder": IdentityEmbedder,
    "text_adapter": TextAdapter,
}

_ENCODERS: dict[str, tuple[type[Any], type[Any]]] = {
    "bert": (BertConfig, BertModel),
    "m-clip": (BertConfig, MultilingualClip),
    "clip_text_model": (CLIPTextConfig, CLIPTextModel),
    "xlm-roberta": (RobertaSeriesConfig, RobertaSeriesModelWithTransformation),
}
"""Kind -> (config, class). The kind is the config's `model_type`, and for a BERT with `projection_dim` "m-clip"."""


def _encoder(config: Mapping[str, Any], where: str) -> tuple[type[Any], type[Any]]:
    kind = config.get("model_type", "bert")
    kind = "m-clip" if kind == "bert" and "projection_dim" in config else kind
    if kind not in _ENCODERS:
        raise CheckpointError("weights", f"{where} is a text encoder {kind!r}", ", ".join(_ENCODERS), "take another")
    return _ENCODERS[kind]


@contextmanager
def quiet() -> Iterator[None]:
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
    if cls is PreTrainedModel:
        config, cls = _encoder(arguments, component)
        numbers = {name: value for name, value in arguments.items() if name != "model_type"}
        return cls(config(**numbers), **_without_pooler(cls))
    return cls(**arguments)


def _without_pooler(cls: type[Any]) -> dict[str, bool]:
    """Our own encoder pools nothing; M-CLIP does."""
    return {"add_pooling_layer": False} if cls is BertModel else {}


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError("weights", f"{folder} has no config.json", "a trained network", TRAIN_OR_COPY) from None
    except ValueError:
        raise CheckpointError("weights", f"{folder / 'config.json'} is not JSON", "JSON", "copy it again") from None
    return config


def _check_keys(component: str, folder: Path) -> None:
    config = _read_config(folder)
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
    arguments: dict[str, Any] = {}
    if cls is PreTrainedModel:
        cls = _encoder(_read_config(folder), str(folder))[1]
        arguments = _without_pooler(cls)
    else:
        _check_keys(component, folder)
    safetensors_in(folder, field="weights", name=str(folder), remedy="save it as safetensors (docs/real_weights.md)")
    try:
        with quiet():
            network, found = cls.from_pretrained(
                str(folder), torch_dtype=torch.float32, output_loading_info=True, use_safetensors=True, **arguments
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
        with quiet():
            cls: Any = type(network)
            if isinstance(network, PreTrainedModel):
                copy: Any = cls(network.config, **_without_pooler(cls))
            else:
                config: Any = network.config
                copy = cls.from_config({name: value for name, value in config.items() if name not in _OURS_ALONE})
            copy.to(torch.float16).load_state_dict(state)
        network = copy
    with quiet():
        network.save_pretrained(str(folder), safe_serialization=True)  # type: ignore[operator]


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, root: Path) -> None:
    """Write `root/tokenizer`."""
    tokenizer.save_pretrained(str(root / "tokenizer"))


def load_tokenizer(root: Path, component: str = "tokenizer") -> PreTrainedTokenizerFast:
    """The tokenizer `component` of a weights folder."""
    folder = root / component
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError("weights", f"{folder} has no tokenizer.json", "a trained tokenizer", "copy it again")
    return PreTrainedTokenizerFast.from_pretrained(str(folder))
