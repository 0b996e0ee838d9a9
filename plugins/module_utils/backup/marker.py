# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A row that is written just before a backup's point: a restore that lacks it has lost what came last."""

from __future__ import annotations

import typing as t
import uuid

from ..postgresql import query, value

_KEPT = 100

_TABLE = (
    "CREATE SCHEMA IF NOT EXISTS wellkept",
    "CREATE TABLE IF NOT EXISTS wellkept.backup_marker (id uuid PRIMARY KEY, "
    "created timestamptz NOT NULL DEFAULT clock_timestamp(), label text NOT NULL)",
)
_INSERT = (
    "INSERT INTO wellkept.backup_marker (id, label) VALUES (%s, %s) "
    "RETURNING to_char(created AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
)
_THIN_OUT = (
    "DELETE FROM wellkept.backup_marker WHERE id IN "
    "(SELECT id FROM wellkept.backup_marker ORDER BY created DESC OFFSET %s)"
)


def insert_marker(connection: t.Any, database: str, label: str) -> dict[str, str]:
    """Insert a new marker; returns its {database, id, created}."""
    if value(connection, "SELECT to_regclass('wellkept.backup_marker')") is None:
        for statement in _TABLE:
            query(connection, statement)
    identity = str(uuid.uuid4())
    created = value(connection, _INSERT, [identity, label])
    query(connection, _THIN_OUT, [_KEPT])
    return {"database": database, "id": identity, "created": created}
