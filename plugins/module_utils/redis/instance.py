# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One server, as a backup sees it: what it says of itself, a marker in it, and a copy of its data with its limits."""

from __future__ import annotations

import time
import typing as t
import uuid
from datetime import datetime, timedelta, timezone

from ..backup.repository import format_time, now
from ..errors import MaintenanceError, UnavailableError
from . import keyspace, snapshot
from .client import Redis, RedisError, text_of

MARKER_PREFIX = "wellkept:marker:"
SWITCHED_OFF = "it is switched off"
# What others may have set that forbids a marker in this server, without harm to the copy.
_NO_MARKER = {
    "READONLY": "the server is a replica",
    "MOVED": "in this cluster the key belongs to another server",
    "CROSSSLOT": "in this cluster the key belongs to another server",
    "CLUSTERDOWN": "the cluster does not accept writes",
    "NOPERM": "the user may not write the key",
    "OOM": "the server has reached its maxmemory",
    "MISCONF": "the server does not accept writes, because it cannot save its data",
    "NOREPLICAS": "the server does not accept writes without its replicas",
}


def copy(
    login: t.Mapping[str, t.Any], path: str, *, label: str, marker_for: timedelta | None, timeout: float
) -> tuple[snapshot.Taken, dict[str, t.Any]]:
    """Write the data of the server behind *login* to the new file *path*; returns also what to hold it against.

    Just before, a key is written that expires after *marker_for*, unless that is None. Raises MaintenanceError.
    """
    began = time.monotonic()
    with Redis(login) as server:
        facts = describe(server)
        facts["marker"], facts["no_marker"] = _mark(server, label, marker_for, facts["role"])
        before = server.info()
        after: dict[str, str] = {}
        # Right after the server has forked, and before the bytes come.
        taken = snapshot.take(login, path, timeout=timeout, at_point=lambda: after.update(server.info()))
        _require_same_server(server, taken.replication_id, after)
        _require_later(server, taken.offset, int(before["master_repl_offset"]))
    held, counted = keyspace.parse(before), keyspace.parse(after)
    # A replica counts the stream of its master.
    changed = int(after["master_repl_offset"]) - taken.offset
    facts.update(
        replication_id=taken.replication_id,
        offset=taken.offset,
        keyspace={"before": held, "after": counted},
        bounds=keyspace.bounds(held, counted, changed),
        taken=now(),
        seconds=round(time.monotonic() - began, 3),
    )
    return taken, facts


def describe(server: Redis) -> dict[str, t.Any]:
    """What the server says of itself; raises MaintenanceError when what it holds cannot be relied on now."""
    info = server.info()
    if info.get("loading") == "1":
        raise RedisError("ask Redis for its state", where=server.where, said="LOADING it is loading its data")
    if info.get("role") == "slave" and info.get("master_link_status") != "up":
        raise UnavailableError(
            "back up a replica",
            where=server.where,
            expected="one that is connected to its master",
            observed=f"the link to {info.get('master_host')} is {info.get('master_link_status')}",
            advice="Mend the replication, or back up the master.",
        )
    return {
        "server": "valkey" if info.get("server_name") == "valkey" or "valkey_version" in info else "redis",
        "server_version": info.get("valkey_version") or info.get("redis_version", ""),
        "run_id": info.get("run_id", ""),
        "role": "replica" if info.get("role") == "slave" else "master",
        "used_memory": int(info.get("used_memory", 0)),
        "databases": _setting(server, "databases"),
        "directory": _setting(server, "dir"),
    }


def _setting(server: Redis, name: str) -> str:
    """A setting of the server; empty where the user may not ask."""
    try:
        found = server.command("CONFIG", "GET", name)
    except RedisError:
        return ""
    return text_of(found[1]) if isinstance(found, list) and len(found) == 2 else ""


def _mark(server: Redis, label: str, kept_for: timedelta | None, role: str) -> tuple[dict[str, t.Any] | None, str]:
    """Write the marker; returns what to look for, or why there is none."""
    if kept_for is None:
        return None, SWITCHED_OFF
    if role == "replica":
        return None, _NO_MARKER["READONLY"]
    marker: dict[str, t.Any] = {"database": 0, "key": MARKER_PREFIX + label, "value": str(uuid.uuid4())}
    try:
        server.command("SET", marker["key"], marker["value"], "EX", int(kept_for.total_seconds()))
    except RedisError as error:
        if error.code in _NO_MARKER:
            return None, f"{_NO_MARKER[error.code]}: {error.observed}"
        raise
    return {**marker, "expires": format_time(datetime.now(timezone.utc) + kept_for)}, ""


def _require_same_server(server: Redis, replication_id: str, after: t.Mapping[str, str]) -> None:
    """The copy came by another connection, which may have led to another server."""
    if after.get("master_replid") != replication_id:
        raise MaintenanceError(
            "take a copy of all data",
            where=server.where,
            expected="one server from the beginning to the end",
            observed="the copy is another one's",
            advice="Run it again; name the server itself, not a balancer in front of several.",
        )


def _require_later(server: Redis, offset: int, marked: int) -> None:
    """A server that writes to its disk for one replica gives the same to others who ask meanwhile."""
    if offset < marked:
        raise MaintenanceError(
            "take a copy of all data",
            where=server.where,
            expected="what the server holds now",
            observed="what it held when it began to send its data to somebody else",
            advice="Run it again when no other copy is being taken; with repl-diskless-sync this cannot happen.",
        )
