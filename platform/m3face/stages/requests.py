"""Requests and results of every stage: closed, frozen, of numpy arrays.

Odd here: arrays are checked while the request is made, and a wrong one raises `BadInput` itself (pydantic lets an
exception that is no ValueError through), so the message is already the one-line kind. No torch: what crosses a
process or a network is plain numpy. Points are in pixels of the face that the stage makes, pixel centres at +0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field

from m3face.config import Closed
from m3face.errors import BadInput
from m3face.faces import Mention, check_map

Preview = Callable[[], NDArray[np.uint8]]
"""Draws what a request looks like so far, uint8 [h, w, 3]; costs nothing until it is called."""

OnStep = Callable[[int, "Sequence[Preview | None]"], "Collection[int] | None"]
"""`on_step(step, previews)`: a step from 0 is done for those requests that have a preview; the others wait or are
finished. May return the indices of requests to drop; their result is `Cancelled`."""

Condition = Literal["mask", "landmarks"]
CONDITIONS: tuple[Condition, ...] = ("mask", "landmarks")
"""What can hold a picture; the network of each is `controlnet_<name>`."""

MOST_STEPS = 1000
STRONGEST_GUIDANCE = 30.0
STRONGEST_PULL = 1000.0
LARGEST_SEED = 2**63 - 1


def _map(value: Any) -> NDArray[np.uint8]:
    array = np.asarray(value)
    if array.dtype.kind not in "iub":
        raise BadInput("label_map", f"is {array.dtype}", "whole numbers, class indices 0..18")
    return check_map(array, field="label_map")


def _numbers(field: str, *shape: int | None) -> Callable[[Any], NDArray[np.float32]]:
    """A validator of finite fp32 arrays of `shape`, where None is any length."""
    wanted = "[" + ", ".join("any" if side is None else str(side) for side in shape) + "]"

    def check(value: Any) -> NDArray[np.float32]:
        try:
            array = np.asarray(value, dtype=np.float32)
        except (TypeError, ValueError):
            raise BadInput(field, "is not an array of numbers", f"numbers of the shape {wanted}") from None
        if array.ndim != len(shape) or any(w not in (None, s) for w, s in zip(shape, array.shape, strict=True)):
            raise BadInput(field, f"has the shape {list(array.shape)}", f"numbers of the shape {wanted}")
        if not np.isfinite(array).all():
            raise BadInput(field, "has values that are not finite", "finite numbers")
        return array

    return check


def _region(value: Any) -> NDArray[np.bool_]:
    array = np.asarray(value)
    if array.ndim != 2 or array.dtype != np.bool_:
        raise BadInput("region", f"is {array.dtype} {list(array.shape)}", "bool [grid, grid], true where to re-make")
    return array


def _picture(value: Any) -> NDArray[np.uint8]:
    array = np.asarray(value)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise BadInput("picture", f"is {array.dtype} {list(array.shape)}", "RGB, uint8 [height, width, 3]")
    return array


MapArray = Annotated[NDArray[np.uint8], BeforeValidator(_map)]
PointArray = Annotated[NDArray[np.float32], BeforeValidator(_numbers("landmarks", 68, 2))]
RegionArray = Annotated[NDArray[np.bool_], BeforeValidator(_region)]
PictureArray = Annotated[NDArray[np.uint8], BeforeValidator(_picture)]
StateArray = Annotated[NDArray[np.float32], BeforeValidator(_numbers("states", None, None))]
PooledArray = Annotated[NDArray[np.float32], BeforeValidator(_numbers("pooled", None))]

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED, description="seed of this request's noise")]
Steps = Annotated[int, Field(ge=1, le=MOST_STEPS, description="calls of the network")]
Attempts = Annotated[int, Field(ge=1, le=16, description="how often a faulty map is written at most")]
Pull = Annotated[float, Field(ge=0, le=STRONGEST_PULL, description="how hard what was read pulls; 0 is none")]
Guidance = Annotated[float, Field(ge=0, le=STRONGEST_GUIDANCE, description="how hard the words pull; 1 is no guidance")]


class WithArrays(Closed):
    """Base of requests and results: closed, frozen, and fields may be numpy arrays."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class TextRequest(WithArrays):
    """A sentence in any language."""

    prompt: str


class TextStates(WithArrays):
    """What the generators see of a text: `states` [slots, width] and `pooled` [width]."""

    states: StateArray
    pooled: PooledArray


class Words(WithArrays):
    """A text as one network wants it, and no words (for guidance) likewise."""

    text: TextStates
    empty: TextStates


class TextResult(WithArrays):
    """`text` as states, `empty` the states of no words, and what the prompt reader understood, if there is one.

    `said` holds what published networks want said otherwise than for the label map.
    """

    text: TextStates
    empty: TextStates
    language: str
    mentions: tuple[Mention, ...]
    warnings: tuple[str, ...] = ()
    said: dict[Literal["landmarks", "face"], Words] = {}

    def words_for(self, what: Literal["landmarks", "face"]) -> Words:
        """The states that make `what`."""
        return self.said.get(what) or Words(text=self.text, empty=self.empty)


class ConditionRequest(WithArrays):
    """A label map and landmarks for a text. What is given stays; what is not is completed.

    `region` is true in those cells of the token grid that are to be made anew; nothing outside it changes.
    `landmark_text` is the text for the landmarks, where a network wants it otherwise than for the map. A map that is no
    face, or does not show what `mentions` say of glasses, hat, earrings and length of hair, is written up to `attempts`
    times, each under a seed of its own; the one with the fewest faults is kept.
    """

    text: TextStates
    empty: TextStates
    seed: Seed
    landmark_text: TextStates | None = None
    label_map: MapArray | None = None
    landmarks: PointArray | None = None
    region: RegionArray | None = None
    steps: Steps = 12
    guidance: Guidance = 2.0
    temperature: float = Field(
        default=0.85, gt=0, le=10, description="1 samples as trained, near 0 takes the likeliest"
    )
    mentions: tuple[Mention, ...] = ()
    attempts: Attempts = 1


class Conditions(WithArrays):
    """One face's conditions: `label_map` uint8 [S, S] of ids 0..18, `landmarks` fp32 [68, 2] in pixels of S."""

    label_map: MapArray
    landmarks: PointArray


class FaceRequest(WithArrays):
    """A face for a text, held to the conditions that are given (none, one or both).

    `mentions` are what the text says of attributes. With `attribute_guidance` the face is moved towards them (at the
    landmarks: without these it is not).
    """

    text: TextStates
    empty: TextStates
    seed: Seed
    label_map: MapArray | None = None
    landmarks: PointArray | None = None
    steps: Steps = 20
    guidance: Guidance = 2.0
    mentions: tuple[Mention, ...] = ()
    attribute_guidance: Pull = 0.0


class Face(WithArrays):
    """`picture` is RGB, uint8 [S, S, 3]."""

    picture: PictureArray


class PictureRequest(WithArrays):
    """A square picture of one face, RGB uint8 [H, H, 3], of any size from 16 pixels."""

    picture: PictureArray


class ParseResult(WithArrays):
    """`label_map` uint8 of the picture's own size."""

    label_map: MapArray


class LandmarkResult(WithArrays):
    """`landmarks` fp32 [68, 2] in pixels of the given picture."""

    landmarks: PointArray


class AttributeResult(WithArrays):
    """The likeliest value of every attribute, and its probability 0..1."""

    attributes: dict[str, str]
    probability: dict[str, float]


class IdentityResult(WithArrays):
    """A unit vector; the cosine of two says whether they show one person."""

    vector: PooledArray
