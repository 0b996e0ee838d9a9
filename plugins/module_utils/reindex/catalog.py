# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the catalogs say of an index: what a rebuild must keep, and what decides whether it may be rebuilt."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..bloat.measure import IndexBloat
from ..database.rights import missing_right_advice, quoted, reindexable_sql
from .decision import Traits
from .obstacles import Surroundings
from .upserts import Statements, Upserts, look_for_upserts, names_of_table, why_not_unique

_TRAITS = """
SELECT x.indexrelid::bigint AS oid, x.indisexclusion AS is_exclusion,
  CASE WHEN c.relkind = 't'
       THEN coalesce((SELECT {reindexable} FROM pg_catalog.pg_class c WHERE c.reltoastrelid = x.indrelid), false)
       ELSE {reindexable} END AS may_reindex
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indrelid WHERE x.indexrelid = ANY (%s::oid[])
"""

# By name, for a rebuild gives an index another OID. nulls_distinct came with 15.
_IDENTITY = """
SELECT c.oid::bigint AS oid, pg_relation_filenode(c.oid)::bigint AS file, pg_get_indexdef(c.oid) AS definition,
  pg_get_userbyid(c.relowner)::text AS owner, coalesce(s.spcname, '')::text AS tablespace,
  array_to_string(c.reloptions, ', ') AS options,
  x.indisvalid AS is_valid, x.indisready AS is_ready, x.indislive AS is_live,
  x.indisunique AS is_unique, x.indisprimary AS is_primary, x.indimmediate AS is_immediate,
  x.indisclustered AS is_clustered, x.indisreplident AS is_replica_identity,
  (SELECT string_agg(k.conname || ' ' || k.contype::text || ' ' || k.condeferrable || ' ' || k.condeferred, ', '
                     ORDER BY k.conname) FROM pg_catalog.pg_constraint k WHERE k.conindid = c.oid) AS "constraints",
  (SELECT string_agg(a.attname || ' ' || coalesce(a.attstattarget::text, '') || ' '
                     || coalesce(array_to_string(a.attoptions, ' '), ''), ', ' ORDER BY a.attnum)
   FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid) AS columns,
  (SELECT p.inhparent::regclass::text FROM pg_catalog.pg_inherits p WHERE p.inhrelid = c.oid) AS partition_of,
  obj_description(c.oid, 'pg_class') AS comment
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index x ON x.indexrelid = c.oid
LEFT JOIN pg_catalog.pg_tablespace s ON s.oid = c.reltablespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind = 'i'
"""

# What a rebuild must keep, and how an operator would call it.
KEPT = {
    "definition": "definition",
    "owner": "owner",
    "tablespace": "tablespace",
    "options": "storage options",
    "is_unique": "uniqueness",
    "is_primary": "primary key",
    "is_immediate": "immediate check of uniqueness",
    "is_clustered": "mark for CLUSTER",
    "is_replica_identity": "replica identity",
    "constraints": "constraints",
    "columns": "statistics targets and options of columns",
    "partition_of": "partitioned index that it belongs to",
    "comment": "comment",
}

Identity = t.Dict[str, t.Any]


def identity_of(connection: t.Any, schema: str, name: str) -> t.Optional[Identity]:
    """What there is to know of the index *name*; None when there is none."""
    rows = postgresql.query(connection, _IDENTITY, [schema, name])
    return rows[0] if rows else None


def lost(before: Identity, after: Identity) -> list[str]:
    """What a rebuild has not kept, in words: ``owner: app before, postgres after``."""
    return [
        f"{words}: {before[key]} before, {after[key]} after" for key, words in KEPT.items() if before[key] != after[key]
    ]


def traits_of(
    connection: t.Any, indexes: t.Sequence[IndexBloat], around: Surroundings, statements: Statements
) -> dict[int, Traits]:
    """The traits of *indexes*, by OID; upserts are looked for only where one of the indexes is unique."""
    rights, settings = around.rights, around.settings
    if not indexes:
        return {}
    compose = postgresql.driver().sql
    statement = compose.SQL(_TRAITS).format(reindexable=compose.SQL(reindexable_sql(rights.version)))
    rows = {row["oid"]: row for row in postgresql.query(connection, statement, [[each.oid for each in indexes]])}
    upserts: t.Optional[Upserts] = None
    found: dict[int, Traits] = {}
    for index in (index for index in indexes if index.oid in rows):
        row = rows[index.oid]
        reason, unknown = "", False
        if index.is_unique and not index.is_toast:
            if upserts is None:
                upserts = look_for_upserts(connection, statements)
            names = names_of_table(connection, index.table, index.table_oid)
            reason = why_not_unique(settings.unique_indexes, rights.version, names, upserts)
            unknown = bool(upserts.unknown) and not upserts.tables & set(names)
        table = f"{quoted(index.table_schema)}.{quoted(index.table)}"
        advice = "" if row["may_reindex"] else missing_right_advice(rights.version, table, rights.role)
        found[index.oid] = Traits(row["is_exclusion"], row["may_reindex"], advice, reason, unknown)
    return found
