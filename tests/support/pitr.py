"""A server that archives its WAL, a log of what was committed when, and restores of it to points in time."""

from __future__ import annotations

import os
import random
import re
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.wellkept.maintenance.plugins.module_utils import postgresql
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import archive as wal_archive
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.positions import format_lsn, parse_lsn
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import replay
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.aim import take_aim
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_cluster import ScratchCluster
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_directory import (
    prepare_base,
    scratch_directory,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.targets import parse
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

from support.modules import run_module
from support.postgresql import UNPRIVILEGED, PostgresServer

SETTINGS = {"archive_mode": "on", "track_commit_timestamp": "on", "wal_keep_size": "4GB", "max_wal_size": "4GB"}
_COMMIT = re.compile(r"tx:\s+(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev \S+, desc: COMMIT ")


class Committed(NamedTuple):
    """One transaction of the writers, by what the server itself says of it."""

    xid: int
    time: datetime
    lsn: int


class Restored(NamedTuple):
    rows: set[int]
    part: Part
    timeline: str


class PitrSite:
    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self.server = server
        self.directory = directory
        self.archive = server.directory / "archive"
        self.repository = Repository(str(directory / "repository"), "main")
        self.bin_dir = str(server.bin_dir)
        self.engine = CoreEngine(self.repository, self.bin_dir)
        (row,) = server.sql("SELECT system_identifier::text FROM pg_control_system()")
        self.wal = Path(wal_archive.directory_of(str(self.archive), row[0]))
        self.points: dict[str, int] = {}

    def options(self, **others: Any) -> dict[str, Any]:
        return {
            **self.server.login(),
            "bin_dir": self.bin_dir,
            "repository": str(self.directory / "repository"),
            "state_dir": str(self.directory / "state"),
            "wal_archive": str(self.archive),
            **others,
        }

    def back_up(self, **others: Any) -> dict[str, Any]:
        """Run the activity; with a young backup, it only sends a marker through the archive."""
        options = self.options(min_free_bytes="1MiB", dump=False, wal_configure=True, **others)
        shown = run_module("backup", options)
        assert not shown["failed"], shown["msg"]
        return shown

    def write(self, commits: int, writers: int = 3) -> None:
        """Let some writers commit rows at once, and now and then end a segment or name a point."""

        def writer(seed: int) -> None:
            chance = random.Random(seed)
            with self.server.connect() as connection:
                for _number in range(commits // writers):
                    with connection.transaction():
                        connection.execute("INSERT INTO log SELECT pg_current_xact_id()::text::bigint, %s", ["x" * 50])
                        if chance.random() < 0.1:
                            connection.execute("INSERT INTO log SELECT 0, '' FROM generate_series(1, 300)")
                    if chance.random() < 0.08:
                        name = f"point_{seed}_{len(self.points)}"
                        (row,) = connection.execute("SELECT pg_create_restore_point(%s)::text", [name]).fetchall()
                        self.points[name] = parse_lsn(row[0])
                    if chance.random() < 0.05:
                        connection.execute("SELECT pg_switch_wal()")

        threads = [threading.Thread(target=writer, args=(seed,)) for seed in range(writers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def committed(self) -> list[Committed]:
        """What the writers committed, in the order of the WAL: times from the server, positions by pg_waldump."""
        rows = self.server.sql(
            "SELECT DISTINCT xid, pg_xact_commit_timestamp(xid::text::xid) FROM log WHERE xid > 0 ORDER BY 1"
        )
        wanted = {xid: moment.astimezone(UTC) for xid, moment in rows}
        directory = self.server.data / "pg_wal"
        first = min(path.name for path in directory.iterdir() if re.fullmatch("[0-9A-F]{24}", path.name))
        command = [os.path.join(self.bin_dir, "pg_waldump"), "-p", str(directory), "-r", "Transaction"]
        command += ["-t", "1", "-s", format_lsn(wal_archive.end_of(first, 16 << 20) - (16 << 20))]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        lsns = {int(xid): parse_lsn(lsn) for xid, lsn in _COMMIT.findall(said)}
        return sorted((Committed(xid, moment, lsns[xid]) for xid, moment in wanted.items()), key=lambda c: c.lsn)

    def backups(self) -> list[Backup]:
        return self.repository.backups()

    def restore(self, text: str, *, tamper: Callable[[Path], None] | None = None, timeline: int = 0) -> Restored:
        """Restore to a point, and say which rows of the log are there; *tamper* gets the scratch directory before."""
        scratch = self.directory / "scratch"
        prepare_base(str(scratch), [])
        bin_dir = self.bin_dir
        archive = str(self.wal)
        aim = take_aim(parse(text), self.backups(), self.engine, archive=archive, bin_dir=bin_dir, timeline=timeline)
        part = Part()
        with scratch_directory(str(scratch), {}) as directory:
            cluster = ScratchCluster(directory, bin_dir, UNPRIVILEGED)
            try:
                replay.lay_down(self.engine, aim.backup, aim.wal.source, cluster)
                replay.configure(aim, cluster)
                if tamper:
                    tamper(Path(directory))
                recovered = replay.start(aim, cluster, 120, part)
                if recovered is None:
                    return Restored(set(), part, "")
                cluster.find_superuser(("postgres",), "postgres")
                replay.check_markers(aim, recovered, cluster, part)
                connection = cluster.connect("postgres")
                rows = postgresql.query(connection, "SELECT DISTINCT xid FROM log WHERE xid > 0")
                connection.close()
                return Restored({row["xid"] for row in rows}, part, recovered.timeline)
            finally:
                cluster.stop()
