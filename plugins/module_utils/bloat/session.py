# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Measuring beside others: neither wait long for their locks nor hold one for long, and say who has them."""

from __future__ import annotations

import contextlib
import typing as t

from .. import postgresql
from ..postgresql import QueryError

_LOST = ("57P01", "57P02", "57P03", "08003", "08006")

_HOLDERS = """
SELECT l.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'unknown') AS application
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation = ANY(%s::oid[]) AND l.mode = 'AccessExclusiveLock'
  AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY l.granted DESC, l.pid LIMIT 1
"""


@contextlib.contextmanager
def limited(connection: t.Any, setting: str, milliseconds: int) -> t.Iterator[None]:
    """Limit statements in the block by *setting* (``lock_timeout``, ``statement_timeout``); restore it afterwards."""
    change = "SELECT current_setting(%s) AS before, set_config(%s, %s, false)"
    before = postgresql.query(connection, change, [setting, setting, f"{milliseconds}ms"])[0]["before"]
    try:
        yield
    finally:
        if not connection.closed:
            postgresql.query(connection, change, [setting, setting, before])


def holder_of(connection: t.Any, oids: t.Sequence[int]) -> str:
    """Who has the lock that one of the relations *oids* could not be measured for."""
    rows = postgresql.query(connection, _HOLDERS, [list(oids)])
    if not rows:
        return "locked by a session that has just ended"
    if rows[0]["pid"] is None:
        return "locked by a prepared transaction"
    return f"locked by process {rows[0]['pid']} of the server ({rows[0]['application']})"


def is_lost(connection: t.Any, error: QueryError) -> bool:
    """Whether *error* ended the session, so that nothing more can be measured."""
    return bool(error.sqlstate in _LOST or connection.closed)
