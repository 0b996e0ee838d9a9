# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which databases and which tables an activity works on: shell-style patterns to include and to exclude."""

from __future__ import annotations

import fnmatch
import typing as t

from .. import postgresql
from ..errors import MaintenanceError

SCOPE_OPTIONS: dict[str, dict[str, t.Any]] = {
    "databases": {"type": "list", "elements": "str", "default": ["*"]},
    "exclude_databases": {"type": "list", "elements": "str", "default": []},
}
TABLE_OPTIONS: dict[str, dict[str, t.Any]] = {
    "tables": {"type": "list", "elements": "str", "default": ["*"]},
    "exclude_tables": {"type": "list", "elements": "str", "default": []},
}

CLOSED = "it allows no connections"
INVALID = -2  # datconnlimit of a database whose DROP DATABASE was interrupted

_DATABASES = """
SELECT d.datname AS name, d.oid::bigint AS oid, d.datistemplate AS is_template, d.datallowconn AS allows_connections,
       d.datconnlimit AS connection_limit, r.rolsuper AS is_superuser,
       has_database_privilege(d.oid, 'CONNECT') AS may_connect,
       CASE WHEN {sizes} AND d.datallowconn AND d.datconnlimit <> -2
                 AND (has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE'))
            THEN pg_database_size(d.oid) ELSE 0 END AS size_bytes
FROM pg_catalog.pg_database d, pg_catalog.pg_roles r
WHERE r.rolname = current_user
ORDER BY d.datname
"""


_TABLES = """
SELECT n.nspname || '.' || c.relname AS name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm', 'p')
"""


class TablePatterns:
    """The patterns of the option ``tables``, and what they could have meant in the databases that were looked at."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.patterns = [pattern for pattern in params["tables"] if pattern != "*"]
        self.server = postgresql.server_name(params)
        self.looked = False
        self.names: set[str] = set()

    def look(self, connection: t.Any) -> None:
        """Note the tables in the database of *connection*."""
        if self.patterns:
            self.note(row["name"] for row in postgresql.query(connection, _TABLES))

    def note(self, names: t.Iterable[str]) -> None:
        """Note the tables *names* of a database."""
        self.names.update(names)
        self.looked = True

    def refuse_unmatched(self) -> None:
        """Raise MaintenanceError for a pattern that matches no table in any of the databases looked at."""
        if self.looked:
            refuse_unmatched("tables", self.patterns, sorted(self.names), self.server)


class Database(t.NamedTuple):
    """One database that can be worked on."""

    name: str
    oid: int
    is_template: bool
    size_bytes: int


class Scope(t.NamedTuple):
    """The databases to work on, and those that were chosen but cannot be, each with the reason."""

    databases: t.List[Database]
    skipped: t.List[t.Tuple[str, str]]


def matches(name: str, include: t.Sequence[str], exclude: t.Sequence[str] = ()) -> bool:
    """Whether one of the patterns *include* matches *name* and none of *exclude* does; case counts.

    ``matches("shop.order", ["shop.*"], ["*.audit"])`` → True
    """
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude):
        return False
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in include)


def refuse_unmatched(option: str, patterns: t.Sequence[str], names: t.Iterable[str], where: str) -> None:
    """Raise MaintenanceError when one of *patterns* matches none of *names*: a misspelt name must not go unnoticed."""
    known = list(names)
    lost = [pattern for pattern in patterns if not any(fnmatch.fnmatchcase(name, pattern) for name in known)]
    if lost:
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise MaintenanceError(
            f"find what the option {option} names",
            where=where,
            expected=f"something that matches {' and '.join(repr(pattern) for pattern in lost)}",
            observed=f"only {shown or 'nothing at all'}",
            advice=f"Correct {option}.",
        )


def chosen(connection: t.Any, params: t.Mapping[str, t.Any], *, sizes: bool = True) -> Scope:
    """The databases that SCOPE_OPTIONS in *params* choose on the server of *connection*, sorted by name.

    Without *sizes* these are all 0: to measure them the server looks at every file. Raises MaintenanceError for a
    pattern in ``databases`` that matches no database, and when nothing is left that could be looked at.
    """
    rows = postgresql.query(connection, _DATABASES.format(sizes=str(sizes).lower()))
    names = [row["name"] for row in rows]
    refuse_unmatched("databases", params["databases"], names, postgresql.server_name(params))
    scope = Scope([], [])
    for row in rows:
        if not matches(row["name"], params["databases"], params["exclude_databases"]):
            continue
        reason = why_not(row)
        if reason:
            scope.skipped.append((row["name"], reason))
        else:
            scope.databases.append(Database(row["name"], row["oid"], row["is_template"], row["size_bytes"]))
    if not scope.databases:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scope.skipped)
        raise MaintenanceError(
            "find a database to work on",
            where=postgresql.server_name(params),
            expected="one or more, by the options databases and exclude_databases",
            observed=reasons or "none is chosen",
            advice="Correct these options.",
        )
    return scope


def why_not(row: t.Mapping[str, t.Any]) -> str:
    """Why the database that *row* describes cannot be worked on; empty when it can."""
    if row["connection_limit"] == INVALID:
        return "its DROP DATABASE was interrupted; drop it again"
    if not row["allows_connections"]:
        return CLOSED
    if row["connection_limit"] == 0 and not row["is_superuser"]:
        return "its connection limit is 0"
    if not row["may_connect"]:
        return "the role may not connect to it; GRANT CONNECT ON DATABASE would allow it"
    return ""
