# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A Redis or Valkey server that is started on a restored RDB file for one test, and cannot touch anything but itself.

It has a socket in a private directory and no port, saves nothing and replicates nothing. The server dies with the
process that started it, and is the first to be ended when the host runs short of memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
import typing as t

from ..errors import MaintenanceError
from ..processes import as_user, last_words, run
from ..redis import rdb
from ..redis.client import Redis, RedisError
from .scratch_cluster import dying_with_us, hand_over
from .scratch_directory import REDIS_PID, short_socket_directory

# Whom the server runs as when we are root: somebody without any rights.
USER = "nobody"
_VERSION = re.compile(r"v=(\d+)\.(\d+)")
# Under this name, the program is a server; under that of the checker, the same program checks.
_NAME = "redis-server"


class ScratchRedis:
    """The server in the private directory *directory*; its file is laid down as ``data/dump.rdb``."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.data = os.path.join(directory, "data")
        self.file = os.path.join(self.data, "dump.rdb")
        self.log = os.path.join(directory, "server.log")
        self.socket = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.program = os.path.join(directory, _NAME)
        os.symlink(rdb.find_server(), self.program)
        os.mkdir(self.data, 0o700)

    def version(self) -> tuple[int, int]:
        """Of the program."""
        said = run([self.program, "--version"], timeout=60).stdout
        found = _VERSION.search(said)
        if not found:
            raise MaintenanceError(
                "find out the version of redis-server",
                where=os.path.realpath(self.program),
                expected="a line with v=<version>",
                observed=last_words(said),
                advice="Install redis-tools or valkey-tools of the distribution.",
            )
        return int(found.group(1)), int(found.group(2))

    def configure(self, *, databases: int, memory: int) -> None:
        """Write the server's configuration."""
        self.socket = os.path.join(short_socket_directory(self.directory), "redis")
        lines = [
            f"{name} {value}\n" for name, value in _settings(self.version(), self.socket, self.data, databases, memory)
        ]
        self._write("redis.conf", "".join(lines))

    def start(self, timeout: float) -> None:
        """Start the server and wait until it has loaded the file."""
        self._write("server.log", "")
        hand_over(USER, os.path.dirname(self.socket), self.directory)
        prefix = max((as_user(USER, place) for place in (os.path.dirname(rdb.find_server()), self.directory)), key=len)
        command = [*dying_with_us(prefix, "KILL"), self.program, os.path.join(self.directory, "redis.conf")]
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=self.directory,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._wait_until_loaded(self.process, time.monotonic() + timeout)

    def stop(self) -> None:
        """End the server at once: its data are thrown away."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def connect(self, timeout: float = 600.0) -> Redis:
        """A connection to the server; one that reached another server is refused."""
        connection = Redis({"unix_socket": self.socket}, timeout=timeout)
        pid = connection.info("server").get("process_id", "none")
        ours = str(self.process.pid) if self.process else "none"
        if pid != ours:
            connection.close()
            raise MaintenanceError(
                "connect to the scratch server",
                where=self.socket,
                expected=f"our own server, process {ours}",
                observed=f"process {pid}",
                advice="Nothing was written to it; look at scratch_dir.",
            )
        return connection

    def last_words(self) -> str:
        """The last lines of the server's log."""
        with open(self.log, encoding="utf-8", errors="replace") as stream:
            return last_words(stream.read(), 4)

    def _wait_until_loaded(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise self._not_loaded(f"it ended with status {process.returncode}")
            if os.path.exists(self.socket) and self._has_loaded():
                return
            time.sleep(0.02)
        raise self._not_loaded("it was still loading when the time was up")

    def _has_loaded(self) -> bool:
        # A connection that was taken and is then cut is that of a server which gives up; its end says more.
        with contextlib.suppress(MaintenanceError), Redis({"unix_socket": self.socket}) as connection:
            try:
                return connection.command("PING") == "PONG"
            except RedisError as error:
                if error.code != "LOADING":
                    raise
        return False

    def _not_loaded(self, observed: str) -> MaintenanceError:
        return MaintenanceError(
            "load the restored file",
            where=self.file,
            expected="a server that has loaded it",
            observed=f"{observed}; its log ends: {self.last_words()}",
            advice="The server's last words say what is in the way: damage, a module that is not installed here, or a "
            "file of a newer version than redis-server on this host.",
        )

    def _write(self, name: str, content: str) -> None:
        path = os.path.join(self.directory, name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)


def _settings(
    version: tuple[int, int], socket: str, data: str, databases: int, memory: int
) -> t.Iterator[tuple[str, t.Any]]:
    yield "port", 0
    yield "unixsocket", _quoted(socket)
    yield "unixsocketperm", 700
    yield "dir", _quoted(data)
    yield "dbfilename", "dump.rdb"
    yield "daemonize", "no"
    yield "pidfile", _quoted(os.path.join(data, REDIS_PID))
    yield "databases", databases
    yield "save", '""'
    yield "appendonly", "no"
    yield "maxmemory", memory
    yield "maxmemory-policy", "noeviction"
    yield "loglevel", "notice"
    # Many small values are kept packed in one; the checker and this look into them, a plain load does not.
    if version >= (6, 2):
        yield "sanitize-dump-payload", "yes"
        yield "oom-score-adj", "absolute"
        yield "oom-score-adj-values", "1000 1000 1000"
    # To compare two loads by DEBUG DIGEST.
    if version >= (7, 0):
        yield "enable-debug-command", "local"


def _quoted(path: str) -> str:
    """*path* as one word of a configuration file."""
    return '"' + re.sub(r'[\\"]', r"\\\g<0>", path) + '"'
