# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Extensions that measuring needs: where they are installed, and installing them where that is allowed."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..postgresql import QueryError
from ..result import Part

EXTENSION_OPTIONS: dict[str, dict[str, t.Any]] = {"create_extensions": {"type": "bool", "default": True}}

_INSTALLED = """
SELECT n.nspname AS schema, e.extversion AS version
FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = %s
"""
_FACTS = """
SELECT d.datname AS database, d.datistemplate AS is_template,
       r.rolsuper AS is_superuser, has_database_privilege(d.oid, 'CREATE') AS may_create,
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public') AS has_public
FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
WHERE d.datname = current_database() AND r.rolname = current_user
"""
_TRUSTED = """
SELECT coalesce(bool_or(trusted OR NOT superuser), false) AS trusted
FROM pg_catalog.pg_available_extension_versions WHERE name = %s
"""


def schema_of(connection: t.Any, name: str) -> t.Optional[str]:
    """The schema that the extension *name* is installed in; None when it is not."""
    rows = postgresql.query(connection, _INSTALLED, [name])
    return str(rows[0]["schema"]) if rows else None


def provide(connection: t.Any, name: str, *, create: bool, part: Part, check_mode: bool) -> t.Optional[str]:
    """The schema of the extension *name*, which is installed when *create* is set and the role may; else None.

    Nothing is installed in a template, whose copies would all have it. A change is recorded in *part*; in check mode
    it is only announced, and None is returned. Call its functions as ``identifier(schema, function)`` with arguments of
    the exact types (``oid::regclass``): others may have put functions of the same name into that schema.
    """
    schema = schema_of(connection, name)
    if schema is not None or not create:
        return schema
    facts = postgresql.query(connection, _FACTS)[0]
    if facts["is_template"] or not _may_create(connection, name, facts):
        return None
    where = f"{name} in the database {facts['database']}"
    if check_mode:
        part.change("extension", where, "not installed", "would be installed")
        return None
    if not _create(connection, name, "public" if facts["has_public"] else "pg_catalog"):
        return None
    row = postgresql.query(connection, _INSTALLED, [name])[0]
    part.change("extension", where, "not installed", f"version {row['version']}")
    return str(row["schema"])


def may_execute(connection: t.Any, schema: str, signature: str) -> bool:
    """Whether *schema* has the function *signature* (``pg_visibility(regclass)``) and the role may call it."""
    return bool(
        postgresql.value(
            connection,
            "SELECT CASE WHEN pg_catalog.has_schema_privilege(%s, 'USAGE') THEN pg_catalog.has_function_privilege("
            "pg_catalog.to_regprocedure(pg_catalog.quote_ident(%s) || '.' || %s), 'EXECUTE') END",
            [schema, schema, signature],
        )
    )


def _may_create(connection: t.Any, name: str, facts: t.Mapping[str, t.Any]) -> bool:
    # Asked before trying: a CREATE EXTENSION that is refused has already written WAL.
    if facts["is_superuser"]:
        return True
    return bool(facts["may_create"] and postgresql.value(connection, _TRUSTED, [name]))


def _create(connection: t.Any, name: str, schema: str) -> bool:
    compose = postgresql.driver().sql.SQL
    statement = compose("CREATE EXTENSION IF NOT EXISTS {} SCHEMA {}")
    try:
        names = postgresql.identifier(name), postgresql.identifier(schema)
        postgresql.query(connection, statement.format(*names))
    except QueryError:
        return False  # not in the server's packages, or the database is read-only: do without it
    return schema_of(connection, name) is not None
