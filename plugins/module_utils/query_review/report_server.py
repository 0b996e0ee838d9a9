# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a review says of the server: missing indexes, connections, caches, temporary files, deadlocks, rollbacks."""

from __future__ import annotations

import typing as t

from ..quantities import human_bytes, human_seconds, parse_size
from ..result import Part, limit_status
from .activity import Activity, Basis, Sessions
from .tables import ForeignKey, Scanned, lacks_index

MIN_BLOCKS = 100_000  # read from outside the cache (about 800 MB) before its share means anything
MIN_TRANSACTIONS = 1_000
DAY = 86400.0
MOST_SHOWN = 20


def report_scanned(found: t.Sequence[Scanned], params: t.Mapping[str, t.Any], part: Part) -> None:
    lacking = [one for one in found if lacks_index(one, params["min_sequential_scans"])]
    part.metric("sequentially_read_tables", len(lacking), "count")
    names = [f"{one.database}: {one.table} ({one.recent:,} times {one.rows_per_scan:,} rows)" for one in lacking]
    part.check(
        "large tables that are read from end to end",
        "warned" if lacking else "passed",
        expected=f"none of {params['min_table_rows']:,} rows or more, {params['min_sequential_scans']} times or more",
        observed=shortened(names) or "none",
        advice="See which of the statements by total time read it, and whether an index on what they ask for would "
        "help; what is read on purpose belongs into exclude_tables.",
        evidence={"tables": [one._asdict() for one in lacking]},
    )


def report_foreign_keys(found: t.Sequence[ForeignKey], params: t.Mapping[str, t.Any], part: Part) -> None:
    part.metric("unindexed_foreign_keys", len(found), "count")
    names = [f"{one.database}: {one.table} ({', '.join(one.columns)}) → {one.parent}" for one in found]
    part.check(
        "foreign keys without an index",
        "warned" if found else "passed",
        expected=f"none on tables of {params['min_table_rows']:,} rows or more",
        observed=shortened(names) or "none",
        advice="CREATE INDEX CONCURRENTLY on these columns: without it, each DELETE of a row referred to reads the "
        "whole table. Where such rows are never deleted, put the table into exclude_tables.",
        evidence={"foreign_keys": [{**one._asdict(), "columns": list(one.columns)} for one in found[:MOST_SHOWN]]},
    )


def report_sessions(sessions: Sessions, params: t.Mapping[str, t.Any], part: Part) -> None:
    ratio = sessions.used / sessions.available
    warn, fail = params["warn_connections_used_ratio"], params["fail_connections_used_ratio"]
    part.metric("connections_used_ratio", round(ratio, 4), "ratio")
    part.metric("idle_in_transaction_sessions", sessions.idle_in_transaction, "count")
    part.metric("idle_in_transaction_seconds", round(sessions.longest_idle_seconds, 1), "seconds")
    part.check(
        "connections used",
        limit_status(ratio, warn, fail),
        expected=f"at most {warn:.0%} (fails above {fail:.0%})",
        observed=f"{ratio:.0%}: {sessions.used} of the {sessions.available} that ordinary roles may use",
        advice="See pg_stat_activity for who holds them; use a connection pool, or raise max_connections.",
    )
    limit = params["warn_idle_in_transaction_seconds"]
    longest = f", the longest for {human_seconds(sessions.longest_idle_seconds)}: {sessions.longest_idle}"
    part.check(
        "sessions idle in a transaction",
        limit_status(sessions.longest_idle_seconds, limit, None),
        expected=f"none for more than {human_seconds(limit)}",
        observed=f"{sessions.idle_in_transaction}{longest if sessions.idle_in_transaction else ''}",
        advice="Correct the application, which forgot to end it, and set idle_in_transaction_session_timeout.",
    )


def report_activity(activity: Activity, params: t.Mapping[str, t.Any], part: Part) -> None:
    """Cache hits, rollbacks, deadlocks and temporary files since the last review, or since the counters began."""
    when = period_of(activity)
    _report_cache(activity, params["warn_cache_hit_ratio"], when, part)
    _report_rollbacks(activity, params["warn_rollback_ratio"], when, part)
    _report_deadlocks(activity, params["warn_deadlocks_per_day"], when, part)
    _report_temporary_files(activity, parse_size(params["warn_temp_bytes_per_day"]), when, part)


def period_of(activity: Activity) -> str:
    """``in the 7 d since the last review``, in words that also say that there was none."""
    seconds = human_seconds(activity.seconds)
    return f"in the {seconds} since the last review" if activity.continued else f"in the {seconds} that were counted"


def _report_cache(activity: Activity, limit: float, when: str, part: Part) -> None:
    ratio, read = activity.cache_hit_ratio, activity.counters["blocks_read"]
    if ratio is not None:
        part.metric("cache_hit_ratio", round(ratio, 5), "ratio")
    low = ratio is not None and read >= MIN_BLOCKS and ratio < limit
    part.check(
        "cache hits",
        "warned" if low else "passed",
        expected=f"at least {limit:.0%} of the blocks that are asked for, when many are",
        observed=f"{ratio:.1%}, {read:,} blocks read {when}" if ratio is not None else f"nothing read {when}",
        advice="See the cache hits of the statements by total time; an index, or more shared_buffers, may help.",
    )


def _report_rollbacks(activity: Activity, limit: float, when: str, part: Part) -> None:
    ratio, rollbacks = activity.rollback_ratio or 0.0, activity.counters["rollbacks"]
    enough = rollbacks + activity.counters["commits"] >= MIN_TRANSACTIONS
    part.metric("rollback_ratio", round(ratio, 5), "ratio")
    part.check(
        "rollbacks",
        "warned" if enough and ratio > limit else "passed",
        expected=f"at most {limit:.0%} of the transactions",
        observed=f"{ratio:.1%}, {rollbacks:,} {when}",
        advice="See the application's and the server's log for what fails.",
    )


def _report_deadlocks(activity: Activity, limit: float, when: str, part: Part) -> None:
    count = activity.counters["deadlocks"]
    a_day = count / max(activity.seconds / DAY, 1.0)
    part.metric("deadlocks", count, "count")
    part.check(
        "deadlocks",
        limit_status(a_day, limit, None),
        expected=f"at most {limit:g} a day",
        observed=f"{count:,} {when}",
        advice="See the server's log for the statements, and let them lock rows in one and the same order.",
    )


def _report_temporary_files(activity: Activity, limit: int, when: str, part: Part) -> None:
    size = activity.counters["temp_bytes"]
    a_day = size / max(activity.seconds / DAY, 1.0)
    part.metric("temp_bytes", size, "bytes")
    part.check(
        "temporary files",
        limit_status(a_day, limit, None),
        expected=f"at most {human_bytes(limit)} a day",
        observed=f"{human_bytes(size)} in {activity.counters['temp_files']:,} files {when}",
        advice="See the temp_blocks of the statements by total time; more work_mem for them, or an index, may help.",
    )


def shortened(names: t.Sequence[str], most: int = 5) -> str:
    """The first of *names*, and how many more there are."""
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def report_scope(basis: Basis, names: t.Sequence[str], skipped: t.Sequence[t.Tuple[str, str]], part: Part) -> None:
    """Which databases were reviewed. A standby has counters of its own; its primary's are not seen here."""
    of = "a standby, with counters of its own" if basis.standby else "this server"
    left_out = "".join(f"; not {name}: {reason}" for name, reason in skipped if name != "template0")
    part.check(
        "databases reviewed",
        "passed",
        expected="to be known",
        observed=f"{len(names)} of {of}{left_out}",
        evidence={"databases": list(names)},
    )
