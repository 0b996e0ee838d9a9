# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which unique indexes may be rebuilt while others write.

Up to PostgreSQL 18 an ``INSERT … ON CONFLICT`` that meets the rebuild of the unique index it relies on can end with a
duplicate-key error that is none. So by the policy ``auto`` a unique index is rebuilt only where it is known that its
table sees no such statement. ``always`` and ``never`` are for those who know better.
"""

from __future__ import annotations

import contextlib
import re
import typing as t

from .. import postgresql
from ..database.extensions import schema_of
from ..errors import MaintenanceError
from ..postgresql import QueryError, driver

FIXED_IN = 190000

_NAME = r'(?:"(?:[^"]|"")+"|[^\s"().,;]+)'
_TARGET = re.compile(rf"\binsert\s+into\s+(?:only\s+)?((?:{_NAME}\s*\.\s*)*{_NAME})", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
_ON_CONFLICT = re.compile(r"\bon\s+conflict\b", re.IGNORECASE)

_HIDDEN = "<insufficient privilege>"
_RUNNING = """
SELECT query FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND query ~* 'on\\s+conflict'
"""
_FUNCTIONS = """
SELECT prosrc AS query FROM pg_catalog.pg_proc
WHERE oid >= 16384 AND prosrc ~* 'on\\s+conflict'
"""
_VIEWS = """
SELECT v.relname AS view, array_agg(DISTINCT tc.relname::text) AS tables
FROM pg_catalog.pg_class v JOIN pg_catalog.pg_rewrite r ON r.ev_class = v.oid
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
  AND d.refclassid = 'pg_catalog.pg_class'::regclass
JOIN pg_catalog.pg_class tc ON tc.oid = d.refobjid AND tc.oid <> v.oid
WHERE v.relkind = 'v' AND v.relname = ANY (%s) GROUP BY v.relname
"""
_ANCESTORS = """
SELECT c.relname AS name FROM pg_catalog.pg_partition_ancestors(%s::oid::regclass) a
JOIN pg_catalog.pg_class c ON c.oid = a.relid
"""


class Upserts(t.NamedTuple):
    """The names of tables that upserts go to, as far as is known; ``unknown`` says why it is not known of all."""

    tables: t.FrozenSet[str]
    unknown: str = ""


def upsert_targets(statement: str) -> set[str]:
    """The names of the tables, without schema, that the upserts in *statement* insert into.

    ``INSERT INTO shop."Order" (id) VALUES ($1) ON CONFLICT …`` → ``{"Order"}``
    """
    text = _COMMENT.sub(" ", statement)
    if not _ON_CONFLICT.search(text):
        return set()
    return {_last_part(match.group(1)) for match in _TARGET.finditer(text)}


def why_not_unique(policy: str, version: int, names: t.Iterable[str], upserts: Upserts) -> str:
    """Why a unique index of the table with these *names* (its own, and of what it is a partition of) is to be left."""
    if policy == "always" or (policy == "auto" and version >= FIXED_IN):
        return ""
    if policy == "never":
        return "it is unique, and unique_indexes is never"
    hit = sorted(upserts.tables & set(names))
    if hit:
        return (
            f"it is unique, and upserts (INSERT … ON CONFLICT) into {hit[0]} were seen, which could fail with a "
            "duplicate key during the rebuild; rebuild it while the application rests, with unique_indexes: always"
        )
    if upserts.unknown:
        return (
            "it is unique, and whether upserts (INSERT … ON CONFLICT), which could fail with a duplicate key during "
            f"the rebuild, go to its table is unknown: {upserts.unknown}; set unique_indexes: always if none do"
        )
    return ""


class Statements:
    """The statements that the server has counted, of all its databases, as any database that shows them has them.

    *open_at* opens a connection to one of *databases*, in which pg_stat_statements is looked for.
    """

    def __init__(self, open_at: t.Callable[[str], t.Any], databases: t.Sequence[str]) -> None:
        self._open_at = open_at
        self._databases = list(databases)

    def upserts_in(self, connection: t.Any) -> tuple[list[str], str]:
        """The upserts that were run in the database of *connection*, and why they may not be all."""
        name = connection.info.dbname
        if schema_of(connection, "pg_stat_statements") is not None:
            return _counted(connection, name)
        while self._databases:
            with contextlib.suppress(MaintenanceError), contextlib.closing(self._open_at(self._databases[0])) as other:
                if schema_of(other, "pg_stat_statements") is not None:
                    return _counted(other, name)
            del self._databases[0]
        return [], "the extension pg_stat_statements is not installed in any of the databases"


def look_for_upserts(connection: t.Any, statements: Statements) -> Upserts:
    """The upserts that the server has seen in this database, that run there now, and that its functions hold."""
    texts = [row["query"] for row in postgresql.query(connection, f"{_RUNNING} UNION ALL {_FUNCTIONS}")]
    seen, unknown = statements.upserts_in(connection)
    names: set[str] = set()
    for text in [*texts, *seen]:
        names |= upsert_targets(text)
    for row in postgresql.query(connection, _VIEWS, [sorted(names)]) if names else []:
        names.update(row["tables"])
    return Upserts(frozenset(names), unknown)


def names_of_table(connection: t.Any, table: str, table_oid: int) -> list[str]:
    """The *table*'s name and those of the tables that it is a partition of."""
    return [table, *(row["name"] for row in postgresql.query(connection, _ANCESTORS, [table_oid]))]


def _counted(connection: t.Any, database: str) -> tuple[list[str], str]:
    """The upserts in *database* that pg_stat_statements, seen from *connection*, has counted."""
    sql = driver().sql
    statement = sql.SQL(
        "SELECT query FROM {view} WHERE dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = {database}) "
        "AND (query ~* 'on\\s+conflict' OR query = {hidden})"
    )
    view = postgresql.identifier(str(schema_of(connection, "pg_stat_statements")), "pg_stat_statements")
    try:
        parts = {"view": view, "database": sql.Literal(database), "hidden": sql.Literal(_HIDDEN)}
        rows = postgresql.query(connection, statement.format(**parts))
    except QueryError as error:
        return [], f"pg_stat_statements cannot be read ({error.observed})"
    texts = [row["query"] for row in rows]
    if _HIDDEN in texts:
        return texts, "the role may not read the statements of others (GRANT pg_read_all_stats would allow it)"
    return texts, ""


def _last_part(name: str) -> str:
    last = re.findall(_NAME, name)[-1]
    return str(last[1:-1].replace('""', '"') if last.startswith('"') else last.lower())
