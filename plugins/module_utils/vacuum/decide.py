# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decide what each table needs, and in which order. Nothing here asks a server."""

from __future__ import annotations

import typing as t

from .table import NEW_PAGES, Limits, Table

# The order of work: what prevents the server from stopping comes first, the system catalogs, which the other
# work makes dirty, last.
FREEZE, VACUUM, ANALYZE, PARENTS, CATALOGS = range(5)
RANKS = ("freeze", "vacuum", "analyze", "analyze of all parts together", "system catalogs")


MADE_DIRTY = "made dirty by this run"


class Settings(t.NamedTuple):
    """What the options say about when a table is due."""

    dirty_share: float = 0.1
    min_dirty_pages: int = 16
    freeze_share: float = 0.5
    analyze: bool = True


class Step(t.NamedTuple):
    """What is to be done to one table, and why. ``urgency`` orders the steps of one ``rank``, the greatest first."""

    table: Table
    vacuum: bool
    freeze: bool
    failsafe: bool
    analyze: bool
    why: t.Tuple[str, ...]
    rank: int
    urgency: float

    @property
    def action(self) -> str:
        """``vacuum``, ``freeze``, ``analyze``, ``vacuum and analyze`` …"""
        words = ["freeze" if self.freeze else "vacuum"] if self.vacuum else []
        return " and ".join(words + (["analyze"] if self.analyze else []))

    @property
    def is_tidying(self) -> bool:
        """Whether it only cleans up after this very run."""
        return MADE_DIRTY in self.why

    @property
    def is_urgent(self) -> bool:
        """Whether leaving it undone brings the server nearer to refusing transactions."""
        return self.freeze


def decide(table: Table, limits: Limits, settings: Settings) -> t.Optional[Step]:
    """What *table* needs; None when it is clean, young and known well enough."""
    freeze, freeze_why, age_share = _freeze(table, limits, settings)
    failsafe, failsafe_why = _failsafe(table, limits)
    vacuum, vacuum_why, pressure = _vacuum(table, limits, settings)
    analyze, analyze_why, staleness = _analyze(table, limits) if settings.analyze else (False, [], 0.0)
    if analyze and table.rows == 0 and table.dirty_pages and not vacuum:
        # Perhaps it holds nothing but dead rows: an ANALYZE alone would find nothing, today and every time.
        vacuum, vacuum_why = True, [f"{table.dirty_pages} pages to look into before it can be analyzed"]
    if not (freeze or vacuum or analyze):
        return None
    why = (*failsafe_why, *freeze_why, *vacuum_why, *analyze_why)
    rank, urgency = VACUUM, pressure
    if freeze:
        rank, urgency = FREEZE, age_share
    elif table.is_catalog:
        rank = CATALOGS
    elif not vacuum:
        rank, urgency = (PARENTS if table.has_children else ANALYZE), staleness
    return Step(table, vacuum or freeze, freeze, failsafe, analyze, why, rank, urgency)


def why_not(table: Table) -> str:
    """In a few words, why *table* needs nothing."""
    if table.kind == "partitioned table":
        return "statistics of all partitions together are fresh"
    if not table.pages:
        return "empty"
    if not table.dirty_pages:
        return "every page is all-visible"
    return f"{table.dirty_pages} of {table.pages} pages are not all-visible, which is not enough to be due"


def in_order(steps: t.Iterable[Step]) -> list[Step]:
    """*steps* with the most urgent first, those of one database together within each rank."""
    listed = list(steps)
    worst: t.Dict[t.Tuple[int, str], float] = {}
    for step in listed:
        key = (step.rank, step.table.database)
        worst[key] = max(worst.get(key, 0.0), step.urgency)
    return sorted(
        listed,
        key=lambda step: (
            step.rank,
            -worst[step.rank, step.table.database],
            step.table.database,
            -step.urgency,
            step.table.shown,
        ),
    )


def without_parts(steps: t.Sequence[Step], tables: t.Sequence[Table], version: int) -> list[Step]:
    """*steps* without those that analyze a partition whose partitioned table is analyzed anyway.

    Before version 18 an ANALYZE of a partitioned table analyzes every partition, too.
    """
    if version >= 180000:
        return list(steps)
    known = {table.oid: table for table in tables}
    covered = {step.table.oid for step in steps if step.analyze and step.table.kind == "partitioned table"}
    kept = []
    for step in steps:
        ancestors = _partitioned_ancestors(step.table, known)
        if not step.analyze or not covered.intersection(ancestors):
            kept.append(step)
        elif step.vacuum:
            kept.append(step._replace(analyze=False))
    return kept


def _partitioned_ancestors(table: Table, known: t.Mapping[int, Table]) -> list[int]:
    found: list[int] = []
    parents = [oid for oid in table.parents if oid in known and known[oid].kind == "partitioned table"]
    for oid in parents:
        found += [oid, *_partitioned_ancestors(known[oid], known)]
    return found


def _freeze(table: Table, limits: Limits, settings: Settings) -> tuple[bool, list[str], float]:
    if table.kind == "partitioned table":
        return False, [], 0.0
    why = []
    shares = []
    for name, age, most in (
        ("transaction", table.xid_age, limits.xid_age),
        ("multixact", table.mxid_age, limits.mxid_age),
    ):
        share = age / max(most, 1)
        shares.append(share)
        if share > settings.freeze_share:
            why.append(f"{name} age {age} is {share:.0%} of the {most} at which autovacuum would step in")
    return bool(why), why, max(shares)


def _failsafe(table: Table, limits: Limits) -> tuple[bool, list[str]]:
    old = table.xid_age > limits.failsafe_xid_age or table.mxid_age > limits.failsafe_mxid_age
    return old, ["past the failsafe age, so its indexes are left for later"] if old else []


def _vacuum(table: Table, limits: Limits, settings: Settings) -> tuple[bool, list[str], float]:
    # What the visibility map says stands above all counters: a page that is all-visible holds nothing dead.
    # Of a table that is locked, or cannot be looked into, only the counters are known.
    if (not table.pages and not table.is_locked) or (not table.dirty_pages and table.confidence == "high"):
        return False, [], 0.0
    why = []
    pressures = [0.0]
    if table.dead_rows > limits.dead_rows:
        why.append(f"{table.dead_rows} dead rows, due from {limits.dead_rows:.0f}")
        pressures.append(table.dead_rows / max(limits.dead_rows, 1.0))
    if table.inserted_rows > limits.inserted_rows:
        why.append(f"{table.inserted_rows} rows inserted, due from {limits.inserted_rows:.0f}")
        pressures.append(table.inserted_rows / max(limits.inserted_rows, 1.0))
    enough = table.dirty_pages >= settings.min_dirty_pages and table.dirty_share > settings.dirty_share
    if enough and not untouched_but_for_new_pages(table):
        why.append(f"{table.dirty_share:.0%} of {table.pages} pages are not all-visible")
        pressures.append(table.dirty_share / max(settings.dirty_share, 0.001))
    return bool(why), why, max(pressures)


def untouched_but_for_new_pages(table: Table) -> bool:
    """Whether no row of *table* has changed since its last vacuum, so that what is not all-visible was never written.

    That the counters still know that vacuum shows that they were not reset since.
    """
    changed = table.dead_rows > 0 or table.inserted_rows > 0
    return table.last_vacuum is not None and not changed and table.dirty_pages <= NEW_PAGES


def _analyze(table: Table, limits: Limits) -> tuple[bool, list[str], float]:
    # The server itself refuses to analyze pg_statistic, and gathers nothing about TOAST tables.
    if table.kind == "TOAST table" or (table.is_catalog and table.name == "pg_statistic"):
        return False, [], 0.0
    if table.missing_statistics and not _is_known_to_be_empty(table):
        return True, ["statistics are missing"], float("inf")
    modified = max(table.modified_rows, table.modified_in_parts if table.has_children else 0)
    # Each statement that creates or drops something modifies rows of a small catalog, whose statistics stay the same.
    limit = max(limits.modified_rows, table.rows) if table.is_catalog else limits.modified_rows
    if modified > limit:
        return (
            True,
            [f"{modified} rows modified since they were analyzed, due from {limit:.0f}"],
            modified / max(limit, 1.0),
        )
    return False, [], 0.0


def _is_known_to_be_empty(table: Table) -> bool:
    """Whether an ANALYZE would find no row to gather statistics from, so that they will stay missing."""
    if table.has_children:
        # A look at them that found nothing is enough until their rows change.
        return not table.pages + table.pages_of_parts or table.last_analyze is not None
    return not table.pages or (table.rows == 0 and not table.dirty_pages)
