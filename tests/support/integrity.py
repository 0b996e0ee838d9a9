"""Looking for damage in a test's own cluster, and making it."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer, postgres_server

PAGE = 8192
SCHEMA = """
CREATE TABLE student (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, tags int[]);
INSERT INTO student (name, tags) SELECT 'student ' || g, ARRAY[g, g % 7] FROM generate_series(1, 5000) g;
CREATE INDEX student_name ON student (name);
CREATE INDEX student_tags ON student USING gin (tags);
CREATE TABLE course (id int PRIMARY KEY, title text);
INSERT INTO course SELECT g, 'course ' || g FROM generate_series(1, 5000) g;
CREATE INDEX course_title ON course (title)
"""
# An index that takes its time when somebody looks whether it has every row, once that is switched on.
SLOW = """
CREATE SCHEMA slow;
CREATE FUNCTION slow.value(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN
    IF current_setting('slow.seconds', true) > '0' THEN
        PERFORM pg_sleep(current_setting('slow.seconds')::float8);
    END IF;
    RETURN n;
END$$
"""


class Inspector:
    """Runs the module on one server with a state directory of its own."""

    def __init__(self, server: PostgresServer, state: Path, database: str = "learning") -> None:
        self.server, self.state, self.database = server, state, database

    def options(self, **options: Any) -> dict[str, Any]:
        usual = {"state_dir": str(self.state), "databases": [self.database]}
        return {**self.server.login(), **usual, **options}

    def look(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module("postgresql_integrity", self.options(**options), check=check)

    @property
    def memory(self) -> Path:
        (path,) = (self.state / "database_integrity").glob("*.json")
        return path

    def change_memory(self, change: Callable[[dict[str, Any]], None]) -> None:
        document = json.loads(self.memory.read_text())
        change(document)
        self.memory.write_text(json.dumps(document))

    def age_memory(self, seconds: float) -> None:
        """Let everything that is remembered have happened *seconds* earlier."""

        def age(document: dict[str, Any]) -> None:
            for entry in document["things"].values():
                for key in ("seen", "tried", "checked"):
                    entry[key] = entry[key] - seconds if entry[key] else 0
            for points in document["sequences"].values():
                for point in points:
                    point[0] -= seconds
            document["unused"] = {key: since - seconds for key, since in document["unused"].items()}

        self.change_memory(age)


def statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks_by_name(shown).items()}


def looked_at(shown: dict[str, Any]) -> int:
    value: int = shown["metrics"]["looked_at"]["value"]
    return value


def make_slow_indexes(server: PostgresServer, count: int, rows: int = 10, dbname: str = "learning") -> None:
    """Tables ``slow.t0`` … with an index each that takes *rows* × ``slow.seconds`` to be looked at closely."""
    with server.connect(dbname) as connection:
        connection.execute(SLOW)
        for number in range(count):
            connection.execute(f"CREATE TABLE slow.t{number} (n int)")
            connection.execute(f"INSERT INTO slow.t{number} SELECT generate_series(1, {rows})")
            connection.execute(f"CREATE INDEX t{number}_value ON slow.t{number} (slow.value(n))")


def slow_down(server: PostgresServer, seconds: float, dbname: str = "learning") -> None:
    server.sql(f"ALTER DATABASE {dbname} SET slow.seconds = '{seconds}'")


@contextlib.contextmanager
def learning_server(bin_dir: Path | None = None) -> Iterator[PostgresServer]:
    """A server whose database ``learning`` has SCHEMA."""
    with postgres_server(bin_dir=bin_dir) as server:
        server.sql("CREATE DATABASE learning")
        with server.connect("learning") as connection:
            connection.execute(SCHEMA)
        yield server


class Proxy:
    """Passes TCP connections on to a server, until :meth:`cut` breaks those that there are; new ones are passed on."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def close(self) -> None:
        self.cut()
        self._listener.close()


# Damage: to files of a server that is stopped.


def file_of(server: PostgresServer, relation: str, dbname: str = "learning") -> Path:
    return server.data / server.sql(f"SELECT pg_relation_filepath('{relation}')", dbname)[0][0]


def spoil_index(path: Path) -> None:
    """Change the key of one entry in the first leaf page of a B-tree on int, so that it is out of order."""
    with path.open("r+b") as stream:
        page = bytearray(_page(stream, 1))
        number = _line_pointers(page) // 2
        place = _tuple_place(page, number)
        struct.pack_into("<i", page, place + 8, -5)
        stream.seek(PAGE)
        stream.write(page)


def spoil_table(path: Path) -> None:
    """Let one row of the first page lie where none can: beyond the end of the page."""
    with path.open("r+b") as stream:
        page = bytearray(_page(stream, 0))
        (pointer,) = struct.unpack_from("<I", page, 24 + 4 * 3)
        struct.pack_into("<I", page, 24 + 4 * 3, (pointer & ~0x7FFF) | (PAGE - 3))
        stream.seek(0)
        stream.write(page)


def flip_bit(path: Path, block: int) -> None:
    """Turn over one bit in the middle of a page, as a failing disk does."""
    with path.open("r+b") as stream:
        stream.seek(block * PAGE + PAGE - 100)
        (byte,) = stream.read(1)
        stream.seek(block * PAGE + PAGE - 100)
        stream.write(bytes([byte ^ 0x10]))


def _page(stream: Any, block: int) -> bytes:
    stream.seek(block * PAGE)
    page: bytes = stream.read(PAGE)
    assert len(page) == PAGE
    return page


def _line_pointers(page: bytes | bytearray) -> int:
    (lower,) = struct.unpack_from("<H", page, 12)
    count: int = (lower - 24) // 4
    return count


def _tuple_place(page: bytes | bytearray, number: int) -> int:
    (pointer,) = struct.unpack_from("<I", page, 24 + 4 * number)
    place: int = pointer & 0x7FFF
    return place
