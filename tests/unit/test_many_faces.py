"""What a job of made-up faces is asked for, and that a face made beside others is the face made alone."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from m3face.captions import parse
from m3face.config.generate import GenerateConfig, WishesConfig
from m3face.data.parquet import from_table, to_table
from m3face.errors import BadInput, ConfigError
from m3face.pipelines.generating import run_wishes
from m3face.pipelines.many_faces import Asked, FaceMaker, asked_for, run_together, wished_row
from m3face.pipelines.text_to_face import FaceResult, FaceWish
from m3face.presets import get
from m3face.stages import Stage, open_stage

STEPS = {"condition_steps": 2, "face_steps": 2}


def _grid(**fields: Any) -> WishesConfig:
    return WishesConfig.model_validate({"grid": fields})


def test_a_grid_is_every_combination_once() -> None:
    attributes = {"gender": ["female", "male"], "age": ["young", "old"], "freckles": [True, False]}
    asked = asked_for(_grid(attributes=attributes, languages=["en", "de"], seeds=[3, 8]))
    assert len(asked) == 2 * 2 * 2 * 2 * 2
    every = [asked[i] for i in range(len(asked))]
    assert len({(a.prompt, a.seed, a.language, *a.attributes.items()) for a in every}) == len(every)
    assert [a.seed for a in every[:4]] == [3, 8, 3, 8]
    assert [a.language for a in every[:4]] == ["en", "en", "de", "de"]
    assert [a.prompt for a in every[::2]] == [a.prompt for a in every[1::2]]  # the seeds of a wish share its words
    assert {a.attributes["freckles"] for a in every} == {"yes", "no"}
    said = {m.attribute: m for a in every[:1] for m in parse(a.prompt, "en")}
    assert said["age"].value == "young"
    assert every == list(asked_for(_grid(attributes=attributes, languages=["en", "de"], seeds=[3, 8])))


def test_a_file_is_a_sentence_a_line(tmp_path: Path) -> None:
    text = tmp_path / "faces.txt"
    text.write_text("a young woman\n\n  un homme âgé \n")
    asked = asked_for(WishesConfig(prompts=str(text), seed=7))
    assert list(asked) == [Asked("a young woman", 7), Asked("un homme âgé", 8)]
    lines = tmp_path / "faces.jsonl"
    lines.write_text('{"prompt": "پیرمرد", "seed": 3, "language": "fa"}\n{"prompt": "a girl"}\n')
    assert list(asked_for(WishesConfig(prompts=str(lines)))) == [Asked("پیرمرد", 3, "fa"), Asked("a girl", 1)]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("faces.jsonl", '{"prompt": "a"}\n{"prompt": "b"', "faces.jsonl, line 2 is not JSON"),
        ("faces.jsonl", '{"prompt": "a", "sed": 1}', "sed: got 1; .*line 1"),
        ("faces.jsonl", '{"prompt": "a", "seed": -1}', "seed: got -1"),
        ("faces.jsonl", '{"prompt": "a", "language": "xx"}', "line 1 has the language 'xx'; allowed: en, fr"),
        ("faces.txt", "\n \n", "has no sentence in it"),
        ("faces.csv", "a", "allowed: a .txt or .jsonl file"),
    ],
)
def test_a_wrong_line_is_named(name: str, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        asked_for(WishesConfig(prompts=str(tmp_path / name)))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        asked_for(WishesConfig(prompts=str(tmp_path / "none.txt")))
    (tmp_path / "latin.txt").write_bytes("âgé".encode("latin-1"))
    with pytest.raises(ConfigError, match="is not UTF-8"):
        asked_for(WishesConfig(prompts=str(tmp_path / "latin.txt")))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "give either prompts or grid"),
        ({"prompts": "a.txt", "grid": {"attributes": {"age": ["old"]}}}, "give either prompts or grid"),
        ({"grid": {"attributes": {}}}, "at least 1 item"),
        ({"grid": {"attributes": {"eyes": ["blue"]}}}, "'eyes', which is none of gender, age"),
        ({"grid": {"attributes": {"age": ["ancient"]}}}, "'ancient', which is none of young, middle_aged, old"),
        ({"grid": {"attributes": {"age": []}}}, "attributes.age is empty"),
        ({"grid": {"attributes": {"age": ["old"]}, "languages": ["xx"]}}, "'xx', which is none of en, fr"),
        ({"grid": {"attributes": {"age": ["old"]}, "seeds": [-1]}}, "seeds has -1"),
        ({"prompts": "a.txt", "shards": {"pictures": "jpeg"}}, "shards.pictures must be png"),
    ],
)
def test_settings_that_make_no_sense(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        GenerateConfig.model_validate({"data": data})


# -------------------------------------------------------------------------------------------------------------- making
@pytest.fixture(scope="module")
def stages(random_weights: Path) -> dict[str, Stage]:
    return {name: open_stage(name, f"dir:{random_weights}") for name in ("text", "conditions", "face")}


def _wishes() -> list[FaceWish]:
    prompts = ("a young woman with red hair", " ", "ein alter Mann", "una chica rubia")
    return [FaceWish(prompt=prompt, seed=seed, **STEPS) for seed, prompt in enumerate(prompts)]


def test_together_as_alone(stages: dict[str, Stage], one_thread: None) -> None:
    wishes = _wishes()
    together = run_together(wishes, stages)
    assert isinstance(together[1], BadInput)
    good = [wish for wish in wishes if wish.prompt.strip()]
    for alone, beside in zip(run_wishes(good, stages), [made for made in together if made is not together[1]]):
        assert isinstance(beside, FaceResult)
        assert np.array_equal(alone.picture, beside.picture)
        assert np.array_equal(alone.label_map, beside.label_map)
        assert np.array_equal(alone.landmarks, beside.landmarks)
        assert alone.text.language == beside.text.language


def test_every_stage_is_asked_once_for_all(stages: dict[str, Stage], one_thread: None) -> None:
    asked: list[tuple[str, int]] = []

    class Counted:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, requests: Any, **more: Any) -> Any:
            asked.append((self.name, len(requests)))
            return stages[self.name].run(requests, **more)

    counted: dict[str, Any] = {name: Counted(name) for name in stages}
    run_together(_wishes(), counted)
    assert asked == [("text", 4), ("conditions", 3), ("face", 3)]


def test_an_error_of_ours_is_no_answer(stages: dict[str, Stage]) -> None:
    class Broken:
        def run(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("broken")

    broken: dict[str, Any] = {**stages, "face": Broken()}
    with pytest.raises(RuntimeError, match="broken"):
        run_together(_wishes()[:1], broken)


def test_a_made_row_says_what_it_is(stages: dict[str, Stage], one_thread: None) -> None:
    preset = replace(get("tiny"), condition_steps=2)
    asked = [
        Asked("an old man with glasses", 5, "en", {"age": "old", "gender": "male", "glasses": "eyeglasses"}),
        Asked("une femme", 6),
        Asked("x" * 601, 7),
    ]
    rows = [wished_row(wish, f"made-{i}", "CC0-1.0") for i, wish in enumerate(asked)]
    made = FaceMaker(stages, preset, "abc", steps=2, guidance=1.5)(rows)
    assert [row.error is None for row in made] == [True, True, False]
    assert made[2].error is not None and made[2].error.startswith("prompt: has 601 characters")
    read = list(from_table(to_table(made, "png")))
    wishes = [FaceWish.of(preset, a.prompt, seed=a.seed, face_steps=2, face_guidance=1.5) for a in asked[:2]]
    for row, alone in zip(read, run_wishes(wishes, stages)):
        assert row.image is not None and np.array_equal(row.image, alone.picture)
        assert row.label_map is not None and np.array_equal(row.label_map, alone.label_map)
        assert row.landmarks is not None and np.array_equal(row.landmarks, alone.landmarks)
        assert (row.source, row.licence, row.identity) == ("generated", "CC0-1.0", "")
    assert read[0].captions == {"en": ["an old man with glasses"]} and read[0].attributes == asked[0].attributes
    assert read[1].captions == {"fr": ["une femme"]}
    for record in to_table(made, "png").to_pylist()[:2]:
        info = Image.open(io.BytesIO(record["image"]["bytes"])).info
        facts = json.loads(info["m3face"])
        assert facts["statement"] == info["Comment"] == "made by a model, shows no real person"
        assert facts["weights"] == "abc" and facts["preset"] == "tiny" and "seconds" not in facts
        assert "trainedAlgorithmicMedia" in info["XML:com.adobe.xmp"]
        assert record["image"]["path"] == f"{record['id']}.png"
        mask = Image.open(io.BytesIO(record["label_map"]["bytes"]))
        assert mask.info["Description"].startswith("A face made by a model.")
