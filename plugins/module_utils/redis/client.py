# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Talk to a Redis or Valkey server by its own protocol (RESP2), over TCP or a Unix socket; nothing is installed for it.

Errors are MaintenanceErrors that say what to do; no password is ever part of one.
"""

from __future__ import annotations

import contextlib
import socket
import typing as t

from ..errors import MaintenanceError, UnavailableError

# Strings come as bytes, statuses as str; an error inside of an array stays a value of it.
Reply = t.Union[None, int, str, bytes, "RedisError", t.List["Reply"]]

LOGIN_OPTIONS: dict[str, dict[str, t.Any]] = {
    "host": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 6379},
    "unix_socket": {"type": "path", "default": ""},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
}

_SECONDS_TO_CONNECT = 10.0
# A server that is stuck in one slow command answers nothing at all meanwhile.
_SECONDS_TO_ANSWER = 60.0

# What the first word of an error asks of the operator.
_ADVICE = {
    "NOAUTH": "Set the password (and, for a user of an ACL, the username).",
    "WRONGPASS": "Correct the username and the password.",
    "NOPERM": "Let the user do this with ACL SETUSER, or name another one.",
    "LOADING": "The server is still loading its data after a start. Run it again when it has finished.",
    "MASTERDOWN": "The replica has lost its master: see INFO replication.",
    "NOMASTERLINK": "The replica has lost its master: see INFO replication.",
    "READONLY": "The server is a replica.",
    "MISCONF": "The server cannot save its data: see its log and its disk.",
    "OOM": "The server has reached its maxmemory.",
    "BUSY": "A script keeps the server busy: see SCRIPT KILL.",
    "DENIED": "The server is in protected mode: set a password, or use its Unix socket.",
}


class RedisError(UnavailableError):
    """The server answered with an error; ``code`` is its first word (``NOAUTH``, ``LOADING``, ``ERR`` …)."""

    def __init__(self, what: str, *, where: str, said: str) -> None:
        self.code = said.split(" ", 1)[0].lstrip("-")
        advice = _ADVICE.get(self.code, "The server's own words say what is in the way.")
        super().__init__(what, where=where, expected="an answer without an error", observed=said, advice=advice)


class Redis:
    """A connection; a context manager that closes it. After any error but RedisError it is of no use any more."""

    def __init__(self, login: t.Mapping[str, t.Any], *, timeout: float = _SECONDS_TO_ANSWER) -> None:
        """Connect and log in; *login* has the values of LOGIN_OPTIONS."""
        self.where = where_of(login)
        self._password = str(login.get("password") or "")
        self._socket = self._connect(login)
        self._socket.settimeout(timeout)
        self._stream = self._socket.makefile("rb")
        try:
            if self._password:
                user = [login["username"]] if login.get("username") else []
                self.command("AUTH", *user, self._password)
            # Only to be recognised in CLIENT LIST; an ACL may forbid it.
            with contextlib.suppress(RedisError):
                self.command("CLIENT", "SETNAME", "wellkept")
        except BaseException:
            self.close()
            raise

    def _connect(self, login: t.Mapping[str, t.Any]) -> socket.socket:
        try:
            if not login.get("unix_socket"):
                return socket.create_connection((login["host"], int(login["port"])), timeout=_SECONDS_TO_CONNECT)
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(_SECONDS_TO_CONNECT)
                connection.connect(login["unix_socket"])
            except BaseException:
                connection.close()
                raise
            return connection
        except (OSError, OverflowError) as error:
            raise UnavailableError(
                "connect to Redis",
                where=self.where,
                expected="a server that takes connections",
                observed=_words_of(error),
                advice="Start the server, or correct the host and port or the Unix socket.",
            ) from None

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        for each in (self._stream, self._socket):
            with contextlib.suppress(OSError):
                each.close()

    def command(self, *words: t.Union[str, bytes, int]) -> Reply:
        """Send one command and return its answer; raises RedisError when that is an error."""
        self.send(*words)
        reply = self.read_reply(_said_to(words))
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def info(self, section: str = "") -> dict[str, str]:
        """The fields of INFO; without a *section* the server's usual ones, all as of one moment."""
        said = self.command("INFO", *([section] if section else []))
        lines = text_of(said).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))

    def send(self, *words: t.Union[str, bytes, int]) -> None:
        encoded = [word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape") for word in words]
        parts = [b"*%d\r\n" % len(encoded)]
        for word in encoded:
            parts += [b"$%d\r\n" % len(word), word, b"\r\n"]
        with self._told("send to Redis"):
            self._socket.sendall(b"".join(parts))

    def read_reply(self, what: str = "ask Redis") -> Reply:
        """The next answer; an error is returned, not raised."""
        return self.reply_from(self.read_line(), what)

    def reply_from(self, line: bytes, what: str) -> Reply:
        """The answer that begins with *line*, which was read already."""
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return text_of(rest)
        if kind == b"-":
            return RedisError(what, where=self.where, said=self._without_password(text_of(rest)))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._read_exactly(int(rest) + 2)[:-2]
        if kind == b"*":
            return None if rest == b"-1" else [self.read_reply(what) for _number in range(int(rest))]
        raise self._lost("understand the answer of Redis", f"{line[:40]!r}")

    def read_line(self) -> bytes:
        """The next line, without its end."""
        with self._told("read from Redis"):
            line = self._stream.readline(1 << 16)
        if not line.endswith(b"\n"):
            raise self._lost("read from Redis", "the server closed the connection")
        return line.rstrip(b"\r\n")

    def read_some(self, most: int) -> bytes:
        """What has come, at most *most* bytes; raises MaintenanceError when the server has closed the connection."""
        with self._told("read from Redis"):
            block = self._stream.read1(most)
        if not block:
            raise self._lost("read from Redis", "the server closed the connection before the end")
        return bytes(block)

    def _read_exactly(self, size: int) -> bytes:
        with self._told("read from Redis"):
            found = self._stream.read(size)
        if len(found) != size:
            raise self._lost("read from Redis", "the server closed the connection before the end")
        return found

    @contextlib.contextmanager
    def _told(self, what: str) -> t.Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._lost(what, _words_of(error)) from None

    def _lost(self, what: str, observed: str) -> MaintenanceError:
        return UnavailableError(
            what,
            where=self.where,
            expected="a server that answers",
            observed=observed,
            advice="See the server's log, and whether one slow command keeps it busy (SLOWLOG).",
        )

    def _without_password(self, said: str) -> str:
        """A server in which AUTH is renamed repeats what it was sent."""
        return said.replace(self._password, "***") if self._password else said


def where_of(login: t.Mapping[str, t.Any]) -> str:
    """The address of the server, for people."""
    return str(login.get("unix_socket") or f"{login.get('host')}:{login.get('port')}")


def text_of(reply: t.Any) -> str:
    """A string of the server's as text."""
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)


def _said_to(words: t.Sequence[t.Union[str, bytes, int]]) -> str:
    """What was attempted: the command's own name, never its arguments."""
    return f"{text_of(words[0])} at Redis"


def _words_of(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error)
