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
from concurrent.futures import ThreadPoolExecutor

from .. import fingerprint
from ..errors import MaintenanceError
from ..files import read_json, sha256_of, write_json
from ..postgresql import connect, databases, program_version, query, server_facts, tool_environment
from ..processes import find_program
from .consistent_point import Point, Session, consistent_point, plain_point
from .contents import BASE_MANIFEST, FILES_MANIFEST
from .dump import DumpBlockedError, dump_database, dump_globals
from .engine import IncrementalRefusedError, Order
from .files import Copied, copy_tree
from .marker import insert_marker
from .programs import Written, run_program, sync_file_system
from .reading import base_problems
from .receiver import Receiver, keep_only
from .repository import FORMAT, Backup, bytes_used, format_time, now, write_metadata
from .verification import NOT_LOOKED_AT, examine, start_verifying_base
from .wal import segments_between
from .wal_keeper import wal_kept

# pg_basebackup's and the server's words when they cannot build on the parent.
_INCREMENTAL_REFUSED = re.compile(r"incremental|WAL summar|summarize_wal|summarization|manifest (system|contains|time)")

# How many points to try when statements that change tables come in between.
_POINTS = 4
# Dumps at a time.
_DUMPS = 4

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
        parent: Backup | None,
    ) -> None:
        self.params = params
        self.order = order
        self.bin_dir = bin_dir
        self.label = label
        self.directory = directory
        self.parent = parent
        self.seconds: dict[str, float] = {}
        self.copies: list[Copied] = []
        self.point: Point | None = None
        self.metadata: dict[str, t.Any] = {}
        self._written: dict[str, Written] = {}

    def carry_out(self, cluster: str) -> None:
        """Make the backup; raises MaintenanceError, and the directory is then of no use."""
        login = self._path(".login")
        os.mkdir(login, 0o700)
        environment = tool_environment(self.params, login)
        with contextlib.closing(connect(self.params, application_name=f"wellkept_{self.label}")) as connection:
            self.metadata = self._describe(connection, cluster)
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

    def _describe(self, connection: t.Any, cluster: str) -> dict[str, t.Any]:
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
            "cluster": cluster,
            "system_identifier": facts["system_identifier"],
            "server_version": facts["version"],
            "settings": {**settings, "wal_segment_size": int(settings["wal_segment_size"])},
            "started": format_time(self.order.started),
            "databases": {},
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
        """Fingerprints and dumps at the consistent point, while pg_verifybackup reads the base beside them."""
        verifying = start_verifying_base(self.bin_dir, self._path("base"))
        try:
            self._take_content_at_some_point(databases(connection), environment)
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

    def _take_content_at_some_point(self, names: list[str], environment: dict[str, str]) -> None:
        """Try again at another point when a statement got in the dump's way; in the end do without the comparison."""
        for attempt in range(1, _POINTS + 1):
            prefix = f"{self.label}_{attempt}"
            try:
                with consistent_point(self.params, names, prefix, max_block=self.order.max_block) as point:
                    self._take_content_at(point, names, environment)
                return
            except DumpBlockedError as error:
                self._forget_content()
                missed = point._replace(
                    reason=f"tables are altered, truncated or dropped all the time: {error.observed}"
                )
        self._take_content_at(plain_point(self.params, self.label, missed), names, environment)

    def _take_content_at(self, point: Point, names: list[str], environment: dict[str, str]) -> None:
        self.point = point
        self.metadata["restore_point"] = {"name": point.name, "lsn": point.lsn, "time": point.time}
        with self._timed("content"):
            self._record_content(point, names, environment)

    def _forget_content(self) -> None:
        """Begin again at another point."""
        for part in ("dump", "files"):
            shutil.rmtree(self._path(part), ignore_errors=True)
        self._written.clear()
        self.copies.clear()
        self.metadata["databases"] = {}

    def _record_content(self, point: Point, names: list[str], environment: dict[str, str]) -> None:
        sessions = {session.database: session for session in point.sessions if not point.reason}
        with ThreadPoolExecutor(1 + _DUMPS) as pool:
            others = [pool.submit(self._copy_files)]
            if self.order.dump:
                os.mkdir(self._path("dump"), 0o700)
                began = time.monotonic()
                # All at once: while one dump waited for another, statements that change tables could get in its way.
                others += [
                    pool.submit(self._dump, number, name, sessions.get(name), environment)
                    for number, name in enumerate(names)
                ]
                others.append(pool.submit(self._dump_globals, environment))
            self.metadata["fingerprints"] = {
                name: fingerprint.fingerprint(session.reader, session.tables) for name, session in sessions.items()
            }
            for other in others:
                other.result()
            if self.order.dump:
                self.seconds["dump"] = time.monotonic() - began
        self.metadata["not_compared"] = _not_compared(sessions, names, point.reason)

    def _dump(self, number: int, name: str, session: Session | None, environment: dict[str, str]) -> None:
        path = f"dump/{number}.dump"
        self._written[path] = dump_database(self.bin_dir, self._path(path), name, session, environment)
        self.metadata["databases"][name] = {"file": path, **self._written[path]._asdict()}

    def _dump_globals(self, environment: dict[str, str]) -> None:
        path = "dump/globals.sql"
        self._written[path] = dump_globals(self.bin_dir, self._path(path), self.params["login_db"], environment)

    def _copy_files(self) -> None:
        if not self.order.directories:
            return
        os.mkdir(self._path("files"), 0o700)
        with self._timed("files"):
            for number, source in enumerate(self.order.directories):
                self.copies.append(copy_tree(source, self._path("files", str(number))))
        manifest = [{"source": copied.source, "entries": copied.entries} for copied in self.copies]
        write_json(self._path(FILES_MANIFEST), manifest)

    def _complete_metadata(self) -> None:
        hashed = [BASE_MANIFEST, *(f"base/{name}" for name in NOT_LOOKED_AT), FILES_MANIFEST]
        hashed += [f"wal/{name}" for name in os.listdir(self._path("wal"))]
        entries = [{"path": path, **written._asdict()} for path, written in self._written.items()]
        for path in hashed:
            if os.path.exists(self._path(path)):
                size = os.path.getsize(self._path(path))
                entries.append({"path": path, "sha256": sha256_of(self._path(path)), "bytes": size})
        parts = {part: bytes_used(self._path(part)) for part in ("base", "wal", "dump", "files")}
        self.metadata.update(
            files=sorted(entries, key=lambda entry: str(entry["path"])),
            empty_directories=_empty_directories(self.directory),
            application_files=[
                {
                    "source": copied.source,
                    "directory": f"files/{number}",
                    "count": copied.files,
                    "bytes": copied.bytes,
                    "changing": _shown(copied.changing),
                }
                for number, copied in enumerate(self.copies)
            ],
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


def _not_compared(sessions: dict[str, Session], names: list[str], reason: str) -> list[dict[str, str]]:
    """Tables at which a restore test cannot compare content, each with its database and the reason."""
    if reason:
        return [{"database": name, "table": "*", "reason": reason} for name in names]
    return [{"database": name, **entry} for name, session in sessions.items() for entry in session.not_compared]


def _empty_directories(directory: str) -> list[str]:
    """Directories that hold nothing, and so are in no manifest, but must be there (pg_notify, for one)."""
    return sorted(
        os.path.relpath(parent, directory) for parent, below, names in os.walk(directory) if not below + names
    )


def _shown(paths: list[str]) -> list[str]:
    """*paths* as text that every reader of JSON accepts."""
    return [path.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for path in paths]
