# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sessions for maintenance: they die with the one who opened them, and two of one purpose never share a database."""

from __future__ import annotations

import typing as t
import zlib

from .. import postgresql
from ..errors import MaintenanceError

# A killed client must not leave its server process at work: the server looks for it this often (14 and later).
CHECK_INTERVAL = "500ms"

_SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "60s",
    "client_min_messages": "warning",
    "jit": "off",
}
_LOCK_CLASS = 0x77656C6C  # "well"

_TRY = "SELECT pg_catalog.pg_try_advisory_lock(%s, %s) AS taken"
_HOLDER = """
SELECT l.pid, a.application_name AS application, a.usename AS role, a.client_addr::text AS address
FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
  AND l.classid::bigint = %s AND l.objid::bigint = %s
"""


def open_session(params: t.Mapping[str, t.Any], dbname: str, *, purpose: str) -> t.Any:
    """A connection to *dbname* whose settings are known, shown to others as ``wellkept <purpose>``.

    Nothing on its search path can be made by ordinary users. The server ends it soon after its client has died.
    """
    connection = postgresql.connect(params, dbname, application_name=f"wellkept {purpose}")
    settings = dict(_SETTINGS)
    version = connection.info.server_version
    if version >= 140000:
        settings.update(client_connection_check_interval=CHECK_INTERVAL, idle_session_timeout="0")
    if version >= 170000:
        settings["transaction_timeout"] = "0"
    calls = ", ".join("pg_catalog.set_config(%s, %s, false)" for _one in settings)
    try:
        postgresql.query(connection, f"SELECT {calls}", [word for pair in settings.items() for word in pair])
    except MaintenanceError:
        connection.close()
        raise
    return connection


def claim(connection: t.Any, purpose: str) -> None:
    """Take the lock for *purpose* in the database of *connection*, for as long as the connection lives.

    Raises MaintenanceError that names the session which has it: another run, perhaps from another host.
    """
    key = zlib.crc32(purpose.encode())
    if postgresql.value(connection, _TRY, [_LOCK_CLASS, _signed(key)]):
        return
    rows = postgresql.query(connection, _HOLDER, [_LOCK_CLASS, key])
    held = "; ".join(
        f"held by process {row['pid']} of the server, application {row['application'] or 'unknown'!r}, "
        f"role {row['role'] or 'unknown'}, from {row['address'] or 'a local socket'}"
        for row in rows
    )
    raise MaintenanceError(
        f"claim the database for {purpose}",
        where=f"database {connection.info.dbname}",
        expected="no other run at work on it",
        observed=held or "held by a session that has just ended",
        advice="Wait until that run has ended, or end its session if it hangs (pg_terminate_backend).",
    )


def refuse_standby(connection: t.Any) -> str:
    """Why nothing is to be done on this server when it is a standby: the reason to skip; empty on a primary."""
    if postgresql.value(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
        return "this server is a standby; it is maintained by way of its primary"
    return ""


def bearable_wait(connection: t.Any, max_block: float) -> float:
    """Seconds that others may be kept waiting by us: *max_block*, but less than the server's deadlock_timeout.

    Should somebody come to wait for us and we for them, we give up before the server makes them the victim.
    """
    setting = "SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'"
    return min(max_block, int(postgresql.value(connection, setting)) / 1000 * 0.8)


def _signed(key: int) -> int:
    """*key* of 32 bits as PostgreSQL's signed integer."""
    return key - 2**32 if key >= 2**31 else key
