"""Annotators that others trained: a SegFormer face parser, MediaPipe's face mesh, insightface.

Odd here: each behaves as one of our stages, `run(requests)` to results or errors, and is opened only where a config
names it. Nothing is downloaded. Their labels and points become ours by name or by a table, never by position.

Licences, to be settled by whoever names one: SegFormer weights follow their training data (CelebAMask-HQ: no commercial
use) and NVIDIA's licence for the backbone (research); MediaPipe is Apache 2.0, code and models; insightface's code is
MIT, its model packs (buffalo_l, antelopev2) are for non-commercial research.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import shutil
import struct
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from m3face.errors import BadInput, CheckpointError, ConfigError, M3FaceError
from m3face.faces import CLASSES
from m3face.stages.registry import Stage
from m3face.stages.requests import AttributeResult, LandmarkResult, OnStep, PictureRequest

_PARSING_SIZE = 512
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

MESH_POINTS = 478

MESH_TO_68: tuple[tuple[int, ...], ...] = (
    (127,), (234,), (93,), (132,), (58, 172), (136,), (150,), (176,), (152,), (400,), (379,), (365,), (397, 288),
    (361,), (323,), (454,), (356,),
    (70,), (63,), (105,), (66,), (107,), (336,), (296,), (334,), (293,), (300,),
    (168, 6), (197, 195), (5,), (4,), (75,), (97,), (2,), (326,), (305,),
    (33,), (160,), (158,), (133,), (153,), (144,), (362,), (385,), (387,), (263,), (373,), (380,),
    (61,), (39,), (37,), (0,), (267,), (269,), (291,), (321,), (314,), (17,), (84,), (91,),
    (78,), (82,), (13,), (312,), (308,), (317,), (14,), (87,),
)  # fmt: skip
"""The mesh points whose mean is each of the 68, as P. Yan published them (Mediapipe_2_Dlib_Landmarks) but for point 3,
which is the mirror image of point 13 here. On 40 rendered faces they lay 6.8 % of the distance of the outer eye corners
from the true points: eyes 3, mouth 4, jaw 9, brow ends 14 %."""


def open_segformer(folder: str, *, device: str = "cpu", micro_batch: int = 1) -> Stage:
    """A parser: transformers' SegformerForSemanticSegmentation in a local folder (such as jonathandinu/face-parsing).

    What its classes mean is read from `id2label` in its config.json, where all of CelebAMask-HQ's 19 names must stand.
    Raises ConfigError for a folder of something else and CheckpointError for damaged weights.
    """
    import torch
    from transformers import SegformerForSemanticSegmentation

    from m3face.stages.annotators import Parser

    order = segformer_order(folder)
    try:
        model = SegformerForSemanticSegmentation.from_pretrained(folder, local_files_only=True).to(device).eval()
    except (OSError, ValueError, RuntimeError) as error:
        got = str(error).strip().splitlines()[0]
        raise CheckpointError("parser.by", got, "a whole SegFormer folder", "copy it again") from None
    mean, deviation, size = _preprocessing(Path(folder))

    class Logits(torch.nn.Module):
        """Pictures [B, 3, S, S] in [-1, 1] to logits of our classes."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.device = model, torch.device(device)

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            normed = ((pictures + 1) / 2 - self._column(mean)) / self._column(deviation)
            logits: torch.Tensor = self.model(pixel_values=normed).logits
            return logits[:, order]

        def _column(self, values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, device=self.device)[None, :, None, None]

    return Parser(Logits(), size=size, micro_batch=micro_batch)


def segformer_order(folder: str) -> list[int]:
    """For each of our classes, its number in the model of that folder. Raises ConfigError."""
    allowed = f"a local SegFormer folder whose config.json names {', '.join(CLASSES)}"
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] != "segformer":
            raise ValueError
        names = {str(name).removesuffix(".png"): int(number) for number, name in config["id2label"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError("parser.by", f"{folder} is none", allowed, "copy the model there") from None
    missing = [name for name in CLASSES if name not in names]
    if missing or len(names) != len(CLASSES):
        got = f"{folder} has {len(names)} classes, without {missing[0]!r}" if missing else f"has {len(names)} classes"
        raise ConfigError("parser.by", got, allowed, "write the names into id2label if you know them")
    return [names[name] for name in CLASSES]


def _preprocessing(folder: Path) -> tuple[Sequence[float], Sequence[float], int]:
    """Mean, deviation and side of the pictures that a model was trained on; ImageNet's at 512 where nothing is said."""
    try:
        told = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        told = {}
    size = told.get("size", _PARSING_SIZE)
    if isinstance(size, dict):
        size = size.get("height", _PARSING_SIZE)
    return told.get("image_mean", _IMAGENET[0]), told.get("image_std", _IMAGENET[1]), int(size)


class MediaPipe:
    """A landmark detector: MediaPipe's face mesh in an interpreter of its own, `python`, which has mediapipe 0.10.21.

    Newer versions have no `solutions`, and older protobufs than ours are needed, hence the other environment. The
    process starts with the first picture and ends with this object.
    """

    Request: ClassVar[type[PictureRequest]] = PictureRequest

    def __init__(self, python: str) -> None:
        check_mediapipe(python)
        self._log = tempfile.TemporaryFile()
        script = str(Path(__file__).with_name("mediapipe_worker.py"))
        pipe = subprocess.PIPE
        try:
            self._worker = subprocess.Popen([python, script], stdin=pipe, stdout=pipe, stderr=self._log)
        except OSError as error:
            self._log.close()
            raise _no_mediapipe(f"{python}: {error.strerror}") from None
        self._end = weakref.finalize(self, _end, self._worker, self._log)
        self._ask(np.zeros((0, 0, 3), dtype=np.uint8))

    def run(self, requests: Sequence[PictureRequest], *, on_step: OnStep | None = None) -> list[Any]:
        """One LandmarkResult or error a request, in order."""
        return [self._landmarks(request.picture) for request in requests]

    def close(self) -> None:
        """End the process."""
        self._end()

    def _landmarks(self, picture: NDArray[np.uint8]) -> LandmarkResult | M3FaceError:
        mesh = self._ask(picture)
        if mesh.shape != (MESH_POINTS, 2):
            return _no_face("MediaPipe")
        height, width = picture.shape[:2]
        return LandmarkResult(landmarks=from_mesh(mesh) * np.array([width, height], dtype=np.float32))

    def _ask(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        buffer = io.BytesIO()
        np.save(buffer, picture, allow_pickle=False)
        to_worker, from_worker = self._worker.stdin, self._worker.stdout
        assert to_worker is not None and from_worker is not None
        try:
            to_worker.write(struct.pack("<Q", len(buffer.getvalue())) + buffer.getvalue())
            to_worker.flush()
            length = struct.unpack("<Q", from_worker.read(8))[0]
            answer: NDArray[np.float32] = np.load(io.BytesIO(from_worker.read(length)), allow_pickle=False)
        except (OSError, struct.error, ValueError, EOFError):
            self._worker.wait()
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines() or ["it ended"]
            self.close()
            raise _no_mediapipe(f"its process failed: {lines[-1]}") from None
        return answer


def _end(worker: subprocess.Popen[bytes], log: Any) -> None:
    worker.terminate()
    for pipe in (worker.stdin, worker.stdout, log):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    worker.wait()


def from_mesh(mesh: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 68 iBUG points [68, 2] of a face mesh [478, 2]."""
    return np.stack([mesh[list(group)].mean(0) for group in MESH_TO_68]).astype(np.float32)


def check_mediapipe(python: str) -> None:
    """ConfigError where `python` is no program."""
    if shutil.which(python) is None:
        raise _no_mediapipe(f"{python} is no program")


def _no_mediapipe(got: str) -> ConfigError:
    remedy = "make an environment for it: python -m venv DIR && DIR/bin/pip install mediapipe==0.10.21"
    return ConfigError("landmarks.by", got, "mediapipe:DIR/bin/python", remedy)


class InsightFace:
    """Landmarks (1k3d68) or gender and age (genderage) by a model pack of insightface, such as buffalo_l.

    `folder` is ROOT/models/NAME with the pack's .onnx files. Of several faces the largest counts. Gender and age are
    all that it knows of our attributes: young is below 35, old from 60 years.
    """

    Request: ClassVar[type[PictureRequest]] = PictureRequest
    MODULES: ClassVar[dict[str, str]] = {"landmarks": "landmark_3d_68", "attributes": "genderage"}

    def __init__(self, folder: str, *, column: str, device: str = "cpu") -> None:
        check_insightface(folder)
        analysis = importlib.import_module("insightface.app").FaceAnalysis
        path, self.column = Path(folder).absolute(), column
        cuda = device.startswith("cuda")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it finds
            self._app = analysis(
                name=path.name,
                root=str(path.parents[1]),
                allowed_modules=["detection", self.MODULES[column]],
                providers=["CUDAExecutionProvider" if cuda else "CPUExecutionProvider"],
            )
            self._app.prepare(ctx_id=0 if cuda else -1)

    def run(self, requests: Sequence[PictureRequest], *, on_step: OnStep | None = None) -> list[Any]:
        """One LandmarkResult or AttributeResult, or error, a request, in order."""
        return [self._look(request.picture) for request in requests]

    def _look(self, picture: NDArray[np.uint8]) -> LandmarkResult | AttributeResult | M3FaceError:
        faces = self._app.get(np.ascontiguousarray(picture[..., ::-1]))
        if not faces:
            return _no_face("insightface")
        face = max(faces, key=lambda f: (f["bbox"][2] - f["bbox"][0]) * (f["bbox"][3] - f["bbox"][1]))
        if self.column == "landmarks":
            # OpenCV's pixel centres are whole numbers, ours at +0.5
            return LandmarkResult(landmarks=np.asarray(face["landmark_3d_68"])[:, :2] + 0.5)
        age = "young" if face["age"] < 35 else "middle_aged" if face["age"] < 60 else "old"
        return AttributeResult(
            attributes={"gender": "male" if face["gender"] else "female", "age": age}, probability={}
        )


def check_insightface(folder: str) -> None:
    """ConfigError where the package is not installed or the folder holds no model pack."""
    remedy = "pip install insightface onnxruntime; its model packs are for non-commercial research only"
    for package in ("insightface", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError("by", f"insightface:{folder} needs {package}, which is not installed", "both", remedy)
    path = Path(folder).absolute()
    if path.parent.name != "models" or not any(path.glob("*.onnx")):
        raise ConfigError("by", f"{folder} is no model pack", "ROOT/models/NAME with .onnx files", remedy)


def _no_face(who: str) -> BadInput:
    return BadInput("image", f"shows no face that {who} finds", "one face", "leave the picture out")
