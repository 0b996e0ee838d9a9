# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What every way of making backups offers; modules and the restore test know no more of it than this.

An engine works in one repository. It offers six things:

========  =============================================================================================================
plan      what a backup would take, before anything is written
create    make a backup, which appears in the repository only when it is complete and verified
verify    read a backup against its hashes: all of it, names and sizes alone, or what was not read of late
restore   lay the files of a backup down in an empty directory
expire    remove a backup
list      the backups that are there
========  =============================================================================================================

``engines.open_engine`` finds the engine by its name, with the programs that it needs.
"""

from __future__ import annotations

import abc
import typing as t
from datetime import datetime

from ..errors import MaintenanceError
from ..result import Part
from .consistent_point import Point
from .remembered import Remembered
from .repository import Backup, Repository
from .server import Server
from .stores.store import Store
from .wal.source import WalSource

# What an engine may need programs for.
CREATE, VERIFY, RESTORE = "create", "verify", "restore"


class Order(t.NamedTuple):
    """What is to be made."""

    type: str
    parent: str
    started: datetime
    stores: tuple[Store, ...] = ()
    # The stores that are wanted too but cannot be had now, each with the reason.
    lacks: t.Mapping[str, str] = {}
    dump: bool = True
    max_block: float = 1.0
    manifest_checksums: str = "CRC32C"
    # Of the base, as in ``zstd:1``, and how many workers do it; 0 leaves that to the number of processors.
    compression: str = "none"
    jobs: int = 0
    timeout: float | None = None


class Source(t.NamedTuple):
    """How much there is to back up."""

    database_bytes: int
    # What the stores will put into the backup.
    stores_bytes: int
    segment_bytes: int


class Forecast(t.NamedTuple):
    """What a backup would take."""

    bytes: int


class Seen(t.NamedTuple):
    """What making a backup showed, beside the backup itself."""

    point: Point | None
    # Each reports what it saved.
    stores: tuple[Store, ...]
    seconds: dict[str, float]


class Made(t.NamedTuple):
    backup: Backup
    seen: Seen


class Verification(t.NamedTuple):
    """What reading a backup showed: no problems means that every byte is as it was written."""

    label: str
    problems: list[str]
    bytes: int
    seconds: float
    depth: str
    # What was read now, and what was to be read but was not because the budget was spent.
    read_bytes: int = 0
    left_bytes: int = 0
    # Since when every byte was read at least once, in seconds since the epoch; 0 where that is not remembered.
    read_since: float = 0.0

    @property
    def sound(self) -> bool:
        return not self.problems


class IncrementalRefusedError(MaintenanceError):
    """The server or the engine cannot build on the parent: a full backup still can be made."""


class Engine(abc.ABC):
    """One way to make, verify, restore and expire backups in a repository."""

    name: t.ClassVar[str]
    # The programs of PostgreSQL that each of the tasks CREATE, VERIFY and RESTORE needs.
    programs: t.ClassVar[t.Mapping[str, t.Sequence[str]]]

    # Whether it archives WAL in a place of its own, and not in that of the option ``wal_archive``.
    own_archive: t.ClassVar[bool] = False

    def __init__(self, repository: Repository, bin_dir: str, params: t.Mapping[str, t.Any] | None = None) -> None:
        """*params* are the options of the module that uses it."""
        self.repository = repository
        self.bin_dir = bin_dir
        self.params = params or {}

    @abc.abstractmethod
    def plan(self, order: Order, source: Source) -> Forecast:
        """What a backup by *order* will take, from what there is to be copied and what earlier backups took."""

    @abc.abstractmethod
    def create(self, params: t.Mapping[str, t.Any], order: Order, holder: dict[str, t.Any]) -> Made:
        """Make a backup of the server behind the login options *params*.

        Raises IncrementalRefusedError when only a full one is possible, MaintenanceError when none is; the repository
        is then as it was.
        """

    @abc.abstractmethod
    def verify(self, label: str, *, quick: bool = False, remembered: Remembered | None = None) -> Verification:
        """Read the backup *label* against its hashes.

        *quick* looks at names and sizes alone. What is *remembered* as read and has not changed is not read again, and
        what is read now is remembered.
        """

    def verify_chain(
        self, label: str, *, quick: bool = False, remembered: Remembered | None = None
    ) -> t.List[Verification]:
        """Verify all that a restore of *label* needs, the full backup first."""
        chain = self.repository.backup(label).chain
        return [self.verify(member, quick=quick, remembered=remembered) for member in chain]

    @abc.abstractmethod
    def restore(self, label: str, directory: str, **options: t.Any) -> None:
        """Lay down the data directory of *label* in the empty *directory*; its WAL is still to be replayed."""

    @abc.abstractmethod
    def incremental_refused(self, server: Server) -> str:
        """Why no incremental backup of *server* can be made; empty when one can."""

    @abc.abstractmethod
    def keep_wal(self, part: Part, *, check_mode: bool) -> None:
        """See that the server archives its WAL, where that is wanted, and set up what is missing and may be."""

    @abc.abstractmethod
    def thin_out_wal(self, system_identifier: str, part: Part) -> None:
        """Remove archived WAL of the cluster that no backup needs any more."""

    def clear_leftover(self, label: str) -> None:  # noqa: B027 (most engines keep nothing elsewhere)
        """Remove what is kept elsewhere for the backup *label*, which a killed run left half made or half removed."""

    @abc.abstractmethod
    def wal_of(self, backup: Backup, archive: str = "", *, earlier: t.Sequence[Backup] = ()) -> WalSource:
        """The WAL that leads on from *backup*: its own, what *earlier* ones have of their own, and what was archived.

        *archive* is the directory of the cluster in the WAL archive, for an engine that has no archive of its own.
        """

    @abc.abstractmethod
    def restored_bytes(self, backup: Backup) -> int:
        """An upper bound of the bytes that the data directory of *backup* takes when it is restored, without WAL."""

    @abc.abstractmethod
    def holds(self, backup: Backup, name: str) -> bool:
        """Whether the file *name* lies at the top of the data directory of *backup*."""

    def expire(self, label: str, stores: t.Sequence[Store] = ()) -> int:
        """Remove the backup *label*, and what *stores* hold of it elsewhere; returns the bytes freed here."""
        backup = self.repository.backup(label)

        def remove_elsewhere() -> None:
            for store in stores:
                facts = store.facts_of(backup)
                if facts is not None:
                    store.expire(label, facts)

        return self.repository.expire(label, remove_elsewhere)

    def list(self) -> list[Backup]:
        """The backups of this engine that are there, oldest first."""
        return [backup for backup in self.repository.backups() if backup.metadata["engine"] == self.name]
