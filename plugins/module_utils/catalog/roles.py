# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The queries for what all databases share: roles, memberships, databases and their settings.

Each gives ``name`` and ``facts``. Of passwords and settings, which may hold secrets, there is a hash only.
"""

from __future__ import annotations

# pg_authid is for superusers; others see a role's attributes in pg_roles, and no password.
_ROLES = """
SELECT pg_catalog.quote_ident(r.rolname) AS name, jsonb_build_object(
    'superuser', r.rolsuper, 'inherits', r.rolinherit, 'creates roles', r.rolcreaterole,
    'creates databases', r.rolcreatedb, 'may log in', r.rolcanlogin, 'replicates', r.rolreplication,
    'passes by row security', r.rolbypassrls, 'connection limit', r.rolconnlimit,
    'password valid until', r.rolvaliduntil::text, 'password', {password}) AS facts
FROM pg_catalog.{source} r WHERE r.rolname !~ '^pg_'
"""
_VERIFIER = "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(r.rolpassword, 'UTF8')), 'hex')"
_MEMBERSHIPS = """
SELECT pg_catalog.format('of %I in %I, granted by %I', member.rolname, role.rolname, grantor.rolname) AS name,
       jsonb_build_object('may grant it on', m.admin_option, 'inherits', to_jsonb(m) ->> 'inherit_option',
                          'may become it', to_jsonb(m) ->> 'set_option') AS facts
FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles role ON role.oid = m.roleid
JOIN pg_catalog.pg_roles member ON member.oid = m.member
LEFT JOIN pg_catalog.pg_roles grantor ON grantor.oid = m.grantor
"""
_DATABASES = """
SELECT pg_catalog.quote_ident(d.datname) AS name, jsonb_build_object(
    'owner', (SELECT rolname FROM pg_catalog.pg_roles WHERE oid = d.datdba),
    'rights', pg_catalog.array_to_string(d.datacl, ' '), 'encoding', pg_catalog.pg_encoding_to_char(d.encoding),
    'collation', d.datcollate, 'character type', d.datctype, 'template', d.datistemplate,
    'open to connections', d.datallowconn, 'connection limit', d.datconnlimit) AS facts
FROM pg_catalog.pg_database d
"""
_SETTINGS = """
SELECT pg_catalog.format('of %s in %s', coalesce(pg_catalog.quote_ident(r.rolname), 'all roles'),
                         coalesce(pg_catalog.quote_ident(d.datname), 'all databases')) AS name,
       jsonb_build_object('names', (SELECT pg_catalog.string_agg(pg_catalog.split_part(one, '=', 1), ', ' ORDER BY one)
                                    FROM unnest(s.setconfig) AS c (one)),
                          'values', pg_catalog.md5(s.setconfig::text)) AS facts
FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
"""
MAY_SEE_PASSWORDS = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')"


def queries(passwords: bool) -> dict[str, str]:
    """The queries by kind; with *passwords*, their hashes too."""
    source, password = ("pg_authid", _VERIFIER) if passwords else ("pg_roles", "NULL")
    return {
        "role": _ROLES.format(source=source, password=password),
        "membership": _MEMBERSHIPS,
        "database": _DATABASES,
        "settings": _SETTINGS,
    }
