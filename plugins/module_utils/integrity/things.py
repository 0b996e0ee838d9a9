# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What amcheck can look at in a database, and how much depends on it."""

from __future__ import annotations

import typing as t

from ..database.scope import matches
from ..postgresql import query

INDEX, GIN, TABLE = "B-tree index", "GIN index", "table"
KINDS = (INDEX, GIN, TABLE)

# What the rest depends on comes first.
CATALOG, UNIQUE, ORDINARY, ROWS, LARGE_VALUES = range(5)

# No size is asked for: that would wait for locks. Foreign temporary tables cannot be read, unlogged ones are empty on
# a standby, and an index that is not valid is told of by another check.
_OBJECTS = """
SELECT CASE WHEN c.relkind <> 'i' THEN 'table' WHEN am.amname = 'gin' THEN 'GIN index' ELSE 'B-tree index' END AS kind,
       c.oid::bigint AS oid, n.nspname AS schema, c.relname AS name, c.relisshared AS is_shared,
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::bigint AS file,
       greatest(c.relpages, 0)::bigint * current_setting('block_size')::int AS size_bytes,
       n.nspname IN ('pg_catalog', 'information_schema') OR c.relisshared AS is_catalog,
       n.nspname = 'pg_toast' AS is_toast, coalesce(i.indisunique, false) AS is_unique,
       coalesce(tn.nspname, n.nspname) || '.' || coalesce(tc.relname, c.relname) AS of_table,
       (SELECT on_.nspname || '.' || o.relname FROM pg_catalog.pg_class o
        JOIN pg_catalog.pg_namespace on_ ON on_.oid = o.relnamespace
        WHERE o.reltoastrelid = coalesce(i.indrelid, c.oid)) AS toast_of
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_am am ON am.oid = c.relam
LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
LEFT JOIN pg_catalog.pg_class tc ON tc.oid = i.indrelid
LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
WHERE c.relpersistence <> 't' AND (c.relpersistence = 'p' OR NOT pg_catalog.pg_is_in_recovery())
  AND ((c.relkind = 'i' AND i.indisvalid AND i.indisready AND am.amname IN ('btree', 'gin'))
       OR (c.relkind IN ('r', 'm', 't') AND am.amname = 'heap'))
"""


class Thing(t.NamedTuple):
    """An index or a table that can be looked at; ``file`` changes when it is written anew, ``table`` is its table."""

    kind: str
    database: str
    key: str
    oid: int
    name: str
    table: str
    file: int
    size_bytes: int
    rank: int
    is_wanted: bool = True

    def __str__(self) -> str:
        return f"{self.name} in {self.database}"


def list_things(connection: t.Any, database: str, database_oid: int, params: t.Mapping[str, t.Any]) -> t.List[Thing]:
    """Everything in this database; what the options choose is wanted, and so are the system catalogs.

    What all databases share is listed for each of them, with one and the same key.
    """
    found = []
    for row in query(connection, _OBJECTS):
        table = row["toast_of"] or row["of_table"]
        wanted = row["is_catalog"] or matches(table, params["tables"], params["exclude_tables"])
        found.append(
            Thing(
                row["kind"],
                database,
                f"{0 if row['is_shared'] else database_oid}/{row['oid']}",
                row["oid"],
                f"{row['schema']}.{row['name']}",
                table,
                row["file"],
                row["size_bytes"],
                rank_of(row),
                wanted and (params["check_tables"] or row["kind"] != TABLE),
            )
        )
    return found


def rank_of(row: t.Mapping[str, t.Any]) -> int:
    """How much depends on what *row* describes; the smallest is the most important."""
    if row["is_catalog"]:
        return CATALOG
    if row["is_toast"]:
        return LARGE_VALUES
    if row["kind"] == TABLE:
        return ROWS
    return UNIQUE if row["is_unique"] else ORDINARY
