# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is in the catalogs of a server, as ``{"<kind> <name>": {property: value}}``."""

from __future__ import annotations

import json
import typing as t

from .. import fingerprint, postgresql
from . import roles, schema

Listing = t.Dict[str, t.Dict[str, t.Any]]

_VALUES = """
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, pg_catalog.pg_sequence_last_value(s.seqrelid) AS last
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence = 'p' AND pg_catalog.has_sequence_privilege(s.seqrelid, 'SELECT,USAGE')
"""


def of_database(connection: t.Any) -> Listing:
    """The objects of the connection's database."""
    return _listed(connection, schema.QUERIES)


def of_cluster(connection: t.Any) -> Listing:
    """What all databases share."""
    passwords = bool(postgresql.value(connection, roles.MAY_SEE_PASSWORDS))
    return _listed(connection, roles.queries(passwords))


def sequence_values(connection: t.Any) -> dict[str, int | None]:
    """Where each sequence stands now, whatever the snapshot; None where it was never used."""
    return {row["name"]: row["last"] for row in postgresql.query(connection, _VALUES)}


def _listed(connection: t.Any, queries: t.Mapping[str, str]) -> Listing:
    fingerprint.use_settings(connection)  # how types are written depends on the search path
    found: Listing = {}
    for kind, statement in queries.items():
        rows = postgresql.query(connection, f"SELECT name, facts::text AS facts FROM ({statement}) AS listed")  # noqa: S608
        # All at once: to read each alone takes as long as to have it listed.
        every = json.loads("[" + ",".join(row["facts"] for row in rows) + "]")
        for row, facts in zip(rows, every):  # noqa: B905 - Python 3.9
            found[f"{kind} {row['name']}"] = {name: value for name, value in facts.items() if value is not None}
    return found
