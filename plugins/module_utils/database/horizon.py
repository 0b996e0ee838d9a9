# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds the horizon back: rows that died after it cannot be removed, and their transactions not be frozen."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..quantities import human_seconds

# Sessions that run a plain VACUUM hold nothing back for others, so they are left out; so is the one that asks.
_HOLDERS = """
SELECT 'session' AS kind, a.pid::text AS name, a.datname AS database, false AS catalogs_only,
       greatest(age(a.backend_xmin), age(a.backend_xid)) AS xmin_age,
       CASE WHEN age(a.backend_xmin) >= coalesce(age(a.backend_xid), 0) THEN a.backend_xmin
            ELSE a.backend_xid END AS xmin,
       extract(epoch FROM clock_timestamp() - a.xact_start)::float8 AS seconds,
       a.application_name AS application, a.usename AS role, a.state AS state, a.client_addr::text AS address
FROM pg_catalog.pg_stat_activity a
WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL) AND a.pid <> pg_backend_pid()
  AND a.backend_type <> 'walsender'
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
UNION ALL
SELECT 'prepared transaction', p.gid, p.database, false, age(p.transaction), p.transaction,
       extract(epoch FROM clock_timestamp() - p.prepared)::float8, '', p.owner, 'prepared', NULL
FROM pg_catalog.pg_prepared_xacts p
UNION ALL
SELECT 'replication slot', s.slot_name, NULL, s.xmin IS NULL,
       greatest(age(s.xmin), CASE WHEN s.xmin IS NULL THEN age(s.catalog_xmin) END), coalesce(s.xmin, s.catalog_xmin),
       NULL, coalesce(a.application_name, ''), a.usename,
       CASE WHEN s.active THEN 'in use by process ' || s.active_pid ELSE 'not in use' END, a.client_addr::text
FROM pg_catalog.pg_replication_slots s LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = s.active_pid
WHERE s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
UNION ALL
SELECT 'standby', r.application_name, NULL, false, age(r.backend_xmin), r.backend_xmin,
       NULL, r.application_name, r.usename, r.state, r.client_addr::text
FROM pg_catalog.pg_stat_replication r WHERE r.backend_xmin IS NOT NULL
"""


class Holder(t.NamedTuple):
    """Something that holds the horizon back.

    ``kind`` is ``session``, ``prepared transaction``, ``replication slot`` or ``standby``. ``xmin_age`` counts the
    transactions since; ``seconds`` is how long it has been so, as far as that is known. A session or prepared
    transaction holds back only its own ``database``; the others, whose ``database`` is empty, hold back all. With
    ``catalogs_only`` only system catalogs are held back. ``xmin`` is the transaction from which on nothing is removed.
    """

    kind: str
    name: str
    xmin_age: int
    seconds: t.Optional[float]
    detail: str
    advice: str
    database: str = ""
    catalogs_only: bool = False
    xmin: int = 0


def holders(connection: t.Any) -> list[Holder]:
    """Everything that holds a horizon back on the server of *connection*, the oldest first."""
    found = [read_holder(row) for row in postgresql.query(connection, _HOLDERS)]
    return sorted(found, key=lambda holder: -holder.xmin_age)


def holding(found: t.Sequence[Holder], database: str, *, catalog: bool = False) -> list[Holder]:
    """Those of *found* that hold back the tables of *database*; *catalog* for its system catalogs."""
    return [holder for holder in found if holder.database in ("", database) and (catalog or not holder.catalogs_only)]


def describe(holder: Holder) -> str:
    """One line: ``session 4711 (psql, role app, idle in transaction), 1 h 5 min, 1200 transactions old``."""
    time = f", for {human_seconds(holder.seconds)}" if holder.seconds is not None else ""
    what = "system catalogs only, " if holder.catalogs_only else ""
    return f"{holder.kind} {holder.name} ({holder.detail}){time}, {what}{holder.xmin_age} transactions old"


def read_holder(row: t.Mapping[str, t.Any]) -> Holder:
    """The holder that one *row* of the query describes."""
    words = [row["application"] or "", f"role {row['role']}" if row["role"] else "", row["state"] or ""]
    if row["database"]:
        words.append(f"database {row['database']}")
    if row["address"]:
        words.append(f"from {row['address']}")
    return Holder(
        row["kind"],
        row["name"],
        int(row["xmin_age"]),
        row["seconds"],
        ", ".join(word for word in words if word),
        _advice(row["kind"], row["name"], row["state"] or ""),
        row["database"] or "",
        row["catalogs_only"],
        int(row["xmin"]),
    )


def _advice(kind: str, name: str, state: str) -> str:
    literal = "'" + name.replace("'", "''") + "'"
    if kind == "session":
        return f"Let its transaction end, or end it: SELECT pg_terminate_backend({name})."
    if kind == "prepared transaction":
        return f"In its database, COMMIT PREPARED {literal} or ROLLBACK PREPARED {literal}."
    if kind == "standby":
        return f"End the long query on the standby {name}, or set hot_standby_feedback off there."
    if state.startswith("in use"):
        return f"Let the consumer of the slot {name} catch up; a standby passes on what its own queries hold."
    return f"Start the consumer of the slot, or, if it is gone for good: SELECT pg_drop_replication_slot({literal})."
