# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of each table is bloat: by ``pgstattuple_approx``, which reads only the pages that VACUUM has not seen."""

from __future__ import annotations

import math
import typing as t

from .. import postgresql
from ..database.scope import matches
from ..postgresql import QueryError
from .listing import LOCKED, VANISHED, asked_again
from .model import BloatSettings, Finding, nothing
from .reach import Reach, reach_of
from .session import holder_of, is_lost, limited

_TABLES = """
WITH locked AS MATERIALIZED (
  SELECT DISTINCT l.relation FROM pg_locks l
  WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation IS NOT NULL
    AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
), listed AS MATERIALIZED (
  SELECT c.oid, EXISTS (SELECT FROM locked l WHERE l.relation = c.oid) AS locked FROM pg_class c
  WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
    AND (%s::boolean OR c.oid >= 16384) AND (%s::boolean OR NOT c.relisshared)
)
SELECT current_database() AS database, n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid,
  CASE c.relkind WHEN 'r' THEN 'table' WHEN 'm' THEN 'materialized view' ELSE 'TOAST' END AS kind,
  coalesce(wn.nspname, n.nspname) AS owner_schema, coalesce(w.relname, c.relname) AS owner_table,
  CASE WHEN i.locked THEN c.relpages::bigint * current_setting('block_size')::int ELSE pg_relation_size(c.oid) END
    AS size_bytes,
  (SELECT o.option_value FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'fillfactor') AS fillfactor,
  coalesce(sp.spcname, (SELECT s.spcname FROM pg_database d JOIN pg_tablespace s ON s.oid = d.dattablespace
                        WHERE d.datname = current_database())) AS tablespace,
  a.amname AS access_method, c.relpersistence = 'u' AS is_unlogged, c.oid < 16384 AS is_catalog, i.locked,
  current_setting('block_size')::int AS block_size
FROM listed i JOIN pg_class c ON c.oid = i.oid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_am a ON a.oid = c.relam
LEFT JOIN pg_class w ON c.relkind = 't' AND w.reltoastrelid = c.oid
LEFT JOIN pg_namespace wn ON wn.oid = w.relnamespace
LEFT JOIN pg_tablespace sp ON sp.oid = c.reltablespace
ORDER BY n.nspname, c.relname
"""

_PAGE_HEADER = 24
_ROW_POINTER = 4


class TableBloat(t.NamedTuple):
    """A table (without its indexes and its TOAST, which is listed by itself) and its bloat, like IndexBloat."""

    database: str
    schema: str
    name: str
    oid: int
    kind: str
    size_bytes: int
    fillfactor: int
    tablespace: str
    is_catalog: bool
    bloat_ratio: t.Optional[float]
    wasted_bytes: int
    predicted_bytes: int
    dead_bytes: int
    method: str
    confidence: str
    reason: str


Row = t.Dict[str, t.Any]


def measure_tables(connection: t.Any, settings: BloatSettings) -> t.List[TableBloat]:
    """The tables that *settings* choose in the database of *connection*, each with its bloat."""
    with limited(connection, "lock_timeout", settings.lock_timeout_ms):
        reach = reach_of(connection)
        rows = asked_again(connection, _TABLES, [settings.catalogs, settings.shared_catalogs])
        chosen = [row for row in rows if _is_chosen(row, settings)]
        found = [_measured(connection, row, settings, reach) for row in chosen]
    return [table for table in found if table is not None]


def judge(row: t.Mapping[str, t.Any], table: t.Mapping[str, t.Any]) -> Finding:
    """What a *row* of ``pgstattuple_approx`` says of a *table*: what rewriting it would give back.

    The room that its fillfactor keeps, and what is left on each page because no row fits, is not bloat.
    """
    size, block = row["table_len"], table["block_size"]
    fill = table["fillfactor"] / 100
    live = max(0, size - row["dead_tuple_len"] - row["approx_free_space"])
    predicted = math.ceil(live / fill / block) * block
    if row["approx_tuple_count"] >= 1:
        row_bytes = row["approx_tuple_len"] / row["approx_tuple_count"] + _ROW_POINTER
        rows_a_page = max(1, int((block - _PAGE_HEADER) * fill / row_bytes))
        predicted = max(predicted, math.ceil(row["approx_tuple_count"] / rows_a_page) * block)
    predicted = min(size, predicted)
    ratio = 1 - predicted / size if size else 0.0
    confidence = "high" if row["scanned_percent"] >= 100 else "medium"
    return Finding(ratio, predicted, None, "pgstattuple_approx", confidence)


def _is_chosen(row: Row, settings: BloatSettings) -> bool:
    return matches(f"{row['owner_schema']}.{row['owner_table']}", settings.tables, settings.exclude_tables)


def _why_not(row: Row, settings: BloatSettings, reach: Reach) -> str:
    if row["is_unlogged"] and reach.is_standby:
        return "an unlogged table has no content on a standby"
    if row["access_method"] != "heap":
        return f"there is no way to measure a table of the kind {row['access_method']}"
    return "" if reach.pgstattuple else f"it takes pgstattuple to measure it: {reach.advice}"


def _measured(connection: t.Any, row: Row, settings: BloatSettings, reach: Reach) -> t.Optional[TableBloat]:
    row["size_bytes"] = row["size_bytes"] or 0
    row["fillfactor"] = int(row["fillfactor"] or 100)
    if row["size_bytes"] < settings.min_size_bytes:
        return _joined(row, nothing(row["size_bytes"], "too small to matter", "small"))
    why = _why_not(row, settings, reach)
    if why:
        return _joined(row, nothing(row["size_bytes"], why))
    compose = postgresql.driver().sql.SQL
    name = postgresql.identifier(str(reach.pgstattuple), "pgstattuple_approx")
    try:
        seen = postgresql.query(connection, compose("SELECT * FROM {}(%s::oid::regclass)").format(name), [row["oid"]])[
            0
        ]
    except QueryError as error:
        if is_lost(connection, error):
            raise
        if error.sqlstate in VANISHED and not _exists(connection, row["oid"]):
            return None
        return _joined(row, nothing(row["size_bytes"], _words(connection, row, error, settings)))
    return _joined(row, judge(seen, row), seen["dead_tuple_len"])


def _words(connection: t.Any, row: Row, error: QueryError, settings: BloatSettings) -> str:
    if error.sqlstate == LOCKED:
        return holder_of(connection, [row["oid"]])
    if error.sqlstate == "57014":
        return f"measuring took longer than {settings.timeout_ms / 1000:g} s"
    return f"it could not be read: {error.observed}"


def _exists(connection: t.Any, oid: int) -> bool:
    return bool(postgresql.value(connection, "SELECT count(*) FROM pg_class WHERE oid = %s::oid", [oid]))


def _joined(row: Row, found: Finding, dead_bytes: int = 0) -> TableBloat:
    facts = {name: row[name] for name in TableBloat._fields if name in row}
    return TableBloat(
        **facts,
        bloat_ratio=found.bloat_ratio,
        wasted_bytes=row["size_bytes"] - min(found.predicted_bytes, row["size_bytes"]),
        predicted_bytes=min(found.predicted_bytes, row["size_bytes"]),
        dead_bytes=dead_bytes,
        method=found.method,
        confidence=found.confidence,
        reason=found.reason,
    )
