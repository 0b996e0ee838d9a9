"""Real Redis servers for tests: Debian's program, started by ourselves in a directory of a test's own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError, MissingToolError
from ansible_collections.wellkept.maintenance.plugins.module_utils.redis.client import Redis, text_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.redis.rdb import find_server

from support.ports import free_port
from support.waiting import wait_until


def server_program() -> str:
    """The program; tests are skipped where it is not installed."""
    try:
        return find_server()
    except MissingToolError as missing:
        pytest.skip(f"redis-server: {missing.advice}")


class RedisServer:
    """A server with a port and a Unix socket, both of its own."""

    def __init__(self, directory: Path, *settings: str) -> None:
        self.directory = directory
        self.settings = settings
        self.port = free_port()
        self.socket = directory / "socket"
        self.log = directory / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        # Both the server and the checker are this program, which goes by its name.
        (directory / "redis-server").symlink_to(server_program())

    def start(self, *, wait: bool = True) -> None:
        lines = [
            f"port {self.port}", "bind 127.0.0.1", f"unixsocket {self.socket}", f"dir {self.directory}",
            'save ""', "appendonly no", "daemonize no", "enable-debug-command yes",
            # Else a copy begins only after five seconds, in case that a second replica asks for one.
            "repl-diskless-sync-delay 0", *self.settings,
        ]  # fmt: skip
        (self.directory / "redis.conf").write_text("\n".join(lines) + "\n")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.directory / "redis-server"), str(self.directory / "redis.conf")],
                stdout=log,
                stderr=log,
                cwd=self.directory,
            )
        if wait:
            wait_until(self.answers, self.log.read_text)

    def answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log.read_text()
        try:
            with self.connect() as connection:
                return bool(connection.command("PING") == "PONG")
        except MaintenanceError:
            return False

    def stop(self) -> None:
        if self.process:
            with_children = [self.process.pid, *self.children()]
            for pid in with_children:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait()
            self.process = None

    def children(self) -> list[int]:
        """The processes that it has forked to write its data."""
        assert self.process
        words = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(word) for word in words]

    @property
    def password(self) -> str:
        found = [line.split()[1] for line in self.settings if line.startswith("requirepass ")]
        return found[0] if found else ""

    def connect(self) -> Redis:
        return Redis({"unix_socket": str(self.socket), "password": self.password})

    def do(self, *words: Any) -> Any:
        """One command's answer, text as str."""
        with self.connect() as connection:
            reply = connection.command(*words)
        return text_of(reply) if isinstance(reply, bytes) else reply

    def digest(self) -> str:
        """The server's own fingerprint of all that it holds, which does not depend on the order."""
        return str(self.do("DEBUG", "DIGEST"))

    def option(self, name: str, **others: Any) -> dict[str, Any]:
        """This server in the option ``redis`` of the module backup."""
        return {"name": name, "unix_socket": str(self.socket), "password": self.password, **others}


@contextmanager
def redis_server(*settings: str) -> Iterator[RedisServer]:
    """A running server; *settings* are lines of its configuration."""
    directory = Path(tempfile.mkdtemp(prefix="wellkept-redis-"))
    try:
        server = RedisServer(directory, *settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fill(server: RedisServer, keys: int = 2000) -> None:
    """Keys of all types, small and large, in three databases; some of them expire one day."""
    chance = random.Random(keys)
    with server.connect() as connection:
        count = 0

        def do(*words: Any) -> None:
            nonlocal count
            connection.send(*words)
            count += 1

        for number in range(keys):
            do("SET", f"session:{number}", chance.randbytes(chance.randrange(60)), "EX", 86400 + number)
            if number % 2:
                do("SET", f"page:{number}", f"<html>{number}</html>" * (number % 40))
        for number in range(keys // 20):
            do("HSET", f"user:{number}", *(word for field in range(5) for word in (f"f{field}", number * field)))
            do("RPUSH", f"queue:{number}", *(f"job {job}" for job in range(1 + number % 300)))
            do("SADD", f"tags:{number}", *(chance.randrange(10**6) for _tag in range(1 + number % 600)))
            do("ZADD", f"rank:{number}", *(word for rank in range(1 + number % 200) for word in (rank * 0.5, rank)))
            do("XADD", f"log:{number}", "*", "said", "x" * number)
        do("SET", "counter", 12345)
        do("SETBIT", "bits", 100000, 1)
        do("PFADD", "visitors", *range(500))
        do("GEOADD", "places", "8.54", "47.37", "Zurich")
        do("SELECT", 3)
        for number in range(keys // 4):
            do("SET", f"other:{number}", number)
        do("SELECT", 15)
        do("HSET", "large", *(word for field in range(3000) for word in (field, "v" * (field % 90))))
        for _each in range(count):
            reply = connection.read_reply()
            assert not isinstance(reply, Exception), reply
