"""What can be asked of the networks: plain objects that have never heard of Ray, HTTP or a preset's name.

`open_stage("face", "pkg:tiny")` loads one; `stage.run(requests)` answers with a list of the same length and order,
each item a result or an `M3FaceError`. Odd here: this file and the requests import no torch, so that a request can be
checked where there is none; a stage's class is imported when it is opened.
"""

from m3face.stages.registry import STAGES, Stage, open_stage
from m3face.stages.requests import (
    AttributeResult,
    ConditionRequest,
    Conditions,
    Face,
    FaceRequest,
    IdentityResult,
    LandmarkResult,
    OnStep,
    ParseResult,
    PictureRequest,
    Preview,
    TextRequest,
    TextResult,
    TextStates,
)

__all__ = [
    "STAGES",
    "AttributeResult",
    "ConditionRequest",
    "Conditions",
    "Face",
    "FaceRequest",
    "IdentityResult",
    "LandmarkResult",
    "OnStep",
    "ParseResult",
    "PictureRequest",
    "Preview",
    "Stage",
    "TextRequest",
    "TextResult",
    "TextStates",
    "open_stage",
]
