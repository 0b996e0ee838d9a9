"""Backups made from a backup host: what a lost, changed or killed connection does to them, and to the archive."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.backup_host import BackupHost, backup_host
from support.modules import checks_by_name, run_module
from support.waiting import wait_until

ARCHIVED = "WAL archived end to end"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupHost]:
    directory = tmp_path_factory.mktemp("backup-host")
    directory.chmod(0o755)
    with backup_host(directory, archive_timeout="0") as found:
        # So large that there is a middle of its backup.
        found.sql(
            "CREATE TABLE large AS SELECT g AS id, repeat(md5(g::text), 30) AS text FROM generate_series(1, 4e4) g"
        )
        yield found


def statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks_by_name(shown).items()}


def not_passed(shown: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["observed"] for check in shown["checks"] if check["status"] != "passed"}


def base_backup_runs(host: BackupHost) -> bool:
    return bool(host.sql("SELECT 1 FROM pg_stat_progress_basebackup WHERE backup_streamed > 1000000"))


def test_check_mode_says_what_would_be_made_on_both_hosts_and_touches_neither(host: BackupHost) -> None:
    shown = host.back_up(check=True)
    assert not shown["failed"], shown["msg"]
    names = [change["name"] for change in shown["changes"]]
    assert str(host.archive) in names
    assert f"{host.db1.host}:{host.db1.data / 'wal key'}" in names
    assert str(host.authorized_keys) in names
    assert "archive_command" in names
    assert not host.archive.exists()
    assert not (host.db1.data / "wal key").exists()
    assert host.authorized_keys.read_text().strip() == ""


def test_where_nothing_is_to_be_configured_the_operator_is_told_the_line(host: BackupHost) -> None:
    shown = host.back_up(wal_configure=False)
    assert shown["failed"]
    way = checks_by_name(shown)["archive_command"]
    assert "wal_over_ssh.py' push" in way["expected"]
    assert host.authorized_keys.read_text().strip() == ""
    command = way["expected"].replace("'", "''")
    host.sql(f"ALTER SYSTEM SET archive_command = '{command}'")
    host.sql("SELECT pg_reload_conf()")
    way = checks_by_name(host.back_up(wal_configure=False))["way of WAL over SSH"]
    assert way["status"] == "failed"
    line = way["observed"].partition(": ")[2]
    assert line.startswith("restrict,command=")
    host.authorized_keys.write_text(f"# by hand\n{line}\n")
    shown = host.back_up(wal_configure=False)
    assert statuses(shown)["way of WAL over SSH"] == "passed", shown["msg"]
    assert statuses(shown)[ARCHIVED] == "passed", shown["msg"]
    host.authorized_keys.write_text("# by hand\n")
    host.sql("ALTER SYSTEM RESET archive_command")
    host.sql("SELECT pg_reload_conf()")


def test_everything_of_the_other_host_is_backed_up_proven_and_private(host: BackupHost) -> None:
    shown = host.back_up()
    assert not shown["failed"], shown["msg"]
    assert set(not_passed(shown)) <= {"archive_timeout"}, not_passed(shown)
    assert "over SSH" in checks_by_name(shown)["server reachable"]["observed"]
    assert checks_by_name(shown)[f"files of {host.uploads}"]["observed"].startswith("20 files")
    copy = Path(host.repository.backups()[-1].path("files", "0", "sub", "7.txt"))
    assert copy.read_text() == "submission 7\n"
    key = host.db1.data / "wal key" / host.wal.name / "id_ed25519"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.stat().st_uid == host.db1.data.stat().st_uid
    assert [path for path in host.archive.rglob("*") if path.stat().st_mode & 0o077 and path.suffix != ".py"] == []
    text = host.authorized_keys.read_text()
    assert text.startswith("# by hand\nrestrict,command=")
    again = host.back_up(interval="20h")
    assert not again["failed"], again["msg"]
    assert not again["changed"]
    assert host.authorized_keys.read_text() == text


def test_the_backup_is_verified_and_restored_on_the_backup_host(host: BackupHost) -> None:
    options = host.options()
    ours = ("repository", "bin_dir", "state_dir", "database_host", "wal_archive")
    shown = run_module("backup_verification", {name: options[name] for name in ours})
    assert not shown["failed"], shown["msg"]
    assert set(not_passed(shown)) <= {"proof by a restore test"}, not_passed(shown)
    host.sql("INSERT INTO student VALUES (-1, 'after the backup')")
    assert not host.back_up(interval="20h")["failed"]
    login = {name: options[name] for name in options if name.startswith("login_")}
    shown = run_module(
        "restore_test",
        {
            **{name: options[name] for name in ours},
            **login,
            "ssh": options["ssh"],
            "run_as": host.here.user,
            "target": "newest",
            "restore_dump": False,
            "scratch_dir": str(host.here.data / "scratch"),
        },
    )
    assert not shown["failed"], shown["msg"]
    assert statuses(shown)["scratch cluster is not the live one"] == "passed"
    assert statuses(shown)["recovery to the target newest"] == "passed", sorted(statuses(shown))


def test_a_tunnel_that_is_cut_in_the_middle_is_told_and_nothing_half_done_is_left(host: BackupHost) -> None:
    before = [backup.label for backup in host.repository.backups()]
    process = host.start_backup(full_every="0")
    wait_until(lambda: base_backup_runs(host), "the base backup is on its way")
    host.db1.cut()
    shown = json.loads(process.communicate(timeout=300)[0])
    assert shown["failed"]
    assert "SSH" in shown["msg"]
    assert [backup.label for backup in host.repository.backups()] == before
    assert host.leftovers() == []
    wait_until(lambda: not host.sql("SELECT 1 FROM pg_replication_slots"), "the slot has gone")
    shown = host.back_up()
    assert not shown["failed"], shown["msg"]


def test_a_killed_backup_leaves_no_tunnel_and_the_next_one_cleans_up(host: BackupHost) -> None:
    process = host.start_backup(full_every="0")
    wait_until(lambda: base_backup_runs(host), "the base backup is on its way")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until(lambda: not host.db1.sessions(), "ssh has ended with the module")
    assert len(host.leftovers()) == 1
    shown = host.back_up()
    assert not shown["failed"], shown["msg"]
    assert host.leftovers() == []


def test_two_at_once_do_not_meet(host: BackupHost) -> None:
    process = host.start_backup(full_every="0")
    wait_until(lambda: base_backup_runs(host), "the base backup is on its way")
    second = host.back_up()
    assert second["failed"]
    assert "take the lock for backup" in second["msg"]
    shown = json.loads(process.communicate(timeout=300)[0])
    assert not shown.get("failed"), shown["msg"]


def test_while_the_backup_host_is_down_wal_stays_and_afterwards_all_of_it_comes(host: BackupHost) -> None:
    known = set(host.archived())
    host.here.stop()
    names = []
    for number in range(3):
        host.sql(f"INSERT INTO student VALUES ({-10 - number}, 'while it is down')")
        names += [row[0] for row in host.sql("SELECT pg_walfile_name(pg_switch_wal())")]
    log = host.server.directory / "server.log"
    words = "Connection refused; it stays here, and the server tries again"
    wait_until(lambda: words in log.read_text(), "the server's log says why")
    shown = host.back_up()
    assert shown["failed"]
    assert "Connection refused" in checks_by_name(shown)["way of WAL over SSH"]["observed"]
    host.here.start()
    shown = host.back_up()
    assert not shown["failed"], shown["msg"]
    assert set(names) <= set(host.archived()) - known


def test_a_backup_host_with_a_new_host_key_is_made_known_by_the_next_backup(host: BackupHost) -> None:
    host.here.new_host_key()
    host.here.restart()
    shown = host.back_up(interval="20h")
    assert not shown["failed"], shown["msg"]
    assert [change["name"].endswith("known_hosts") for change in shown["changes"]] == [True]


def test_a_database_host_with_another_host_key_is_not_talked_to(host: BackupHost) -> None:
    host.db1.new_host_key()
    host.db1.restart()
    shown = host.back_up()
    assert shown["failed"]
    assert "Host key verification failed" in shown["msg"]
    host.db1.trust()
    assert not host.back_up(interval="20h")["failed"]


@pytest.mark.skipif(os.geteuid() != 0, reason="without root, all accounts are one")
def test_an_account_that_is_not_the_servers_is_told(host: BackupHost) -> None:
    options = host.options()
    key = host.db1.key_file.with_suffix(".pub").read_text()
    with host.authorized_keys.open("a") as stream:
        stream.write(key)
    known = host.directory / "known_hosts"
    other = {**options["ssh"], "user": host.here.user, "port": host.here.port, "known_hosts": str(known)}
    host.here.trust()
    known.write_text(host.here.known_hosts.read_text())
    shown = host.back_up(ssh=other)
    assert shown["failed"]
    assert "Set ssh.user to" in shown["msg"]
