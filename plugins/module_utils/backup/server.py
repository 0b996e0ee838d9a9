# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a server must be like before a backup of it is begun."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ..errors import MaintenanceError
from ..postgresql import connect, query, server_facts, server_name, value
from ..result import Part

INCREMENTAL_SINCE = 170000

_FOREIGN_TABLESPACES = (
    "SELECT spcname || ' in ' || pg_tablespace_location(oid) AS place FROM pg_catalog.pg_tablespace "
    "WHERE pg_tablespace_location(oid) LIKE '/%' ORDER BY spcname"
)
_ARCHIVER = (
    "SELECT current_setting('archive_mode') <> 'off' AND current_setting('archive_command') IN ('', '(disabled)') "
    "AND coalesce(current_setting('archive_library', true), '') = '' AS without, "
    "current_setting('archive_mode') <> 'off' AND last_failed_time IS NOT NULL "
    "AND last_failed_time > coalesce(last_archived_time, '-infinity') AS failing, last_failed_wal AS segment "
    "FROM pg_catalog.pg_stat_archiver"
)
_SIZE = (
    "SELECT coalesce(sum(pg_catalog.pg_database_size(oid)), 0)::bigint AS bytes FROM pg_catalog.pg_database "
    "WHERE datallowconn OR datistemplate"
)


class Server(t.NamedTuple):
    """What is known of the server to be backed up."""

    version: int
    system_identifier: str
    timeline: int
    database_bytes: int
    segment_bytes: int
    incremental_refused: str


def measure_server(params: t.Mapping[str, t.Any], part: Part) -> Server:
    """Look at the server behind the login options; raises MaintenanceError when it cannot be backed up as it is."""
    began = time.monotonic()
    with contextlib.closing(connect(params, application_name="wellkept backup")) as connection:
        milliseconds = (time.monotonic() - began) * 1000
        facts = server_facts(connection)
        part.require(
            "server reachable",
            True,
            expected="a connection",
            observed=f"PostgreSQL {facts['version'] // 10000} at {server_name(params)} in {milliseconds:.0f} ms",
        )
        _refuse_standby(facts, params)
        _refuse_foreign_tablespaces(connection)
        return Server(
            facts["version"],
            facts["system_identifier"],
            facts["timeline"],
            int(value(connection, _SIZE)),
            int(value(connection, "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'")),
            _incremental_refused(facts),
        )


def _incremental_refused(facts: dict[str, t.Any]) -> str:
    if facts["version"] < INCREMENTAL_SINCE:
        return f"PostgreSQL {facts['version'] // 10000} knows no incremental backup (17 and later do)"
    return "" if facts["summarize_wal"] else "summarize_wal is off, which an incremental backup needs"


def _refuse_standby(facts: dict[str, t.Any], params: t.Mapping[str, t.Any]) -> None:
    if facts["in_recovery"]:
        raise MaintenanceError(
            "back up a primary server",
            where=server_name(params),
            expected="a primary: a standby can neither write the marker row nor the restore point that prove a backup",
            observed="a standby",
            advice="Point the login options at the primary, or leave this host out of the plan's hosts.",
        )


def _refuse_foreign_tablespaces(connection: t.Any) -> None:
    places = [row["place"] for row in query(connection, _FOREIGN_TABLESPACES)]
    if places:
        raise MaintenanceError(
            "back up all tablespaces",
            expected="every tablespace inside the data directory",
            observed=", ".join(places),
            advice="The engine core does not support tablespaces elsewhere: move them into the data directory.",
        )


def refuse_failing_archiver(params: t.Mapping[str, t.Any]) -> None:
    """Raise MaintenanceError where archiving fails: a base backup would wait for it for ever."""
    with contextlib.closing(connect(params, application_name="wellkept backup")) as connection:
        rows = query(connection, _ARCHIVER)
    for row in rows:
        if row["without"]:
            raise MaintenanceError(
                "rely on WAL archiving",
                expected="an archive_command, where archive_mode is on: the end of a base backup waits for it",
                observed="archive_command is empty",
                advice="Set archive_command (wal_archive with wal_configure does), or switch archive_mode off.",
            )
        if row["failing"]:
            raise MaintenanceError(
                "rely on WAL archiving",
                expected="an archive_command that works: the end of a base backup waits for it",
                observed=f"it failed last, on {row['segment']}",
                advice="See the server's log for what the archive_command says, and mend it.",
            )
