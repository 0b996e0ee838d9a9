# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Indexes that are of no use: invalid ones, duplicates, and those that nobody has asked for."""

from __future__ import annotations

import re
import typing as t

from ..postgresql import query

# Indexes on system catalogs are PostgreSQL's own affair. An index of a table on which one is being built now may be
# the one. Expressions are compared as they are stored: to write them out, PostgreSQL would wait for the table's lock.
_INDEXES = r"""
SELECT i.indexrelid::bigint AS oid, n.nspname AS schema, c.relname AS name,
       tn.nspname || '.' || tc.relname AS table_name,
       c.relkind = 'I' AS is_partitioned, c.relispartition AS is_part, n.nspname = 'pg_toast' AS is_toast,
       i.indisunique AS is_unique, i.indisprimary AS is_primary, i.indisreplident AS is_identity,
       i.indisvalid AS is_valid, coalesce(k.count, 0) > 0 AS is_constraint,
       coalesce(k.referenced, false) AS is_referenced,
       (greatest(c.relpages, 0)::bigint + coalesce((
           SELECT sum(greatest(p.relpages, 0)) FROM pg_catalog.pg_inherits h
           JOIN pg_catalog.pg_class p ON p.oid = h.inhrelid WHERE h.inhparent = c.oid), 0)::bigint)
           * current_setting('block_size')::int AS size_bytes,
       s.idx_scan AS scans,
       concat_ws('|', i.indrelid, am.amname, i.indnkeyatts, i.indkey, i.indclass, i.indcollation, i.indoption,
                 i.indimmediate, to_jsonb(i) ->> 'indnullsnotdistinct',
                 coalesce(regexp_replace(i.indexprs::text, ':location -?\d+', '', 'g'), '-'),
                 coalesce(regexp_replace(i.indpred::text, ':location -?\d+', '', 'g'), '-'),
                 CASE WHEN i.indisexclusion THEN i.indexrelid END) AS identity,
       EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.relid = i.indrelid
               AND p.datid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())) AS in_work
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class tc ON tc.oid = i.indrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
JOIN pg_catalog.pg_am am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
LEFT JOIN LATERAL (
    SELECT count(*) FILTER (WHERE con.contype <> 'f') AS count, bool_or(con.contype = 'f') AS referenced
    FROM pg_catalog.pg_constraint con WHERE con.conindid = i.indexrelid
) AS k ON true
WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relpersistence <> 't'
"""

_LEFTOVER = re.compile(r"_cc(?:new|old)\d*$")


class Index(t.NamedTuple):
    """One index, or one of a partitioned table with all its parts; ``identity`` is the same for duplicates."""

    database: str
    key: str
    name: str
    table: str
    size_bytes: int
    scans: t.Optional[int]
    identity: str
    is_unique: bool = False
    is_primary: bool = False
    is_constraint: bool = False
    is_referenced: bool = False
    is_identity: bool = False
    is_valid: bool = True
    is_partitioned: bool = False
    is_part: bool = False
    is_toast: bool = False
    in_work: bool = False

    @property
    def is_needed(self) -> bool:
        """Whether something besides queries rests on it."""
        return self.is_primary or self.is_constraint or self.is_referenced or self.is_identity or self.is_part


class Duplicate(t.NamedTuple):
    """An index that another one makes superfluous."""

    superfluous: Index
    other: Index


def read_indexes(connection: t.Any, database: str, database_oid: int) -> t.List[Index]:
    found = []
    for row in query(connection, _INDEXES):
        facts = {name: row[name] for name in Index._fields if name.startswith("is_")}
        found.append(
            Index(
                database,
                f"{database_oid}/{row['oid']}",
                f"{row['schema']}.{row['name']}",
                row["table_name"],
                row["size_bytes"],
                row["scans"],
                row["identity"],
                in_work=row["in_work"],
                **facts,
            )
        )
    return found


def invalid(indexes: t.Sequence[Index]) -> t.List[Index]:
    """Those that serve no query and yet cost every write; one that is being built is not among them."""
    return [index for index in indexes if not index.is_valid and not index.in_work]


def why_invalid(index: Index) -> str:
    """Where it comes from, as far as its name says."""
    if _LEFTOVER.search(index.name):
        return "left by a REINDEX CONCURRENTLY that was interrupted"
    if index.is_partitioned:
        return "not every partition has its part of it"
    return "left by a CREATE INDEX CONCURRENTLY that failed"


def duplicates(indexes: t.Sequence[Index]) -> t.List[Duplicate]:
    """Indexes of the same table, columns, order, expression and predicate as another one, which can do their work.

    A unique one does the work of one that is not, never the other way round. The one to be kept is a constraint's, else
    a unique one, else the one that was used most.
    """
    groups: t.Dict[str, t.List[Index]] = {}
    for index in indexes:
        if index.is_valid and not index.is_toast:
            groups.setdefault(index.identity, []).append(index)
    found = []
    for group in groups.values():
        best, *others = sorted(group, key=_worth)
        found += [Duplicate(index, best) for index in others if not index.is_needed]
    return sorted(found, key=lambda one: -one.superfluous.size_bytes)


def _worth(index: Index) -> t.Tuple[t.Any, ...]:
    return (not index.is_primary, not index.is_needed, not index.is_unique, -(index.scans or 0), index.name)


def unused(indexes: t.Sequence[Index], min_bytes: int) -> t.List[Index]:
    """Those that no query has asked for since the statistics began, and that nothing else rests on."""
    found = [
        index
        for index in indexes
        if index.scans == 0
        and index.is_valid
        and not (index.is_unique or index.is_needed or index.is_partitioned or index.is_toast)
        and index.size_bytes >= min_bytes
    ]
    return sorted(found, key=lambda index: -index.size_bytes)


def known_since(index: Index, remembered: t.Mapping[str, float], statistics_since: float, now: float) -> float:
    """Since when *index* is known to be unused: when an index was made, PostgreSQL does not say."""
    return max(remembered.get(index.key, now), statistics_since)
