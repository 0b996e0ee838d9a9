# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carry out one step so that nobody waits for it, and judge by what is measured afterwards whether it had an effect."""

from __future__ import annotations

import time
import typing as t

from .. import postgresql
from ..database.watchdog import Pair, Watched
from ..options import refuse
from .decide import Step
from .measure import Sight, measure_tables
from .pace import Throttle
from .table import NEW_PAGES, Table

# Locks of tables are never waited for; this bounds the wait for those of partitions and indexes.
LOCK_TIMEOUT = "2s"

# How an attempt ended. The first two are good; after the next three a later try may end better: a lock that made the
# server skip the table may be gone by the time that one looks for it.
DONE, GONE, LOCKED, IN_THE_WAY, NO_EFFECT, DENIED, OVER, FAILED = (
    "done", "gone", "locked", "in the way", "no effect", "denied", "over", "failed"
)  # fmt: skip
TRY_AGAIN = (LOCKED, IN_THE_WAY, NO_EFFECT)

_LOCKERS = """
SELECT l.pid, l.mode, a.application_name AS application, a.usename AS role, a.backend_type AS backend
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.relation = %s::bigint::oid AND l.pid <> ALL (%s)
  AND l.database IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()))
  AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                 'AccessExclusiveLock')
ORDER BY l.pid LIMIT 1
"""
_WAL = "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::bigint"
_MAY_NAME_TOAST = "SELECT pg_catalog.has_schema_privilege('pg_toast', 'USAGE')"


class Outcome(t.NamedTuple):
    """What became of one step; ``words`` say it, and ``after`` is the table measured again (None when it is gone)."""

    step: Step
    result: str
    words: str
    after: t.Optional[Table] = None
    seconds: float = 0.0
    wal_bytes: int = 0
    longest_wait: float = 0.0


def prepare(connection: t.Any, throttle: Throttle) -> None:
    """Settings of a session that vacuums."""
    delay = f"{throttle.delay_ms:g}ms"
    for name, setting in (
        ("lock_timeout", LOCK_TIMEOUT),
        ("vacuum_cost_delay", delay),
        ("vacuum_cost_limit", str(throttle.limit)),
    ):
        postgresql.query(connection, "SELECT pg_catalog.set_config(%s, %s, false)", [name, setting])


def statement_for(step: Step, version: int, *, may_name_toast: bool = True) -> t.Any:
    """The statement that carries out *step* on a server of *version*.

    ``VACUUM (SKIP_LOCKED, TRUNCATE OFF, …) "shop"."order"``; a TOAST table is reached by way of its table.
    """
    compose = postgresql.driver().sql.SQL
    table = step.table
    name = (table.schema, table.name)
    words = ["SKIP_LOCKED"]
    if not step.vacuum:
        only = "ONLY " if version >= 180000 and table.kind == "partitioned table" else ""
        return compose("ANALYZE (SKIP_LOCKED) " + only + "{}").format(postgresql.identifier(*name))
    words.append("TRUNCATE OFF")
    words += ["FREEZE"] if step.freeze else []
    words += ["INDEX_CLEANUP OFF"] if step.failsafe else []
    words += ["ANALYZE"] if step.analyze else []
    words += ["SKIP_DATABASE_STATS"] if version >= 160000 else []
    if table.main is None:
        words.append("PROCESS_TOAST OFF")
    elif version >= 160000:
        words.append("PROCESS_MAIN OFF")
        name = table.main
    elif not may_name_toast:
        name = table.main
    return compose("VACUUM (" + ", ".join(words) + ") {}").format(postgresql.identifier(*name))


def carry_out(pair: Pair, measuring: t.Any, sight: Sight, step: Step, *, max_block: float, timeout: float) -> Outcome:
    """Run *step* under the watchdog of *pair*; measure its table again by way of *measuring*, and judge."""
    may_name = sight.version >= 160000 or bool(postgresql.value(measuring, _MAY_NAME_TOAST))
    before = postgresql.value(measuring, _WAL)
    statement = statement_for(step, sight.version, may_name_toast=may_name)
    watched = pair.run(statement, max_block=max_block, timeout=0.0 if timeout == float("inf") else timeout)
    wal = postgresql.value(measuring, _WAL) - before
    found = measure_tables(measuring, sight, [step.table.oid])
    after = found[0] if found else None
    result, words = judge(step, after, watched)
    if result == NO_EFFECT:
        locker = find_locker(measuring, step.table, pair)
        if locker:
            result, words = LOCKED, f"locked by {locker}"
    return Outcome(step, result, words, after, watched.seconds, wal, watched.longest_wait)


def judge(step: Step, after: t.Optional[Table], watched: Watched) -> tuple[str, str]:
    """Whether *step* had the effect that it was for, by the measurement *after* it; never by its exit alone."""
    if after is None:
        return GONE, "the table was dropped meanwhile"
    missing = [*_not_vacuumed(step, after, watched), *_not_analyzed(step, after)]
    if not missing:
        return DONE, "done"
    words = " and ".join(missing)
    if watched.ended in ("blocking", "autovacuum", "unwatched", "cancelled"):
        return IN_THE_WAY, f"{watched.reason}; {words}"
    if watched.ended == "timeout":
        return OVER, f"{watched.reason}; {words}"
    if watched.error is not None:
        state = watched.error.sqlstate
        return (LOCKED if state == "55P03" else FAILED), f"the server said: {watched.error.observed}"
    if not step.table.may_maintain:
        return DENIED, "the role may not vacuum it, of which the server only warns"
    return NO_EFFECT, words


def _not_vacuumed(step: Step, after: Table, watched: Watched) -> list[str]:
    before = step.table
    if not step.vacuum:
        return []
    # One that was cancelled has cleaned some pages, too.
    cleaner = after.dirty_pages < before.dirty_pages and watched.ended == "done"
    younger = after.xid_age < before.xid_age or after.mxid_age < before.mxid_age
    if step.freeze:
        return [] if younger else ["its age has not fallen"]
    # Users may have made as many pages dirty meanwhile as were cleaned: then the server's own record counts.
    ran = (after.last_vacuum or 0.0) > (before.last_vacuum or 0.0)
    touched = after.dead_rows + after.inserted_rows > 0
    estimated = "low" in (before.confidence, after.confidence)
    if cleaner or not after.dirty_pages or (ran and (touched or estimated)):
        return []
    if ran and watched.ended == "done" and after.dirty_pages <= NEW_PAGES:
        return []
    return [f"{after.dirty_pages} of {after.pages} pages are still not all-visible"]


def _not_analyzed(step: Step, after: Table) -> list[str]:
    if not step.analyze:
        return []
    if (after.last_analyze or 0.0) > (step.table.last_analyze or 0.0):
        return []
    if step.table.missing_statistics and not after.missing_statistics:
        return []
    return ["its statistics were not gathered"]


def find_locker(connection: t.Any, table: Table, pair: Pair) -> str:
    """Who holds a lock that keeps a vacuum away from *table*; empty when nobody does."""
    own = [pair.work.info.backend_pid, pair.watch.info.backend_pid, connection.info.backend_pid]
    rows = postgresql.query(connection, _LOCKERS, [table.oid, own])
    if not rows:
        return ""
    row = rows[0]
    facts = [row["application"] or row["backend"] or "", f"role {row['role']}" if row["role"] else "", row["mode"]]
    return f"process {row['pid']} ({', '.join(fact for fact in facts if fact)})"


def update_database_age(connection: t.Any, version: int) -> None:
    """Let the database know the age of its oldest table, once for all vacuums that left it out."""
    if version >= 160000:
        postgresql.query(connection, "VACUUM (ONLY_DATABASE_STATS)")


def report_counters(connection: t.Any, version: int) -> None:
    """Let the server count what this session has written now, before a vacuum sets its counters back, not after."""
    if version >= 150000:
        postgresql.query(connection, "SELECT pg_catalog.pg_stat_force_next_flush()")


def pause(seconds: float) -> None:
    """Wait before a new try; a signal to stop ends it at once."""
    time.sleep(seconds)


def refuse_bad_throttle(throttle: Throttle) -> None:
    """Raise MaintenanceError for a throttle that the server would refuse."""
    if not 0 <= throttle.delay_ms <= 100:
        refuse("vacuum_cost_delay_ms", expected="0 to 100 milliseconds", observed=f"{throttle.delay_ms:g}")
    if not 1 <= throttle.limit <= 10000:
        refuse("vacuum_cost_limit", expected="1 to 10000", observed=throttle.limit)
