# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The engine that leaves base and WAL to pgBackRest, and keeps everything else in our own catalogue."""

from __future__ import annotations

import contextlib
import os
import pwd
import time
import typing as t

from ...errors import MaintenanceError
from ...postgresql import connect, value
from ...result import Part
from ...secret_file import read_secret
from ..engine import CREATE, RESTORE, VERIFY, Engine, Forecast, Made, Order, Seen, Source, Verification
from ..remembered import Readings, Remembered
from ..repository import Backup, Repository, new_label
from ..server import Server
from ..stores.store import Store
from ..verification import examine
from ..wal.positions import segments_between
from ..wal.source import WalSource
from .configuration import name_of, read_access
from .creation import PgbackrestCreation
from .sets import Sets, StillNeededError, manifest_problems, set_problems
from .tool import Access, Tool
from .wal_keeping import keep_wal

# Under this name it is remembered when the set of a backup was read.
_SET = "set"
_DUMP_RATIO = 0.5
_GROWTH = 1.25


class PgbackrestEngine(Engine):
    """Backups by pgBackRest and pg_dump; the options begin with ``pgbackrest_``."""

    name = "pgbackrest"
    own_archive = True
    programs: t.ClassVar[t.Mapping[str, t.Sequence[str]]] = {
        CREATE: ("pg_dump", "pg_dumpall", "pg_restore"),
        VERIFY: (),
        RESTORE: ("pg_waldump",),
    }

    def __init__(self, repository: Repository, bin_dir: str, params: t.Mapping[str, t.Any] | None = None) -> None:
        super().__init__(repository, bin_dir, params)
        self._sets: dict[Access, Sets] = {}
        self._live: Access | None = None

    def plan(self, order: Order, source: Source) -> Forecast:
        """What a backup by *order* will take in the catalogue; pgBackRest's repository is elsewhere."""
        earlier = [b.metadata["bytes_by_part"] for b in self.list() if b.type == order.type]
        last = earlier[-1]["dump"] * _GROWTH if earlier else source.database_bytes * _DUMP_RATIO
        return Forecast(int((last if order.dump else 0) + source.stores_bytes))

    def create(self, params: t.Mapping[str, t.Any], order: Order, holder: dict[str, t.Any]) -> Made:
        """Make a backup of the server behind the login options *params*."""
        differential = bool(params["pgbackrest_differential"])
        parent = self.repository.backup(order.parent) if order.parent else None
        if parent and differential:
            parent = self.repository.backup(parent.chain[0])
        label = new_label(order.type, order.started)
        sets = self._sets_by(self._access_of_live())
        with self.repository.new(label, holder) as directory:
            creation = PgbackrestCreation(
                params,
                order,
                bin_dir=self.bin_dir,
                label=label,
                directory=directory,
                repository=self.repository,
                parent=parent,
                sets=sets,
                differential=differential,
            )
            creation.carry_out()
        return Made(self.repository.backup(label), Seen(creation.content.point, order.stores, creation.seconds))

    def verify(self, label: str, *, quick: bool = False, remembered: Remembered | None = None) -> Verification:
        """Hold what is here against its hashes, and have pgBackRest read its set where that is due."""
        began = time.monotonic()
        depth = "names and sizes" if quick else "every byte"
        try:
            backup = self.repository.backup(label)
        except MaintenanceError as error:
            return Verification(label, [f"{error.where}: {error.observed}"], 0, time.monotonic() - began, depth)
        sets = self.sets_of(backup)
        found = examine(backup, self.bin_dir, quick=quick, remembered=remembered)
        problems = [*found.problems, *set_problems(sets, backup)]
        stored = int(backup.metadata["pgbackrest"]["stored_bytes"])
        readings = _readings(backup, remembered)
        look = sets.looks_like(backup.metadata["pgbackrest"]["label"])
        due = not readings or bool(problems) or readings.is_due(_SET, look)
        read, left = found.read_bytes, found.left_bytes + (stored if quick and due else 0)
        if not quick and due and remembered and not remembered.budget.take(stored):
            left += stored
        elif not quick and due:
            problems += [p for p in self._read_set(sets, backup) if p not in problems]
            read += stored
            if readings:
                if problems:
                    readings.forget(_SET)
                else:
                    readings.keep(_SET, look)
                readings.save(damaged=bool(problems))
        since = min(found.read_since, readings.since()) if readings and not left else 0.0
        seconds = time.monotonic() - began
        return Verification(label, problems, backup.metadata["bytes"], seconds, depth, read, left, since)

    def _read_set(self, sets: Sets, backup: Backup) -> list[str]:
        verdict = sets.verdict([backup])
        ours = [words for words in verdict.archive if any(name in words for name in _segments(backup))]
        return [*verdict.of(backup.metadata["pgbackrest"]["label"]), *ours, *manifest_problems(sets, backup)]

    def restore(self, label: str, directory: str, **_options: t.Any) -> None:
        """Lay down the data directory of *label* in the empty *directory*, as the user of the server."""
        backup = self.repository.backup(label)
        tool = self.sets_of(backup).tool
        if os.geteuid() == 0:
            account = pwd.getpwnam(tool.access.user)
            os.chown(directory, account.pw_uid, account.pw_gid, follow_symlinks=False)
        tool.run(
            "restore",
            f"--set={backup.metadata['pgbackrest']['label']}",
            f"--pg1-path={directory}",
            "--type=none",
            "--archive-mode=off",
            what="restore the base with pgBackRest",
            reach=directory,
        )

    def wal_of(self, backup: Backup, archive: str = "", *, earlier: t.Sequence[Backup] = ()) -> WalSource:
        return self.sets_of(backup).wal(backup.metadata)

    def restored_bytes(self, backup: Backup) -> int:
        return int(backup.metadata["pgbackrest"]["restored_bytes"])

    def holds(self, backup: Backup, name: str) -> bool:
        label = backup.metadata["pgbackrest"]["label"]
        chain = [label, label.partition("_")[0]]
        return any(path.rpartition(".")[0] == f"pg_data/{name}" or path == f"pg_data/{name}"
                   for one in chain for path in self.sets_of(backup).files_of(one))  # fmt: skip

    def incremental_refused(self, server: Server) -> str:
        return ""

    def keep_wal(self, part: Part, *, check_mode: bool) -> None:
        sets = self._sets_by(self._access_of_live())
        keep_wal(self.params, sets, self.repository, part, check_mode=check_mode)

    def thin_out_wal(self, system_identifier: str, part: Part) -> None:
        removed = self._sets_by(self._access_of_live()).thin_out_wal()
        if removed:
            part.change(
                "WAL archive", f"stanza {self._access_of_live().stanza}", removed, "removed: no backup needs it"
            )

    def clear_leftover(self, label: str) -> None:
        with contextlib.suppress(StillNeededError):
            self._sets_by(self._access_of_live()).expire_backup(label)

    def expire(self, label: str, stores: t.Sequence[Store] = ()) -> int:
        """First here, so that a killed run leaves what the next one recognises; then pgBackRest's set."""
        backup = self.repository.backup(label)
        sets = self.sets_of(backup)

        def remove_elsewhere() -> None:
            for store in stores:
                facts = store.facts_of(backup)
                if facts is not None:
                    store.expire(label, facts)
            sets.expire(backup.metadata["pgbackrest"]["label"])

        return self.repository.expire(label, remove_elsewhere) + int(backup.metadata["pgbackrest"]["stored_bytes"])

    def sets_of(self, backup: Backup) -> Sets:
        """What holds the base of *backup*, reached as its ``backup.json`` says, by the configuration of the options."""
        remembered = backup.metadata["pgbackrest"]
        return self._sets_by(
            Access(
                self.params.get("pgbackrest_config") or remembered["config"],
                remembered["stanza"],
                _existing_user(remembered["user"]),
                self._key,
                remembered["host"],
                remembered["host_user"],
                remembered["host_config"],
            )
        )

    @property
    def _key(self) -> str:
        return read_secret(self.params.get("key_file") or "", "key_file")

    def _access_of_live(self) -> Access:
        """How to reach the repository for the server behind the login options."""
        if self._live is None:
            with contextlib.closing(connect(self.params, application_name="wellkept backup")) as connection:
                data = str(value(connection, "SHOW data_directory"))
            self._live = read_access(self.params, name_of(os.stat(data).st_uid), self._key)
        return self._live

    def _sets_by(self, access: Access) -> Sets:
        if access not in self._sets:
            self._sets[access] = Sets(Tool(access))
        return self._sets[access]


def _readings(backup: Backup, remembered: Remembered | None) -> Readings | None:
    """What is remembered of the reading of the set of *backup*."""
    return remembered.of(backup._replace(label=f"{backup.label}.pgbackrest")) if remembered else None


def _segments(backup: Backup) -> list[str]:
    metadata = backup.metadata
    size = int(metadata["settings"]["wal_segment_size"])
    return segments_between(metadata["timeline"], metadata["start_lsn"], metadata["restore_point"]["lsn"], size)


def _existing_user(name: str) -> str:
    if os.geteuid() != 0:
        return name
    try:
        pwd.getpwnam(name)
    except KeyError:
        raise MaintenanceError(
            "run pgBackRest as the user of the server",
            expected=f"the user {name}, who made the backup",
            observed="there is no such user on this host",
            advice=f"Install PostgreSQL, or create the user {name}.",
        ) from None
    return name
