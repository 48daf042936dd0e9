"""Which task trains which component."""

from __future__ import annotations

from collections.abc import Callable

from m3face.tasks.annotators import AttributeClassifierTask, IdentityEmbedderTask, LandmarkDetectorTask, ParserTask
from m3face.tasks.base import Context, Task
from m3face.tasks.diffusion import ControlNetTask, UNetTask
from m3face.tasks.masked import MaskedTransformerTask
from m3face.tasks.tokens import LandmarkTokensTask, MapTokensTask
from m3face.tasks.vae import VaeTask
from m3face.tasks.words import TextEncoderTask

_TASKS: dict[str, Callable[[Context], Task]] = {
    "text_encoder": TextEncoderTask,
    "map_vq": MapTokensTask,
    "landmark_vq": LandmarkTokensTask,
    "transformer": MaskedTransformerTask,
    "vae": VaeTask,
    "unet": UNetTask,
    "controlnet_mask": lambda context: ControlNetTask(context, condition="mask"),
    "controlnet_landmarks": lambda context: ControlNetTask(context, condition="landmarks"),
    "parser": ParserTask,
    "landmark_detector": LandmarkDetectorTask,
    "attribute_classifier": AttributeClassifierTask,
    "identity_embedder": IdentityEmbedderTask,
}


def make_task(component: str, context: Context) -> Task:
    """The task that trains `component`; caches are built here, that of text states with the first batch."""
    return _TASKS[component](context)
