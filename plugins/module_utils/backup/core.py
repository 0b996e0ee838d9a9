# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine that needs nothing but PostgreSQL's own programs."""

from __future__ import annotations

import contextlib
import errno
import os
import time
import typing as t

from ..errors import MaintenanceError
from ..result import Part
from .core_creation import CoreCreation
from .engine import CREATE, RESTORE, VERIFY, Engine, Forecast, Made, Order, Seen, Source, Verification
from .packed.compression import parse_compression
from .packed.packing import PART_BYTES
from .packed.unpacking import Base, base_bytes, bases_as_directories, bytes_to_lay_down, is_in_base, is_packed
from .programs import run_program, workers
from .remembered import Remembered
from .repository import Backup, Repository, new_label
from .server import Server
from .tree_copy import copy_tree
from .verification import examine
from .wal.keeping import keep_wal, thin_out
from .wal.source import Directories, WalSource

# What a first backup is taken to need beside its base, in the absence of an earlier one.
_DUMP_RATIO = 0.5
_WAL_SEGMENTS = 4
# An earlier backup of the same type is a good guide, but not an exact one.
_GROWTH = 1.25


class CoreEngine(Engine):
    """Backups by pg_basebackup, pg_receivewal and pg_dump; see the modules beside this one for each step."""

    name = "core"
    programs: t.ClassVar[t.Mapping[str, t.Sequence[str]]] = {
        CREATE: (
            *("pg_basebackup", "pg_receivewal", "pg_verifybackup", "pg_waldump"),
            *("pg_dump", "pg_dumpall", "pg_restore"),
        ),
        VERIFY: ("pg_verifybackup", "pg_waldump"),
        RESTORE: ("pg_verifybackup", "pg_waldump"),
    }

    def plan(self, order: Order, source: Source) -> Forecast:
        """What a backup by *order* will take, from what there is to be copied and what earlier backups took."""
        earlier = [b.metadata for b in self.list() if b.type == order.type]
        if not earlier:
            dump = source.database_bytes * _DUMP_RATIO if order.dump else 0
            wal = _WAL_SEGMENTS * source.segment_bytes
            return Forecast(int(source.database_bytes + dump + wal + source.stores_bytes))
        last, before = earlier[-1]["bytes_by_part"], base_bytes(earlier[-1])
        base = max(source.database_bytes, before) if order.type == "full" else before * _GROWTH
        base = _stored(base, order, earlier[-1])
        dump = last["dump"] * _GROWTH if order.dump else 0
        return Forecast(int(base + dump + last["wal"] * _GROWTH + source.stores_bytes))

    def create(self, params: t.Mapping[str, t.Any], order: Order, holder: dict[str, t.Any]) -> Made:
        """Make a backup of the server behind the login options *params*."""
        parent = self.repository.backup(order.parent) if order.parent else None
        label = new_label(order.type, order.started)
        with _told_when_full(self.repository), self.repository.new(label, holder) as directory:
            creation = CoreCreation(
                params,
                order,
                bin_dir=self.bin_dir,
                label=label,
                directory=directory,
                repository=self.repository,
                parent=parent,
            )
            creation.carry_out()
        return Made(self.repository.backup(label), Seen(creation.content.point, order.stores, creation.seconds))

    def verify(self, label: str, *, quick: bool = False, remembered: Remembered | None = None) -> Verification:
        """Read the backup *label* against its hashes: see ``verification``."""
        began = time.monotonic()
        depth = "names and sizes" if quick else "every byte"
        try:
            backup = self.repository.backup(label)
        except MaintenanceError as error:
            problem = f"{error.where}: {error.observed}"
            return Verification(label, [problem], 0, time.monotonic() - began, depth)
        found = examine(backup, self.bin_dir, quick=quick, remembered=remembered)
        size = backup.metadata["bytes"]
        seconds = time.monotonic() - began
        return Verification(label, found.problems, size, seconds, depth, *found[1:])

    def restore(self, label: str, directory: str, **_options: t.Any) -> None:
        """Lay down the data directory of *label* in *directory*, which must not exist or be empty.

        Its WAL is in the backup's ``wal``, and recovery has still to replay it up to the restore point.
        """
        chain = [self.repository.backup(member) for member in self.repository.backup(label).chain]
        if len(chain) == 1 and is_packed(chain[0].metadata):
            Base(chain[0].directory, chain[0].metadata).unpack(directory)
            return
        with bases_as_directories(chain, beside=os.path.dirname(directory)) as bases:
            if len(bases) > 1:
                program = os.path.join(self.bin_dir, "pg_combinebackup")
                command = [program, "--output", directory, *bases]
                run_program(command, {}, None, what="combine the chain of backups")
                return
            copy_tree(bases[0], directory, "copy the base backup")

    def incremental_refused(self, server: Server) -> str:
        return server.incremental_refused

    def keep_wal(self, part: Part, *, check_mode: bool) -> None:
        if self.params["wal_archive"]:
            keep_wal(self.params, self.repository, part, check_mode=check_mode)

    def thin_out_wal(self, system_identifier: str, part: Part) -> None:
        if self.params["wal_archive"]:
            thin_out(self.params, self.repository, system_identifier, part)

    def wal_of(self, backup: Backup, archive: str = "", *, earlier: t.Sequence[Backup] = ()) -> WalSource:
        beside = [one.path("wal") for one in (backup, *earlier)]
        return Directories(archive, beside, str(backup.metadata["system_identifier"]))

    def restored_bytes(self, backup: Backup) -> int:
        return bytes_to_lay_down([self.repository.backup(label) for label in backup.chain])

    def holds(self, backup: Backup, name: str) -> bool:
        return is_in_base(backup, name) if is_packed(backup.metadata) else os.path.exists(backup.path("base", name))


def _stored(base: float, order: Order, before: t.Mapping[str, t.Any]) -> float:
    """What a base of so many bytes takes, with what of it is unpacked again to be checked."""
    compression = parse_compression(order.compression)
    if compression is None:
        return base
    packed = before.get("packed") or {}
    alike = packed.get("compression") == compression.name
    ratio = min(1.0, before["bytes_by_part"]["base"] / max(1, packed["bytes"]) * _GROWTH) if alike else 1.0
    return base * ratio + min(base, workers(order.jobs) * 3 * PART_BYTES)


@contextlib.contextmanager
def _told_when_full(repository: Repository) -> t.Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise MaintenanceError(
            "write the backup",
            where=repository.directory,
            expected="room for all of it",
            observed=os.strerror(error.errno),
            advice="Free space where the repository is, or give it more; earlier backups are untouched.",
        ) from None
