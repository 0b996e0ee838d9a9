# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How an engine makes one backup, step by step, in a directory that is not a backup yet.

What every engine does is here; how base and WAL come about, each engine's own class says.
"""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
import time
import typing as t

from ..errors import MaintenanceError
from ..postgresql import connect, program_version, query, server_facts, tool_environment
from .engine import Order
from .marker import insert_marker
from .point_content import PointContent
from .programs import Written, sync_file_system
from .repository import FORMAT, Backup, Repository, bytes_used, format_time, now, write_metadata
from .stores.registry import names_of_stores
from .wal.positions import segments_between

# The directories in a backup whose sizes are told; every backup has a size for each, if it is 0.
PARTS = ("base", "wal", "dump", *names_of_stores())

# What a server that is started on a restored copy must or should be told.
_SETTINGS = (
    "wal_segment_size", "shared_preload_libraries", "max_connections", "max_worker_processes", "max_wal_senders",
    "max_prepared_transactions", "max_locks_per_transaction", "wal_level", "block_size", "wal_block_size",
    "data_checksums", "server_encoding", "data_directory", "config_file", "hba_file", "allow_in_place_tablespaces",
)  # fmt: skip


class Creation(abc.ABC):
    """One backup in the making: :meth:`carry_out` ends with a complete and verified backup in *directory*."""

    # The engine's name, the programs whose versions are recorded, and what verified the backup, in words.
    engine: t.ClassVar[str]
    tools: t.ClassVar[t.Sequence[str]]
    verified_by: t.ClassVar[str]

    @abc.abstractmethod
    def take(self, connection: t.Any, environment: dict[str, str]) -> None:
        """Take the base, the marker, the content, and the WAL from the start of the base to the point of the content.

        Puts ``timeline``, ``start_lsn`` and ``stop_lsn`` into ``metadata``. *environment* lets programs log in.
        """

    @abc.abstractmethod
    def written(self) -> dict[str, Written]:
        """Files of the engine's own in the backup, by their paths in it."""

    @abc.abstractmethod
    def problems(self, backup: Backup) -> list[str]:
        """What is wrong with the complete *backup*, read back from where it was written to."""

    def sizes(self) -> dict[str, int]:
        """Bytes of the parts of the backup, wherever they are."""
        return {part: bytes_used(self.path(part)) for part in PARTS}

    def abandon(self) -> None:  # noqa: B027 (most engines do nothing outside of it)
        """Take back what was done outside of the directory, for a backup that does not come about."""

    def __init__(
        self,
        params: t.Mapping[str, t.Any],
        order: Order,
        *,
        bin_dir: str,
        label: str,
        directory: str,
        repository: Repository,
        parent: Backup | None,
    ) -> None:
        self.params = params
        self.order = order
        self.bin_dir = bin_dir
        self.label = label
        self.directory = directory
        self.repository = repository
        self.parent = parent
        self.metadata: dict[str, t.Any] = {}
        self.content = PointContent(
            params, order, bin_dir=bin_dir, label=label, directory=directory, repository=repository
        )
        self.seconds = self.content.seconds

    def carry_out(self) -> None:
        """Make the backup; raises MaintenanceError, and the directory is then of no use."""
        try:
            self._carry_out()
        except BaseException:
            self.content.abandon()
            self.abandon()
            raise

    def _carry_out(self) -> None:
        login = self.path(".login")
        os.mkdir(login, 0o700)
        environment = tool_environment(self.params, login)
        with contextlib.closing(connect(self.params, application_name=f"wellkept_{self.label}")) as connection:
            self.metadata = self._describe(connection)
            self.take(connection, environment)
        shutil.rmtree(login)
        with self.timed("hash"):
            self._complete_metadata()
        with self.timed("verify"):
            self._verify()
        with self.timed("sync"):
            sync_file_system(self.directory)

    def _describe(self, connection: t.Any) -> dict[str, t.Any]:
        facts = server_facts(connection)
        settings = {
            row["name"]: row["setting"]
            for row in query(
                connection, "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)", [list(_SETTINGS)]
            )
        }
        return {
            "format": FORMAT,
            "engine": self.engine,
            "label": self.label,
            "type": self.order.type,
            "parent": self.parent.label if self.parent else None,
            "chain": [*(self.parent.chain if self.parent else []), self.label],
            "cluster": self.repository.cluster,
            "system_identifier": facts["system_identifier"],
            "server_version": facts["version"],
            "settings": {**settings, "wal_segment_size": int(settings["wal_segment_size"])},
            "started": format_time(self.order.started),
            "tools": {name: program_version(self.bin_dir, name) for name in self.tools},
        }

    def write_marker(self, connection: t.Any) -> None:
        """Write the row that must be there after a restore to the point of the content, which is still to come."""
        self.metadata["marker"] = insert_marker(connection, self.params["login_db"], self.label)

    def _complete_metadata(self) -> None:
        written = {**self.content.written, **self.written()}
        parts = self.sizes()
        self.metadata.update(
            files=[{"path": path, **entry._asdict()} for path, entry in sorted(written.items())],
            empty_directories=_empty_directories(self.directory),
            bytes_by_part=parts,
            bytes=sum(parts.values()),
            finished=now(),
        )
        self.metadata["verified"] = {"at": self.metadata["finished"], "by": self.verified_by}
        write_metadata(self.directory, self.metadata)

    def _verify(self) -> None:
        """Read back from the disk what was hashed on its way there."""
        problems = self.problems(Backup(self.label, self.directory, self.metadata))
        refuse_problems("verify the backup that was just made", self.directory, problems)

    def needed_segments(self) -> list[str]:
        return segments_between(
            self.metadata["timeline"],
            self.metadata["start_lsn"],
            self.metadata["restore_point"]["lsn"],
            self.metadata["settings"]["wal_segment_size"],
        )

    @contextlib.contextmanager
    def timed(self, phase: str) -> t.Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = time.monotonic() - began

    def path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)


def refuse_problems(what: str, where: str, problems: list[str]) -> None:
    if problems:
        raise MaintenanceError(
            what,
            where=where,
            expected="every byte as it was sent",
            observed="; ".join(problems[:5]),
            advice="Look at the disk and memory of the host. Nothing was kept of this backup.",
        )


def _empty_directories(directory: str) -> list[str]:
    """Directories that hold nothing, and so are in no manifest, but must be there (pg_notify, for one)."""
    return sorted(
        os.path.relpath(parent, directory) for parent, below, names in os.walk(directory) if not below + names
    )
