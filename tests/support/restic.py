"""Backups of application files by restic alone, without a cluster beside them: made and read by the store itself."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.consistent_point import Point
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Budget, Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    FORMAT,
    Backup,
    Repository,
    new_label,
    write_metadata,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.files import ResticFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.store import Making, Restored
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

POINT = Point("wellkept", "0/0", "2026-11-21T10:00:00Z", [], "", 1, 0.0)
DAY = 86400.0


def restic_program() -> str:
    """The program restic; skips the test where it is not installed."""
    program = shutil.which("restic")
    if program is None:
        pytest.skip("restic is not installed: apt-get install restic")
    return program


class ResticSite:
    """A backup repository, a restic repository, its key, and directories to back up."""

    def __init__(self, directory: Path, location: str = "", ssh: dict[str, Any] | None = None) -> None:
        restic_program()
        self.directory = directory
        self.repository = Repository(str(directory / "repository"), "main")
        self.repository.prepare()
        self.path = directory / "restic"
        self.key = directory / "key"
        self.location = location or str(self.path)
        self.ssh = ssh or {}
        self.uploads = directory / "uploads"
        if not self.key.exists():
            self.key.write_text(secrets.token_urlsafe() + "\n")
            self.key.chmod(0o600)
            self.fill(self.uploads)

    def fill(self, uploads: Path) -> None:
        (uploads / "empty").mkdir(parents=True)
        for number in range(20):
            (uploads / f"{number}.txt").write_text(f"submission {number}\n" * (number + 1))
        (uploads / os.fsdecode(b"caf\xe9.txt")).write_text("a name that is no UTF-8")
        (uploads / "large.bin").write_bytes(os.urandom(3 << 20))
        (uploads / "link").symlink_to("/etc/passwd")
        (uploads / "1.txt").chmod(0o640)

    def params(self, **others: Any) -> dict[str, Any]:
        return {
            "files": [str(self.uploads)],
            "files_engine": "restic",
            "restic_repository": self.location,
            "restic_ssh": self.ssh,
            "restic_key_file": str(self.key),
            "restic_prune_every": "7d",
            "state_dir": str(self.directory / "state"),
            **others,
        }

    def store(self, **others: Any) -> ResticFiles:
        return ResticFiles(self.params(**others))

    def back_up(self, part: Part | None = None, cluster: str = "main", **others: Any) -> Backup:
        """Make a backup that holds the files alone."""
        store, part = self.store(**others), part or Part()
        repository = Repository(self.repository.root, cluster)
        repository.prepare()
        store.prepare(repository, part)
        label = new_label("full", datetime.now(UTC))
        with repository.new(label, {}) as directory:
            saved = store.create(Making(label, repository, directory, POINT, repository.backups()))
            files = [{"path": path, **written._asdict()} for path, written in saved.written.items()]
            metadata = {"format": FORMAT, "label": label, "type": "full", "files": files}
            stores = {store.name: saved.facts}
            more = {"application_files": list(saved.application_files), "finished": f"{datetime.now(UTC):%FT%TZ}"}
            lacks = {store.name: saved.lacking} if saved.lacking else {}
            write_metadata(directory, {**metadata, **more, "stores": stores, "lacks": lacks})
        store.report(part)
        return repository.backup(label)

    def verify(
        self,
        *,
        within: float = 30 * DAY,
        now: float | None = None,
        budget: Budget | None = None,
        quick: bool = False,
        **others: Any,
    ) -> tuple[Part, dict[str, list[str]]]:
        part = Part()
        remembered = Remembered(self.repository, within=within, rotating=True, now=now, budget=budget)
        problems = self.store(**others).verify(self.repository.backups(), remembered, part, quick=quick)
        return part, problems

    def restore(self, backup: Backup, name: str = "restored", **others: Any) -> tuple[Restored, Path]:
        target = self.directory / name
        target.mkdir(mode=0o700)
        restored = self.store(**others).restore(backup, str(target))
        return restored, target / str(self.uploads).lstrip("/")

    def expire(self, backup: Backup, part: Part | None = None, **others: Any) -> None:
        """Remove *backup*, here and there, as the module does."""
        store = self.store(**others)
        facts = store.facts_of(backup)
        self.repository.expire(backup.label, lambda: store.expire(backup.label, facts))
        store.tidy(self.repository, part or Part())

    # -- what is in the restic repository, by restic itself and by hand --

    def restic(self, *arguments: str, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [restic_program(), "--repo", self.location, "--password-file", str(key or self.key), "--no-cache"]
        return subprocess.run(
            [*command, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
        )

    def snapshots(self) -> list[dict[str, Any]]:
        shown = self.restic("snapshots", "--json", "--no-lock")
        assert shown.returncode == 0, shown.stderr
        found: list[dict[str, Any]] = json.loads(shown.stdout) or []
        return found

    def packs(self) -> list[Path]:
        """The packs, the largest first: data before trees."""
        found = [path for path in (self.path / "data").rglob("*") if path.is_file()]
        return sorted(found, key=lambda path: -path.stat().st_size)

    def locks(self) -> list[str]:
        # One that is being written when its process is killed has another name, and is in nobody's way.
        return [name for name in os.listdir(self.path / "locks") if len(name) == 64]


@contextlib.contextmanager
def changed(path: Path, offset: int | None = None) -> Iterator[None]:
    """One bit of *path* flipped while the block runs; restic's files are read-only."""
    content = path.read_bytes()
    mode = path.stat().st_mode
    place = len(content) // 2 if offset is None else offset
    flip(path, place)
    try:
        yield
    finally:
        path.chmod(0o600)
        path.write_bytes(content)
        path.chmod(mode)


def flip(path: Path, offset: int) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)
    path.chmod(mode)


def checks(part: Part) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in part.checks}


def statuses(part: Part) -> set[str]:
    return {check["status"] for check in part.checks}
