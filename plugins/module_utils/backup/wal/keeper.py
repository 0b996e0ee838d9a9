# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep the server from recycling WAL that a backup's receiver has not got yet, and no more than that."""

from __future__ import annotations

import contextlib
import threading
import typing as t

from ...errors import MaintenanceError
from ...postgresql import QueryError, connect, query

_EVERY = 1.0

_ADVANCE = (
    "SELECT pg_catalog.pg_replication_slot_advance(s.slot_name, r.flush_lsn) "
    "FROM pg_catalog.pg_replication_slots s, pg_catalog.pg_stat_replication r "
    "WHERE s.slot_name = %s AND r.application_name = %s AND r.flush_lsn > s.restart_lsn"
)


@contextlib.contextmanager
def wal_kept(params: t.Mapping[str, t.Any], label: str, receiver_name: str) -> t.Iterator[None]:
    """While the block runs, the server keeps what the receiver has not flushed.

    By a *temporary* slot, which is moved on with the receiver: it belongs to a session of ours, and so the server drops
    it when we end, in whatever way. A lasting slot that a killed run left would fill the server's disk.
    """
    slot = "wellkept_" + label.lower().replace("-", "_")
    ended = threading.Event()
    with contextlib.closing(connect(params, application_name=f"wellkept_{label}_slot")) as connection:
        try:
            query(connection, "SELECT pg_catalog.pg_create_physical_replication_slot(%s, true, true)", [slot])
        except QueryError as error:
            raise MaintenanceError(
                "keep the WAL of the backup from being recycled",
                expected="a temporary replication slot",
                observed=error.observed,
                advice="Give the role REPLICATION, and raise max_replication_slots if all are taken.",
            ) from None
        mover = threading.Thread(target=_move_on, args=(connection, slot, receiver_name, ended), daemon=True)
        mover.start()
        try:
            yield
        finally:
            ended.set()
            mover.join()


def _move_on(connection: t.Any, slot: str, receiver_name: str, ended: threading.Event) -> None:
    while not ended.wait(_EVERY):
        try:
            query(connection, _ADVANCE, [slot, receiver_name])
        except MaintenanceError:
            return  # without the slot the receiver still works; should it lose a segment, it says so
