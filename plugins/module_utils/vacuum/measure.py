# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measure the tables of one database: pages by the visibility map, ages, counters, statistics. It only reads."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..database import extensions, rights
from ..postgresql import QueryError
from ..result import Part
from .table import KINDS, SETTINGS, Table, read_options, with_parts

# A table that somebody locks or drops just now must not hold the measurement up for long.
LOCK_TIMEOUT = "200ms"
TRIES = 5
_TRY_AGAIN = ("55P03", "42P01", "XX000")  # locked; dropped between the catalog and the look at its file
_SUMMARY = "pg_visibility_map_summary(regclass)"

_SETTINGS = "SELECT name, current_setting(name, true) AS setting FROM unnest(%s::text[]) AS name"

# Tables that are locked exclusively, and those of other sessions, cannot be looked into: no function touches them.
_TABLES = """
WITH locked AS MATERIALIZED (
  SELECT DISTINCT l.relation FROM pg_catalog.pg_locks l
  WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
    AND l.database IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database()))
), seen AS MATERIALIZED (
  SELECT c.oid, c.relname, c.relkind, c.relnamespace, c.relowner, c.relisshared, c.relpersistence, c.relhassubclass,
         c.relpages, c.reltuples, c.relallvisible, c.relfrozenxid, c.relminmxid, c.reloptions, {frozen} AS relallfrozen,
         n.nspname, m.relname AS main_name, mn.nspname AS main_schema, m.reloptions AS main_options,
         c.oid < 16384 AS is_catalog, c.oid IN (SELECT relation FROM locked) AS is_locked,
         {maintainable} AS may_maintain
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class m ON c.relkind = 't' AND m.reltoastrelid = c.oid
  LEFT JOIN pg_catalog.pg_namespace mn ON mn.oid = m.relnamespace
  WHERE c.relkind IN ('r', 'm', 't', 'p') {chosen}
)
SELECT c.oid::bigint AS oid, c.nspname AS schema, c.relname AS name, c.relkind::text AS kind, c.is_catalog,
       c.relisshared AS is_shared, c.relpersistence = 't' AS is_temporary, c.main_schema, c.main_name,
       CASE WHEN c.relhassubclass OR c.relkind = 'p'
            THEN EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid) ELSE false END AS has_children,
       ARRAY(SELECT i.inhparent::bigint FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid) AS parents,
       c.relpages::bigint AS known_pages, c.relallvisible::bigint AS known_visible,
       c.relallfrozen::bigint AS known_frozen, c.reltuples::float8 AS rows,
       CASE WHEN {can_look}
            THEN pg_relation_size(c.oid, 'main') / current_setting('block_size')::int END AS pages,
       {visible} AS visible, {all_frozen} AS frozen,
       CASE WHEN c.relkind = 'p' THEN 0 ELSE age(c.relfrozenxid) END AS xid_age,
       CASE WHEN c.relkind = 'p' THEN 0 ELSE mxid_age(c.relminmxid) END AS mxid_age,
       pg_stat_get_dead_tuples(c.oid) AS dead_rows, pg_stat_get_ins_since_vacuum(c.oid) AS inserted_rows,
       pg_stat_get_mod_since_analyze(c.oid) AS modified_rows,
       extract(epoch FROM greatest(pg_stat_get_last_vacuum_time(c.oid),
                                   pg_stat_get_last_autovacuum_time(c.oid)))::float8 AS last_vacuum,
       extract(epoch FROM greatest(pg_stat_get_last_analyze_time(c.oid),
                                   pg_stat_get_last_autoanalyze_time(c.oid)))::float8 AS last_analyze,
       extract(epoch FROM pg_stat_get_last_autoanalyze_time(c.oid))::float8 AS last_autoanalyze,
       {missing} AS missing_statistics, c.may_maintain, c.is_locked, c.reloptions, c.main_options
FROM seen c {look}
ORDER BY c.is_catalog, c.nspname, c.relname
"""
_CAN_LOOK = "c.relkind <> 'p' AND c.relpersistence <> 't' AND NOT c.is_locked"

# A column counts when the server's own functions gather its statistics (others may have nothing to say) and it was
# added after the last that has some. Statistics of partitioned tables are those of all partitions together.
_MISSING = """
CASE WHEN c.is_catalog OR c.relkind = 't' THEN false ELSE
  EXISTS (
    SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
    WHERE a.attrelid = c.oid AND NOT a.attisdropped AND coalesce(a.attstattarget, -1) <> 0
      AND a.attgenerated <> 'v' AND y.typanalyze::oid < 16384
      AND a.attnum > coalesce((SELECT max(s.staattnum) FROM pg_catalog.pg_statistic s
                               WHERE s.starelid = c.oid AND s.stainherit = (c.relkind = 'p')), 0))
  OR c.relkind = 'r' AND c.relhassubclass
     AND EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic s WHERE s.starelid = c.oid AND s.stainherit)
  OR c.relkind IN ('r', 'm') AND EXISTS (
    SELECT FROM pg_catalog.pg_index x
    JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indexrelid
    JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
    WHERE x.indrelid = c.oid AND x.indexprs IS NOT NULL AND x.indpred IS NULL AND x.indisvalid
      AND a.attnum <= x.indnkeyatts AND x.indkey[a.attnum - 1] = 0 AND y.typanalyze::oid < 16384
      AND coalesce(a.attstattarget, -1) <> 0
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic s
                      WHERE s.starelid = x.indexrelid AND s.staattnum = a.attnum))
END
"""
_NEVER_ANALYZED = """
(NOT c.is_catalog AND c.relkind <> 't' AND pg_stat_get_last_analyze_time(c.oid) IS NULL
 AND pg_stat_get_last_autoanalyze_time(c.oid) IS NULL)
"""


class Sight(t.NamedTuple):
    """How closely one database can be looked at: where pg_visibility is, if it may be used, and what is readable."""

    database: str
    version: int
    visibility_schema: t.Optional[str]
    reads_statistics: bool


def read_settings(connection: t.Any) -> dict[str, float]:
    """The server's settings that decide when a table is due, those that this version has."""
    rows = postgresql.query(connection, _SETTINGS, [list(SETTINGS)])
    return {row["name"]: float(row["setting"]) for row in rows if row["setting"] is not None}


def look_for(connection: t.Any, database: str, *, create: bool, part: Part, check_mode: bool) -> Sight:
    """How the tables of *database* can be measured; installs pg_visibility when *create* is set."""
    schema = extensions.provide(connection, "pg_visibility", create=create, part=part, check_mode=check_mode)
    if schema is not None and not extensions.may_execute(connection, schema, _SUMMARY):
        schema = None
    reads = bool(postgresql.value(connection, "SELECT has_table_privilege('pg_catalog.pg_statistic', 'SELECT')"))
    return Sight(database, int(connection.info.server_version), schema, reads)


def measure_tables(connection: t.Any, sight: Sight, oids: t.Sequence[int] = ()) -> list[Table]:
    """The tables of the database of *connection*, or only those in *oids* which still exist."""
    postgresql.query(connection, "SELECT pg_catalog.set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
    for tries_left in reversed(range(TRIES)):
        try:
            rows = _ask(connection, sight, oids)
            break
        except QueryError as error:
            if error.sqlstate not in _TRY_AGAIN:
                raise
            if not tries_left:
                rows = _ask(connection, sight, oids, estimate=True)
    return with_parts([_read(row, sight) for row in rows])


def _ask(connection: t.Any, sight: Sight, oids: t.Sequence[int], *, estimate: bool = False) -> list[dict[str, t.Any]]:
    compose = postgresql.driver().sql.SQL
    exact = sight.visibility_schema is not None and not estimate
    look = compose("")
    if exact:
        look = compose("LEFT JOIN LATERAL {}((CASE WHEN {} THEN c.oid END)::regclass) v ON true").format(
            postgresql.identifier(sight.visibility_schema or "", "pg_visibility_map_summary"), compose(_CAN_LOOK)
        )
    statement = compose(_TABLES).format(
        frozen=compose("c.relallfrozen" if sight.version >= 180000 else "0"),
        maintainable=compose(rights.maintainable_sql(sight.version)),
        chosen=compose("AND c.oid = ANY (%s::bigint[]::oid[])" if oids else ""),
        can_look=compose("false" if estimate else _CAN_LOOK),
        visible=compose("v.all_visible" if exact else "NULL::bigint"),
        all_frozen=compose("v.all_frozen" if exact else "NULL::bigint"),
        missing=compose(_MISSING if sight.reads_statistics else _NEVER_ANALYZED),
        look=look,
    )
    return postgresql.query(connection, statement, [list(oids)] if oids else [])


def _read(row: t.Mapping[str, t.Any], sight: Sight) -> Table:
    pages = int(row["known_pages"] if row["pages"] is None else row["pages"])
    exact = row["visible"] is not None
    visible = int(row["visible"] if exact else row["known_visible"])
    frozen = int(row["frozen"] if exact else row["known_frozen"])
    known = int(row["known_pages"])
    own = read_options(row["reloptions"])
    return Table(
        database=sight.database,
        schema=row["schema"],
        name=row["name"],
        oid=row["oid"],
        kind=KINDS[row["kind"]],
        is_catalog=row["is_catalog"],
        is_shared=row["is_shared"],
        is_temporary=row["is_temporary"],
        main=(row["main_schema"], row["main_name"]) if row["main_name"] else None,
        has_children=row["has_children"],
        parents=tuple(row["parents"]),
        pages=pages,
        dirty_pages=max(0, pages - visible),
        unfrozen_pages=max(0, pages - frozen),
        confidence="high" if exact or row["kind"] == "p" else "low",
        rows=row["rows"],
        dead_rows=row["dead_rows"],
        inserted_rows=row["inserted_rows"],
        modified_rows=row["modified_rows"],
        frozen_share=min(1.0, row["known_frozen"] / known) if known else 0.0,
        xid_age=row["xid_age"],
        mxid_age=row["mxid_age"],
        last_vacuum=row["last_vacuum"],
        last_analyze=row["last_analyze"],
        last_autoanalyze=row["last_autoanalyze"],
        missing_statistics=row["missing_statistics"],
        may_maintain=row["may_maintain"],
        is_locked=row["is_locked"],
        # As autovacuum does: a TOAST table without storage parameters of its own follows its table.
        options=own or read_options(row["main_options"]),
    )
