"""The ways to back up and to verify that are compared: each in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.reading import drop_cached
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import bytes_used
from support.modules import run_module
from support.postgresql import PostgresServer

QUIET = ("--log-level-file=off", "--log-level-console=error", "--log-level-stderr=off")


@dataclass
class Measured:
    """What one way took: seconds, bytes that it wrote or read, and the seconds of its phases where it tells them."""

    seconds: float
    bytes: int
    phases: dict[str, float]


class BackupWays:
    """Backups of *server*, and their verification; nothing is kept from one round to the next."""

    def __init__(self, server: PostgresServer, directory: Path, jobs: int) -> None:
        self.server = server
        self.directory = directory
        self.jobs = jobs
        self.environment = {
            **os.environ, "PGHOST": str(server.socket_dir), "PGPORT": str(server.port), "PGUSER": "postgres"
        }  # fmt: skip

    def place(self, name: str) -> Path:
        return self.directory / name

    # -- backups --

    def copy(self) -> Measured:
        """No backup, but what the disk can do."""
        target = self.place("copy")

        def work() -> None:
            run("cp", "-a", "--reflink=never", str(self.server.data), str(target))
            run("sync", "-f", str(target))

        measured = self._timed(work, target)
        shutil.rmtree(target)
        return measured

    def basebackup(self, name: str, *options: str) -> Measured:
        target = self.place(name)
        command = [str(self.server.bin_dir / "pg_basebackup"), "-D", str(target), "--checkpoint=fast", *options]
        return self._timed(lambda: run(*command, environment=self.environment), target)

    def pgbackrest(self, name: str, *options: str) -> Measured:
        target = self.place(name)
        target.mkdir()
        command = ["pgbackrest", *self._pgbackrest_options(target)]
        run(*command, "stanza-create")
        backup = [f"--process-max={self.jobs}", "--start-fast", "--no-archive-check", "--type=full", *options]
        return self._timed(lambda: run(*command, *backup, "backup"), target)

    def _pgbackrest_options(self, target: Path) -> list[str]:
        paths = {"repo1-path": target / "repository", "lock-path": target / "lock"}
        server = {"pg1-path": self.server.data, "pg1-socket-path": self.server.socket_dir, "pg1-port": self.server.port}
        options = [f"--{name}={setting}" for name, setting in (paths | server).items()]
        return ["--no-config", "--stanza=main", "--pg1-user=postgres", *options, *QUIET]

    def module(self, name: str, **options: Any) -> Measured:
        began = time.monotonic()
        shown = run_module("backup", {**self._options(name), **self.server.login(), **options}, timeout=3600)
        seconds = time.monotonic() - began
        assert not shown["failed"], shown["msg"]
        return Measured(seconds, self._size(self.place(name)), phases(shown))

    # -- verifications, all from the disk and not from memory --

    def pg_verifybackup(self, name: str) -> Measured:
        self._forget(self.place(name))
        command = [str(self.server.bin_dir / "pg_verifybackup"), "--no-parse-wal", str(self.place(name))]
        return self._timed(lambda: run(*command), self.place(name))

    def pgbackrest_verify(self, name: str) -> Measured:
        """Its exit status says nothing, and no WAL was archived for it to read: the reading of the files counts."""
        self._forget(self.place(name))
        where = f"--repo1-path={self.place(name) / 'repository'}"
        command = ["pgbackrest", "--no-config", "--stanza=main", where, f"--process-max={self.jobs}", *QUIET, "verify"]
        return self._timed(lambda: run(*command), self.place(name))

    def verification(self, name: str) -> Measured:
        self._forget(self.place(name))
        options = {key: value for key, value in self._options(name).items() if key not in ("interval", "full_every")}
        shown = run_module("backup_verification", options, timeout=3600)
        assert not shown["failed"], shown["msg"]
        metrics = shown["metrics"]
        # The module's own time: Python's start, about 0.3 s, is the same for a gigabyte and for a terabyte.
        return Measured(metrics["verification_seconds"]["value"], metrics["verified_bytes"]["value"], {})

    def forget_readings(self, name: str) -> None:
        """So that what is verified next is verified for the first time."""
        shutil.rmtree(self.place(name) / "repository" / "main" / "verified", ignore_errors=True)

    def end(self) -> None:
        shutil.rmtree(self.directory)

    def _options(self, name: str) -> dict[str, Any]:
        return {
            "bin_dir": str(self.server.bin_dir),
            "repository": str(self.place(name) / "repository"),
            "state_dir": str(self.place(name) / "state"),
        }

    def _timed(self, work: Callable[[], Any], target: Path) -> Measured:
        began = time.monotonic()
        work()
        return Measured(time.monotonic() - began, self._size(target), {})

    def _size(self, target: Path) -> int:
        return bytes_used(str(target))

    def _forget(self, target: Path) -> None:
        os.sync()
        for path in target.rglob("*"):
            if path.is_file():
                drop_cached(str(path))


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


def phases(shown: dict[str, Any]) -> dict[str, float]:
    """Seconds of the phases that a module tells of."""
    return {
        name.removesuffix("_seconds"): metric["value"]
        for name, metric in shown["metrics"].items()
        if name.endswith("_seconds")
    }
