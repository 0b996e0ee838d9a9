"""Backups of Redis servers alone, without a cluster beside them: made and read by the store itself."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.consistent_point import Point
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    FORMAT,
    Backup,
    Repository,
    new_label,
    write_metadata,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.redis_copies import RedisCopies
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.store import Making
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import redis_test
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_directory import prepare_base
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

POINT = Point("wellkept", "0/0", "2026-11-21T10:00:00Z", [], "", 1, 0.0)


class RedisBackups:
    """A repository, and a place for scratch servers."""

    def __init__(self, directory: Path) -> None:
        self.repository = Repository(str(directory / "repository"), "main")
        self.repository.prepare()
        self.scratch = directory / "scratch"
        prepare_base(str(self.scratch), [])

    def back_up(self, *servers: dict[str, Any], part: Part | None = None, **params: Any) -> Backup:
        """Save *servers*, given as entries of the option ``redis``."""
        wanted = [{"marker_for": "35d", **server} for server in servers]
        store = RedisCopies({"redis": wanted, "timeout": "60s", **params})
        store.prepare(self.repository, part or Part())
        label = new_label("full", datetime.now(UTC))
        with self.repository.new(label, {}) as directory:
            saved = store.create(Making(label, self.repository, directory, POINT))
            files = [{"path": path, **written._asdict()} for path, written in saved.written.items()]
            stores = {store.name: saved.facts}
            write_metadata(
                directory, {"format": FORMAT, "label": label, "type": "full", "stores": stores, "files": files}
            )
        store.report(part or Part())
        return self.repository.backup(label)

    def file(self, backup: Backup, number: int = 0) -> Path:
        return Path(backup.path("redis", f"{number}.rdb"))

    def repository_files(self, name: str) -> list[Path]:
        """Files of that name in backups, complete or not."""
        return list(Path(self.repository.directory).glob(f"**/{name}"))

    def believe(self, backup: Backup) -> Backup:
        """Let the description fit the files as they are now: what a careful forger would do."""
        for entry in backup.metadata["files"]:
            content = Path(backup.path(entry["path"])).read_bytes()
            entry.update(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        return self.rewrite(backup)

    def rewrite(self, backup: Backup, number: int = 0, **facts: Any) -> Backup:
        """Change what the backup says of one server, with its own hash made to fit."""
        backup.metadata["stores"]["redis"]["servers"][number].update(facts)
        write_metadata(backup.directory, backup.metadata)
        return self.repository.backup(backup.label)

    def verify(self, *backups: Backup, part: Part | None = None) -> dict[str, list[str]]:
        return RedisCopies({}).verify(backups, Remembered(self.repository, within=0.0), part or Part())

    def prove(self, backup: Backup, **plan: Any) -> tuple[Part, redis_test.Proven]:
        """Restore into scratch servers."""
        part = Part()
        proven = redis_test.prove(redis_test.Plan(backup, str(self.scratch), 120.0, **plan), part)
        return part, proven

    def scratch_names(self) -> list[str]:
        return sorted(path.name for path in self.scratch.iterdir())


def statuses(part: Part) -> dict[str, str]:
    return {check["name"]: check["status"] for check in part.checks}


def observed(part: Part, name: str) -> str:
    return str(next(check["observed"] for check in part.checks if check["name"] == name))
