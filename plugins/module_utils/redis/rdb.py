# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be told of an RDB file: by its own head and end, and by redis-check-rdb."""

from __future__ import annotations

import os
import re
import typing as t

from ..errors import MaintenanceError, MissingToolError
from ..processes import find_program, last_words, run

_MAGIC = re.compile(rb"REDIS\d{4}|VALKEY\d{3}")
_AUX = 0xFA
# The fields at the head are few and short.
_HEAD_BYTES = 1 << 16
_CHECKSUM_BYTES = 8

CHECKERS = ("redis-check-rdb", "valkey-check-rdb")
SERVERS = ("redis-server", "valkey-server")

_SOUND = "RDB looks OK!"
TOO_NEW = re.compile(r"Can't handle RDB format version \d+")
_COUNTS = {
    name: re.compile(rf"^\[info\] (\d+) {words}$", re.MULTILINE)
    for name, words in (("keys", "keys read"), ("expires", "expires"))
}


class Checked(t.NamedTuple):
    """What redis-check-rdb says. ``refused``: why it could not judge at all; then the rest says nothing."""

    problem: str
    refused: str
    keys: int
    expires: int


def head(path: str) -> dict[str, str]:
    """The fields that the server wrote at the head of the RDB file *path*: redis-ver, repl-id, repl-offset …

    Raises ValueError when it is no RDB file.
    """
    with open(path, "rb") as stream:
        content = stream.read(_HEAD_BYTES)
    magic = _MAGIC.match(content)
    if not magic:
        raise ValueError("it is empty" if not content else "it does not begin as an RDB file does")
    fields: dict[str, str] = {"format": magic.group().decode()}
    position = magic.end()
    try:
        while content[position] == _AUX:
            name, position = _string(content, position + 1)
            fields[name], position = _string(content, position)
    except (IndexError, ValueError):
        raise ValueError("its head cannot be read") from None
    return fields


def _string(content: bytes, position: int) -> tuple[str, int]:
    """The string at *position*, and where it ends: by its length, or a number of 1, 2 or 4 bytes."""
    first = content[position]
    kind, low = first >> 6, first & 0x3F
    position += 1
    if kind == 3 and low < 3:
        end = position + (1 << low)
        value = str(int.from_bytes(content[position:end], "little", signed=True)).encode()
    elif kind == 0:
        end = position + low
        value = content[position:end]
    elif kind == 1:
        end = position + 1 + (low << 8 | content[position])
        value = content[position + 1 : end]
    else:
        raise ValueError("a string that no server writes at the head")
    if end > len(content):
        raise IndexError
    return value.decode("utf-8", "replace"), end


def has_checksum(path: str) -> bool:
    """Whether the file ends with a checksum of its own; without (``rdbchecksum no``) it ends with zeros."""
    with open(path, "rb") as stream:
        stream.seek(-min(_CHECKSUM_BYTES, os.path.getsize(path)), os.SEEK_END)
        return any(stream.read())


def find_checker() -> str:
    """Path of redis-check-rdb, or of Valkey's; raises MissingToolError."""
    return _find(CHECKERS, "redis-check-rdb", "apt-get install redis-tools (or valkey-tools)")


def find_server() -> str:
    """Path of the program of a server: redis-server or Valkey's, or their checker.

    Both are one program that goes by its name: so the package with the tools, which starts no service, is enough.
    Raises MissingToolError.
    """
    return _find((*SERVERS, *CHECKERS), "redis-server", "apt-get install redis-tools (or valkey-tools)")


def _find(names: t.Iterable[str], wanted: str, advice: str) -> str:
    for name in names:
        path = find_program(name)
        if path:
            return path
    raise MissingToolError(
        f"find {wanted}", expected="the program on this host", observed="it is not there", advice=advice
    )


def check(path: str, *, timeout: float = 4 * 3600) -> Checked:
    """Let redis-check-rdb read the file *path*: its words count, not its exit status. Raises MissingToolError."""
    done = run([find_checker(), path], accept=range(-64, 256), timeout=timeout, what="check an RDB file")
    said = done.stdout + done.stderr
    if TOO_NEW.search(said):
        return Checked("", f"{last_words(said, 1)}: the program is older than the server that wrote the file", 0, 0)
    counts = {name: pattern.search(said) for name, pattern in _COUNTS.items()}
    sound = done.returncode == 0 and _SOUND in said and all(counts.values())
    if not sound:
        return Checked(f"exit status {done.returncode}: {_complaint(said)}", "", 0, 0)
    keys, expires = (int(found.group(1)) for found in counts.values() if found)
    return Checked("", "", keys, expires)


def _complaint(said: str) -> str:
    """The lines that say what is wrong, without those of the head and without colours."""
    lines = [line for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines() if "AUX FIELD" not in line]
    return last_words("\n".join(lines), 3)


def refuse_unless_of(path: str, replication_id: str, offset: int) -> None:
    """Raise MaintenanceError unless the head of the file *path* says that it shows this position of this history."""
    try:
        fields = head(path)
        found = f"{fields.get('repl-id', 'none')} at {fields.get('repl-offset', 'none')}"
    except ValueError as error:
        found = str(error)
    expected = f"{replication_id} at {offset}"
    if found != expected:
        raise MaintenanceError(
            "take a copy of all data",
            where=path,
            expected=f"the history {expected}, as the server announced it",
            observed=found,
            advice="Nothing was kept of it. Look at what is between this host and the server.",
        )
