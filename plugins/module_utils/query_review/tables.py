# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Missing-index candidates: large tables that are read from end to end, and foreign keys without an index."""

from __future__ import annotations

import typing as t

from ..database.scope import matches
from ..postgresql import query

# No size is asked for: that would wait for locks. Rows of a partitioned table are those of its partitions.
_SCANNED = """
SELECT n.nspname AS schema, c.relname AS name, greatest(c.reltuples, s.n_live_tup)::bigint AS rows,
       s.seq_scan AS scans, s.seq_tup_read AS rows_read, coalesce(s.idx_scan, 0) AS index_scans
FROM pg_catalog.pg_stat_user_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE s.seq_scan >= %s AND greatest(c.reltuples, s.n_live_tup) >= %s AND c.relpersistence <> 't'
ORDER BY s.seq_tup_read DESC LIMIT %s
"""
_FOREIGN_KEYS = """
SELECT n.nspname AS schema, c.relname AS name, con.conname AS constraint_name, size.rows,
       pn.nspname AS parent_schema, p.relname AS parent_name,
       ARRAY(SELECT a.attname::text FROM unnest(con.conkey) WITH ORDINALITY AS k (attnum, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = con.conrelid AND a.attnum = k.attnum
             ORDER BY k.place) AS columns
FROM pg_catalog.pg_constraint con
JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class p ON p.oid = con.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
CROSS JOIN LATERAL (
    SELECT sum(greatest(m.reltuples, coalesce(s.n_live_tup, 0), 0))::bigint AS rows
    FROM pg_catalog.pg_class m LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = m.oid
    WHERE m.oid = c.oid OR (c.relkind = 'p' AND EXISTS (
        SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = m.oid AND i.inhparent = c.oid))
) AS size
WHERE con.contype = 'f' AND con.conparentid = 0 AND c.relpersistence <> 't' AND size.rows >= %s
  AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid JOIN pg_catalog.pg_am am ON am.oid = ic.relam
    WHERE i.indrelid = con.conrelid AND i.indisvalid AND i.indpred IS NULL AND am.amname IN ('btree', 'hash')
      AND i.indnkeyatts >= cardinality(con.conkey)
      AND (i.indkey::int2[])[0:cardinality(con.conkey) - 1] @> con.conkey)
ORDER BY size.rows DESC
"""

MOST_TABLES = 20


class Scanned(t.NamedTuple):
    """A large table that was read from end to end; ``scans`` since the counters began, ``recent`` since the review."""

    database: str
    table: str
    rows: int
    scans: int
    recent: int
    rows_per_scan: int
    index_scans: int


class ForeignKey(t.NamedTuple):
    """A foreign key on a large table that no index helps: its parent's DELETE and UPDATE read the whole table."""

    database: str
    table: str
    constraint: str
    columns: t.Tuple[str, ...]
    parent: str
    rows: int


def read_scanned(
    connection: t.Any,
    database: str,
    params: t.Mapping[str, t.Any],
    before: t.Optional[t.Mapping[t.Tuple[str, str], int]],
) -> t.List[Scanned]:
    """Large tables with many sequential scans; *before* are those that the last review counted, if they run on."""
    rows = query(connection, _SCANNED, [params["min_sequential_scans"], params["min_table_rows"], 10 * MOST_TABLES])
    found = []
    for row in rows:
        table = f"{row['schema']}.{row['name']}"
        if not matches(table, params["tables"], params["exclude_tables"]):
            continue
        earlier = (before or {}).get((database, table), 0)
        recent = row["scans"] - earlier if row["scans"] >= earlier else row["scans"]
        per_scan = row["rows_read"] // max(row["scans"], 1)
        found.append(Scanned(database, table, row["rows"], row["scans"], recent, per_scan, row["index_scans"]))
    return found[:MOST_TABLES]


def lacks_index(one: Scanned, min_scans: int) -> bool:
    """Whether it is read from end to end, again and again; a scan that stops early (LIMIT) needs no index."""
    return one.recent >= min_scans and one.rows_per_scan >= one.rows / 2


def read_foreign_keys(connection: t.Any, database: str, params: t.Mapping[str, t.Any]) -> t.List[ForeignKey]:
    """Foreign keys of large tables without an index that begins with their columns, the largest table first."""
    found = []
    for row in query(connection, _FOREIGN_KEYS, [params["min_table_rows"]]):
        table = f"{row['schema']}.{row['name']}"
        if matches(table, params["tables"], params["exclude_tables"]):
            parent = f"{row['parent_schema']}.{row['parent_name']}"
            columns = tuple(row["columns"])
            found.append(ForeignKey(database, table, row["constraint_name"], columns, parent, row["rows"]))
    return found
