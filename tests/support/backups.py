"""Real backups of a real server, made once, and copies of them that a test may harm."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    Backup,
    Repository,
    write_metadata,
)

from support.modules import run_module
from support.postgresql import embedded_bin_dir, postgres_server

MONTH = 30 * 86400.0


class BackupSite:
    """A repository with backups, its engine, and the module that verifies it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "repository"
        self.repository = Repository(str(self.root), "main")
        self.engine = CoreEngine(self.repository, str(embedded_bin_dir()))

    @property
    def backups(self) -> list[Backup]:
        return self.repository.backups()

    def options(self, **others: Any) -> dict[str, Any]:
        return {
            "repository": str(self.root),
            "state_dir": str(self.directory / "state"),
            "bin_dir": str(embedded_bin_dir()),
            **others,
        }

    def verify(self, check: bool = False, **others: Any) -> dict[str, Any]:
        """Run the module backup_verification."""
        return run_module("backup_verification", self.options(**others), check=check)

    def remembered(self, within: float = MONTH, **options: Any) -> Remembered:
        return Remembered(self.repository, within=within, **options)

    def rewrite(self, backup: Backup, **changes: Any) -> None:
        """Change what the backup says of itself, with its own hash made to fit: what a careful forger would do."""
        write_metadata(backup.directory, {**backup.metadata, **changes})

    def settle(self) -> None:
        """Return when every file is old enough to be remembered once it is read."""
        newest = max(path.stat(follow_symlinks=False).st_ctime for path in self.root.rglob("*"))
        while time.time() - newest <= 2.1:
            time.sleep(0.05)

    def copy(self, directory: Path) -> BackupSite:
        """A copy of the repository, for a test that harms it."""
        site = BackupSite(directory)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.root), str(site.root)], check=True)
        return site


@contextmanager
def backup_site(directory: Path) -> Iterator[BackupSite]:
    """A full backup and an incremental one on it, of a small database and a directory of files."""
    uploads = directory / "uploads"
    (uploads / "empty").mkdir(parents=True)
    for number in range(20):
        (uploads / f"{number}.txt").write_text(f"submission {number}\n" * (number + 1))
    (uploads / os.fsdecode(b"caf\xe9.txt")).write_text("a name that is no UTF-8")
    site = BackupSite(directory)
    with postgres_server({"allow_in_place_tablespaces": "on"}) as server:
        options = {**site.options(), **server.login(), "interval": "0", "files": [str(uploads)]}
        options["min_free_bytes"] = "1MiB"
        server.sql("CREATE TABLESPACE inside LOCATION ''")
        server.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g")
        server.sql("CREATE TABLE course TABLESPACE inside AS SELECT g AS id FROM generate_series(1, 100) g")
        for statement in ("CHECKPOINT", "UPDATE student SET name = 'x' WHERE id % 100 = 0"):
            server.sql(statement)
            shown = run_module("backup", options)
            assert not shown["failed"], shown["msg"]
    assert [backup.type for backup in site.backups] == ["full", "incremental"]
    # Reading the chain before the second one was remembered; tests begin without.
    shutil.rmtree(site.root / "main" / "verified", ignore_errors=True)
    yield site
