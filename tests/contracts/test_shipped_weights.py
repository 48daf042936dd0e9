"""The weights in the package: whole, within their budget, and learned; fresh networks fail the last three tests.

Odd here: the floors are well under what the model card quotes, since eight faces say little. They catch weights that
were shipped for another tokenizer, code book or latent space, which no shape check sees.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from m3face import checkpoints
from m3face.captions import caption
from m3face.evaluation import anatomy_faults, landmark_error, mean_iou, points_on_map
from m3face.faces import LANGUAGES
from m3face.presets import get, weights_folder
from m3face.stages import ConditionRequest, FaceRequest, PictureRequest, TextRequest, open_stage
from m3face.synthetic import Sample, make_sample

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = get("tiny")
FOLDER = weights_folder(TINY.weights)
_LARGEST_FILE, _LARGEST = 16_000_000, 60_000_000
_FACES = 8


@pytest.fixture(scope="module")
def people() -> list[Sample]:
    return [make_sample(0, index, size=TINY.image_size) for index in range(_FACES)]


def _files() -> list[Path]:
    return sorted(FOLDER.rglob("*.safetensors"))


def test_every_file_is_as_the_manifest_says_and_every_network_is_there() -> None:
    checkpoints.verify(FOLDER)
    assert {p.parent.name for p in _files()} == set(TINY.networks) - {"tokenizer", "scheduler"}
    assert (FOLDER / "tokenizer" / "tokenizer.json").is_file()
    assert (FOLDER / "scheduler" / "scheduler_config.json").is_file()


def test_they_keep_to_their_budget_in_half_precision() -> None:
    sizes = [p.stat().st_size for p in _files()]
    assert max(sizes) < _LARGEST_FILE and sum(sizes) < _LARGEST
    for path in _files():
        with safe_open(path, framework="numpy") as file:
            kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
        assert kinds <= {"F16", "I64"}, path


def test_the_reader_understands_every_language() -> None:
    said = [
        caption(make_sample(0, i, size=64).attributes, code, np.random.default_rng(i), count=3)
        for i, code in enumerate([*LANGUAGES] * 2)
    ]
    read = open_stage("text", TINY.weights).run([TextRequest(prompt=c.text) for c in said])
    hits = [m in r.mentions for c, r in zip(said, read, strict=True) for m in c.mentions]
    assert np.mean(hits) > 0.9
    assert np.mean([r.language == c.language for c, r in zip(said, read, strict=True)]) > 0.9


def test_the_annotators_see_what_was_rendered(people: list[Sample]) -> None:
    pictures = [PictureRequest(picture=p.image) for p in people]
    parsed = open_stage("parse", TINY.weights).run(pictures)
    assert mean_iou([a.label_map for a in parsed], [p.label_map for p in people])[0] > 0.5
    points = open_stage("landmarks", TINY.weights).run(pictures)
    errors = [landmark_error(a.landmarks, p.landmarks) for a, p in zip(points, people, strict=True)]
    assert np.mean(errors) < 0.3
    told = open_stage("attributes", TINY.weights).run(pictures)
    genders = [a.attributes["gender"] == p.attributes["gender"] for a, p in zip(told, people, strict=True)]
    assert sum(genders) >= _FACES - 2


def test_words_become_a_face_that_follows_its_map() -> None:
    prompts = ["a young woman with long black hair", "ein alter Mann mit Glatze", "一位戴帽子的女性", "лысый мужчина"]
    texts = open_stage("text", TINY.weights).run([TextRequest(prompt=p) for p in prompts])
    conditions = open_stage("conditions", TINY.weights).run(
        [ConditionRequest(text=t.text, empty=t.empty, seed=i) for i, t in enumerate(texts)]
    )
    assert sum(not anatomy_faults(c.label_map) for c in conditions) >= len(prompts) - 1
    assert sum(points_on_map(c.landmarks, c.label_map) for c in conditions) >= len(prompts) - 1
    faces = open_stage("face", TINY.weights).run(
        [
            FaceRequest(text=t.text, empty=t.empty, seed=i, label_map=c.label_map, landmarks=c.landmarks)
            for i, (t, c) in enumerate(zip(texts, conditions, strict=True))
        ]
    )
    parsed = open_stage("parse", TINY.weights).run([PictureRequest(picture=f.picture) for f in faces])
    agree = [np.mean(p.label_map == c.label_map) for p, c in zip(parsed, conditions, strict=True)]
    assert np.mean(agree) > 0.8
