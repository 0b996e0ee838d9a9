# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The indexes of a database as its catalogs have them, read without waiting for anybody's lock."""

from __future__ import annotations

import dataclasses
import typing as t

from .. import postgresql
from ..database.scope import matches
from ..postgresql import QueryError
from .model import BloatSettings, IndexFacts

# Codes of errors that say that something was dropped or is locked: by then it may be gone or free, so ask again.
LOCKED = "55P03"
VANISHED = ("42P01", "42704", "3F000", "XX000")
_LOCKED_TRIES = 3
_VANISHED_TRIES = 30  # where tables come and go all the time, every other attempt may fail

# Sizes and definitions are asked under an ACCESS SHARE lock: not where somebody has an ACCESS EXCLUSIVE one, or waits
# for it.
_INDEXES = """
WITH locked AS MATERIALIZED (
  SELECT DISTINCT l.relation FROM pg_locks l
  WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation IS NOT NULL
    AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
), server AS MATERIALIZED (
  SELECT d.oid AS database_oid, d.datname, s.spcname, current_setting('block_size')::int AS block_size,
         concat_ws(' ', (SELECT extract(epoch FROM stats_reset) FROM pg_stat_archiver),
                   (SELECT extract(epoch FROM stats_reset) FROM pg_stat_database b WHERE b.datid = d.oid))
           AS counted_since
  FROM pg_database d JOIN pg_tablespace s ON s.oid = d.dattablespace WHERE d.datname = current_database()
), listed AS MATERIALIZED (
  SELECT c.oid, x.indrelid,
         EXISTS (SELECT FROM locked l WHERE l.relation IN (c.oid, x.indrelid)) AS table_locked,
         EXISTS (SELECT FROM locked l WHERE l.relation = c.oid) AS locked
  FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
  WHERE c.relkind = 'i' AND c.relpersistence <> 't'
    AND (%s::oid IS NULL OR c.oid = %s::oid)
    AND (%s::boolean OR c.relisshared OR c.oid >= 16384) AND (%s::boolean OR NOT c.relisshared)
)
SELECT s.datname AS database, s.database_oid::bigint AS database_oid, n.nspname AS schema, c.relname AS name,
  c.oid::bigint AS oid, tn.nspname AS table_schema, tc.relname AS "table", tc.oid::bigint AS table_oid,
  CASE WHEN i.table_locked THEN tc.relpages::bigint * s.block_size ELSE pg_relation_size(tc.oid) END AS table_bytes,
  a.amname AS access_method,
  CASE WHEN i.locked THEN c.relpages::bigint * s.block_size ELSE pg_relation_size(c.oid) END AS size_bytes,
  (SELECT o.option_value FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'fillfactor') AS fillfactor,
  coalesce(sp.spcname, s.spcname) AS tablespace,
  x.indisunique AS is_unique, x.indisprimary AS is_primary,
  EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid AND k.contype IN ('p', 'u', 'x')) AS is_constraint,
  x.indexprs IS NOT NULL AS has_expressions, x.indpred IS NOT NULL AS has_predicate,
  x.indisvalid AS is_valid, x.indisready AS is_ready,
  coalesce(wn.nspname, tn.nspname) AS owner_schema, coalesce(w.relname, tc.relname) AS owner_table,
  tc.relkind = 't' AS is_toast, c.oid < 16384 AS is_catalog, c.relpersistence = 'u' AS is_unlogged,
  CASE WHEN i.table_locked THEN '' ELSE coalesce(pg_get_indexdef(c.oid), '') END AS definition,
  c.reltuples::float8 AS tuples, c.relpages AS pages, tc.reltuples::float8 AS table_tuples, s.block_size,
  EXISTS (SELECT FROM pg_stat_progress_create_index g
          WHERE g.datid = s.database_oid AND g.index_relid = c.oid) AS being_built,
  i.locked,
  CASE WHEN current_setting('track_counts')::boolean AND NOT pg_is_in_recovery() THEN concat_ws(' ',
    pg_relation_filenode(c.oid), array_to_string(c.reloptions, ','), x.indisvalid, s.counted_since,
    pg_stat_get_tuples_inserted(tc.oid), pg_stat_get_tuples_updated(tc.oid), pg_stat_get_tuples_hot_updated(tc.oid),
    pg_stat_get_tuples_deleted(tc.oid), pg_stat_get_vacuum_count(tc.oid), pg_stat_get_autovacuum_count(tc.oid),
    extract(epoch FROM pg_stat_get_last_vacuum_time(tc.oid)),
    extract(epoch FROM pg_stat_get_last_autovacuum_time(tc.oid))) ELSE '' END AS state
FROM listed i CROSS JOIN server s
JOIN pg_index x ON x.indexrelid = i.oid JOIN pg_class c ON c.oid = i.oid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_am a ON a.oid = c.relam
JOIN pg_class tc ON tc.oid = x.indrelid JOIN pg_namespace tn ON tn.oid = tc.relnamespace
LEFT JOIN pg_class w ON tc.relkind = 't' AND w.reltoastrelid = tc.oid
LEFT JOIN pg_namespace wn ON wn.oid = w.relnamespace
LEFT JOIN pg_tablespace sp ON sp.oid = c.reltablespace
ORDER BY tn.nspname, tc.relname, c.relname
"""

_FILLFACTORS = {"btree": 90, "gist": 90, "hash": 75, "spgist": 80}


def list_indexes(connection: t.Any, settings: BloatSettings, oid: t.Optional[int] = None) -> t.List[IndexFacts]:
    """The indexes that *settings* choose, or the one with this *oid*, by the names of their tables.

    Left out are partitioned indexes, which have no storage (those of the partitions are listed), and indexes of
    temporary tables.
    """
    parameters = [oid, oid, settings.catalogs or oid is not None, settings.shared_catalogs or oid is not None]
    rows = asked_again(connection, _INDEXES, parameters)
    chosen = rows if oid is not None else [row for row in rows if _is_chosen(row, settings)]
    return [_facts(row) for row in chosen]


def asked_again(connection: t.Any, statement: str, parameters: t.List[t.Any]) -> t.List[t.Dict[str, t.Any]]:
    """The rows of *statement*: asked again when something was dropped, or locked, while they were read."""
    locked = vanished = 0
    while True:
        try:
            return postgresql.query(connection, statement, parameters)
        except QueryError as error:
            locked += error.sqlstate == LOCKED
            vanished += error.sqlstate in VANISHED
            if error.sqlstate not in (LOCKED, *VANISHED) or locked == _LOCKED_TRIES or vanished == _VANISHED_TRIES:
                raise


def _is_chosen(row: t.Mapping[str, t.Any], settings: BloatSettings) -> bool:
    """Whether the patterns choose the table of the index; for a TOAST index, the table that the TOAST belongs to."""
    return matches(f"{row['owner_schema']}.{row['owner_table']}", settings.tables, settings.exclude_tables)


def _facts(row: t.Dict[str, t.Any]) -> IndexFacts:
    # The size is gone between its two questions when the index was dropped meanwhile.
    row["size_bytes"] = row["size_bytes"] or 0
    row["table_bytes"] = row["table_bytes"] or 0
    row["fillfactor"] = int(row["fillfactor"] or _FILLFACTORS.get(row["access_method"], 100))
    row["state"] = f"{row['state']} {row['size_bytes']}" if row["state"] else ""
    return IndexFacts(**{field.name: row[field.name] for field in dataclasses.fields(IndexFacts)})
