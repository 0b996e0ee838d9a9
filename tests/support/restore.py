"""Backups to restore, and the options of the restore test for a test's own server and directories."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine, Order
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    Backup,
    Repository,
    write_metadata,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.flow import Plan, prove
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.live_cluster import Live
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_directory import prepare_base
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

from support.modules import run_module
from support.postgresql import UNPRIVILEGED, PostgresServer

CLUSTER = "main"
PAGE = 8192

Tamper = Callable[[Path], None]


class RestoreSite:
    """A server, a repository for its backups and a place for scratch clusters, all in a test's own directory."""

    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self.server = server
        self.root = directory / "repository"
        self.state_dir = directory / "state"
        self.scratch_dir = self.state_dir / "restore_test" / "scratch"
        self.repository = Repository(str(self.root), CLUSTER)
        self.bin_dir = str(server.bin_dir)
        self.engine = CoreEngine(self.repository, self.bin_dir)
        # Content can be compared only where the point was found in time, however slow the machine: a wait for locks is
        # bounded by both, this and max_block.
        server.sql("ALTER SYSTEM SET deadlock_timeout = '5min'")
        server.sql("SELECT pg_reload_conf()")

    def login(self) -> dict[str, Any]:
        return {**self.server.login(), "login_host": "", "login_password": "", "login_db": "postgres"}

    def back_up(self, parent: str = "", **options: Any) -> Backup:
        """Make a full backup, or an incremental one on *parent*."""
        self.repository.prepare()
        kind = "incremental" if parent else "full"
        order = Order(type=kind, parent=parent, started=datetime.now(UTC), **{"max_block": 120.0, **options})
        backup, _creation = self.engine.create(self.login(), order, {})
        return backup

    def options(self, **others: Any) -> dict[str, Any]:
        return {
            **self.server.login(),
            "repository": str(self.root),
            "cluster": CLUSTER,
            "state_dir": str(self.state_dir),
            "bin_dir": self.bin_dir,
            "run_as": UNPRIVILEGED,
            "interval": "0s",
            **others,
        }

    def test(self, check: bool = False, **others: Any) -> dict[str, Any]:
        """Run the module restore_test."""
        return run_module("restore_test", self.options(**others), check=check)

    def rewrite(self, backup: Backup, **changes: Any) -> None:
        """Change what the backup recorded, with its own hash made to fit: what a careful forger would do."""
        write_metadata(backup.directory, {**backup.metadata, **changes})

    def scratch_names(self) -> list[str]:
        return sorted(path.name for path in self.scratch_dir.iterdir()) if self.scratch_dir.exists() else []

    def servers(self) -> list[int]:
        """Processes of PostgreSQL that work in the scratch directory."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if str(self.scratch_dir).encode() in command:
                found.append(int(process.name))
        return found

    def pgbench(self, *arguments: str, dbname: str = "postgres") -> subprocess.Popen[bytes]:
        command = [
            os.path.join(self.bin_dir, "pgbench"),
            "-h",
            str(self.server.socket_dir),
            "-p",
            str(self.server.port),
        ]
        return subprocess.Popen(
            [*command, "-U", "postgres", *arguments, dbname], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def fill_pgbench(self, scale: int = 1, dbname: str = "postgres") -> None:
        assert self.pgbench("-i", "-q", "-s", str(scale), dbname=dbname).wait() == 0

    @contextmanager
    def busy(self, clients: int = 4, dbname: str = "postgres") -> Iterator[None]:
        """pgbench writes to the live server while the block runs."""
        process = self.pgbench("-n", "-c", str(clients), "-j", "1", "-T", "600", dbname=dbname)
        try:
            yield
            assert process.poll() is None, "pgbench ended too early"
        finally:
            process.terminate()
            process.communicate()

    def prove(self, backup: Backup, tamper: Tamper | None = None, **plan: Any) -> Part:
        """Carry the restore test out in this process; *tamper* changes the restored files before they are started."""
        part = Part()
        prepare_base(str(self.scratch_dir), [])
        engine = TamperingEngine(self.repository, self.bin_dir, tamper) if tamper else self.engine
        user = UNPRIVILEGED
        live = plan.pop("live", Live(data_directory=str(self.server.data)))
        arguments = {"amcheck": False, "restore_dump": False, **plan}
        prove(Plan(engine, backup, str(self.scratch_dir), self.bin_dir, user, live, **arguments), part)
        return part


class TamperingEngine(CoreEngine):
    """The engine, but what it restores is changed before it is started."""

    def __init__(self, repository: Repository, bin_dir: str, tamper: Tamper) -> None:
        super().__init__(repository, bin_dir)
        self.tamper = tamper

    def restore(self, label: str, directory: str, **options: Any) -> None:
        super().restore(label, directory, **options)
        self.tamper(Path(directory))


def change_page(server: PostgresServer, path: Path, number: int, change: Callable[[bytearray], None]) -> None:
    """Change page *number* of the relation file *path* and give it the right checksum: no checksum tells it."""
    content = bytearray(path.read_bytes())
    page = content[number * PAGE : (number + 1) * PAGE]
    change(page)
    with server.connect() as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pageinspect")
        row = connection.execute("SELECT page_checksum(%s, %s)", [bytes(page), number]).fetchone()
    assert row is not None
    page[8:10] = struct.pack("<h", row[0])
    content[number * PAGE : (number + 1) * PAGE] = page
    path.write_bytes(content)
