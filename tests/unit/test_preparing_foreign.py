"""Annotators that others trained: their labels and points become ours by name. Structure only, no real weights."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from m3face.errors import BadInput, CheckpointError, ConfigError
from m3face.faces import CLASSES, FLIP, ID
from m3face.pipelines.foreign_annotators import (
    MESH_POINTS,
    MESH_TO_68,
    InsightFace,
    MediaPipe,
    check_insightface,
    from_mesh,
    open_segformer,
    segformer_order,
)
from m3face.pipelines.preparing import open_annotator
from m3face.stages.requests import PictureRequest
from m3face.synthetic import make_sample

pytestmark = pytest.mark.usefixtures("one_thread")

# the numbers of the revision of jonathandinu/face-parsing whose names end in .png
OTHER_ORDER = (
    "background", "skin", "nose", "r_eye", "l_eye", "r_brow", "l_brow", "r_ear", "l_ear", "mouth", "u_lip", "l_lip",
    "neck", "hair", "neck_l", "cloth", "eye_g", "hat", "ear_r",
)  # fmt: skip


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    folder = tmp_path_factory.mktemp("segformer")
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3],
        strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16,
        id2label=dict(enumerate(CLASSES)), label2id={name: n for n, name in enumerate(CLASSES)},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SegformerForSemanticSegmentation(config)
        torch.nn.init.normal_(model.decode_head.classifier.weight)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 96, "width": 96}}))
    return folder


def renamed(folder: Path, to: Path, names: dict[str, str]) -> Path:
    """The same weights under other names of the classes."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config["id2label"], config["label2id"] = names, {name: int(n) for n, name in names.items()}
    (to / "config.json").write_text(json.dumps(config))
    return to


def parsed(folder: Path, pictures: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    parser = open_segformer(str(folder))
    return [answer.label_map for answer in parser.run([PictureRequest(picture=picture) for picture in pictures])]


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    return [make_sample(0, index, size=64).image for index in (3, 4)]


def test_segformer_is_the_plain_model(segformer: Path, pictures: list[NDArray[np.uint8]]) -> None:
    """Resized to the size it was trained at, normalised as ImageNet, and back at the picture's size."""
    import torch
    from transformers import SegformerForSemanticSegmentation

    (ours, _) = parsed(segformer, pictures)
    model = SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
    picture = torch.from_numpy(pictures[0].copy()).permute(2, 0, 1)[None].float() / 255
    large = torch.nn.functional.interpolate(picture, size=(96, 96), mode="bilinear", antialias=True)
    mean, deviation = (torch.tensor(v)[None, :, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        logits = model(pixel_values=(large - mean) / deviation).logits
    logits = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    assert ours.shape == (64, 64)
    assert len(np.unique(ours)) > 2
    assert (ours == logits[0].argmax(0).numpy()).mean() > 0.999  # fp32 rounding may tip a pixel


def test_labels_go_by_name(segformer: Path, pictures: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    named = {str(n): name if name == "background" else f"{name}.png" for n, name in enumerate(OTHER_ORDER)}
    other = renamed(segformer, tmp_path, named)
    assert segformer_order(str(segformer)) == list(range(19))
    assert [OTHER_ORDER[n] for n in segformer_order(str(other))] == list(CLASSES)
    table = np.array([ID[name] for name in OTHER_ORDER], dtype=np.uint8)
    for ours, theirs in zip(parsed(segformer, pictures), parsed(other, pictures), strict=True):
        assert np.array_equal(table[ours], theirs)
        assert not np.array_equal(ours, theirs)


def test_one_picture_alone_is_as_beside_others(segformer: Path, pictures: list[NDArray[np.uint8]]) -> None:
    assert np.array_equal(parsed(segformer, pictures)[1], parsed(segformer, pictures[1:])[0])
    stage = open_annotator("parser", f"segformer:{segformer}")
    (answer,) = stage.run([PictureRequest(picture=pictures[1])])
    assert np.array_equal(answer.label_map, parsed(segformer, pictures)[1])


def test_unnamed_labels_are_never_guessed(segformer: Path, tmp_path: Path) -> None:
    other = renamed(segformer, tmp_path, {str(n): f"LABEL_{n}" for n in range(19)})
    with pytest.raises(ConfigError, match="has 19 classes, without 'background'"):
        segformer_order(str(other))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="is none; allowed: a local SegFormer folder"):
        segformer_order(str(tmp_path))


def test_missing_weights_are_named(segformer: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((segformer / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"^parser\.by"):
        open_segformer(str(tmp_path))


# -- MediaPipe


def test_the_table_of_mesh_points_is_mirrored_as_the_68_are() -> None:
    """Pairs of mesh points that the table takes for a left and a right point are always the same pairs."""
    assert len(MESH_TO_68) == 68
    assert all(0 <= point < MESH_POINTS for group in MESH_TO_68 for point in group)
    pairs: dict[int, int] = {}
    for point, mirrored in enumerate(FLIP):
        one, other = MESH_TO_68[point], MESH_TO_68[int(mirrored)]
        assert len(one) == len(other)
        if len(one) == 1:
            assert pairs.setdefault(one[0], other[0]) == other[0]
    assert all(pairs[other] == one for one, other in pairs.items())
    mesh = np.random.default_rng(0).random((MESH_POINTS, 2)).astype(np.float32)
    assert np.array_equal(from_mesh(mesh)[8], mesh[152])
    assert from_mesh(mesh)[27] == pytest.approx((mesh[168] + mesh[6]) / 2)


FAKE_MEDIAPIPE = '''
"""Stands in for the package: a mesh on a line, none where the picture is black."""
import sys
from types import SimpleNamespace as S

class FaceMesh:
    def __init__(self, **settings):
        print("a library that prints", settings)

    def process(self, picture):
        assert picture.dtype == "uint8" and picture.ndim == 3
        if picture.max() == 7:
            sys.exit("it broke down")
        points = [S(x=i / 478, y=float(picture[0, 0, 0]) / 255) for i in range(478)]
        return S(multi_face_landmarks=[S(landmark=points)] if picture.any() else None)

solutions = S(face_mesh=S(FaceMesh=FaceMesh))
'''


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """An interpreter of its own, that has the stand-in and not m3face."""
    (tmp_path / "mediapipe.py").write_text(FAKE_MEDIAPIPE)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    return script


@pytest.fixture
def mediapipe(interpreter: Path) -> Iterator[MediaPipe]:
    detector = MediaPipe(str(interpreter))
    yield detector
    detector.close()


def test_the_process_answers_in_order(mediapipe: MediaPipe) -> None:
    grey = [np.full((side, side, 3), value, dtype=np.uint8) for side, value in ((32, 51), (64, 0), (100, 255))]
    first, none, last = mediapipe.run([PictureRequest(picture=picture) for picture in grey])
    assert isinstance(none, BadInput)
    expected = np.array([np.mean(group) for group in MESH_TO_68]) / 478
    assert first.landmarks == pytest.approx(np.stack([expected * 32, np.full(68, 0.2 * 32)], axis=1), rel=1e-5)
    assert last.landmarks == pytest.approx(np.stack([expected * 100, np.full(68, 100.0)], axis=1), rel=1e-5)


def test_a_process_that_breaks_down_is_named(mediapipe: MediaPipe) -> None:
    with pytest.raises(ConfigError, match=r"^landmarks.by: its process failed: it broke down; allowed: mediapipe:"):
        mediapipe.run([PictureRequest(picture=np.full((16, 16, 3), 7, dtype=np.uint8))])


def test_an_interpreter_without_mediapipe_is_named(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "$@"\n')
    script.chmod(0o755)
    with pytest.raises(ConfigError, match=r"No module named 'mediapipe'.*pip install mediapipe==0.10.21"):
        MediaPipe(str(script))
    script.write_bytes(b"\x7fnothing that runs")
    with pytest.raises(ConfigError, match=r"^landmarks.by: .*python: "):
        MediaPipe(str(script))


# -- insightface


@pytest.fixture
def insightface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for the package, by its published interface, and a folder laid out as a model pack."""
    for name in ("insightface", "insightface.app", "onnxruntime"):
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)  # type: ignore[assignment]
        monkeypatch.setitem(sys.modules, name, module)

    class FaceAnalysis:
        def __init__(self, **settings: Any) -> None:
            self.settings = settings
            sys.stdout.write("find model: some.onnx")

        def prepare(self, *, ctx_id: int) -> None:
            assert ctx_id == -1

        def get(self, picture: NDArray[np.uint8]) -> list[dict[str, Any]]:
            blue, _, red = picture[0, 0]  # OpenCV's order
            small = {"bbox": np.array([0, 0, 2, 2]), "landmark_3d_68": np.zeros((68, 3)), "age": 5, "gender": 0}
            points = np.stack([np.arange(68), np.full(68, 3), np.full(68, 9)], axis=1).astype(np.float32)
            large = {"bbox": np.array([0, 0, 9, 9]), "landmark_3d_68": points, "age": int(red), "gender": int(blue)}
            return [small, large] if picture.any() else []

    monkeypatch.setattr(sys.modules["insightface.app"], "FaceAnalysis", FaceAnalysis, raising=False)
    pack = tmp_path / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    (pack / "1k3d68.onnx").touch()
    return pack


def test_insightface_gives_points_gender_and_age(insightface: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = InsightFace(str(insightface), column="landmarks")
    attributes = InsightFace(str(insightface), column="attributes")
    assert points._app.settings == {
        "name": "buffalo_l",
        "root": str(insightface.parents[1]),
        "allowed_modules": ["detection", "landmark_3d_68"],
        "providers": ["CPUExecutionProvider"],
    }
    pictures = [np.zeros((16, 16, 3), dtype=np.uint8) for _ in range(3)]
    pictures[0][...] = (40, 0, 1)
    pictures[1][...] = (70, 0, 0)
    requests = [PictureRequest(picture=picture) for picture in pictures]
    found = points.run(requests)
    assert found[0].landmarks == pytest.approx(np.stack([np.arange(68) + 0.5, np.full(68, 3.5)], axis=1))
    assert isinstance(found[2], BadInput)
    said = [answer.attributes for answer in attributes.run(requests[:2])]
    assert said == [{"gender": "male", "age": "middle_aged"}, {"gender": "female", "age": "old"}]
    assert capsys.readouterr().out == ""


def test_what_insightface_lacks_is_named(insightface: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_insightface(str(insightface))
    with pytest.raises(ConfigError, match=r"is no model pack; allowed: ROOT/models/NAME with \.onnx files"):
        check_insightface(str(tmp_path))
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(ConfigError, match="needs onnxruntime, which is not installed.*non-commercial research only"):
        check_insightface(str(insightface))
