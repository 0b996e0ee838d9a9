# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the login role may maintain, and which grant it lacks."""

from __future__ import annotations

import re
import typing as t

from .. import postgresql

MAINTAIN_PRIVILEGE = 170000  # the version that has the privilege MAINTAIN and the role pg_maintain

_RIGHTS = """
SELECT r.rolname AS role, r.rolsuper AS is_superuser,
       ARRAY(SELECT p.rolname::text FROM pg_catalog.pg_roles p
             WHERE p.rolname LIKE 'pg\\_%' AND pg_has_role(p.oid, 'USAGE') ORDER BY 1) AS roles
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""


class Rights(t.NamedTuple):
    """What the login role may do; ``roles`` are the predefined roles whose rights it has (a superuser has all)."""

    role: str
    is_superuser: bool
    version: int
    roles: t.Tuple[str, ...]

    @property
    def maintains_all(self) -> bool:
        return self.is_superuser or "pg_maintain" in self.roles

    @property
    def sees_all_sessions(self) -> bool:
        """Whether it is shown what the sessions of other roles do, and so what they hold back."""
        return self.is_superuser or "pg_read_all_stats" in self.roles


def read_rights(connection: t.Any) -> Rights:
    """The rights of the role that *connection* is logged in as."""
    row = postgresql.query(connection, _RIGHTS)[0]
    version = int(connection.info.server_version)
    return Rights(row["role"], row["is_superuser"], version, tuple(row["roles"]))


def maintainable_sql(version: int) -> str:
    """SQL that says whether the role may VACUUM and ANALYZE the relation ``c`` of pg_class."""
    database_owner = (
        "(NOT c.relisshared AND (SELECT pg_catalog.pg_has_role(d.datdba, 'USAGE') "
        "FROM pg_catalog.pg_database d WHERE d.datname = current_database()))"
    )
    return f"({reindexable_sql(version)} OR {database_owner})"


def reindexable_sql(version: int) -> str:
    """SQL that says whether the role may REINDEX (an index of) the table ``c`` of pg_class."""
    if version >= MAINTAIN_PRIVILEGE:
        return "pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')"
    return "pg_catalog.pg_has_role(c.relowner, 'USAGE')"


def missing_right_advice(version: int, table: str = "", role: str = "") -> str:
    """Which grant lets *role* maintain *table* (already quoted), or everything when no table is given."""
    grantee = quoted(role) if role else "the role"
    if version >= MAINTAIN_PRIVILEGE:
        one = f", or GRANT MAINTAIN ON {table} TO {grantee} for this table alone" if table else ""
        return f"GRANT pg_maintain TO {grantee}{one}."
    owner = f"make it own {table} (GRANT <its owner> TO {grantee})" if table else "let it be a member of the owners"
    return f"Log in as a superuser, or {owner}; before PostgreSQL 17 no other right suffices."


def quoted(name: str) -> str:
    """*name* as it is written in SQL: ``student``, ``"Student"``. For people to read; statements use identifier()."""
    if re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        return name
    return '"' + name.replace('"', '""') + '"'
