# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What interrupted rebuilds leave behind: indexes that are never read but kept up to date by every write.

They are told from indexes that somebody made: only what is surely a leftover is dropped.
"""

from __future__ import annotations

import re
import typing as t

from .. import postgresql
from ..database.rights import quoted
from ..database.scope import matches
from ..postgresql import driver
from .settings import Settings

NAME_BYTES = 63
# A character takes up to four bytes, so a name that was cut may end up to three bytes before the limit.
_CUT_FROM = NAME_BYTES - 3
_SUFFIX = re.compile(r"(?P<base>.+)_cc(?:new|old)\d*", re.DOTALL)

# Whoever builds or rebuilds an index has one of these locks on it all the while; reading and writing takes weaker ones.
_INVALID = """
SELECT d.datname AS database, n.nspname AS schema, c.relname AS name, c.oid::bigint AS oid,
  octet_length(c.relname) AS name_bytes, tn.nspname AS table_schema, tc.relname AS "table",
  tc.oid::bigint AS table_oid, coalesce(w.relname, tc.relname) AS owner_table,
  coalesce(wn.nspname, tn.nspname) AS owner_schema,
  CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
       THEN c.relpages * current_setting('block_size')::bigint
       ELSE coalesce(pg_relation_size(c.oid), 0) END AS size_bytes,
  coalesce((
    SELECT min(p.pid) FROM pg_catalog.pg_stat_progress_create_index p WHERE p.datid = d.oid AND p.index_relid = c.oid
  ), (
    SELECT min(l.pid) FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'relation' AND l.database = d.oid AND l.relation = c.oid AND l.pid <> pg_backend_pid()
      AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
                     'AccessExclusiveLock')
  )) AS busy,
  ARRAY(
    SELECT sc.relname::text FROM pg_catalog.pg_index s JOIN pg_catalog.pg_class sc ON sc.oid = s.indexrelid
    WHERE s.indrelid = x.indrelid AND s.indexrelid <> x.indexrelid AND s.indisvalid AND sc.relnamespace = c.relnamespace
      AND sc.relkind = 'i'
      AND s.indisunique = x.indisunique AND sc.relam = c.relam
      AND overlay(pg_get_indexdef(sc.oid) PLACING '' FROM strpos(pg_get_indexdef(sc.oid), quote_ident(sc.relname))
                  FOR length(quote_ident(sc.relname)))
        = overlay(pg_get_indexdef(c.oid) PLACING '' FROM strpos(pg_get_indexdef(c.oid), quote_ident(c.relname))
                  FOR length(quote_ident(c.relname)))
  ) AS siblings
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_class tc ON tc.oid = x.indrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
LEFT JOIN pg_catalog.pg_class w ON tc.relkind = 't' AND w.reltoastrelid = tc.oid
LEFT JOIN pg_catalog.pg_namespace wn ON wn.oid = w.relnamespace
JOIN pg_catalog.pg_database d ON d.datname = current_database()
WHERE NOT x.indisvalid AND c.relkind = 'i' AND c.relpersistence <> 't' AND (%s::oid IS NULL OR x.indrelid = %s::oid)
ORDER BY 2, 3
"""


class Invalid(t.NamedTuple):
    """An index that is not valid.

    ``busy`` is the server process that works on it now; ``siblings`` are the valid indexes of the same table that are
    defined alike; ``name_bytes`` is the length of its name in the encoding of the database. The owner is the table, or
    that which a TOAST table belongs to.
    """

    database: str
    schema: str
    name: str
    oid: int
    name_bytes: int
    table_schema: str
    table: str
    table_oid: int
    owner_table: str
    owner_schema: str
    size_bytes: int
    busy: t.Optional[int]
    siblings: t.Sequence[str]

    @property
    def full_name(self) -> str:
        return ".".join(quoted(part) for part in (self.database, self.schema, self.name))


def invalid_indexes(connection: t.Any, settings: Settings, table_oid: t.Optional[int] = None) -> list[Invalid]:
    """The indexes of the tables that *settings* choose (or of one table) that are not valid."""
    rows = postgresql.query(connection, _INVALID, [table_oid, table_oid])
    found = [Invalid(**row) for row in rows]
    return [
        index
        for index in found
        if matches(f"{index.owner_schema}.{index.owner_table}", settings.tables, settings.exclude_tables)
    ]


def is_leftover(index: Invalid) -> bool:
    """Whether *index* surely is what an interrupted rebuild left: named after a valid index that is defined alike."""
    return index.busy is None and any(is_named_after(index.name, index.name_bytes, each) for each in index.siblings)


def is_named_after(name: str, name_bytes: int, original: str) -> bool:
    """Whether a rebuild of *original* would have called its copy *name*, which takes *name_bytes* bytes.

    ``student_name_ccnew``, ``student_name_ccold1``; where that would take more than 63 bytes, the original's name is
    cut, at the end of a character.
    """
    found = _SUFFIX.fullmatch(name)
    if found is None:
        return False
    base = found.group("base")
    if base == original:
        return True
    return original.startswith(base) and _CUT_FROM <= name_bytes <= NAME_BYTES


def drop_statement(index: Invalid) -> t.Any:
    """The statement that drops *index* without keeping others from their work."""
    return (
        driver().sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(postgresql.identifier(index.schema, index.name))
    )
