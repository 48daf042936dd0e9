"""MediaPipe's face mesh behind two pipes: a script for an interpreter of its own, which has mediapipe and not us.

Odd here: only the standard library, numpy and mediapipe may be imported. Messages are an unsigned 64-bit little-endian
length and a .npy of that many bytes: in, a picture uint8 [H, W, 3]; out, points float32 [478, 2] as shares of width and
height, or [0, 2] where no face is found. An empty picture asks whether the mesh has opened.
"""

from __future__ import annotations

import importlib
import io
import os
import struct
import sys
from typing import Any

import numpy as np


def _read(pipe: Any) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        return None
    return np.load(io.BytesIO(pipe.read(struct.unpack("<Q", head)[0])), allow_pickle=False)


def _write(pipe: Any, array: Any) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    pipe.write(struct.pack("<Q", len(buffer.getvalue())) + buffer.getvalue())
    pipe.flush()


def main() -> None:
    """Answers until the pipe is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the messages
    mediapipe = importlib.import_module("mediapipe")
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True,
        max_num_faces=1,
        refine_landmarks=True,
        min_detection_confidence=0.3,  # a picture has a face: rather a doubtful one than none
    )
    while (picture := _read(sys.stdin.buffer)) is not None:
        faces = mesh.process(picture).multi_face_landmarks if picture.size else None
        points = [(point.x, point.y) for point in faces[0].landmark] if faces else []
        _write(answers, np.array(points, dtype=np.float32).reshape(-1, 2))


if __name__ == "__main__":
    main()
