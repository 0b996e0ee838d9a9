# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One point in a busy cluster at which base and WAL, dump and fingerprints all show the same content.

For a moment every ordinary table is locked against writers (SHARE). While all of them are, each database's snapshot is
exported and one restore point is written to the WAL; then the locks go. Writers wait no longer than a stated bound,
after which the try is given up and repeated later.
"""

from __future__ import annotations

import contextlib
import time
import typing as t

from .. import fingerprint
from ..catalog.listing import sequence_values
from ..database.session import bearable_wait
from ..errors import MaintenanceError
from ..postgresql import QueryError, connect, query, value

TRIES = 8
_LONGEST_PAUSE = 4.0
# Of the bound, what is kept back for the snapshots and the restore point once the locks are there.
_RESERVE = 0.2

# Everything that holds rows and could come or go: its identity, and the file that holds it at this moment.
_RELATIONS = """
SELECT c.oid::bigint AS oid, c.relfilenode::bigint AS file FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
"""

# Locks of others on tables that keep ours from being granted.
_FROM_LOCKS = """
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.granted AND l.pid <> pg_catalog.pg_backend_pid() AND c.relkind = 'r' AND l.locktype = 'relation'
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND n.nspname <> 'pg_catalog'
   AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                  'AccessExclusiveLock')
"""
_HELD = "".join(("SELECT DISTINCT n.nspname AS schema, c.relname AS name", _FROM_LOCKS))
_HOLDERS = "".join(
    (
        "SELECT l.pid, a.usename AS role, a.application_name AS application, c.relname AS table, l.mode, "
        "extract(epoch FROM clock_timestamp() - a.xact_start)::int AS seconds",
        _FROM_LOCKS,
        "ORDER BY a.xact_start NULLS FIRST LIMIT 3",
    )
)

_CURRENT_SNAPSHOT = "SELECT pg_catalog.txid_current_snapshot()::text"


class NotNowError(Exception):
    """A try that failed for a reason that another try may not meet."""


class Session:
    """One database: a connection that locks for a moment, and one that keeps the snapshot for as long as it is read."""

    def __init__(self, params: t.Mapping[str, t.Any], database: str, application_name: str) -> None:
        self.database = database
        self.tables: list[fingerprint.Table] = []
        self.not_compared: list[dict[str, str]] = []
        self.snapshot = ""
        # Where sequences stood before the point.
        self.sequences: dict[str, int | None] = {}
        self._listed: set[int] = set()
        self._busy: set[tuple[str, str]] = set()
        self._seen: dict[int, int] = {}
        self.locker = connect(params, database, application_name=application_name)
        try:
            self.reader = connect(params, database, application_name=application_name)
        except MaintenanceError:
            self.locker.close()
            raise
        for connection in (self.locker, self.reader):
            _lasting(connection)

    def close(self) -> None:
        self.locker.close()
        self.reader.close()

    @property
    def _plain(self) -> str:
        # Busy tables first: we then wait for their writers while we keep nobody else waiting, and a transaction that
        # holds one of them cannot come to wait for a table that we have already.
        plain = [table for table in self.tables if table.kind == "r"]
        plain.sort(key=lambda table: (table.schema, table.name) not in self._busy)
        return ", ".join(f"ONLY {table.sql}" for table in plain)

    @property
    def _views(self) -> list[str]:
        return [table.sql for table in self.tables if table.kind == "m"]

    def prepare(self, bound: float) -> None:
        """List the tables, and keep them from being dropped or truncated for as long as the snapshot will be read."""
        self._listed = {row["oid"] for row in query(self.locker, _RELATIONS)}
        self.sequences = sequence_values(self.locker)
        self.tables, self.not_compared = fingerprint.tables(self.locker)
        self._busy |= {(row["schema"], row["name"]) for row in query(self.locker, _HELD)}
        query(self.reader, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        _limit(self.reader, time.monotonic() + bound)
        if self._plain:
            query(self.reader, f"LOCK TABLE {self._plain} IN ACCESS SHARE MODE")

    def lock(self, deadline: float) -> None:
        """Keep writers out; waits no longer than until *deadline*."""
        query(self.locker, "BEGIN")
        # Should we be stopped while we hold the locks, the server ends this session.
        query(self.locker, f"SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(deadline)}")
        _limit(self.locker, deadline)
        if self._plain:
            query(self.locker, f"LOCK TABLE {self._plain} IN SHARE MODE")

    def take_snapshot(self, deadline: float) -> None:
        _limit(self.reader, deadline)
        for view in self._views:
            query(self.reader, f"SELECT FROM {view} LIMIT 0")
        self.snapshot = value(self.reader, "SELECT pg_catalog.pg_export_snapshot()")
        self._seen = {row["oid"]: row["file"] for row in query(self.reader, _RELATIONS)}
        if set(self._seen) != self._listed:
            raise NotNowError(f"tables of {self.database} were created or dropped meanwhile")

    def confirm(self) -> None:
        """After the restore point: nothing that the locks do not cover came in between it and the snapshot."""
        after = {row["oid"]: row["file"] for row in query(self.locker, _RELATIONS)}
        if after != self._seen:
            raise NotNowError(f"tables of {self.database} were created or rewritten meanwhile")
        if self._views and value(self.locker, _CURRENT_SNAPSHOT) != value(self.reader, _CURRENT_SNAPSHOT):
            raise NotNowError(f"a transaction ended meanwhile, and {self.database} has views that no lock covers")
        query(self.reader, "SET LOCAL statement_timeout = 0")

    def release(self) -> None:
        """Let writers go on."""
        with contextlib.suppress(QueryError):
            query(self.locker, "ROLLBACK")

    def abandon(self) -> None:
        self.snapshot = ""
        with contextlib.suppress(QueryError):
            query(self.reader, "ROLLBACK")

    def holders(self) -> str:
        """Who holds what would have to be waited for, in words."""
        try:
            rows = query(self.locker, _HOLDERS)
        except QueryError:
            return ""
        return "; ".join(
            f"process {row['pid']} ({row['application'] or 'no name'}, role {row['role'] or 'none'}) holds "
            f"{row['mode']} on {self.database}.{row['table']} since {row['seconds'] or 0} s"
            for row in rows
        )


class Point(t.NamedTuple):
    """What was reached; ``reason`` says why content cannot be compared at it, and is empty when it can."""

    name: str
    lsn: str
    time: str
    sessions: list[Session]
    reason: str
    tries: int
    blocked_seconds: float


@contextlib.contextmanager
def consistent_point(
    params: t.Mapping[str, t.Any],
    names: t.Sequence[str],
    label: str,
    *,
    max_block: float,
    tries: int = TRIES,
    pause: t.Callable[[float], None] = time.sleep,
) -> t.Iterator[Point]:
    """Reach a point in the databases *names*; while the block runs, the snapshots of its sessions can be read.

    A point that could not be had is still a restore point, with the reason why nothing can be compared at it.
    """
    with contextlib.ExitStack() as stack:
        sessions: list[Session] = []
        try:
            for name in names:
                sessions.append(Session(params, name, f"wellkept_{label}"))
                stack.callback(sessions[-1].close)
            point = _reach(sessions, label, max_block, tries, pause)
        except MaintenanceError as error:
            point = Point("", "", "", [], f"{error.what}: {error.observed}", 1, 0.0)
        yield plain_point(params, label, point) if point.reason else point


def plain_point(params: t.Mapping[str, t.Any], label: str, missed: Point) -> Point:
    """A restore point at which nothing can be compared, in place of the one that was *missed* for its reason."""
    name = f"{label}_not_compared"
    with contextlib.closing(connect(params, application_name=f"wellkept_{label}")) as connection:
        lsn, moment = _restore_point(connection, name)
    return missed._replace(name=name, lsn=lsn, time=moment, sessions=[])


def _reach(
    sessions: list[Session], label: str, max_block: float, tries: int, pause: t.Callable[[float], None]
) -> Point:
    bound = bearable_wait(sessions[0].locker, max_block)
    blocked = 0.0
    reason = ""
    for number in range(1, tries + 1):
        began = time.monotonic()
        try:
            for session in sessions:
                session.prepare(bound)
            began = time.monotonic()
            lsn, moment = _try_once(sessions, f"{label}_{number}", bound)
        except (NotNowError, QueryError) as error:
            blocked = max(blocked, time.monotonic() - began)
            reason = _abandon(sessions, error)
        else:
            blocked = max(blocked, time.monotonic() - began)
            return Point(f"{label}_{number}", lsn, moment, sessions, "", number, blocked)
        if number < tries:
            pause(min(_LONGEST_PAUSE, 0.25 * 2**number))
    return Point("", "", "", [], reason, tries, blocked)


def _try_once(sessions: list[Session], name: str, bound: float) -> tuple[str, str]:
    began = time.monotonic()
    try:
        for session in sessions:
            session.lock(began + bound * (1 - _RESERVE))
        for session in sessions:
            session.take_snapshot(began + bound)
        _limit(sessions[0].locker, began + bound)
        lsn, moment = _restore_point(sessions[0].locker, name)
        for session in sessions:
            session.confirm()
        return lsn, moment
    finally:
        for session in sessions:
            session.release()


def _abandon(sessions: list[Session], error: Exception) -> str:
    """Give a try up; returns the reason in words."""
    for session in sessions:
        session.abandon()
    if not isinstance(error, QueryError):
        return str(error)
    held = "; ".join(filter(None, (session.holders() for session in sessions)))
    return f"{error.observed} ({error.where})" + (f": {held}" if held else "")


def _lasting(connection: t.Any) -> None:
    """Settings of a session that may last long, but must not outlive us."""
    for name, setting in (
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "0"),
        ("transaction_timeout", "0"),  # 17+
        ("client_connection_check_interval", "500"),  # 14+
        ("deadlock_timeout", "10"),  # superuser only: autovacuum then yields to us at once
    ):
        with contextlib.suppress(QueryError):
            query(connection, f"SET {name} = {setting}")


def _limit(connection: t.Any, deadline: float) -> None:
    """End what follows in this transaction on the server's side, even if we should be stopped ourselves."""
    query(connection, f"SET LOCAL statement_timeout = {_milliseconds(deadline)}")


def _milliseconds(deadline: float) -> int:
    return max(1, int((deadline - time.monotonic()) * 1000))


def _restore_point(connection: t.Any, name: str) -> tuple[str, str]:
    row = query(
        connection,
        "SELECT pg_catalog.pg_create_restore_point(%s)::text AS lsn, "
        "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS moment",
        [name],
    )[0]
    return row["lsn"], row["moment"]
