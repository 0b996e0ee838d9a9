# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take a server's data as one RDB file, by the replication protocol: as a replica would get it when it starts.

The server forks, and sends what it held at that instant; it needs no room on its disk, and goes on working. Unlike a
file copied from the server's directory, it comes with the position in the server's history that it shows.
"""

from __future__ import annotations

import hashlib
import os
import time
import typing as t

from ..errors import MaintenanceError
from .client import Redis, RedisError, text_of

_CHUNK = 1 << 20
_MARK_BYTES = 40
# While the server prepares, it sends a line every ten seconds or so.
SILENCE = 120.0


class Taken(t.NamedTuple):
    """The file that was written, and which instant it shows."""

    sha256: str
    bytes: int
    replication_id: str
    offset: int


def take(login: t.Mapping[str, t.Any], path: str, *, timeout: float, at_point: t.Callable[[], None]) -> Taken:
    """Write the data of the server behind *login* to the new file *path*, hashed on its way.

    *at_point* is called as soon as the server has said which instant it is.
    """
    deadline = time.monotonic() + timeout
    with Redis(login, timeout=SILENCE) as server:
        replication_id, offset = _begin(server, deadline)
        at_point()
        blocks = _blocks(server, deadline)
        digest = hashlib.sha256()
        size = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as stream:
            for block in blocks:
                digest.update(block)
                stream.write(block)
                size += len(block)
    return Taken(digest.hexdigest(), size, replication_id, offset)


def _begin(server: Redis, deadline: float) -> tuple[str, int]:
    """Ask for everything; returns the history and the position in it of what will come."""
    # Without "eof" the server would write the file to its own disk first, in the place of its own dump.
    server.command("REPLCONF", "capa", "eof")
    try:
        server.command("REPLCONF", "rdb-only", "1")
    except RedisError as error:
        if error.code != "ERR":  # older than 7.0: changes would follow the file, which we do not wait for
            raise
    server.send("PSYNC", "?", "-1")
    said = server.reply_from(_said(server, deadline), "take a copy of all data (PSYNC)")
    if isinstance(said, RedisError):
        raise said
    words = text_of(said).split()
    if len(words) != 3 or words[0] != "FULLRESYNC":
        raise _unexpected(server, " ".join(words))
    return words[1], int(words[2])


def _blocks(server: Redis, deadline: float) -> t.Iterator[bytes]:
    """The bytes of the file; raises MaintenanceError when they end too early."""
    header = _said(server, deadline)
    if header.startswith(b"$EOF:") and len(header) == 5 + _MARK_BYTES:
        yield from _until_mark(server, header[5:], deadline)
    elif header[:1] == b"$" and header[1:].isdigit():
        yield from _counted(server, int(header[1:]), deadline)
    else:
        raise _unexpected(server, text_of(header[:200]))


def _said(server: Redis, deadline: float) -> bytes:
    """The next line that says something; empty ones come at any time while the server waits or prepares."""
    line = server.read_line()
    while not line:
        _require_time(server, deadline)
        line = server.read_line()
    return line


def _until_mark(server: Redis, mark: bytes, deadline: float) -> t.Iterator[bytes]:
    """Blocks up to the mark; the server sends nothing after it before it was answered."""
    kept = b""
    while not kept.endswith(mark):
        _require_time(server, deadline)
        block = kept + server.read_some(_CHUNK)
        ready, kept = block[:-_MARK_BYTES], block[-_MARK_BYTES:]
        if ready:
            yield ready


def _counted(server: Redis, left: int, deadline: float) -> t.Iterator[bytes]:
    while left:
        _require_time(server, deadline)
        block = server.read_some(min(left, _CHUNK))
        left -= len(block)
        yield block


def _require_time(server: Redis, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise MaintenanceError(
            "take a copy of all data",
            where=server.where,
            expected="all of it within the timeout",
            observed="the time is up",
            advice="See what slows the server or the network down, or allow more time.",
        )


def _unexpected(server: Redis, said: str) -> MaintenanceError:
    return MaintenanceError(
        "take a copy of all data",
        where=server.where,
        expected="the server's data",
        observed=said or "nothing",
        advice="See the server's log. A service that forbids PSYNC cannot be backed up from outside.",
    )
