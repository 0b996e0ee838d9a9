# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the core engine makes one backup: base by pg_basebackup, WAL by pg_receivewal, all of it in the backup itself."""

from __future__ import annotations

import contextlib
import functools
import os
import typing as t

from ..files import sha256_of
from ..postgresql import databases
from ..processes import find_program
from .base_backup import BaseBackup
from .contents import BASE_MANIFEST
from .creation import Creation, refuse_problems
from .programs import Written
from .repository import Backup
from .verification import NOT_LOOKED_AT, examine
from .wal.keeper import wal_kept
from .wal.receiver import Receiver, keep_only


class CoreCreation(Creation):
    """A backup of the core engine in the making."""

    engine = "core"
    tools = ("pg_basebackup", "pg_dump")
    verified_by = "pg_verifybackup, pg_waldump, SHA-256"

    @functools.cached_property
    def base(self) -> BaseBackup:
        return BaseBackup(self.bin_dir, self.directory, self.label, self.order, self.parent)

    def take(self, connection: t.Any, environment: dict[str, str]) -> None:
        with self._receiving(connection, environment) as receiver:
            self._take_base(connection, environment)
            self.write_marker(connection)
            self._take_content(connection, receiver, environment)

    @contextlib.contextmanager
    def _receiving(self, connection: t.Any, environment: dict[str, str]) -> t.Iterator[Receiver]:
        program = find_program("pg_receivewal", self.bin_dir) or "pg_receivewal"
        name = f"wellkept_{self.label}"
        with wal_kept(self.params, self.label, name):
            receiver = Receiver(program, self.path("wal"), environment, name)
            try:
                receiver.wait_until_streaming(connection)
                yield receiver
            except BaseException:
                receiver.kill()
                raise
            receiver.stop()
        keep_only(self.path("wal"), self.needed_segments())

    def _take_base(self, connection: t.Any, environment: dict[str, str]) -> None:
        with self.timed("base"):
            self.base.take(connection, environment)
        last = self.base.last_wal_range()
        self.metadata["timeline"] = int(last["Timeline"])
        self.metadata["start_lsn"], self.metadata["stop_lsn"] = last["Start-LSN"], last["End-LSN"]
        self.metadata.update(self.base.metadata())

    def _take_content(self, connection: t.Any, receiver: Receiver, environment: dict[str, str]) -> None:
        """What is saved at the consistent point, while pg_verifybackup reads the base beside it."""
        verifying = self.base.start_check()
        try:
            self.content.take(databases(connection), environment)
            self.metadata.update(self.content.metadata())
            with self.timed("wal"):
                receiver.finish_segment(connection, self.needed_segments()[-1])
            with self.timed("verify_base"):
                problems = verifying.problems()
        except BaseException:
            verifying.stop()
            raise
        refuse_problems("verify the base backup that was just made", self.path("base"), problems)

    def written(self) -> dict[str, Written]:
        paths = [BASE_MANIFEST, *(f"base/{name}" for name in NOT_LOOKED_AT)]
        paths += [f"wal/{name}" for name in os.listdir(self.path("wal"))]
        there = [path for path in paths if os.path.exists(self.path(path))]
        read = {path: Written(sha256_of(self.path(path)), os.path.getsize(self.path(path))) for path in there}
        return {**read, **self.base.written}

    def problems(self, backup: Backup) -> list[str]:
        """The base was read by pg_verifybackup before."""
        return examine(backup, self.bin_dir, base=False).problems
