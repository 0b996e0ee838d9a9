"""A server whose base and WAL pgBackRest keeps, and the activities on it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.processes import as_user

from support.modules import run_module
from support.postgresql import UNPRIVILEGED, PostgresServer, debian_bin_dir, postgres_server

KEY = "a passphrase that nobody guesses"
# Debian's pgBackRest of 2022 knows PostgreSQL up to 15.
MAJOR = 15
# What a repository takes, with room to spare.
_BYTES = 256 << 20


def missing() -> str:
    """Why these tests cannot run here; empty when they can."""
    if not shutil.which("pgbackrest"):
        return "pgBackRest is not installed: apt-get install pgbackrest"
    if not debian_bin_dir(MAJOR):
        return f"PostgreSQL {MAJOR} is not installed: apt-get install postgresql-{MAJOR}"
    return ""


class PgbackrestSite:
    """A server, our catalogue, pgBackRest's repository, and the key of it, in a directory of their own."""

    def __init__(self, server: PostgresServer, directory: Path, repo: Path) -> None:
        self.server = server
        self.directory = directory
        self.catalogue = directory / "catalogue"
        self.config = directory / "pgbackrest.conf"
        self.repo = repo
        self.key_file = directory / "key"
        self.repository = Repository(str(self.catalogue), "main")

    @property
    def user(self) -> str:
        return UNPRIVILEGED if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def reading(self, **others: Any) -> dict[str, Any]:
        """The options of all modules."""
        return {
            "repository": str(self.catalogue),
            "state_dir": str(self.directory / "state"),
            "bin_dir": str(self.server.bin_dir),
            "key_file": str(self.key_file),
            **others,
        }

    def options(self, **others: Any) -> dict[str, Any]:
        """The options of the module backup."""
        return {
            **self.server.login(),
            **self.reading(),
            "engine": "pgbackrest",
            "pgbackrest_config": str(self.config),
            "pgbackrest_repo_path": str(self.repo),
            "pgbackrest_spool_path": str(self.directory / "spool"),
            "compression": "zstd",
            "wal_configure": True,
            "interval": "0",
            "keep_within": "0",
            "min_free_bytes": "1MiB",
            **others,
        }

    def back_up(self, **others: Any) -> dict[str, Any]:
        """Run the module backup; it must do well."""
        shown = run_module("backup", self.options(**others))
        assert not shown["failed"], shown["msg"]
        return shown

    def try_to_back_up(self, *, check: bool = False, **others: Any) -> dict[str, Any]:
        return run_module("backup", self.options(**others), check=check)

    def verify(self, *, check: bool = False, **others: Any) -> dict[str, Any]:
        return run_module("backup_verification", self.reading(**others), check=check)

    def test(self, **others: Any) -> dict[str, Any]:
        """Run the module restore_test."""
        options = {**self.server.login(), **self.reading(), "run_as": self.user, "interval": "0s"}
        return run_module("restore_test", {**options, "amcheck": False, "restore_dump": False, **others})

    def backups(self) -> list[Backup]:
        return self.repository.backups()

    def set_of(self, backup: Backup) -> Path:
        """Where pgBackRest has the set of *backup*."""
        return self.repo / "backup" / "main" / str(backup.metadata["pgbackrest"]["label"])

    def sets(self) -> list[str]:
        return sorted(path.name for path in (self.repo / "backup" / "main").glob("20*"))

    def segment(self, name: str) -> Path:
        """The file of an archived segment."""
        return next((self.repo / "archive" / "main" / "15-1" / name[:16]).glob(f"{name}-*"))

    def pgbackrest(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """pgBackRest as an operator runs it, as the server's user."""
        command = [*as_user(UNPRIVILEGED, "/"), "pgbackrest", f"--config={self.config}", "--stanza=main", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **options)


@contextmanager
def _directory(where: str | None = None) -> Iterator[Path]:
    """A directory of the server's user, not below pytest's, which are private to whom the tests run as."""
    directory = Path(tempfile.mkdtemp(prefix="wellkept-pgbackrest-", dir=where))
    try:
        directory.chmod(0o755)
        if os.geteuid() == 0:
            account = pwd.getpwnam(UNPRIVILEGED)
            os.chown(directory, account.pw_uid, account.pw_gid)
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _memory() -> str | None:
    """A place in memory, where there is room: pgBackRest waits for the disk after each of a thousand small files."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free >= _BYTES else None


@contextmanager
def pgbackrest_site(**settings: str) -> Iterator[PgbackrestSite]:
    """A site whose server runs while the block does; nothing is backed up yet."""
    with (
        _directory() as directory,
        _directory(_memory()) as quick,
        postgres_server({"archive_mode": "on", **settings}, debian_bin_dir(MAJOR)) as server,
    ):
        site = PgbackrestSite(server, directory, quick / "repo")
        site.key_file.write_text(KEY + "\n")
        site.key_file.chmod(0o600)
        server.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 5000) g")
        yield site


def flip(path: Path) -> None:
    """Flip one bit in the middle of the file *path*."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
