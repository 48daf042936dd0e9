"""Which task trains which component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from m3face.tasks.adapter import TextAdapterTask
from m3face.tasks.annotators import AttributeClassifierTask, IdentityEmbedderTask, LandmarkDetectorTask, ParserTask
from m3face.tasks.base import Context, Task
from m3face.tasks.diffusion import ControlNetTask, UNetTask
from m3face.tasks.drawings import DrawingTask
from m3face.tasks.masked import masked_transformer_task
from m3face.tasks.reader import LatentReaderTask
from m3face.tasks.tokens import LandmarkTokensTask, MapTokensTask, TokensTask
from m3face.tasks.vae import VaeTask
from m3face.tasks.words import TextEncoderTask


def _tokens(context: Context, own: type[TokensTask]) -> Task:
    """The task of a VQ network: what comes out of it decides."""
    network: Any = context.network(own.component)
    if int(network.config["out_channels"]) == 3:
        return DrawingTask(context, network, own.component)
    return own(context, network)


_TASKS: dict[str, Callable[[Context], Task]] = {
    "text_encoder": TextEncoderTask,
    "map_vq": lambda context: _tokens(context, MapTokensTask),
    "landmark_vq": lambda context: _tokens(context, LandmarkTokensTask),
    "transformer": masked_transformer_task,
    "vae": VaeTask,
    "latent_reader": LatentReaderTask,
    "unet": UNetTask,
    "controlnet_mask": lambda context: ControlNetTask(context, condition="mask"),
    "controlnet_landmarks": lambda context: ControlNetTask(context, condition="landmarks"),
    "parser": ParserTask,
    "landmark_detector": LandmarkDetectorTask,
    "attribute_classifier": AttributeClassifierTask,
    "identity_embedder": IdentityEmbedderTask,
    "text_adapter": TextAdapterTask,
}


def make_task(component: str, context: Context) -> Task:
    """The task that trains `component`; caches are built here, that of text states with the first batch."""
    return _TASKS[component](context)
