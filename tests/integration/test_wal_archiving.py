"""WAL archiving by the module ``backup``: what it sets up, what it only reports, and what it removes."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import archive as wal_archive
from support.modules import checks_by_name, run_module
from support.postgresql import UNPRIVILEGED, PostgresServer, postgres_server
from support.waiting import wait_until

ARCHIVED = "WAL archived end to end"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server({"archive_mode": "on"}) as running:
        running.sql("CREATE TABLE student AS SELECT g AS id FROM generate_series(1, 100) g")
        yield running


@pytest.fixture
def options(server: PostgresServer, tmp_path: Path) -> Iterator[dict[str, Any]]:
    # Beside the server's data, which its user can walk to.
    archive = server.directory / f"archive-{tmp_path.name}"
    yield {
        **server.login(),
        "bin_dir": str(server.bin_dir),
        "repository": str(tmp_path / "repository"),
        "state_dir": str(tmp_path / "state"),
        "min_free_bytes": "1MiB",
        "dump": False,
        "wal_archive": str(archive),
        "wal_configure": True,
    }
    server.sql("ALTER SYSTEM RESET ALL")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: server.sql("SHOW archive_command")[0][0] in ("(disabled)", ""))


def statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks_by_name(shown).items()}


def directory(server: PostgresServer, options: dict[str, Any]) -> str:
    (row,) = server.sql("SELECT system_identifier::text FROM pg_control_system()")
    return wal_archive.directory_of(options["wal_archive"], row[0])


def test_archiving_is_set_up_proven_end_to_end_and_private(server: PostgresServer, options: dict[str, Any]) -> None:
    shown = run_module("backup", options)
    assert not shown["failed"], shown["msg"]
    assert set(statuses(shown).values()) == {"passed"}, statuses(shown)
    assert checks_by_name(shown)[ARCHIVED]["observed"].split(" ")[0].endswith(".gz")
    assert "wal_archived_seconds" in shown["metrics"]
    kinds = [change["kind"] for change in shown["changes"]]
    assert kinds[:6] == ["WAL archive"] * 3 + ["setting"] * 2 + ["backup"]
    owner = pwd.getpwnam(UNPRIVILEGED).pw_uid if os.geteuid() == 0 else os.geteuid()
    for path in [Path(options["wal_archive"]), *Path(options["wal_archive"]).rglob("*")]:
        assert path.stat().st_uid == owner, path
        assert path.name == "wal_helper.py" or path.stat().st_mode & 0o077 == 0, path
    again = run_module("backup", options)
    assert not again["failed"], again["msg"]
    assert not again["changed"]
    assert statuses(again)[ARCHIVED] == "passed"


def test_check_mode_says_what_would_be_set_and_touches_nothing(server: PostgresServer, options: dict[str, Any]) -> None:
    shown = run_module("backup", options, check=True)
    assert not shown["failed"], shown["msg"]
    assert [c["name"] for c in shown["changes"] if c["kind"] == "setting"] == ["archive_command", "archive_timeout"]
    assert not os.path.lexists(options["wal_archive"])
    assert server.sql("SELECT count(*) FROM pg_settings WHERE sourcefile LIKE '%auto.conf'") == [(0,)]


def test_without_leave_to_set_anything_it_says_what_to_set(server: PostgresServer, options: dict[str, Any]) -> None:
    shown = run_module("backup", {**options, "wal_configure": False})
    assert shown["failed"]
    found = checks_by_name(shown)
    assert found["archive_command"]["status"] == "failed"
    assert "ALTER SYSTEM SET archive_command" in found["archive_command"]["advice"]
    assert "wal_helper.py archive" in found["archive_command"]["expected"]
    assert found["archive_timeout"]["status"] == "warned"
    assert ARCHIVED not in found
    # The end of a base backup would wait for the archive for ever.
    assert "archive_command is empty" in shown["msg"]
    assert "backup complete" not in found
    assert server.sql("SELECT count(*) FROM pg_settings WHERE sourcefile LIKE '%auto.conf'") == [(0,)]


def test_a_foreign_command_is_left_alone_and_its_secret_is_not_shown(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    server.sql("ALTER SYSTEM SET archive_command = '/bin/true --password hush'")
    server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: "hush" in server.sql("SHOW archive_command")[0][0])
    shown = run_module("backup", options)
    assert shown["failed"]
    assert "by true; it was left alone" in checks_by_name(shown)["archive_command"]["observed"]
    assert "hush" not in str(shown)
    assert server.sql("SHOW archive_command") == [("/bin/true --password hush",)]


def test_a_helper_that_somebody_broke_is_put_right(server: PostgresServer, options: dict[str, Any]) -> None:
    run_module("backup", options)
    helper = Path(options["wal_archive"]) / "wal_helper.py"
    helper.write_text("raise SystemExit(1)")
    server.sql("SELECT pg_create_restore_point('x'), pg_switch_wal()")
    wait_until(lambda: server.sql("SELECT failed_count FROM pg_stat_archiver")[0][0] > 0)
    shown = run_module("backup", options)
    assert not shown["failed"], shown["msg"]
    assert [c["name"] for c in shown["changes"]] == [str(helper)]
    assert statuses(shown)[ARCHIVED] == "passed"


def test_archiving_that_fails_is_a_failed_check_that_names_the_segment(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    run_module("backup", options)
    (incoming,) = Path(options["wal_archive"]).glob("*/incoming")
    incoming.rmdir()
    incoming.write_text("in the way")
    try:
        shown = run_module("backup", options)
    finally:
        incoming.unlink()
    assert shown["failed"]
    assert "archive_command fails on 0000" in checks_by_name(shown)[ARCHIVED]["observed"]
    wait_until(lambda: not run_module("backup", options)["failed"])


def test_only_wal_that_no_kept_backup_needs_is_removed(server: PostgresServer, options: dict[str, Any]) -> None:
    always = {**options, "interval": "0", "full_every": "0"}
    run_module("backup", always)
    run_module("backup", always)
    backups = Repository(options["repository"], "main").backups()
    before = [segment.name for segment in wal_archive.segments(directory(server, options))]
    shown = run_module("backup", {**always, "keep_full": 1, "keep_within": "0"})
    assert not shown["failed"], shown["msg"]
    (kept,) = Repository(options["repository"], "main").backups()
    assert kept.label not in [backup.label for backup in backups]
    after = [segment.name for segment in wal_archive.segments(directory(server, options))]
    size = kept.metadata["settings"]["wal_segment_size"]
    needed = wal_archive.needed([(1, None)], wal_archive.parse_lsn(kept.metadata["start_lsn"]), 0, size)[0]
    assert after[0] >= needed
    assert before[0] < needed
    assert any("no backup needs them" in change["after"] for change in shown["changes"])


def test_without_archive_mode_it_says_that_a_restart_is_needed_and_does_not_restart(tmp_path: Path) -> None:
    with postgres_server() as server:
        options = {
            **server.login(),
            "bin_dir": str(server.bin_dir),
            "repository": str(tmp_path / "repository"),
            "state_dir": str(tmp_path / "state"),
            "min_free_bytes": "1MiB",
            "dump": False,
            "wal_archive": str(server.directory / "archive"),
            "wal_configure": True,
        }
        started = server.sql("SELECT pg_postmaster_start_time()")
        shown = run_module("backup", options)
        assert shown["failed"]
        assert "restart" in checks_by_name(shown)["archive_mode"]["advice"]
        assert statuses(shown)["backup complete"] == "passed"
        assert server.sql("SELECT pg_postmaster_start_time()") == started


@pytest.mark.parametrize("place", ["relative", "/", "/srv"])
def test_a_place_that_makes_no_sense_is_refused(options: dict[str, Any], place: str) -> None:
    shown = run_module("backup", {**options, "wal_archive": place})
    assert shown["failed"]
    assert place == "relative" or "two levels below the root" in shown["msg"]


def test_an_archive_that_others_can_write_to_is_refused(server: PostgresServer, options: dict[str, Any]) -> None:
    Path(options["wal_archive"]).mkdir()
    Path(options["wal_archive"]).chmod(0o777)
    shown = run_module("backup", options)
    assert shown["failed"]
    assert "no other can write to" in shown["msg"]
