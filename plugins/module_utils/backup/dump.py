# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dumps of databases and roles: the second, independent format, hashed as it is written."""

from __future__ import annotations

import os
import re
import typing as t

from ..errors import MaintenanceError
from .consistent_point import Session
from .programs import Written, run_program, write_output

# Fast, and about a tenth larger than the default; the hash, not the compression, protects the dump.
_COMPRESSION = "--compress=1"
_TABLE_DATA = re.compile(r"^\d+; \d+ \d+ TABLE DATA ", re.MULTILINE)
_LOCK_REFUSED = re.compile(r"canceling statement due to (statement|lock) timeout")
# How long pg_dump may wait for its locks (ms): with our snapshot, only those who wait for us can be in its way.
_LOCK_WAIT_WITH_SNAPSHOT = 1000
_LOCK_WAIT = 60_000
_COMPLETE = "PostgreSQL database cluster dump complete"


class DumpBlockedError(MaintenanceError):
    """pg_dump could not lock what it is to read.

    A statement that wants to change a table waits for our snapshot's lock, pg_dump waits behind that statement, and we
    wait for pg_dump: only giving the snapshot up lets all of them go on.
    """


def dump_database(
    bin_dir: str, path: str, database: str, session: Session | None, environment: t.Mapping[str, str]
) -> Written:
    """Dump *database* to *path*, at the snapshot of *session* where there is one."""
    what = f"dump the database {database}"
    command = [os.path.join(bin_dir, "pg_dump"), "--format=custom", _COMPRESSION, "--no-password"]
    if session and session.snapshot:
        command += [f"--snapshot={session.snapshot}", f"--lock-wait-timeout={_LOCK_WAIT_WITH_SNAPSHOT}"]
    else:
        command.append(f"--lock-wait-timeout={_LOCK_WAIT}")
    # By variable: as an argument, a name that looks like a connection string would be taken for one.
    try:
        written = write_output(command, path, {**environment, "PGDATABASE": database}, what)
    except MaintenanceError as error:
        if not _LOCK_REFUSED.search(error.observed):
            raise
        advice = (
            "Make backups when no table is altered, truncated or dropped, or let such statements have a lock_timeout."
        )
        raise DumpBlockedError(what, expected="its locks", observed=error.observed, advice=advice) from None
    listed = run_program([os.path.join(bin_dir, "pg_restore"), "--list", path], {}, 600, what).stdout
    found, expected = len(_TABLE_DATA.findall(listed)), _tables_with_data(session)
    if found < expected:
        raise MaintenanceError(
            what,
            expected=f"the data of {expected} tables in its table of contents",
            observed=f"that of {found}",
            advice="See whether the role that logs in may read every table.",
        )
    return written


def dump_globals(bin_dir: str, path: str, database: str, environment: t.Mapping[str, str]) -> Written:
    """Dump roles and tablespaces to *path*: it holds the hashes of passwords."""
    what = "dump the roles"
    command = [os.path.join(bin_dir, "pg_dumpall"), "--globals-only", "--no-password", f"--database={database}"]
    written = write_output(command, path, environment, what)
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), errors="replace") as stream:
        text = stream.read()
    if _COMPLETE not in text or "CREATE ROLE" not in text:
        raise MaintenanceError(
            what,
            expected=f"at least one role, and the line '{_COMPLETE}'",
            observed=f"{len(text)} characters that lack one of them",
            advice="Run pg_dumpall --globals-only by hand and see what it says.",
        )
    return written


def _tables_with_data(session: Session | None) -> int:
    """How many tables the dump must hold: those of extensions are made by the extension, views by their query."""
    return sum(table.kind == "r" and not table.in_extension for table in session.tables) if session else 0
