# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How pgBackRest takes a base, and how we see that all WAL up to the point of the content is in its repository."""

from __future__ import annotations

import os
import typing as t

from ...errors import MaintenanceError
from ...files import sha256_of, write_json
from ...postgresql import databases
from ..creation import Creation
from ..engine import IncrementalRefusedError
from ..programs import Written
from ..repository import Backup
from ..verification import examine
from ..wal import archiving
from .sets import LISTING, Sets, set_problems
from .wal import PgbackrestWal
from .wal_keeping import wait_for


class PgbackrestCreation(Creation):
    """A backup whose base and WAL pgBackRest keeps, in the making; *sets* is what it keeps."""

    engine = "pgbackrest"
    tools = ("pg_dump",)
    verified_by = "pgbackrest verify, SHA-256"

    def __init__(self, *arguments: t.Any, sets: Sets, differential: bool = False, **options: t.Any) -> None:
        super().__init__(*arguments, **options)
        self.sets = sets
        self.differential = differential
        self._wal_bytes = 0

    def take(self, connection: t.Any, environment: dict[str, str]) -> None:
        found = archiving.measure(connection)
        with self.timed("base"):
            self._back_up()
        self.write_marker(connection)
        self.content.take(databases(connection), environment)
        self.metadata.update(self.content.metadata())
        with self.timed("wal"):
            lsn = self.metadata["restore_point"]["lsn"]
            archiving.switch(connection, lsn, self.metadata["settings"]["wal_segment_size"])
            self._wait_for_wal(connection, found)
        write_json(self.path(LISTING), self.sets.listing(self.metadata["pgbackrest"]["label"]))

    def _back_up(self) -> None:
        kind = "full"
        if self.parent:
            kind = "diff" if self.differential else "incr"
            self._refuse_other_parent(kind)
        self.sets.tool.run(
            "backup",
            f"--type={kind}",
            f"--annotation=wellkept={self.label}",
            "--start-fast",
            "--no-resume",
            "--no-expire-auto",
            what=f"take the {self.order.type} base backup with pgBackRest",
            timeout=self.order.timeout,
            environment=_password(self.params),
        )
        made = self.sets.by_annotation(self.label)
        if made is None:
            raise MaintenanceError(
                "take a base backup with pgBackRest",
                where=self.sets.words,
                expected=f"a set with the annotation wellkept={self.label}",
                observed="pgbackrest backup ended well, but there is none",
                advice="See whether pgbackrest_config leads to one repository, which lists what it makes.",
            )
        self.metadata.update(
            timeline=int(made["archive"]["start"][:8], 16),
            start_lsn=made["lsn"]["start"],
            stop_lsn=made["lsn"]["stop"],
            pgbackrest=self.sets.describe(made),
        )

    def _refuse_other_parent(self, kind: str) -> None:
        """pgBackRest builds on the newest that it has; that must be what we want to build on."""
        wanted = self.parent.metadata["pgbackrest"]["label"] if self.parent else ""
        newest = self.sets.newest(full=kind == "diff")
        if newest != wanted:
            raise IncrementalRefusedError(
                "take an incremental base backup with pgBackRest",
                where=self.sets.words,
                expected=f"{wanted}, which {self.parent.label if self.parent else ''} is, to be its newest set",
                observed=f"its newest is {newest or 'none'}, which is in no catalogue of ours",
                advice="Leave it to this activity to make backups with pgBackRest.",
            )

    def _wait_for_wal(self, connection: t.Any, before: archiving.Found) -> None:
        """All segments from the start of the base to the point of the content are in the repository."""
        wal: PgbackrestWal = self.sets.wal(self.metadata)
        needed = set(self.needed_segments())
        missing = wait_for(connection, wal, needed, before)
        if missing:
            raise MaintenanceError(
                "have the WAL of the backup archived",
                where=wal.where,
                expected=f"{len(needed)} segments up to the point of the content",
                observed=missing,
                advice="See the server's log for what the archive_command says.",
            )
        self._wal_bytes = sum(segment.size for segment in wal.archived() if segment.name in needed)

    def written(self) -> dict[str, Written]:
        path = self.path(LISTING)
        return {LISTING: Written(sha256_of(path), os.path.getsize(path))}

    def sizes(self) -> dict[str, int]:
        base = int(self.metadata["pgbackrest"]["stored_bytes"])
        return {**super().sizes(), "base": base, "wal": self._wal_bytes}

    def problems(self, backup: Backup) -> list[str]:
        """What pgBackRest says of its set when it reads it back, and what we find in what is here."""
        found = self.sets.verdict([backup]).of(backup.metadata["pgbackrest"]["label"])
        return [*examine(backup, self.bin_dir).problems, *set_problems(self.sets, backup), *found]

    def abandon(self) -> None:
        self.sets.remove_leftover(self.label)


def _password(params: t.Mapping[str, t.Any]) -> dict[str, str]:
    return {"PGPASSWORD": params["login_password"]} if params.get("login_password") else {}
