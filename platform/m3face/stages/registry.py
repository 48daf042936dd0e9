"""The stages by name, and opening one without importing the others."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from m3face.errors import ConfigError
from m3face.stages.requests import OnStep

STAGES: dict[str, tuple[str, str]] = {
    "text": ("m3face.stages.text_encoder", "TextEncoder"),
    "conditions": ("m3face.stages.condition_generator", "ConditionGenerator"),
    "face": ("m3face.stages.face_generator", "FaceGenerator"),
    "parse": ("m3face.stages.annotators", "Parser"),
    "landmarks": ("m3face.stages.annotators", "LandmarkDetector"),
    "attributes": ("m3face.stages.annotators", "AttributeClassifier"),
    "identity": ("m3face.stages.annotators", "IdentityEmbedder"),
}
"""Name -> (module, class)."""


class Stage(Protocol):
    """What every stage has; `Request` builds its requests from columns or JSON."""

    Request: ClassVar[type[Any]]

    def run(self, requests: Sequence[Any], *, on_step: OnStep | None = None) -> list[Any]:
        """One result or one `M3FaceError` a request, in order."""


def open_stage(name: str, location: str, *, device: str = "cpu", **options: Any) -> Stage:
    """The stage called `name` with the weights at `location` ("pkg:NAME" or "dir:PATH").

    `options` are the stage's own (`micro_batch`, `conditions`). Raises ConfigError for an unknown name and
    CheckpointError for missing or damaged weights.
    """
    try:
        module, cls = STAGES[name]
    except KeyError:
        raise ConfigError("stage", f"{name!r} is unknown", ", ".join(STAGES)) from None
    stage: Stage = getattr(importlib.import_module(module), cls).from_checkpoint(location, device=device, **options)
    return stage
