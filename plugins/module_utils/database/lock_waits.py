# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who waits on a statement and whom it waits for, looked at by a second connection at short intervals."""

from __future__ import annotations

import threading
import time
import typing as t

from .. import postgresql
from ..errors import MaintenanceError

LOOK_EVERY = 0.1

# An autovacuum that waits for a lock is always one to prevent wraparound: others skip the table.
# waitstart is empty for an instant after a wait began.
_LOOK = """
SELECT CASE WHEN %s = ANY (b.pids) THEN 'waits' ELSE 'queues' END AS role, b.pids AS blockers, l.pid,
       a.application_name AS application, a.usename AS "user", a.backend_type AS backend,
       coalesce(extract(epoch FROM clock_timestamp() - l.waitstart), 0)::float8 AS seconds
FROM pg_catalog.pg_locks l CROSS JOIN LATERAL (SELECT pg_catalog.pg_blocking_pids(l.pid) AS pids) AS b
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE NOT l.granted AND l.pid <> %s
UNION ALL
SELECT 'holds', '{}', b.pid, a.application_name, a.usename, a.backend_type,
       coalesce(extract(epoch FROM clock_timestamp() - l.waitstart), 0)::float8
FROM pg_catalog.pg_locks l
CROSS JOIN LATERAL unnest(pg_catalog.pg_blocking_pids(l.pid)) AS b (pid)
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid
WHERE NOT l.granted AND l.pid = %s
"""


class Other(t.NamedTuple):
    """A session that waits on the statement, or that the statement waits for, and for how long it has been so."""

    pid: int
    application: str
    user: str
    backend: str
    seconds: float


class Look(t.NamedTuple):
    """What one look saw; ``at`` is when it was begun, ``behind`` who waits on the statement by way of others."""

    waiting: tuple[Other, ...]
    holding: tuple[Other, ...]
    at: float
    behind: frozenset[int] = frozenset()


def describe(other: Other) -> str:
    """``process 4711 (psql, role app)``"""
    words = [other.application, f"role {other.user}" if other.user else ""]
    facts = ", ".join(word for word in words if word)
    return f"process {other.pid} ({facts})" if facts else f"process {other.pid}"


class Watcher:
    """Looks at short intervals, in a thread of its own, who waits on the process *pid* and whom it waits for."""

    def __init__(self, connection: t.Any, pid: int, every: float) -> None:
        self.connection = connection
        self.pid = pid
        self.every = every
        self.last = Look((), (), time.monotonic())
        self.problem = ""
        self.longest_wait = 0.0
        self.held_up = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look(self) -> None:
        at = time.monotonic()
        rows = postgresql.query(self.connection, _LOOK, [self.pid, self.pid, self.pid])
        if self.last.holding:
            self.held_up += at - self.last.at
        self.last = Look(_others(rows, "waits"), _others(rows, "holds"), at, _behind(rows, self.pid))
        self.longest_wait = max([self.longest_wait, *(other.seconds for other in self.last.waiting)])

    def stop(self, ended: float, within: float) -> bool:
        """End the looks, the last one *within* so many seconds; returns whether the connection can be used again.

        Who waited at the last look did so until the statement *ended*, for all that is known.
        """
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=self.every + within)
        if self.last.at < ended:
            since = ended - self.last.at
            self.longest_wait = max([self.longest_wait, *(other.seconds + since for other in self.last.waiting)])
            self.held_up += since if self.last.holding else 0.0
        return not self._thread.is_alive() and not self.connection.closed

    def _run(self) -> None:
        while not self._ending.wait(self.every):
            try:
                self.look()
            except MaintenanceError as error:
                self.problem = error.observed
                return


def _others(rows: t.Sequence[t.Mapping[str, t.Any]], role: str) -> tuple[Other, ...]:
    return tuple(
        Other(row["pid"], row["application"] or "", row["user"] or "", row["backend"] or "", max(0.0, row["seconds"]))
        for row in rows
        if row["role"] == role
    )


def _behind(rows: t.Sequence[t.Mapping[str, t.Any]], pid: int) -> frozenset[int]:
    """The processes that wait on *pid* by way of others: a reader queues behind an ALTER TABLE that waits on it."""
    blockers = {row["pid"]: set(row["blockers"]) for row in rows if row["role"] != "holds"}
    found: set[int] = set()
    more = {pid}
    while more:
        found |= more
        more = {waiting for waiting, blocking in blockers.items() if blocking & found} - found
    return frozenset(found - {pid})
