"""An S3 server for tests, as a process of its own: `python -m tests.ray.s3_server PORT`.

Odd here: moto answers, but the first PUT and the first GET of every file that is asked for by a path with "flaky" in it
get a 503, as a busy server gives. `/_refused` says how many did.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple


class Busy:
    """A WSGI application that refuses what it sees for the first time."""

    def __init__(self, behind: Any) -> None:
        self._behind, self._seen, self._lock = behind, set[tuple[str, str]](), threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if path == "/_refused":
            start("200 OK", [("Content-Type", "text/plain")])
            return [str(len(self._seen)).encode()]
        with self._lock:
            refuse = "flaky" in path and method in ("GET", "PUT") and (method, path) not in self._seen
            if refuse:
                self._seen.add((method, path))
        if refuse:
            body, size = environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0)
            body.read() if environ.get("wsgi.input_terminated") else body.read(size)  # else the connection breaks first
            start("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>busy</Message></Error>"]
        return self._behind(environ, start)


if __name__ == "__main__":
    application = DomainDispatcherApplication(create_backend_app)
    run_simple("127.0.0.1", int(sys.argv[1]), Busy(application), threaded=True)
