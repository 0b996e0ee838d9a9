# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_receivewal beside a backup: it brings the WAL from before the backup's start to beyond the restore point.

It uses no replication slot of its own: one that a killed run left behind would fill the server's disk; see ``keeper``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
import typing as t

from ...errors import MaintenanceError
from ...postgresql import QueryError, query, value
from ...processes import last_words
from ..programs import guarded

_STARTING = "run pg_receivewal"


class Receiver:
    """A running pg_receivewal that writes to *directory*."""

    def __init__(self, program: str, directory: str, environment: t.Mapping[str, str], name: str) -> None:
        self.directory = directory
        self.name = name
        os.mkdir(directory, 0o700)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._process = subprocess.Popen(
            guarded([program, "-D", directory, "--no-loop", "--synchronous", "--status-interval=1", "--no-password"]),
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            env={**os.environ, "LC_ALL": "C", **environment, "PGAPPNAME": name},
        )

    def wait_until_streaming(self, connection: t.Any, timeout: float = 60) -> None:
        """Return when the server streams to us."""
        statement = (
            "SELECT count(*) FROM pg_catalog.pg_stat_replication "
            "WHERE application_name = %s AND state IN ('streaming', 'catchup')"
        )
        self._wait(lambda: value(connection, statement, [self.name]) > 0, timeout, "streaming")

    def wait_until_flushed(self, connection: t.Any, lsn: str, timeout: float = 120) -> None:
        """Return when everything up to *lsn* is on our disk, as the server was told."""
        statement = (
            "SELECT coalesce(max(flush_lsn) >= %s::pg_lsn, false) FROM pg_catalog.pg_stat_replication "
            "WHERE application_name = %s"
        )
        self._wait(lambda: bool(value(connection, statement, [lsn, self.name])), timeout, f"flushed up to {lsn}")

    def finish_segment(self, connection: t.Any, name: str, timeout: float = 120) -> None:
        """Have the segment *name* completed, where we may, and return when it is here under its full name."""
        path = os.path.join(self.directory, name)
        if os.path.exists(path):
            return
        with contextlib.suppress(QueryError):  # not allowed to: stop() then keeps what there is of it
            query(connection, "SELECT pg_catalog.pg_switch_wal()")
            self._wait(lambda: os.path.exists(path), timeout, f"in {name} complete")

    def stop(self) -> str:
        """End it, and return what it said."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.kill()
        words = self._words()
        self._said.close()
        return words

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def _wait(self, done: t.Callable[[], bool], timeout: float, state: str) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise MaintenanceError(
                    _STARTING,
                    where=self.directory,
                    expected=f"the WAL {state} within {timeout:g} s",
                    observed=f"it ended: {last_words(self._words())}" if ended else "it has not come so far",
                    advice="See that max_wal_senders allows two more, that pg_hba.conf allows replication connections, "
                    "and that the repository's disk is not full.",
                )
            time.sleep(0.02)

    def _words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


def keep_only(directory: str, needed: t.Collection[str]) -> None:
    """Keep the *needed* segments and the histories of timelines; the rest goes.

    A needed segment that was not complete when the receiver ended gets its full name: it holds all up to the last
    flush, and recovery stops before that.
    """
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name in needed or name.endswith(".history"):
            continue
        if name.endswith(".partial") and name[: -len(".partial")] in needed:
            os.rename(path, path[: -len(".partial")])
        else:
            os.unlink(path)
