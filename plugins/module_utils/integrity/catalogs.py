# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the catalogs promise and do not hold: constraints, primary keys, replica identities, collations, checksums."""

from __future__ import annotations

import typing as t

from ..postgresql import query, value

# conenforced exists from PostgreSQL 18 on: a constraint that is not enforced on purpose is not validated either.
_CONSTRAINTS = """
SELECT n.nspname || '.' || c.relname AS table_name, con.conname AS name, con.contype::text AS kind,
       pg_catalog.format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, con.conname) AS advice
FROM pg_catalog.pg_constraint con
JOIN pg_catalog.pg_class c ON c.oid = con.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT con.convalidated AND con.conparentid = 0 AND coalesce(to_jsonb(con) ->> 'conenforced', 'true') = 'true'
ORDER BY 1, 2
"""
_DISABLED = """
SELECT DISTINCT n.nspname || '.' || c.relname AS table_name, con.conname AS name,
       pg_catalog.format('ALTER TABLE %I.%I ENABLE TRIGGER ALL', n.nspname, c.relname) AS advice
FROM pg_catalog.pg_trigger tr JOIN pg_catalog.pg_constraint con ON con.oid = tr.tgconstraint
JOIN pg_catalog.pg_class c ON c.oid = tr.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE tr.tgisinternal AND tr.tgenabled = 'D' AND con.contype = 'f'
ORDER BY 1, 2
"""
# Tables of extensions are the extension's affair, partitions their parent's.
_WITHOUT_KEY = """
SELECT n.nspname || '.' || c.relname AS table_name, greatest(c.reltuples, s.n_live_tup, 0)::bigint AS rows
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2 DESC, 1
"""
_WITHOUT_IDENTITY = """
SELECT DISTINCT n.nspname || '.' || c.relname AS table_name, p.pubname AS publication
FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_tables pt ON pt.pubname = p.pubname
JOIN pg_catalog.pg_namespace n ON n.nspname = pt.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = pt.tablename
WHERE (p.pubupdate OR p.pubdelete) AND CASE c.relreplident
    WHEN 'f' THEN false WHEN 'n' THEN true
    WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisreplident)
    ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) END
ORDER BY 1, 2
"""
# 100 is the database's own collation.
_DATABASE_COLLATION = """
SELECT datcollversion AS recorded, pg_catalog.pg_database_collation_actual_version(oid) AS actual,
       (SELECT count(*) FROM pg_catalog.pg_index i WHERE 100 = ANY (i.indcollation::oid[])) AS indexes
FROM pg_catalog.pg_database WHERE datname = current_database()
"""
_COLLATIONS = """
SELECT n.nspname || '.' || c.collname AS name, c.collversion AS recorded,
       pg_catalog.pg_collation_actual_version(c.oid) AS actual, used.indexes
FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
JOIN (SELECT k.collation_oid, count(DISTINCT i.indexrelid) AS indexes
      FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indcollation::oid[]) AS k (collation_oid)
      GROUP BY 1) AS used ON used.collation_oid = c.oid
WHERE c.collversion IS NOT NULL
"""
_CHECKSUMS = """
SELECT coalesce(datname, 'what all databases share') AS name, checksum_failures AS failures,
       checksum_last_failure::text AS last
FROM pg_catalog.pg_stat_database WHERE checksum_failures > 0 ORDER BY 1
"""
_STATISTICS_SINCE = """
SELECT extract(epoch FROM greatest(
    d.stats_reset,
    least((SELECT stats_reset FROM pg_catalog.pg_stat_bgwriter), (SELECT stats_reset FROM pg_catalog.pg_stat_archiver),
          (SELECT stats_reset FROM pg_catalog.pg_stat_wal))))::float8
FROM pg_catalog.pg_stat_database d WHERE d.datname = current_database()
"""
_STANDBYS = "SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'"


class Promise(t.NamedTuple):
    """A constraint that does not hold for sure, and the statement that mends it."""

    database: str
    table: str
    name: str
    why: str
    advice: str


class Collation(t.NamedTuple):
    """A collation whose rules have another version than when the indexes were built."""

    database: str
    name: str
    recorded: str
    actual: str
    indexes: int


Row = t.Dict[str, t.Any]


def read_constraints(connection: t.Any, database: str) -> t.List[Promise]:
    """Constraints that were never validated, and foreign keys whose triggers are off."""
    found = [
        Promise(database, row["table_name"], row["name"], "not validated", row["advice"])
        for row in query(connection, _CONSTRAINTS)
    ]
    found += [
        Promise(database, row["table_name"], row["name"], "its triggers are disabled", row["advice"])
        for row in query(connection, _DISABLED)
    ]
    return found


def read_tables_without_key(connection: t.Any) -> t.List[Row]:
    """``{table_name, rows}``, the largest first."""
    return query(connection, _WITHOUT_KEY)


def read_tables_without_identity(connection: t.Any) -> t.List[Row]:
    """``{table_name, publication}`` of those whose UPDATE or DELETE fails."""
    return query(connection, _WITHOUT_IDENTITY)


def read_collations(connection: t.Any, database: str) -> t.List[Collation]:
    """Those in use whose version has changed."""
    rows: t.List[Row] = []
    if connection.info.server_version >= 150000:
        rows += [{"name": "the database's own", **row} for row in query(connection, _DATABASE_COLLATION)]
    rows += query(connection, _COLLATIONS)
    return [
        Collation(database, row["name"], row["recorded"], row["actual"] or "none", row["indexes"])
        for row in rows
        if row["recorded"] is not None and row["recorded"] != row["actual"]
    ]


def checksums_enabled(connection: t.Any) -> bool:
    return bool(value(connection, "SELECT current_setting('data_checksums') = 'on'"))


def read_checksum_failures(connection: t.Any) -> t.List[Row]:
    """``{name, failures, last}`` of each database that has any."""
    return query(connection, _CHECKSUMS)


def statistics_since(connection: t.Any) -> float:
    """Since when this database's statistics are counted: they are lost in a crash, too."""
    return float(value(connection, _STATISTICS_SINCE) or 0.0)


def connected_standbys(connection: t.Any) -> int:
    return int(value(connection, _STANDBYS))
