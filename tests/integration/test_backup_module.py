"""The module ``backup`` on a real server: what it makes, when it does nothing, and what it says."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils import fingerprint
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository
from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer, postgres_server


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        running.sql("CREATE TABLE student AS SELECT g AS id, 'student ' || g AS name FROM generate_series(1, 5000) g")
        running.sql("CREATE UNLOGGED TABLE scratch (id int)")
        running.sql("CREATE MATERIALIZED VIEW names AS SELECT name FROM student")
        running.sql('CREATE DATABASE "odd = name"')
        running.sql("CREATE TABLE course AS SELECT g AS id FROM generate_series(1, 100) g", dbname="odd = name")
        yield running


@pytest.fixture
def options(server: PostgresServer, tmp_path: Path) -> dict[str, Any]:
    return {
        **server.login(),
        "bin_dir": str(server.bin_dir),
        "repository": str(tmp_path / "repository"),
        "state_dir": str(tmp_path / "state"),
        "min_free_bytes": "1MiB",
    }


def engine(options: dict[str, Any]) -> CoreEngine:
    return CoreEngine(Repository(options["repository"], "main"), options["bin_dir"])


def statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks_by_name(shown).items()}


def test_first_backup_is_full_complete_verified_and_private(options: dict[str, Any], tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    (uploads / "deep").mkdir(parents=True)
    (uploads / "deep" / "a.txt").write_text("hello")
    (uploads / "link").symlink_to("/etc/passwd")
    shown = run_module("backup", {**options, "files": [str(uploads)]})
    assert not shown["failed"], shown["msg"]
    assert shown["changed"]
    assert set(statuses(shown).values()) == {"passed"}, statuses(shown)
    (backup,) = engine(options).list()
    metadata = backup.metadata
    assert backup.type == "full"
    assert metadata["fingerprints"]["postgres"]["public.student"]["rows"] == 5000
    assert metadata["fingerprints"]["odd = name"]["public.course"]["rows"] == 100
    assert [entry["table"] for entry in metadata["not_compared"]] == ["public.scratch"]
    assert set(metadata["databases"]) == {"postgres", "template1", "odd = name"}
    assert Path(backup.path("files", "0", "deep", "a.txt")).read_text() == "hello"
    assert not os.path.lexists(backup.path("files", "0", "link"))
    (source,) = json.loads(Path(backup.path("files.json")).read_text())
    assert next(e for e in source["entries"] if e["path"] == "link")["link"] == "/etc/passwd"
    assert shown["artifacts"][0]["path"] == backup.path("backup.json")
    assert shown["metrics"]["backup_bytes"]["value"] == metadata["bytes"]
    for path in [Path(options["repository"]), *Path(options["repository"]).rglob("*")]:
        assert path.is_symlink() or path.stat().st_mode & 0o077 == 0, path
    assert not list(Path(options["repository"], "main").glob(".partial-*"))


def test_a_young_backup_is_enough_and_is_looked_at(options: dict[str, Any]) -> None:
    run_module("backup", options)
    before = sorted(Path(options["repository"]).rglob("*"))
    shown = run_module("backup", options)
    assert not shown["failed"]
    assert not shown["changed"]
    assert {"age of the newest backup", "newest backup in its place", "newest backup verified"} <= set(statuses(shown))
    assert set(statuses(shown).values()) == {"passed"}
    assert sorted(Path(options["repository"]).rglob("*")) == before


def test_between_full_backups_incremental_ones_build_a_chain_that_can_be_combined(
    options: dict[str, Any], server: PostgresServer, tmp_path: Path
) -> None:
    run_module("backup", options)
    server.sql("UPDATE student SET name = 'renamed' WHERE id % 50 = 0")
    for _round in range(2):
        shown = run_module("backup", {**options, "interval": "0"})
        assert not shown["failed"], shown["msg"]
    assert statuses(shown)["chain to build on"] == "passed"
    full, first, second = engine(options).list()
    assert [b.type for b in (full, first, second)] == ["full", "incremental", "incremental"]
    assert second.chain == [full.label, first.label, second.label]
    assert first.metadata["bytes_by_part"]["base"] < full.metadata["bytes_by_part"]["base"]
    assert all(verification.sound for verification in engine(options).verify_chain(second.label))
    engine(options).restore(second.label, str(tmp_path / "restored"))
    assert (tmp_path / "restored" / "PG_VERSION").exists()


def test_an_old_full_backup_ends_the_chain(options: dict[str, Any]) -> None:
    run_module("backup", options)
    shown = run_module("backup", {**options, "interval": "0", "full_every": "0"})
    assert "older than full_every" in checks_by_name(shown)["type of the backup"]["observed"]
    assert [backup.type for backup in engine(options).list()] == ["full", "full"]


def test_check_mode_says_type_size_and_what_would_expire_and_writes_nothing(options: dict[str, Any]) -> None:
    keeping_little = {**options, "interval": "0", "full_every": "0", "keep_full": 1, "keep_within": "0"}
    run_module("backup", options)
    (old,) = engine(options).list()
    before = sorted(Path(options["repository"]).rglob("*"))
    shown = run_module("backup", keeping_little, check=True)
    assert shown["changed"]
    new, expiring = shown["changes"]
    assert new["after"].startswith("full, about ")
    assert expiring["name"] == old.label
    assert "would expire" in expiring["after"]
    assert sorted(Path(options["repository"]).rglob("*")) == before


def test_check_mode_does_not_even_make_the_repository(options: dict[str, Any]) -> None:
    shown = run_module("backup", options, check=True)
    assert not shown["failed"], shown["msg"]
    assert "there is no backup yet" in shown["changes"][0]["after"]
    assert not Path(options["repository"]).exists()


def test_expired_backups_go_and_a_proven_one_stays(options: dict[str, Any]) -> None:
    keeping_little = {**options, "interval": "0", "full_every": "0", "keep_full": 1, "keep_within": "0"}
    run_module("backup", options)
    (proven,) = engine(options).list()
    engine(options).repository.write_proof(proven, {})
    run_module("backup", keeping_little)
    shown = run_module("backup", keeping_little)
    labels = [backup.label for backup in engine(options).list()]
    assert len(labels) == 2
    assert labels[0] == proven.label
    assert [change["kind"] for change in shown["changes"]] == ["backup", "backup"]
    assert shown["changes"][1]["after"].startswith("expired: ")


def test_a_calendar_decides_and_check_mode_says_why_each_backup_stays(options: dict[str, Any]) -> None:
    by_calendar = {**options, "interval": "0", "full_every": "0", "keep_full": 1, "keep_within": "0", "keep_daily": 1}
    run_module("backup", by_calendar)
    (old,) = engine(options).list()
    shown = run_module("backup", {**by_calendar, "interval": "20h"}, check=True)
    stay = checks_by_name(shown)["retention"]["evidence"]["stay"]
    assert list(stay) == [old.label]
    assert {"the newest that can be restored", "is one of the newest 1 full ones"} <= set(stay[old.label])
    assert any(why.startswith("daily: the newest of 20") for why in stay[old.label])
    shown = run_module("backup", by_calendar)
    assert checks_by_name(shown)["retention"]["observed"] == "1 backups stay, 1 went"
    assert old.label not in [backup.label for backup in engine(options).list()]


def test_a_backup_in_use_is_not_expired(options: dict[str, Any]) -> None:
    keeping_little = {**options, "interval": "0", "full_every": "0", "keep_full": 1, "keep_within": "0"}
    run_module("backup", options)
    (old,) = engine(options).list()
    with engine(options).repository.in_use(old.label, {"activity": "restore_test"}):
        run_module("backup", keeping_little)
        assert old.label in [backup.label for backup in engine(options).list()]
    run_module("backup", keeping_little)
    assert old.label not in [backup.label for backup in engine(options).list()]


def test_a_full_backup_much_smaller_than_the_last_one_warns(options: dict[str, Any], server: PostgresServer) -> None:
    server.sql("CREATE TABLE bulky AS SELECT g, repeat('x', 500) AS text FROM generate_series(1, 100000) g")
    run_module("backup", options)
    server.sql("DROP TABLE bulky")
    shown = run_module("backup", {**options, "interval": "0", "full_every": "0"})
    assert statuses(shown)["size of the backup"] == "warned"


def test_recorded_fingerprints_are_those_of_the_tables(options: dict[str, Any], server: PostgresServer) -> None:
    run_module("backup", options)
    (backup,) = engine(options).list()
    with server.connect() as connection:
        compared, _not_compared = fingerprint.tables(connection)
        live = fingerprint.fingerprint(connection, compared)
    assert fingerprint.compare(backup.metadata["fingerprints"]["postgres"], live) == []


def test_the_password_reaches_the_programs_and_appears_nowhere(options: dict[str, Any], server: PostgresServer) -> None:
    by_tcp = {**options, "login_unix_socket": "", "login_host": "127.0.0.1", "login_password": server.password}
    seen: set[str] = set()
    from support.modules import module_process

    process = module_process("backup", by_tcp)
    while process.poll() is None:
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                seen.update(entry.read_bytes().decode(errors="replace").split("\0"))
            except OSError:
                continue
        time.sleep(0.01)
    assert process.stdout is not None
    output = process.stdout.read()
    assert not json.loads(output).get("failed"), output
    assert any(argument.endswith("pg_basebackup") for argument in seen)
    assert not [argument for argument in seen if server.password == argument or f"={server.password}" in argument]
    for path in Path(options["repository"]).rglob("*"):
        assert path.name != "pgpass"


def test_missing_programs_skip_with_the_command_that_installs_them(options: dict[str, Any], tmp_path: Path) -> None:
    shown = run_module("backup", {**options, "bin_dir": str(tmp_path)})
    assert shown["skipped"]
    assert "apt-get install postgresql-" in shown["msg"]
