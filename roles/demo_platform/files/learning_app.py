# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo platform's web application: courses out of PostgreSQL, behind a page cache on disk.

Usage: learning_app.py CONFIG.json

SIGHUP makes it open its logs anew (after a rotation), SIGTERM ends it. It also ends when its pid file no longer
names it, so that nothing is left running of a platform that was removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import os
import queue
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg

PAGE_ROWS = 25
CACHE_SECONDS = 3600.0


class Logs:
    """The access log and the error log; what goes to standard error goes to the error log, too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptors: dict[str, int] = {}
        self.open()

    def open(self) -> None:
        """Open both files (anew): the descriptors stay the same, so a writer never meets a closed one."""
        for name in ("access.log", "error.log"):
            opened = os.open(self._directory / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            if name in self._descriptors:
                os.dup2(opened, self._descriptors[name], inheritable=False)
                os.close(opened)
            else:
                self._descriptors[name] = opened
        for standard in (1, 2):
            os.dup2(self._descriptors["error.log"], standard)

    def access(self, line: str) -> None:
        os.write(self._descriptors["access.log"], f"{line}\n".encode())

    def event(self, level: str, message: str) -> None:
        moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        os.write(self._descriptors["error.log"], f"{moment} {level} {message}\n".encode())


class Database:
    """A few connections that are kept open; a broken one is replaced."""

    def __init__(self, options: dict[str, Any], connections: int = 4) -> None:
        self._options = options
        self._idle: queue.LifoQueue[psycopg.Connection[Any] | None] = queue.LifoQueue()
        for _number in range(connections):
            self._idle.put(None)

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of *statement*; tried once more on a new connection when the old one turns out to be dead."""
        connection = self._idle.get()
        try:
            if connection is not None:
                with contextlib.suppress(psycopg.OperationalError):
                    return connection.execute(statement, parameters).fetchall()
                connection.close()
                connection = None
            connection = psycopg.connect(**self._options, autocommit=True, connect_timeout=3)
            return connection.execute(statement, parameters).fetchall()
        finally:
            self._idle.put(connection if connection is not None and not connection.closed else None)


class PageCache:
    """Rendered pages as files, each named by the hash of its address."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, address: str) -> Path:
        name = hashlib.sha256(address.encode()).hexdigest()
        return self._directory / name[:2] / f"{name}.html"

    def get(self, address: str) -> bytes | None:
        path = self.path(address)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime < CACHE_SECONDS:
                return path.read_bytes()
        return None

    def put(self, address: str, page: bytes) -> None:
        """Write the page whole; the cache may be cleared at the same moment, then this page is simply not kept."""
        path = self.path(address)
        with contextlib.suppress(FileNotFoundError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(page)
            Path(temporary).replace(path)


class NotFoundError(Exception):
    """There is no such page."""


class Application:
    """The pages."""

    def __init__(self, database: Database, cache: PageCache) -> None:
        self._database = database
        self._cache = cache

    def health(self) -> tuple[int, dict[str, Any]]:
        began = time.monotonic()
        try:
            [(courses,)] = self._database.rows("SELECT count(*) FROM courses")
        except psycopg.Error as error:
            return 503, {"status": "unavailable", "reason": str(error).strip().splitlines()[0]}
        return 200, {"status": "ok", "courses": courses, "database_seconds": round(time.monotonic() - began, 4)}

    def page(self, address: str) -> tuple[bytes, bool]:
        """The page at *address* and whether it came from the cache."""
        kept = self._cache.get(address)
        if kept is not None:
            return kept, True
        page = self._render(address)
        self._cache.put(address, page)
        return page, False

    def _render(self, address: str) -> bytes:
        if address in ("/", "/courses"):
            return self._courses()
        match = re.fullmatch(r"/courses/(\d{1,9})(?:/people/(\d{1,6}))?", address)
        if not match:
            raise NotFoundError(address)
        return self._people(int(match[1]), int(match[2])) if match[2] else self._course(int(match[1]))

    def _courses(self) -> bytes:
        found = self._database.rows(
            "SELECT c.id, c.code, c.title, count(e.id) FROM courses c LEFT JOIN enrolments e ON e.course_id = c.id "
            "GROUP BY c.id ORDER BY c.code"
        )
        return _table("Courses", ("Course", "Code", "Title", "Enrolled"), found)

    def _course(self, course: int) -> bytes:
        found = self._database.rows(
            "SELECT s.assignment, count(*), count(s.graded_at), round(avg(s.grade), 2) FROM submissions s "
            "JOIN enrolments e ON e.id = s.enrolment_id WHERE e.course_id = %s GROUP BY 1 ORDER BY 1",
            course,
        )
        return _table(self._title(course), ("Assignment", "Submitted", "Graded", "Mean grade"), found)

    def _people(self, course: int, page: int) -> bytes:
        found = self._database.rows(
            "SELECT s.given_name, s.family_name, e.progress FROM enrolments e JOIN students s ON s.id = e.student_id "
            "WHERE e.course_id = %s ORDER BY s.family_name, s.given_name, s.id LIMIT %s OFFSET %s",
            course,
            PAGE_ROWS,
            PAGE_ROWS * (max(page, 1) - 1),
        )
        return _table(f"{self._title(course)}, people, page {page}", ("Given name", "Family name", "Progress"), found)

    def _title(self, course: int) -> str:
        found = self._database.rows("SELECT title FROM courses WHERE id = %s", course)
        if not found:
            raise NotFoundError(f"course {course}")
        return str(found[0][0])


def _table(title: str, heads: tuple[str, ...], rows: list[tuple[Any, ...]]) -> bytes:
    def line(tag: str, cells: tuple[Any, ...]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>\n"

    body = line("th", heads) + "".join(line("td", row) for row in rows)
    page = f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>\n"
    return f"{page}<h1>{html.escape(title)}</h1>\n<table>\n{body}</table>\n</html>\n".encode()


def handler(application: Application, logs: Logs) -> type[BaseHTTPRequestHandler]:
    """The request handler class for *application*."""

    class Handler(BaseHTTPRequestHandler):
        server_version = "learning"
        timeout = 30

        def do_GET(self) -> None:
            began = time.monotonic()
            status, kind, body, origin = self._answer()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Cache", origin)
            self.end_headers()
            self.wfile.write(body)
            stamp = datetime.now(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")
            request = self.requestline.encode("unicode_escape").decode().replace('"', "%22")
            logs.access(
                f'{self.client_address[0]} - - [{stamp}] "{request}" {status} {len(body)} "-" "-" '
                f"{time.monotonic() - began:.3f}"
            )

        def _answer(self) -> tuple[int, str, bytes, str]:
            address = self.path.partition("?")[0]
            if address == "/health":
                status, state = application.health()
                if status != 200:
                    logs.event("ERROR", f"the database does not answer: {state['reason']}")
                return status, "application/json", json.dumps(state).encode() + b"\n", "BYPASS"
            page_type = "text/html; charset=utf-8"
            try:
                page, kept = application.page(address)
            except NotFoundError:
                return 404, page_type, b"<!doctype html><title>Not found</title>\n", "BYPASS"
            except psycopg.Error as error:
                logs.event("ERROR", f"{address}: {str(error).strip().splitlines()[0]}")
                return 503, page_type, b"<!doctype html><title>Unavailable</title>\n", "BYPASS"
            return 200, page_type, page, "HIT" if kept else "MISS"

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
            logs.event("WARNING", (format % arguments).encode("unicode_escape").decode())

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """The access log has its own line."""

    return Handler


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextlib.contextmanager
def pid_file(path: Path) -> Iterator[None]:
    """Say in *path* who we are while the block runs."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(f"{os.getpid()}\n", encoding="ascii")
    temporary.replace(path)
    try:
        yield
    finally:
        if _names_us(path):
            path.unlink()


def _names_us(path: Path) -> bool:
    try:
        return path.read_text(encoding="ascii").strip() == str(os.getpid())
    except OSError:
        return False


def main(configuration: str) -> None:
    options = json.loads(Path(configuration).read_text(encoding="utf-8"))
    os.umask(0o022)
    own_pid_file = Path(options["pid_file"])
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ended.set())
    logs = Logs(Path(options["log_directory"]))
    signal.signal(signal.SIGHUP, lambda _number, _frame: logs.open())
    application = Application(Database(options["database"]), PageCache(Path(options["page_cache"])))
    with Server(("127.0.0.1", options["port"]), handler(application, logs)) as server, pid_file(own_pid_file):
        logs.event("INFO", f"answering on port {options['port']}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while not ended.wait(2.0) and _names_us(own_pid_file):
            pass
        server.shutdown()
        logs.event("INFO", "ended")


if __name__ == "__main__":
    main(sys.argv[1])
