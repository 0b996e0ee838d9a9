"""The module ``backup`` on an older server, where the host has one: full backups only, and it says why."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engine import Verification
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, Repository
from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer

OLD = [
    path for path in (Path(f"/usr/lib/postgresql/{major}/bin") for major in (14, 15, 16)) if (path / "initdb").exists()
]

pytestmark = pytest.mark.skipif(not OLD, reason="no PostgreSQL 14, 15 or 16 server is installed on this host")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    directory = Path(tempfile.mkdtemp(prefix="wellkept-pg-"))
    running = PostgresServer(directory, OLD[-1])
    try:
        running.create()
        running.start()
        yield running
    finally:
        running.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_an_older_server_gets_sound_full_backups_and_the_reason(server: PostgresServer, tmp_path: Path) -> None:
    server.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 5000) g")
    options: dict[str, Any] = {
        **server.login(),
        "repository": str(tmp_path / "repository"),
        "state_dir": str(tmp_path / "state"),
        "min_free_bytes": "1MiB",
        "interval": "0",
        "bin_dir": os.fspath(server.bin_dir),
    }
    for _round in range(2):
        shown = run_module("backup", options)
        assert not shown["failed"], shown["msg"]
        assert checks_by_name(shown)["content can be compared"]["status"] == "passed"
    assert "knows no incremental backup" in checks_by_name(shown)["type of the backup"]["observed"]
    engine = CoreEngine(Repository(options["repository"], "main"), os.fspath(server.bin_dir))
    assert [backup.type for backup in engine.list()] == ["full", "full"]
    assert all(engine.verify(backup.label).sound for backup in engine.list())
    for backup in engine.list():
        read_in_parts(engine, backup)


def read_in_parts(engine: CoreEngine, backup: Backup) -> None:
    """Older programs, too, read some of a base by links and a partial manifest, and find what is damaged in it."""

    def look(later: float) -> Verification:
        return engine.verify(
            backup.label, remembered=Remembered(engine.repository, within=1000, now=time.time() + later)
        )

    assert look(10).read_bytes >= backup.metadata["bytes"] * 0.99
    assert look(20).read_bytes == 0
    touched, flipped = (Path(backup.path("base", "global", name)) for name in ("1260", "1262"))
    touched.touch()
    some = look(30)
    assert some.problems == []
    assert some.read_bytes == touched.stat().st_size
    content = bytearray(flipped.read_bytes())
    content[50] ^= 1
    flipped.write_bytes(content)
    (problem,) = look(40).problems
    assert 'checksum mismatch for file "global/1262"' in problem
