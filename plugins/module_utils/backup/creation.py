# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the core engine makes one backup, step by step, in a directory that is not a backup yet."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import typing as t

from ..errors import MaintenanceError
from ..files import read_json, sha256_of
from ..postgresql import connect, databases, program_version, query, server_facts, tool_environment
from ..processes import find_program
from .contents import BASE_MANIFEST
from .engine import IncrementalRefusedError, Order
from .marker import insert_marker
from .point_content import PointContent
from .programs import run_program, sync_file_system
from .reading import base_problems
from .receiver import Receiver, keep_only
from .repository import FORMAT, Backup, Repository, bytes_used, format_time, now, write_metadata
from .stores.registry import names_of_stores
from .verification import NOT_LOOKED_AT, examine, start_verifying_base
from .wal import segments_between
from .wal_keeper import wal_kept

# pg_basebackup's and the server's words when they cannot build on the parent.
_INCREMENTAL_REFUSED = re.compile(r"incremental|WAL summar|summarize_wal|summarization|manifest (system|contains|time)")

# The directories in a backup whose sizes are told; every backup has a size for each, if it is 0.
PARTS = ("base", "wal", "dump", *names_of_stores())

# What a server that is started on a restored copy must or should be told.
_SETTINGS = (
    "wal_segment_size", "shared_preload_libraries", "max_connections", "max_worker_processes", "max_wal_senders",
    "max_prepared_transactions", "max_locks_per_transaction", "wal_level", "block_size", "wal_block_size",
    "data_checksums", "server_encoding", "data_directory", "config_file", "hba_file", "allow_in_place_tablespaces",
)  # fmt: skip


class Creation:
    """One backup in the making: :meth:`carry_out` ends with a complete and verified backup in *directory*."""

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
            raise

    def _carry_out(self) -> None:
        login = self._path(".login")
        os.mkdir(login, 0o700)
        environment = tool_environment(self.params, login)
        with contextlib.closing(connect(self.params, application_name=f"wellkept_{self.label}")) as connection:
            self.metadata = self._describe(connection)
            with self._receiving(connection, environment) as receiver:
                self._copy_base(environment)
                self.metadata["marker"] = insert_marker(connection, self.params["login_db"], self.label)
                self._take_content(connection, receiver, environment)
        shutil.rmtree(login)
        with self._timed("hash"):
            self._complete_metadata()
        with self._timed("verify"):
            self._verify()
        with self._timed("sync"):
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
            "engine": "core",
            "label": self.label,
            "type": self.order.type,
            "parent": self.parent.label if self.parent else None,
            "chain": [*(self.parent.chain if self.parent else []), self.label],
            "cluster": self.repository.cluster,
            "system_identifier": facts["system_identifier"],
            "server_version": facts["version"],
            "settings": {**settings, "wal_segment_size": int(settings["wal_segment_size"])},
            "started": format_time(self.order.started),
            "tools": {name: program_version(self.bin_dir, name) for name in ("pg_basebackup", "pg_dump")},
        }

    @contextlib.contextmanager
    def _receiving(self, connection: t.Any, environment: dict[str, str]) -> t.Iterator[Receiver]:
        program = find_program("pg_receivewal", self.bin_dir) or "pg_receivewal"
        name = f"wellkept_{self.label}"
        with wal_kept(self.params, self.label, name):
            receiver = Receiver(program, self._path("wal"), environment, name)
            try:
                receiver.wait_until_streaming(connection)
                yield receiver
            except BaseException:
                receiver.kill()
                raise
            receiver.stop()
        keep_only(self._path("wal"), self._needed_segments())

    def _copy_base(self, environment: dict[str, str]) -> None:
        # No slot: one that a killed run left would fill the server's disk. The WAL comes by the receiver.
        command = [
            os.path.join(self.bin_dir, "pg_basebackup"), "--pgdata", self._path("base"), "--checkpoint=fast",
            "--wal-method=none", "--no-slot", "--no-sync", "--no-password", f"--label=wellkept {self.label}",
            f"--manifest-checksums={self.order.manifest_checksums}",
        ]  # fmt: skip
        if self.parent:
            command.append(f"--incremental={self.parent.path(BASE_MANIFEST)}")
        what = f"take the {self.order.type} base backup"
        with self._timed("base"):
            try:
                run_program(command, {**environment, "PGAPPNAME": f"wellkept_{self.label}"}, self.order.timeout, what)
            except MaintenanceError as error:
                if self.parent and _INCREMENTAL_REFUSED.search(error.observed):
                    raise IncrementalRefusedError(
                        error.what, expected=error.expected, observed=error.observed, advice=error.advice
                    ) from None
                raise
        last = read_json(self._path(BASE_MANIFEST))["WAL-Ranges"][-1]
        self.metadata["timeline"] = int(last["Timeline"])
        self.metadata["start_lsn"], self.metadata["stop_lsn"] = last["Start-LSN"], last["End-LSN"]

    def _take_content(self, connection: t.Any, receiver: Receiver, environment: dict[str, str]) -> None:
        """What is saved at the consistent point, while pg_verifybackup reads the base beside it."""
        verifying = start_verifying_base(self.bin_dir, self._path("base"))
        try:
            self.content.take(databases(connection), environment)
            self.metadata.update(self.content.metadata())
            with self._timed("wal"):
                receiver.finish_segment(connection, self._needed_segments()[-1])
            with self._timed("verify_base"):
                said, _nothing = verifying.communicate()
        except BaseException:
            verifying.kill()
            verifying.communicate()
            raise
        problems = base_problems(verifying.returncode, said)
        _refuse("verify the base backup that was just made", self._path("base"), problems)

    def _complete_metadata(self) -> None:
        hashed = [BASE_MANIFEST, *(f"base/{name}" for name in NOT_LOOKED_AT)]
        hashed += [f"wal/{name}" for name in os.listdir(self._path("wal"))]
        entries = [{"path": path, **written._asdict()} for path, written in self.content.written.items()]
        for path in hashed:
            if os.path.exists(self._path(path)):
                size = os.path.getsize(self._path(path))
                entries.append({"path": path, "sha256": sha256_of(self._path(path)), "bytes": size})
        parts = {part: bytes_used(self._path(part)) for part in PARTS}
        self.metadata.update(
            files=sorted(entries, key=lambda entry: str(entry["path"])),
            empty_directories=_empty_directories(self.directory),
            bytes_by_part=parts,
            bytes=sum(parts.values()),
            finished=now(),
        )
        self.metadata["verified"] = {"at": self.metadata["finished"], "by": "pg_verifybackup, pg_waldump, SHA-256"}
        write_metadata(self.directory, self.metadata)

    def _verify(self) -> None:
        """Read back from the disk what was hashed on its way there; the base was read by pg_verifybackup before."""
        backup = Backup(self.label, self.directory, self.metadata)
        problems = examine(backup, self.bin_dir, base=False).problems
        _refuse("verify the backup that was just made", self.directory, problems)

    def _needed_segments(self) -> list[str]:
        return segments_between(
            self.metadata["timeline"],
            self.metadata["start_lsn"],
            self.metadata["restore_point"]["lsn"],
            self.metadata["settings"]["wal_segment_size"],
        )

    @contextlib.contextmanager
    def _timed(self, phase: str) -> t.Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[phase] = time.monotonic() - began

    def _path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)


def _refuse(what: str, where: str, problems: list[str]) -> None:
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
