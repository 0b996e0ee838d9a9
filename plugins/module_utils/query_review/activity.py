# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the server counts of its databases and sessions: connections, cache hits, rollbacks, deadlocks, temp files."""

from __future__ import annotations

import typing as t

from ..database.scope import matches
from ..postgresql import query
from ..probes import postgresql_sql

COUNTERS = ("commits", "rollbacks", "blocks_hit", "blocks_read", "temp_files", "temp_bytes", "deadlocks")

_DATABASES = """
SELECT datname AS name, extract(epoch FROM stats_reset)::float8 AS reset,
       xact_commit AS commits, xact_rollback AS rollbacks, blks_hit AS blocks_hit, blks_read AS blocks_read,
       temp_files, temp_bytes, deadlocks
FROM pg_catalog.pg_stat_database WHERE datname IS NOT NULL ORDER BY datname
"""
_BASIS = """
SELECT extract(epoch FROM clock_timestamp())::float8 AS now,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       pg_catalog.pg_is_in_recovery() AS standby,
       extract(epoch FROM least((SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter),
                                (SELECT stats_reset FROM pg_catalog.pg_stat_archiver),
                                (SELECT stats_reset FROM pg_catalog.pg_stat_wal)))::float8 AS counting_since
"""
_IDLE = """
SELECT count(*) AS sessions FROM pg_catalog.pg_stat_activity
WHERE state LIKE 'idle in transaction%' AND pid <> pg_catalog.pg_backend_pid()
"""


class Basis(t.NamedTuple):
    """Which server it is, what it holds for the time, and since when its counters run at most (POSIX time)."""

    now: float
    server: str
    standby: bool
    counting_since: float


class Sessions(t.NamedTuple):
    """Connections in use and to be had, and transactions that nobody goes on with."""

    used: int
    available: int
    idle_in_transaction: int
    longest_idle_seconds: float
    longest_idle: str


class Activity(t.NamedTuple):
    """The counters of all chosen databases together, over ``seconds``; ``continued`` when since the last review."""

    seconds: float
    continued: bool
    counters: t.Dict[str, int]

    @property
    def cache_hit_ratio(self) -> t.Optional[float]:
        return _share(self.counters["blocks_hit"], self.counters["blocks_read"])

    @property
    def rollback_ratio(self) -> t.Optional[float]:
        return _share(self.counters["rollbacks"], self.counters["commits"])


def read_basis(connection: t.Any) -> Basis:
    row = query(connection, _BASIS)[0]
    # A standby counts for itself: its statements are not those of its primary.
    server = f"{row['system_identifier']}{' standby' if row['standby'] else ''}"
    return Basis(row["now"], server, row["standby"], row["counting_since"] or row["now"])


def read_databases(connection: t.Any, params: t.Mapping[str, t.Any]) -> t.Dict[str, t.Dict[str, t.Any]]:
    """The counters of each chosen database."""
    return {
        row["name"]: {key: row[key] for key in ("reset", *COUNTERS)}
        for row in query(connection, _DATABASES)
        if matches(row["name"], params["databases"], params["exclude_databases"])
    }


def activity_between(
    now: t.Mapping[str, t.Mapping[str, t.Any]],
    before: t.Mapping[str, t.Mapping[str, t.Any]],
    basis: Basis,
    measured: t.Optional[float],
) -> Activity:
    """What happened since the last review in the databases whose counters ran on since, if there are any.

    Otherwise what was counted since the counters began. The two are never added up: they are of different times.
    """
    both = [name for name in now if measured is not None and counts_on(name, now, before)]
    if both and measured is not None:
        counters = {key: sum(now[name][key] - before[name][key] for name in both) for key in COUNTERS}
        return Activity(max(basis.now - measured, 1.0), True, counters)
    since = max([one["reset"] for one in now.values() if one["reset"]], default=basis.counting_since)
    counters = {key: sum(one[key] for one in now.values()) for key in COUNTERS}
    return Activity(max(basis.now - max(since, basis.counting_since), 1.0), False, counters)


def counts_on(
    name: str, now: t.Mapping[str, t.Mapping[str, t.Any]], before: t.Mapping[str, t.Mapping[str, t.Any]]
) -> bool:
    """Whether the counters of the database *name* have run on since the last review."""
    return name in now and name in before and _runs_on(now[name], before[name])


def read_sessions(connection: t.Any) -> Sessions:
    """How many connections are in use; a role that sees all sessions is needed."""
    facts = query(connection, postgresql_sql.FACTS)[0]
    used = query(connection, postgresql_sql.CLIENTS)[0]["count"]
    longest = query(connection, postgresql_sql.OLDEST_IDLE)
    available = facts["max_connections"] - facts["superuser_reserved"] - facts["reserved"]
    return Sessions(
        used,
        max(available, 1),
        query(connection, _IDLE)[0]["sessions"],
        max(float(longest[0]["seconds"]), 0.0) if longest else 0.0,
        str(longest[0]["who"]) if longest else "",
    )


def _runs_on(now: t.Mapping[str, t.Any], before: t.Mapping[str, t.Any]) -> bool:
    return now["reset"] == before.get("reset") and all(now[key] >= before.get(key, 0) for key in COUNTERS)


def _share(part: int, rest: int) -> t.Optional[float]:
    return part / (part + rest) if part + rest else None
