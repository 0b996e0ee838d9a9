# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of the catalogs of all databases together."""

from __future__ import annotations

import time
import typing as t

from ..database.scope import matches
from ..quantities import human_bytes, human_seconds
from ..result import Part
from . import indexes, sequences
from .catalogs import Collation, Promise, Row
from .indexes import Index
from .memory import Memory
from .sequences import Forecast, Sequence

MOST_SHOWN = 20

# What is remarked on until somebody settles it or accepts it, and never done by itself.
_ACCEPT = "Put what is as it should be into {}."


class Catalogs(t.NamedTuple):
    """What was read from the catalogs of all databases."""

    sequences: t.List[Sequence]
    indexes: t.List[Index]
    promises: t.List[Promise]
    without_key: t.List[t.Tuple[str, str, int]]  # database, table, rows
    without_identity: t.List[t.Tuple[str, str, str]]  # database, table, publication
    statistics_since: t.Dict[str, float]  # by database
    unread: t.List[t.Tuple[str, str]]  # database, why
    standbys: int
    now: float


class Limits(t.NamedTuple):
    """The options that decide about what the catalogs say."""

    warn_used: float
    fail_used: float
    warn_within: float
    unused_after: float
    unused_min_bytes: int
    accepted_indexes: t.Sequence[str]
    accepted_tables: t.Sequence[str]


def report_catalogs(found: Catalogs, remembered: Memory, limits: Limits, part: Part) -> None:
    report_sequences(found, remembered, limits, part)
    report_invalid(found.indexes, part)
    report_promises(found.promises, part)
    _report_identity(found.without_identity, part)
    _report_keys(found.without_key, limits, part)
    _report_duplicates(found.indexes, limits, part)
    report_unused(found, remembered, limits, part)


def report_unread(found: Catalogs, part: Part) -> None:
    """Databases that could not be read, or not to the end."""
    for database, why in found.unread:
        part.check(
            f"database {database}",
            "unknown",
            expected="to be looked at",
            observed=why,
            advice="Run it again when nobody alters tables or makes databases there.",
        )


def report_sequences(found: Catalogs, remembered: Memory, limits: Limits, part: Part) -> None:
    """The fullest in one line, and a check for each that comes to its end."""
    shares = {"warn": limits.warn_used, "fail": limits.fail_used, "within": limits.warn_within}
    all_of_them, now = found.sequences, found.now
    seen = {one.key: sequences.forecast(one, remembered.sequences.get(one.key, []), now) for one in all_of_them}
    states = {one.key: sequences.status_of(one, seen[one.key], now, shares) for one in all_of_them}
    full = sorted((one for one in all_of_them if states[one.key] != "passed"), key=lambda one: -one.used)
    _report_all_sequences(all_of_them, limits, part)
    for one in full:
        _report_sequence(one, seen[one.key], states[one.key], limits, part)
    remembered.sequences = {
        one.key: sequences.remember(one, remembered.sequences.get(one.key, []), now) for one in all_of_them if one.last
    }


def _report_all_sequences(found: t.Sequence[Sequence], limits: Limits, part: Part) -> None:
    unreadable = [one for one in found if not one.readable]
    fullest = max(found, key=lambda one: one.used, default=None)
    words = _counted(len(found), "sequence") if found else "none"
    if fullest is not None and fullest.used:
        words += f", the fullest {fullest.name} in {fullest.database} at {_percent(fullest.used)}"
    part.metric("fullest_sequence_ratio", round(fullest.used, 6) if fullest else 0.0, "ratio")
    part.check(
        "sequences",
        "unknown" if unreadable else "passed",
        expected=f"less than {limits.warn_used:.0%} used (fails from {limits.fail_used:.0%} on), and so their columns; "
        "others have a check of their own",
        observed=words + (f"; {len(unreadable)} may not be read" if unreadable else ""),
        advice="GRANT SELECT ON ALL SEQUENCES IN SCHEMA …, or GRANT pg_read_all_data.",
        evidence={"unreadable": [f"{one.name} in {one.database}" for one in unreadable[:MOST_SHOWN]]}
        if unreadable
        else {},
    )


def _report_sequence(one: Sequence, seen: t.Optional[Forecast], state: str, limits: Limits, part: Part) -> None:
    taker = f" of {one.column} ({one.type})" if one.column else ""
    end = f"; at the pace of the last {human_seconds(seen.span)} full {_date(seen.at)}" if seen and one.used < 1 else ""
    narrow = one.column and one.limit not in (one.minimum, one.maximum)
    part.check(
        f"sequence {one.name} in {one.database}",
        state,
        expected=f"less than {limits.warn_used:.0%} used, and not full within {human_seconds(limits.warn_within)}",
        observed=f"{_percent(one.used)}: {one.last:,} of {one.limit:,}{taker}{end}",
        advice=("The column is narrower than the sequence. " if narrow else "")
        + "Widen the column to bigint while there is time (where the table may not be locked: a new column that a "
        "trigger fills, then a swap), the columns that refer to it, and the sequence (ALTER SEQUENCE … AS bigint).",
        evidence={
            "database": one.database,
            "sequence": one.name,
            "last": one.last,
            "limit": one.limit,
            "column": one.column,
            "type": one.type,
            "used_ratio": round(one.used, 6),
            "full_at": _date(seen.at) if seen else None,
        },
    )


def report_invalid(found: t.Sequence[Index], part: Part) -> None:
    broken = indexes.invalid(found)
    part.metric("invalid_indexes", len(broken), "count")
    part.check(
        "invalid indexes",
        "warned" if broken else "passed",
        expected="none: they serve no query and cost every write",
        observed=_listed(f"{one.name} in {one.database} ({indexes.why_invalid(one)})" for one in broken) or "none",
        advice="database_reindex removes what a REINDEX left. Others: DROP INDEX CONCURRENTLY, and create them anew.",
        evidence={"indexes": [_described(one, why=indexes.why_invalid(one)) for one in broken[:MOST_SHOWN]]},
    )


def report_promises(found: t.Sequence[Promise], part: Part) -> None:
    part.metric("unproven_constraints", len(found), "count")
    part.check(
        "constraints hold",
        "warned" if found else "passed",
        expected="all validated, and no foreign key switched off",
        observed=_listed(f"{one.name} of {one.table} in {one.database} ({one.why})" for one in found) or "all",
        advice="Look for rows that violate them"
        + (f", then: {'; '.join(one.advice for one in found[:3])}." if found else ", and then validate them."),
        evidence={"constraints": [one._asdict() for one in found[:MOST_SHOWN]]},
    )


def _report_identity(found: t.Sequence[t.Tuple[str, str, str]], part: Part) -> None:
    part.check(
        "replica identity of published tables",
        "failed" if found else "passed",
        expected="known for each table whose UPDATE or DELETE is published: they fail otherwise",
        observed=_listed(f"{table} in {database} (publication {by})" for database, table, by in found) or "known",
        advice="Add a primary key, or ALTER TABLE … REPLICA IDENTITY USING INDEX (or FULL).",
        evidence={"tables": [f"{table} in {database}" for database, table, _by in found[:MOST_SHOWN]]},
    )


def _report_keys(found: t.Sequence[t.Tuple[str, str, int]], limits: Limits, part: Part) -> None:
    remarked = [one for one in found if not matches(one[1], limits.accepted_tables)]
    accepted = len(found) - len(remarked)
    words = _listed(f"{table} in {database} ({_counted(rows, 'row')})" for database, table, rows in remarked) or "none"
    part.metric("tables_without_primary_key", len(found), "count")
    part.check(
        "tables without a primary key",
        "warned" if remarked else "passed",
        expected="none: their rows cannot be told apart, nor replicated by a publication",
        observed=words + (f"; {accepted:,} accepted" if accepted else ""),
        advice=f"Add one. {_ACCEPT.format('accepted_tables')}",
        evidence={"tables": [f"{table} in {database}" for database, table, _rows in remarked[:MOST_SHOWN]]},
    )


def _report_duplicates(found: t.Sequence[Index], limits: Limits, part: Part) -> None:
    remarked = [one for one in indexes.duplicates(found) if not matches(one.superfluous.name, limits.accepted_indexes)]
    size = sum(one.superfluous.size_bytes for one in remarked)
    part.metric("duplicate_index_bytes", size, "bytes")
    shown = _listed(
        f"{one.superfluous.name} in {one.superfluous.database} is {one.other.name} again "
        f"({human_bytes(one.superfluous.size_bytes)})"
        for one in remarked
    )
    part.check(
        "duplicate indexes",
        "warned" if remarked else "passed",
        expected="none: they double the cost of each write",
        observed=shown or "none",
        advice=f"DROP INDEX CONCURRENTLY the first of each two. {_ACCEPT.format('accepted_indexes')}",
        evidence={"indexes": [_described(one.superfluous, same_as=one.other.name) for one in remarked[:MOST_SHOWN]]},
    )


def report_unused(found: Catalogs, remembered: Memory, limits: Limits, part: Part) -> None:
    """Never-used indexes, once they have been seen unused for long enough; when they were made is not known."""
    now = found.now
    candidates = [
        one
        for one in indexes.unused(found.indexes, limits.unused_min_bytes)
        if not matches(one.name, limits.accepted_indexes)
    ]
    since = {
        one.key: indexes.known_since(one, remembered.unused, found.statistics_since.get(one.database, now), now)
        for one in candidates
    }
    sure = [one for one in candidates if now - since[one.key] >= limits.unused_after]
    young = len(candidates) - len(sure)
    remembered.unused = {one.key: min(remembered.unused.get(one.key, now), now) for one in candidates}
    part.metric("unused_index_bytes", sum(one.size_bytes for one in sure), "bytes")
    shown = _listed(f"{one.name} in {one.database} ({human_bytes(one.size_bytes)})" for one in sure)
    standbys = f", of which {found.standbys} are connected" if found.standbys else ""
    part.check(
        "indexes that are never used",
        "warned" if sure else "passed",
        expected=f"none of {human_bytes(limits.unused_min_bytes)} or more in {human_seconds(limits.unused_after)}",
        observed=(shown or "none") + (f"; {young:,} not watched for long enough" if young else ""),
        advice="DROP INDEX CONCURRENTLY what is not needed once a year either. Standbys have counters of their own"
        f"{standbys}: look there, too. {_ACCEPT.format('accepted_indexes')}",
        evidence={"indexes": [_described(one, unused_since=_date(since[one.key])) for one in sure[:MOST_SHOWN]]},
    )


def report_collations(found: t.Sequence[Collation], part: Part) -> None:
    changed = [
        f"{one.name} in {one.database}: {one.recorded} → {one.actual} ({one.indexes:,} indexes)" for one in found
    ]
    part.check(
        "collation versions",
        "warned" if found else "passed",
        expected="those that the indexes were built by",
        observed=_listed(changed) or "as recorded",
        advice="The operating system's order of letters has changed: REINDEX what uses it (the checks of B-tree indexes"
        " say what is out of order), then ALTER DATABASE or ALTER COLLATION … REFRESH [COLLATION] VERSION.",
        evidence={"collations": [one._asdict() for one in found[:MOST_SHOWN]]},
    )


def report_checksums(enabled: bool, failures: t.Sequence[Row], part: Part) -> None:
    if not enabled:
        part.check(
            "checksum failures",
            "unknown",
            expected="no page that is not what was written",
            observed="the cluster has no data checksums",
            advice="Stop the server, pg_checksums --enable, start it: since PostgreSQL 18 new clusters have them.",
        )
        return
    count = sum(row["failures"] for row in failures)
    part.metric("checksum_failures", count, "count")
    part.require(
        "checksum failures",
        not failures,
        expected="no page that is not what was written",
        observed=_listed(f"{row['name']}: {row['failures']:,}, last {row['last']}" for row in failures) or "none",
        advice="The disk, its driver or the memory damages data: see the kernel's log, find what is damaged (the checks"
        " of tables and indexes), restore it, and then set the counter back: SELECT pg_stat_reset() in that database.",
    )


def _described(index: Index, **more: t.Any) -> t.Dict[str, t.Any]:
    return {
        "database": index.database,
        "index": index.name,
        "table": index.table,
        "size_bytes": index.size_bytes,
        **more,
    }


def _listed(names: t.Iterable[str], most: int = 5) -> str:
    """The first of *names*, and how many more there are."""
    found = list(names)
    return "; ".join(found[:most]) + (f"; and {len(found) - most:,} more" if len(found) > most else "")


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"


def _date(when: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(when))
