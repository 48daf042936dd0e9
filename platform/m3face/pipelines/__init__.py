"""Flows over stages: each is one `async` function with an injected `call`, so it runs in process or over Serve handles.

Odd here: nothing in this package imports torch, so that everything a user can get wrong is answered before it loads.
"""

from m3face.pipelines.calling import Call, in_process
from m3face.pipelines.text_to_face import FaceResult, FaceWish, text_to_face

__all__ = ["Call", "FaceResult", "FaceWish", "in_process", "text_to_face"]
