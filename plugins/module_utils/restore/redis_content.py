# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is what a scratch Redis server has loaded what the live one held? Counts, marker, values of each type, assertions."""

from __future__ import annotations

import json
import typing as t
from datetime import datetime, timezone

from ..backup.repository import parse_time
from ..errors import MaintenanceError
from ..redis import keyspace
from ..redis.client import Redis, RedisError, text_of
from ..redis.instance import SWITCHED_OFF
from ..result import Part
from . import assertions

# How many keys of each database are asked for their type, and how many of each type are read.
_LOOKED_AT = 100_000
_READ = 20
_BATCH = 1000

Recorded = t.Mapping[str, t.Any]


class Digest(t.NamedTuple):
    """A fingerprint of all content that does not depend on its order, over so many keys."""

    sha1: str
    keys: int


def look(server: Redis, name: str, recorded: Recorded, part: Part) -> Digest:
    """Hold what *server* has loaded against what was *recorded* with the backup; returns its digest."""
    _command(server, "DEBUG", "SET-ACTIVE-EXPIRE", 0)
    expired = _check_count(server, name, recorded, part)
    _check_marker(server, name, recorded, part)
    _check_values(server, name, recorded, part)
    digest = text_of(_command(server, "DEBUG", "DIGEST"))
    return Digest(digest, int(recorded["keys"] or 0) - expired)


def _check_count(server: Redis, name: str, recorded: Recorded, part: Part) -> int:
    """Every key of the file was loaded, and each database holds as many as it did; returns how many had expired."""
    info = server.info()
    loaded, expired = (int(info.get(f"rdb_last_load_keys_{word}", 0)) for word in ("loaded", "expired"))
    found = keyspace.parse(info)
    problems = keyspace.beyond(found, recorded["bounds"], expired)
    if recorded["keys"] is not None and loaded + expired != recorded["keys"]:
        problems.append(f"{loaded} keys were loaded and {expired} had expired, of {recorded['keys']} in the file")
    expected = ", ".join(
        f"{least if least == most else f'{least} to {most}'} in database {database}"
        for database, (least, most) in recorded["bounds"].items()
    )
    part.require(
        f"keys of the restored Redis {name}",
        not problems,
        expected=f"as many as it held: {expected or 'none'}",
        observed="; ".join(problems[:5]) or f"{loaded} keys" + (f", {expired} more had expired" if expired else ""),
        advice="Do not rely on this backup: make a new one, and find out where keys were lost.",
        databases=found,
    )
    part.metric(f"redis_keys {name}", loaded, "count")
    return expired


def _check_marker(server: Redis, name: str, recorded: Recorded, part: Part) -> None:
    """The key that was written just before the copy must be in it."""
    marker = recorded["marker"]
    check = f"marker in the restored Redis {name}"
    if marker is None:
        if recorded["no_marker"] != SWITCHED_OFF:
            part.check(
                check,
                "unknown",
                expected="a key that was written just before the copy",
                observed=f"none could be written: {recorded['no_marker']}",
                advice="Mend that, or switch the marker off for this server.",
            )
        return
    if parse_time(marker["expires"]) <= datetime.now(timezone.utc):
        part.check(
            check,
            "unknown",
            expected=f"the key {marker['key']}",
            observed=f"it has expired at {marker['expires']}, and is left out when a file is loaded",
            advice="Test backups before their markers expire, or let these live longer.",
        )
        return
    _command(server, "SELECT", marker["database"])
    found = _command(server, "GET", marker["key"])
    same = found is not None and text_of(found) == marker["value"]
    part.require(
        check,
        same,
        expected=f"the key {marker['key']} with the value that was written",
        observed="it is there" if same else "it is not there" if found is None else "it has another value",
        advice="The copy is older than the backup says, or of another server: do not rely on it.",
    )


def _check_values(server: Redis, name: str, recorded: Recorded, part: Part) -> None:
    """Some values of each type can be read."""
    types: dict[str, int] = {}
    problems: list[str] = []
    read = 0
    for database in recorded["bounds"]:
        _command(server, "SELECT", database)
        chosen = _some_of_each_type(server, types)
        for kind, keys in chosen.items():
            for key in keys:
                read += 1
                problem = _unreadable(server, kind, key)
                if problem:
                    problems.append(f"a {kind} in database {database}: {problem}")
    part.require(
        f"values in the restored Redis {name}",
        not problems,
        expected="values of every type that can be read",
        observed="; ".join(problems[:5]) or f"{read} read, of {', '.join(sorted(types)) or 'no type: it is empty'}",
        advice="Do not rely on this backup: make a new one, and see whether the live server can read its values.",
        types=types,
    )


def _some_of_each_type(server: Redis, types: dict[str, int]) -> dict[str, list[bytes]]:
    """A few keys of each type in the selected database; how many were seen is added to *types*."""
    chosen: dict[str, list[bytes]] = {}
    cursor, seen = b"0", 0
    while True:
        answer = t.cast(t.List[t.Any], _command(server, "SCAN", cursor, "COUNT", _BATCH))
        cursor, keys = answer[0], answer[1]
        for key in keys:
            server.send("TYPE", key)
        for key in keys:
            kind = text_of(server.read_reply())
            types[kind] = types.get(kind, 0) + 1
            if len(chosen.setdefault(kind, [])) < _READ:
                chosen[kind].append(key)
        seen += len(keys)
        if cursor == b"0" or seen >= _LOOKED_AT:
            return chosen


# How much there is of a value, and how its beginning is read.
_READERS: dict[str, tuple[str, t.Callable[[bytes], t.Sequence[t.Any]]]] = {
    "string": ("STRLEN", lambda key: ("GETRANGE", key, 0, 1023)),
    "list": ("LLEN", lambda key: ("LRANGE", key, 0, 99)),
    "set": ("SCARD", lambda key: ("SSCAN", key, 0, "COUNT", 100)),
    "zset": ("ZCARD", lambda key: ("ZRANGE", key, 0, 99, "WITHSCORES")),
    "hash": ("HLEN", lambda key: ("HSCAN", key, 0, "COUNT", 100)),
    "stream": ("XLEN", lambda key: ("XRANGE", key, "-", "+", "COUNT", 100)),
}
_MAY_BE_EMPTY = ("string", "stream")


def _unreadable(server: Redis, kind: str, key: bytes) -> str:
    """Why the value of *key* cannot be read; empty when it can, or has expired meanwhile."""
    length, reader = _READERS.get(kind, ("EXISTS", lambda key: ("DUMP", key)))
    try:
        size = t.cast(int, server.command(length, key))
        found = server.command(*reader(key))
        if kind in _MAY_BE_EMPTY or server.command("EXISTS", key) == 0:
            return ""
    except RedisError as error:
        return error.observed
    content = found[1] if kind in ("set", "hash") and isinstance(found, list) else found
    return "" if size and content else f"it has {size} elements, and none can be read"


def check_digest(name: str, now: Digest, before: t.Mapping[str, t.Any] | None, part: Part) -> None:
    """The same file gives the same content as when it was tested before, as long as no more of its keys expired."""
    if not before or before["keys"] != now.keys:
        return
    part.require(
        f"content of the restored Redis {name}",
        before["sha1"] == now.sha1,
        expected=f"the digest {before['sha1']} of the last test of this backup, over {now.keys} keys",
        observed=now.sha1,
        advice="One file was loaded in two ways: see whether redis-server on this host was changed in between.",
    )


def check_assertions(server: Redis, name: str, asked: t.Sequence[Recorded], part: Part) -> None:
    """Each assertion's command must give the expected answer."""
    for assertion in asked:
        try:
            verdict = assertions.judge(assertion, _answer(server, assertion), datetime.now(timezone.utc))
        except MaintenanceError as error:
            verdict = assertions.Verdict(False, "an answer", error.observed)
        part.require(
            f"assertion {assertion['name']} in Redis {name}",
            verdict.passed,
            expected=verdict.expected,
            observed=verdict.observed,
            advice="Ask the live server the same; correct the assertion if its expectation is out of date.",
        )


def _answer(server: Redis, assertion: Recorded) -> str:
    words = assertion["command"]
    found = server.command("COMMAND", "INFO", words[0])
    known = found[0] if isinstance(found, list) else None
    if not isinstance(known, list) or "readonly" not in t.cast(t.List[t.Any], known[2]):
        raise MaintenanceError(
            "ask an assertion",
            expected="a command that only reads",
            observed=f"{words[0]} is not one",
            advice="Write it with a command that only reads.",
        )
    _command(server, "SELECT", assertion["database"])
    return normal(server.command(*words))


def normal(reply: t.Any) -> str:
    """An answer as it is compared: text as it is, ``null`` for none, a number by its digits, a list as JSON."""
    plain = _plain(reply)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _plain(reply: t.Any) -> t.Any:
    if reply is None:
        return "null"
    return [_plain(each) for each in reply] if isinstance(reply, list) else text_of(reply)


def _command(server: Redis, *words: t.Any) -> t.Any:
    return server.command(*words)
