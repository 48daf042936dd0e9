"""Captions from an OpenAI-compatible service.

Odd here: what is sent are attributes, several faces a request, and never a picture. What comes back is free text that
nobody has checked against the attributes: the grammar cannot contradict its row, a language model can. Every try counts
against the job's budget, also one that fails.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from m3face.config.dataset import CaptionConfig
from m3face.data.rows import Row
from m3face.errors import DataError, M3FaceError
from m3face.faces import LANGUAGES

FACES = 8
"""Faces a request."""

_AT_ONCE = 4
_TIMEOUT_S = 120.0
_LONGEST_WAIT_S = 60.0
_MOST_BYTES = 8_000_000
_PASSING = (408, 425, 429)  # and every 5xx: worth another try

_TASK = """You write captions of photographs of faces. For every face you get attributes. Say only what they say, add \
nothing, contradict nothing, and vary the wording. Answer with JSON alone: \
{"faces": [{"id": 0, "captions": {"en": ["...", "..."]}}]}, with every face and, for each of its languages \
(ISO 639-1), the number of captions that is asked for, written as a native speaker would."""


class Budget:
    """A number of requests that all threads of this process share."""

    def __init__(self, requests: int) -> None:
        self._left = requests
        self._lock = threading.Lock()

    def __call__(self) -> bool:
        """Take one; False where none is left."""
        with self._lock:
            self._left -= 1
            return self._left >= 0


class _Passing(Exception):
    """A failure that may be over when tried again, `after` seconds at the earliest."""

    def __init__(self, what: str, after: float | None = None) -> None:
        super().__init__(what)
        self.after = after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key is for the address in the config only."""

    def redirect_request(self, *_: Any) -> None:
        return None


class EndpointCaptions:
    """A step that asks the service for the captions that rows lack. `may_ask` takes one request off the budget."""

    def __init__(
        self,
        config: CaptionConfig,
        *,
        may_ask: Callable[[], bool] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config = config
        self.languages = config.languages[:1] if config.translate else config.languages
        self.may_ask = may_ask or Budget(config.requests)
        self.sleep = sleep

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        mine = [row for row in rows if row.error is None and row.attributes and self._missing(row)]
        batches = [mine[start : start + FACES] for start in range(0, len(mine), FACES)]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self._batch, batches))
        return list(rows)

    def _missing(self, row: Row) -> list[str]:
        return [language for language in self.languages if not row.captions.get(language)]

    def _batch(self, rows: list[Row]) -> None:
        """Fill the captions of a few rows, or their errors."""
        try:
            rows = self._fill(rows)
        except M3FaceError as error:
            for row in rows:
                if self._missing(row):
                    row.error = str(error)

    def _fill(self, rows: list[Row]) -> list[Row]:
        fault = ""
        for attempt in range(self.config.retries + 1):
            if not self.may_ask():
                raise DataError(
                    "captions.requests",
                    f"{self.config.requests} requests are used up",
                    "a budget for the whole job",
                    "raise data.captions.requests",
                )
            after: float | None = None
            try:
                rows = self._take(self._post(rows), rows)
                if not rows:
                    return []
                fault = f"gave no usable captions for {len(rows)} of its faces"
            except _Passing as passing:
                fault, after = str(passing), passing.after
            if attempt < self.config.retries:
                self.sleep(min(_LONGEST_WAIT_S, 2.0**attempt if after is None else after))
        raise DataError(
            "captions.url",
            f"{fault} ({self.config.retries + 1} tries)",
            "an OpenAI-compatible service that answers",
            "see that it runs, or raise data.captions.retries",
        )

    def _post(self, rows: Sequence[Row]) -> str:
        """The text that the service answers. Raises _Passing, and DataError where another try would be no use."""
        faces = [
            {"id": place, "languages": self._missing(row), "attributes": row.attributes}
            for place, row in enumerate(rows)
        ]
        names = {code: LANGUAGES[code].name for code in self.languages}
        question = {"captions_per_language": self.config.each, "languages": names, "faces": faces}
        body = {
            "model": self.config.model,
            "messages": [
                {"role": "system", "content": _TASK},
                {"role": "user", "content": json.dumps(question, ensure_ascii=False)},
            ],
        }
        headers = {"Content-Type": "application/json"}
        key = os.environ.get(self.config.key_variable, "")
        if key:
            headers["Authorization"] = f"Bearer {key}"
        address = f"{self.config.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_S) as answer:
                content = json.loads(answer.read(_MOST_BYTES))["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _PASSING or error.code >= 500:
                    raise _Passing(f"answers {error.code}", _retry_after(error.headers.get("Retry-After"))) from None
            remedy = (
                f"set {self.config.key_variable}" if error.code in (401, 403) else "see data.captions.url and model"
            )
            raise DataError("captions.url", f"answers {error.code} {error.reason}", "200", remedy) from None
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"cannot be reached ({getattr(error, 'reason', error)})") from None
        except (ValueError, KeyError, IndexError, TypeError):
            raise _Passing("answers something else than a chat completion") from None
        if not isinstance(content, str):
            raise _Passing("answers without text")
        return content

    def _take(self, content: str, rows: list[Row]) -> list[Row]:
        """Put the captions of an answer on their rows; the rows that still lack some."""
        try:
            faces = json.loads(content[content.index("{") : content.rindex("}") + 1])["faces"]
            found = {int(face["id"]): dict(face["captions"]) for face in faces}
        except (ValueError, KeyError, TypeError):
            return rows
        for place, row in enumerate(rows):
            for language in self._missing(row):
                texts = found.get(place, {}).get(language)
                texts = texts if isinstance(texts, list) else []
                texts = [" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip()]
                if len(texts) >= self.config.each:
                    row.captions[language] = texts[: self.config.each]
        return [row for row in rows if self._missing(row)]


def _retry_after(value: str | None) -> float | None:
    """Seconds that the service asks to wait: a number or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
