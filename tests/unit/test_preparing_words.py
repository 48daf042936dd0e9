"""Between archive and shard, the words: captions and questions by grammar, from an endpoint, by translation."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from m3face.captions import caption, choose_keys, parse
from m3face.captions.__main__ import random_attributes
from m3face.config import one_line
from m3face.config.dataset import CaptionConfig, DatasetConfig, QaConfig
from m3face.data.endpoint import FACES, Budget, EndpointCaptions
from m3face.data.rows import Row
from m3face.data.translating import NLLB, SEAMLESS, Seq2Seq, translate_captions
from m3face.data.wording import write_captions, write_questions
from m3face.errors import ConfigError
from m3face.faces import LANGUAGES

ALL = tuple(LANGUAGES)


def rows_of(count: int, *, seed: int = 0, share: float = 1.0) -> list[Row]:
    """Rows of random faces of which a share of the attributes is known."""
    rng = np.random.default_rng(seed)
    faces = [random_attributes(rng) for _ in range(count)]
    return [
        Row(id=f"r{n}", attributes={name: value for name, value in face.items() if rng.random() < share})
        for n, face in enumerate(faces)
    ]


# -- the grammar


@pytest.mark.parametrize("language", ALL)
def test_a_caption_says_only_what_is_known(language: str) -> None:
    rng = np.random.default_rng(4)
    said = 0
    for row in rows_of(80, seed=1, share=0.2):
        made = caption(row.attributes, language, rng)
        assert {mention.attribute for mention in made.mentions} <= set(row.attributes)
        assert all(mention.holds(row.attributes) for mention in made.mentions)
        assert parse(made.text, language) == made.mentions
        said += bool(made.mentions)
    assert said > 60


def test_a_whole_face_draws_as_ever() -> None:
    """Caches of captions are kept by wording, so what is drawn for a whole face may not change in silence."""
    rng = np.random.default_rng(8)
    assert choose_keys(random_attributes(rng), rng, count=6) == (
        "glasses.eyeglasses", "skin_tone.monk_5", "hat.yes", "hair_colour.gray", "gender.female", "heavy_makeup.no",
    )  # fmt: skip


def test_captions_do_not_depend_on_batches_or_order() -> None:
    step = write_captions(CaptionConfig(languages=("en", "ja"), each=2), seed=3)
    together = {row.id: row.captions for row in step(rows_of(6))}
    alone = {done.id: done.captions for row in reversed(rows_of(6)) for done in step([row])}
    assert together == alone
    assert all(len(texts) == 2 for captions in together.values() for texts in captions.values())
    assert list(together["r0"]) == ["en", "ja"]
    assert len({texts[0] for captions in together.values() for texts in captions.values()}) > 8
    other = {
        row.id: row.captions
        for row in write_captions(CaptionConfig(languages=("en", "ja"), each=2), seed=4)(rows_of(6))
    }
    assert other != together


def test_what_the_archive_says_stays_and_of_nothing_nothing_is_said() -> None:
    known, empty, bad = rows_of(1)[0], Row(id="e"), Row(id="b", attributes={"hat": "yes"}, error="no")
    known.captions = {"fr": ["Une photo."]}
    write_captions(CaptionConfig(languages=("en", "fr"), each=1), seed=0)([known, empty, bad])
    assert known.captions["fr"] == ["Une photo."]
    assert len(known.captions["en"]) == 1
    assert empty.captions == bad.captions == {}


def test_questions_are_spread_over_kinds_and_languages() -> None:
    config = QaConfig(each=12, languages=("en", "fr", "hi"))
    rows = write_questions(config, seed=0)(rows_of(20))
    for row in rows:
        assert len(row.qa) == 12
        assert {q.language for q in row.qa} == {"en", "fr", "hi"}
    kinds = [q.kind for row in rows for q in row.qa]
    assert min(kinds.count(kind) for kind in ("appearance", "expression", "emotion", "reasoning")) > 25
    alone = [write_questions(config, seed=0)([row])[0].qa for row in rows_of(20)]
    assert alone == [row.qa for row in rows]
    kept = rows[0].qa
    assert write_questions(QaConfig(each=2), seed=1)([rows[0]])[0].qa is kept


@pytest.mark.parametrize(
    ("change", "field", "named"),
    [
        ({"captions": {"languages": ["en", "xx"]}}, "captions.languages", "'xx' is no language here; known are en, fr"),
        ({"qa": {"languages": ["tlh"]}}, "qa.languages", "'tlh' is no language here; known are en, fr, de, it, es, pt"),
        ({"captions": {"languages": ["en", "en"]}}, "captions.languages", "named twice"),
        ({"captions": {"languages": []}}, "captions.languages", "at least 1"),
        ({"captions": {"by": "endpoint", "model": "m"}}, "captions", "need url"),
        ({"captions": {"by": "endpoint", "model": "m", "url": "file:///etc"}}, "captions", "need url"),
        ({"parser": {"by": "somebody"}}, "parser.by", "should match pattern"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], field: str, named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DatasetConfig.model_validate({"source": {"layout": "synthetic"}} | change)
    error = one_line(caught.value, where="data.yaml")
    assert isinstance(error, ConfigError)
    assert error.field == field
    assert named in str(error)


# -- an endpoint


class Service:
    """A chat-completion service on this machine; `answers` says what it does with each request, the last for all
    further ones: a status with headers, or a function from the question to the text."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[dict[str, str], dict[str, Any]]] = []
        lock = threading.Lock()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    service.seen.append((dict(self.headers), body))
                    answer = service.answers.pop(0) if len(service.answers) > 1 else service.answers[0]
                assert self.path == "/v1/chat/completions"
                if callable(answer):
                    text = answer(json.loads(body["messages"][-1]["content"]))
                    self.reply(200, json.dumps({"choices": [{"message": {"content": text}}]}).encode())
                else:
                    status, headers, *data = answer
                    self.reply(status, data[0] if data else b"{}", headers)

            def reply(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    running: list[Service] = []

    def start(*answers: Any) -> Service:
        running.append(Service(*answers))
        return running[-1]

    yield start
    for service in running:
        service.close()


def obedient(question: dict[str, Any]) -> str:
    """What a good model answers, with some chatter around it."""
    faces = [
        {
            "id": face["id"],
            "captions": {
                code: [
                    f"{code} {n} {face['attributes']['hair_colour']}" for n in range(question["captions_per_language"])
                ]
                for code in face["languages"]
            },
        }
        for face in question["faces"]
    ]
    return f"Here you are:\n```json\n{json.dumps({'faces': faces})}\n```"


def asking(service: Service, **settings: Any) -> tuple[EndpointCaptions, list[float]]:
    """The step against a service, and how long it waits between tries."""
    waits: list[float] = []
    settings = {"languages": ("en", "de"), "each": 2, "retries": 3} | settings
    config = CaptionConfig(by="endpoint", url=service.url, model="some-model", **settings)
    return EndpointCaptions(config, sleep=waits.append), waits


def test_a_service_that_fails_first_is_asked_again(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    late = formatdate(0, usegmt=True)
    service = serve((500, {}), (429, {"Retry-After": "7"}), (503, {"Retry-After": late}), obedient)
    step, waits = asking(service)
    rows = rows_of(3)
    rows[1].captions = {"en": ["A picture."]}
    step(rows)
    assert waits == [1.0, 7.0, 0.0]
    assert [row.error for row in rows] == [None] * 3
    colour = rows[0].attributes["hair_colour"]
    assert rows[0].captions == {"en": [f"en 0 {colour}", f"en 1 {colour}"], "de": [f"de 0 {colour}", f"de 1 {colour}"]}
    assert rows[1].captions["en"] == ["A picture."]
    assert len(rows[1].captions["de"]) == 2
    headers, body = service.seen[-1]
    assert headers["Authorization"] == "Bearer secret-key"
    assert body["model"] == "some-model"
    question = json.loads(body["messages"][-1]["content"])
    assert question["languages"] == {"en": "English", "de": "German"}
    assert [face["languages"] for face in question["faces"]] == [["en", "de"], ["de"], ["en", "de"]]
    assert question["faces"][2]["attributes"] == rows[2].attributes


def test_many_faces_share_a_request(serve: Callable[..., Service]) -> None:
    service = serve(obedient)
    step, _ = asking(service)
    rows = [*rows_of(2 * FACES + 1), Row(id="nothing known"), Row(id="bad", error="no", attributes={"hat": "yes"})]
    step(rows)
    assert sorted(len(json.loads(body["messages"][-1]["content"])["faces"]) for _, body in service.seen) == [1, 8, 8]
    assert all(row.captions and row.error is None for row in rows[:-2])
    assert all("Authorization" not in headers for headers, _ in service.seen)
    assert rows[-2].captions == rows[-1].captions == {}


def test_a_half_answer_is_kept_and_the_rest_asked_again(serve: Callable[..., Service]) -> None:
    def half(question: dict[str, Any]) -> str:
        return obedient(question | {"faces": question["faces"][:1]})

    service = serve(lambda question: "I would rather not.", half, half, half)
    step, waits = asking(service)
    rows = rows_of(4)
    step(rows)
    assert [bool(row.captions) for row in rows] == [True, True, True, False]
    assert rows[0].error is rows[2].error is None
    assert rows[3].error == (
        "captions.url: gave no usable captions for 1 of its faces (4 tries); "
        "allowed: an OpenAI-compatible service that answers; see that it runs, or raise data.captions.retries"
    )
    assert waits == [1.0, 2.0, 4.0]


def test_the_budget_holds_for_the_whole_job(serve: Callable[..., Service]) -> None:
    service = serve((500, {}), obedient)
    step, _ = asking(service, requests=3)
    rows = rows_of(5 * FACES)
    step(rows[:FACES])  # two requests: one failed
    step(rows[FACES : 2 * FACES])
    step(rows[2 * FACES :])
    assert len(service.seen) == 3
    assert all(row.error is None for row in rows[: 2 * FACES])
    assert {row.error for row in rows[2 * FACES :]} == {
        "captions.requests: 3 requests are used up; allowed: a budget for the whole job; raise data.captions.requests"
    }
    shared = Budget(1)
    config = CaptionConfig(by="endpoint", url=service.url, model="m")
    one, other = (EndpointCaptions(config, may_ask=shared) for _ in range(2))
    (good,), (late,) = one(rows_of(1)), other(rows_of(1))
    assert good.error is None
    assert late.error is not None


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ((401, {}), "captions.url: answers 401 Unauthorized; allowed: 200; set OPENAI_API_KEY"),
        ((404, {}), "captions.url: answers 404 Not Found; allowed: 200; see data.captions.url and model"),
        ((302, {"Location": "http://127.0.0.1:1/"}), "captions.url: answers 302 Found"),
    ],
)
def test_what_no_try_can_cure_is_not_tried_again(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, answer: Any, named: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    service = serve(answer)
    step, waits = asking(service)
    (row,) = step(rows_of(1))
    assert (row.error or "").startswith(named)
    assert "secret-key" not in (row.error or "")
    assert len(service.seen) == 1
    assert waits == []


def test_a_service_that_is_not_there_is_named(serve: Callable[..., Service]) -> None:
    service = serve((200, {}, b"not JSON"))
    step, waits = asking(service, retries=1)
    (row,) = step(rows_of(1))
    assert (row.error or "").startswith("captions.url: answers something else than a chat completion (2 tries)")
    config = CaptionConfig(by="endpoint", url="http://127.0.0.1:9", model="m", retries=2)
    (row,) = EndpointCaptions(config, sleep=waits.append)(rows_of(1))
    assert (row.error or "").startswith("captions.url: cannot be reached (")
    assert waits == [1.0, 1.0, 2.0]


# -- translation


def test_the_codes_of_both_families() -> None:
    pytest.importorskip("torch")
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    assert list(NLLB) == list(SEAMLESS) == list(LANGUAGES)
    assert set(NLLB.values()) <= set(FAIRSEQ_LANGUAGE_CODES)
    same = {code for code in LANGUAGES if NLLB[code].startswith(SEAMLESS[code])}
    assert same == set(LANGUAGES) - {"zh"}  # NLLB has zho_Hans, SeamlessM4T cmn


def test_languages_but_the_first_are_translated() -> None:
    def translate(texts: Any, source: str, target: str) -> list[str]:
        return [f"{source}>{target} {text}" for text in texts]

    config = CaptionConfig(languages=("en", "fr", "ja"), each=2, translate="somewhere")
    rows = write_captions(config, seed=0)([*rows_of(2), Row(id="e")])
    assert all(list(row.captions) in (["en"], []) for row in rows)
    rows[1].captions["ja"] = ["写真"]
    translate_captions(config.languages, translate)(rows)
    assert rows[0].captions["fr"] == [f"en>fr {text}" for text in rows[0].captions["en"]]
    assert list(rows[0].captions) == ["en", "fr", "ja"]
    assert rows[1].captions["ja"] == ["写真"]
    assert rows[2].captions == {}


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of NLLB's class and tokenizer, of random weights: it speaks no language, but goes all the way."""
    import torch
    from transformers import M2M100Config, M2M100ForConditionalGeneration, NllbTokenizer

    folder = tmp_path_factory.mktemp("nllb")
    letters = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz,."]
    tokenizer = NllbTokenizer(vocab={letter: n for n, letter in enumerate(letters)}, merges=[])
    config = M2M100Config(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=300,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = M2M100ForConditionalGeneration(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("one_thread")
def test_a_model_is_asked_in_the_right_languages(nllb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import M2M100ForConditionalGeneration

    asked: list[dict[str, Any]] = []
    plain = M2M100ForConditionalGeneration.generate

    def generate(self: Any, **arguments: Any) -> Any:
        asked.append(arguments)
        return plain(self, **arguments | {"max_new_tokens": 8})

    monkeypatch.setattr(M2M100ForConditionalGeneration, "generate", generate)
    model = Seq2Seq(str(nllb))
    texts = ["a man", "an old woman with a hat."]
    first = model(texts, "en", "fr")
    assert len(first) == 2
    assert all(isinstance(text, str) for text in first)
    tokenizer, _ = model._opened
    assert asked[0]["forced_bos_token_id"] == tokenizer.convert_tokens_to_ids("fra_Latn")
    assert tokenizer.convert_ids_to_tokens(asked[0]["input_ids"][:, 0].tolist()) == ["eng_Latn"] * 2
    model(texts[:1], "hi", "zh")
    assert asked[1]["forced_bos_token_id"] == tokenizer.convert_tokens_to_ids("zho_Hans")
    assert tokenizer.convert_ids_to_tokens(asked[1]["input_ids"][:, 0].tolist()) == ["hin_Deva"]
    assert model(texts, "en", "fr") == first


def test_a_folder_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"captions.translate: .* is no folder of a translation model"):
        Seq2Seq(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigError, match="whose config.json names m2m_100"):
        Seq2Seq(str(tmp_path))
