# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is known of one table that may need a vacuum, and the thresholds by which the server itself would judge it."""

from __future__ import annotations

import typing as t

KINDS = {"r": "table", "t": "TOAST table", "m": "materialized view", "p": "partitioned table"}

# Settings of the server that a table may override, and the number that stands for "no limit" in some of them.
SETTINGS = (
    "autovacuum_vacuum_threshold",
    "autovacuum_vacuum_scale_factor",
    "autovacuum_vacuum_max_threshold",
    "autovacuum_vacuum_insert_threshold",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_analyze_threshold",
    "autovacuum_analyze_scale_factor",
    "autovacuum_freeze_max_age",
    "autovacuum_multixact_freeze_max_age",
    "vacuum_failsafe_age",
    "vacuum_multixact_failsafe_age",
)
# From PostgreSQL 16 on, a file grows by up to so many pages in advance; while they are new, no vacuum marks them.
NEW_PAGES = 64
NO_LIMIT = -1.0

# An ANALYZE of a partitioned table goes on to its partitions: that one of them was analyzed later means nothing then.
PARTS_FOLLOW_WITHIN = 3600.0


class Table(t.NamedTuple):
    """One table, materialized view, TOAST table or partitioned table as it was measured.

    ``dirty_pages`` are those that are not all-visible, ``unfrozen_pages`` those that are not all-frozen; exact with
    ``confidence`` ``high``, else estimated. ``main`` is the table that a TOAST table belongs to; ``parents``
    are the oids of the tables that it is a part of. Times are seconds since the epoch.
    """

    database: str
    schema: str
    name: str
    oid: int
    kind: str
    is_catalog: bool
    is_shared: bool
    is_temporary: bool
    main: t.Optional[t.Tuple[str, str]]
    has_children: bool
    parents: t.Tuple[int, ...]
    pages: int
    dirty_pages: int
    unfrozen_pages: int
    confidence: str
    rows: float
    dead_rows: int
    inserted_rows: int
    modified_rows: int
    frozen_share: float
    xid_age: int
    mxid_age: int
    last_vacuum: t.Optional[float]
    last_analyze: t.Optional[float]
    last_autoanalyze: t.Optional[float]
    missing_statistics: bool
    may_maintain: bool
    is_locked: bool
    options: t.Dict[str, str]
    pages_of_parts: int = 0
    modified_in_parts: int = 0

    @property
    def qualified(self) -> str:
        """The name that the options ``tables`` and ``exclude_tables`` are held against: ``schema.table``."""
        schema, name = self.main or (self.schema, self.name)
        return f"{schema}.{name}"

    @property
    def shown(self) -> str:
        """The name in reports; a TOAST table is known by the table it belongs to."""
        return f"{self.qualified} (TOAST)" if self.main else self.qualified

    @property
    def dirty_share(self) -> float:
        return self.dirty_pages / self.pages if self.pages else 0.0


class Limits(t.NamedTuple):
    """Where the server's own autovacuum would act on one table."""

    dead_rows: float
    inserted_rows: float
    modified_rows: float
    xid_age: int
    mxid_age: int
    failsafe_xid_age: int
    failsafe_mxid_age: int


def limits_of(table: Table, settings: t.Mapping[str, float]) -> Limits:
    """The limits for *table* by the server's *settings* and the table's own storage parameters.

    An age that a table sets can only lower the server's; a threshold of -1 for inserts means never.
    """

    def setting(name: str, default: float = NO_LIMIT) -> float:
        own = table.options.get(name)
        return float(own) if own is not None and float(own) >= 0 else settings.get(name, default)

    def age(name: str) -> int:
        own = table.options.get(name)
        return int(min(float(own), settings[name])) if own is not None else int(settings[name])

    rows = max(table.rows, 0.0)
    dead = setting("autovacuum_vacuum_threshold") + setting("autovacuum_vacuum_scale_factor") * rows
    most = _own_limit(table, "autovacuum_vacuum_max_threshold", settings)
    inserted = _own_limit(table, "autovacuum_vacuum_insert_threshold", settings)
    unfrozen_rows = rows * (1.0 - table.frozen_share)
    return Limits(
        dead_rows=min(dead, most) if most >= 0 else dead,
        inserted_rows=inserted + setting("autovacuum_vacuum_insert_scale_factor") * unfrozen_rows
        if inserted >= 0
        else float("inf"),
        modified_rows=setting("autovacuum_analyze_threshold") + setting("autovacuum_analyze_scale_factor") * rows,
        xid_age=age("autovacuum_freeze_max_age"),
        mxid_age=age("autovacuum_multixact_freeze_max_age"),
        # The server takes at least 105 % of the age at which autovacuum starts by itself.
        failsafe_xid_age=int(max(settings["vacuum_failsafe_age"], settings["autovacuum_freeze_max_age"] * 1.05)),
        failsafe_mxid_age=int(
            max(settings["vacuum_multixact_failsafe_age"], settings["autovacuum_multixact_freeze_max_age"] * 1.05)
        ),
    )


def _own_limit(table: Table, name: str, settings: t.Mapping[str, float]) -> float:
    # Of these, -1 in a table means "no limit", and -2 (the default there) "as the server".
    own = float(table.options.get(name, -2))
    return own if own >= NO_LIMIT else settings.get(name, NO_LIMIT)


def read_options(reloptions: t.Optional[t.Sequence[str]]) -> t.Dict[str, str]:
    """``["autovacuum_enabled=false"]`` → ``{"autovacuum_enabled": "false"}``."""
    return dict(option.split("=", 1) for option in reloptions or ())


def with_parts(tables: t.Sequence[Table]) -> list[Table]:
    """*tables* whose parents know the pages and changes of all their partitions or children."""
    known = {table.oid: table for table in tables}
    pages: t.Dict[int, int] = {}
    modified: t.Dict[int, float] = {}
    for table in tables:
        for ancestor in ancestors(table, known):
            pages[ancestor.oid] = pages.get(ancestor.oid, 0) + table.pages
            modified[ancestor.oid] = modified.get(ancestor.oid, 0.0) + modified_since(table, ancestor)
    return [
        table._replace(pages_of_parts=pages[table.oid], modified_in_parts=int(modified[table.oid]))
        if table.oid in pages
        else table
        for table in tables
    ]


def ancestors(table: Table, known: t.Mapping[int, Table]) -> list[Table]:
    """Every table in *known* that *table* is a part of, directly or not, each once."""
    found: t.Dict[int, Table] = {}
    waiting = list(table.parents)
    while waiting:
        parent = known.get(waiting.pop())
        if parent is not None and parent.oid not in found:
            found[parent.oid] = parent
            waiting.extend(parent.parents)
    return list(found.values())


def modified_since(part: Table, parent: Table) -> float:
    """How many rows of *part* may have changed since *parent* was analyzed: all, if *part* was found due since."""
    since = parent.last_analyze or 0.0
    by_hand = (part.last_analyze or 0.0) - PARTS_FOLLOW_WITHIN
    if max(by_hand, part.last_autoanalyze or 0.0) > since:
        return max(part.rows, 0.0)
    return part.modified_rows
