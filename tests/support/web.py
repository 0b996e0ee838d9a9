"""A small real web server for tests, with TLS by certificates that the openssl program makes."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path
        if path == "/slow":
            time.sleep(0.5)
        if path == "/drip":
            self._drip()
        elif path == "/hang":
            time.sleep(600)
        elif path == "/broken":
            self._answer(200, b"short", length=1000)
        elif path == "/error":
            self._answer(500, b"Traceback: password=hunter2")
        elif path.startswith("/to/"):
            self._answer(302, b"", location=path[3:])
        elif path == "/away":
            self._answer(302, b"", location=self.server.away)  # type: ignore[attr-defined]
        elif path == "/headers":
            self._answer(200, str(self.headers).encode())
        else:
            self._answer(200, b'{"status": "ok"}')

    def _answer(self, status: int, body: bytes, length: int | None = None, location: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def _drip(self) -> None:
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.end_headers()
            for _attempt in range(6000):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def web_server(certificate: Path | None = None, away: str = "") -> Iterator[int]:
    """The port of a web server on localhost; with TLS if there is a *certificate* (with its key in the same file)."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.away = away  # type: ignore[attr-defined]
    server.handle_error = lambda *arguments: None  # type: ignore[method-assign]
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


def make_certificate(directory: Path, days: int, name: str = "localhost") -> Path:
    """A self-signed certificate for *name* with its key in one file; -1 day makes one that ended yesterday."""
    key, request, certificate = directory / "key.pem", directory / "request.pem", directory / f"{name}{days}.pem"
    extensions = directory / "extensions"
    extensions.write_text(f"subjectAltName=DNS:{name}\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key)]
    _openssl("req", "-new", *new_key, "-subj", f"/CN={name}", "-out", str(request))
    signed = ["-req", "-in", str(request), "-signkey", str(key), "-days", str(days), "-extfile", str(extensions)]
    _openssl("x509", *signed, "-out", str(certificate))
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
