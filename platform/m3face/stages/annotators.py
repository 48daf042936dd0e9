"""What a picture shows: label map, landmarks, attributes, identity.

Odd here: four stages differ only in their network and in how its output is read, so they share one base. Pictures of
any size are brought to the size of training (bilinear, antialiased), and answers go back to the picture's own pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from m3face import checkpoints
from m3face.errors import BadInput, M3FaceError
from m3face.faces import ATTRIBUTES
from m3face.models.annotators import AttributeClassifier as AttributeNetwork
from m3face.models.vq import map_logits
from m3face.stages.batching import Group, run_groups
from m3face.stages.requests import (
    AttributeResult,
    IdentityResult,
    LandmarkResult,
    OnStep,
    ParseResult,
    PictureArray,
    PictureRequest,
)
from m3face.stages.weights import picture_size, weights_folder

SMALLEST_PICTURE = 16

R = TypeVar("R")


class Annotator(ABC, Generic[R]):
    """`run([PictureRequest])` gives one answer a picture. A subclass names its component and reads one output."""

    Request: ClassVar[type[PictureRequest]] = PictureRequest
    component: ClassVar[str]

    def __init__(self, network: Any, *, size: int, micro_batch: int = 1) -> None:
        self.network, self.size, self.micro_batch = network, size, micro_batch

    @classmethod
    def from_checkpoint(cls, location: str, *, device: str = "cpu", micro_batch: int = 1) -> Self:
        """The annotator of the weights at `location`; raises CheckpointError."""
        folder = weights_folder(location)
        network = checkpoints.load(cls.component, folder, device=device)
        return cls(network, size=picture_size(folder), micro_batch=micro_batch)

    def run(self, requests: Sequence[PictureRequest], *, on_step: OnStep | None = None) -> list[R | M3FaceError]:
        """One result or error a request, in order."""
        return run_groups(
            requests,
            prepare=self._prepare,
            key=lambda picture: None,
            work=self._work,
            micro_batch=self.micro_batch,
            on_step=on_step,
        )

    def _prepare(self, request: PictureRequest) -> PictureArray:
        height, width = request.picture.shape[:2]
        if height != width or height < SMALLEST_PICTURE:
            raise BadInput(
                "picture",
                f"is {width} x {height} pixels",
                f"a square of at least {SMALLEST_PICTURE} pixels",
                "crop it around the face first",
            )
        return request.picture

    @torch.inference_mode()
    def _work(self, group: Group[PictureArray]) -> list[R]:
        pictures = torch.cat([self._resized(picture) for picture in group.members]).to(self.network.device)
        outputs = self.network(pictures).float().cpu()
        return [self.read(output, len(p)) for output, p in zip(outputs, group.members, strict=True)]

    def _resized(self, picture: PictureArray) -> Tensor:
        tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
        if len(picture) == self.size:
            return tensor
        return F.interpolate(tensor, size=(self.size, self.size), mode="bilinear", antialias=True)

    @abstractmethod
    def read(self, output: Tensor, size: int) -> R:
        """The answer behind the network's output for one picture of `size` pixels."""


class Parser(Annotator[ParseResult]):
    """Picture to label map of its own size."""

    component = "parser"

    def read(self, output: Tensor, size: int) -> ParseResult:
        logits = output[None] if output.shape[-1] == size else map_logits(output[None], size=size)
        return ParseResult(label_map=logits[0].argmax(0).to(torch.uint8).numpy())


class LandmarkDetector(Annotator[LandmarkResult]):
    """Picture to 68 points in its own pixels."""

    component = "landmark_detector"

    def read(self, output: Tensor, size: int) -> LandmarkResult:
        return LandmarkResult(landmarks=(output * size).numpy())


class AttributeClassifier(Annotator[AttributeResult]):
    """Picture to the likeliest value of every attribute, with its probability."""

    component = "attribute_classifier"

    def read(self, output: Tensor, size: int) -> AttributeResult:
        values, probability = {}, {}
        for name, logits in AttributeNetwork.split(output[None]).items():
            best, which = logits[0].softmax(-1).max(-1)
            values[name], probability[name] = ATTRIBUTES[name].values[int(which)], float(best)
        return AttributeResult(attributes=values, probability=probability)


class IdentityEmbedder(Annotator[IdentityResult]):
    """Picture to a unit vector of identity."""

    component = "identity_embedder"

    def read(self, output: Tensor, size: int) -> IdentityResult:
        return IdentityResult(vector=output.numpy())
