"""A small real web application with a cache of pages on disk, as tests of caches need it."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class SmallApplication:
    """Serves ``/page/<n>`` from its cache, and computes it (slowly) when it is not there.

    ``/health`` answers with ``status``; ``keeps`` says whether computed pages are cached. Nothing is answered while
    ``may_answer`` is not set.
    """

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.compute_seconds = 0.0
        self.keeps = True
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.requests: list[str] = []
        application = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                application.requests.append(self.path)
                application.may_answer.wait()
                body = application.page(self.path) if self.path.startswith("/page/") else b"ok"
                status = 302 if self.path == "/moved" else 404 if self.path == "/missing" else application.status
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_words: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def page(self, path: str) -> bytes:
        cached = self.cache / path.replace("/", "_")
        try:
            return cached.read_bytes()
        except FileNotFoundError:
            time.sleep(self.compute_seconds)
            if self.keeps:
                cached.write_bytes(b"a page")
            return b"a page"


@contextlib.contextmanager
def small_application(cache: Path) -> Iterator[SmallApplication]:
    application = SmallApplication(cache)
    thread = threading.Thread(target=application.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield application
    finally:
        application.server.shutdown()
        application.server.server_close()
        thread.join()
