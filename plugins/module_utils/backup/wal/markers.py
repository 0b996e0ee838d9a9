# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows of which it is known where in the WAL they were written: what must, and what must not, be in a restored cluster.

Each is written with a restore point right after it, and noted in ``wal_markers.json`` of the repository.
"""

from __future__ import annotations

import os
import typing as t
from datetime import datetime

from ...files import read_json, write_json
from ...postgresql import query, value
from ..marker import insert_marker
from ..repository import MARKERS, Backup, Repository, parse_time
from .positions import parse_lsn

_KEPT = 500
_POINT = (
    "SELECT pg_catalog.pg_create_restore_point(%s)::text AS lsn, "
    "to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') AS moment"
)


class Marker(t.NamedTuple):
    """The row ``id``, begun at ``created``; at ``time``, when the restore point ended at ``lsn``, it was committed."""

    database: str
    id: str
    created: datetime
    time: datetime
    timeline: int
    lsn: int
    name: str


def write_marker(connection: t.Any, repository: Repository, database: str, label: str) -> Marker:
    """Write a new marker and its restore point, and note them."""
    row = insert_marker(connection, database, label)
    name = f"wellkept_marker_{row['id'][:8]}"
    point = query(connection, _POINT, [name])[0]
    file = value(connection, "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())")
    noted = {**row, "time": point["moment"], "timeline": int(file[:8], 16), "lsn": point["lsn"], "name": name}
    path = os.path.join(repository.directory, MARKERS)
    write_json(path, [*(_noted(repository)[1 - _KEPT :]), noted])
    return _marker(noted)


def markers(repository: Repository, identifier: str) -> list[Marker]:
    """The noted markers, and those of the backups of the cluster *identifier*; oldest first."""
    found = [_marker(noted) for noted in _noted(repository)]
    found += [_of_backup(b) for b in repository.backups() if str(b.metadata["system_identifier"]) == identifier]
    return sorted(found, key=lambda marker: marker.time)


def _of_backup(backup: Backup) -> Marker:
    row, point = backup.metadata["marker"], backup.metadata["restore_point"]
    return _marker({**row, **point, "timeline": backup.metadata["timeline"]})


def _marker(noted: t.Mapping[str, t.Any]) -> Marker:
    return Marker(
        noted["database"],
        noted["id"],
        parse_time(noted["created"]),
        parse_time(noted["time"]),
        int(noted["timeline"]),
        parse_lsn(noted["lsn"]),
        noted["name"],
    )


def _noted(repository: Repository) -> list[dict[str, t.Any]]:
    try:
        return list(read_json(os.path.join(repository.directory, MARKERS)) or [])
    except ValueError:
        return []  # the markers of the backups are still known
