"""What arrives on the backup host, and what happens to its WAL archive that must not go unnoticed."""

from __future__ import annotations

import contextlib
import time

import pytest
from conftest import check_statuses, connect, psql


@pytest.fixture(scope="module")
def db1():
    return connect("db1")


@pytest.fixture(scope="module")
def backup1():
    return connect("backup1")


@pytest.fixture(scope="module")
def archive(db1):
    """The archive of the cluster on backup1."""
    identifier = psql(db1, "SELECT system_identifier FROM pg_control_system()")
    return f"/srv/wal/{identifier}/00000001"


def verification():
    """What the verification of backups finds: the checks that did not pass, by name."""
    return check_statuses("backup_verification", "db1")


def segments(backup1, archive):
    """The paths of archived segments, oldest first."""
    return sorted(backup1.check_output(f"find {archive} -type f -name '????????????????????????.gz'").split())


@contextlib.contextmanager
def moved_away(backup1, *paths):
    for path in paths:
        backup1.check_output("mv %s %s", path, f"/root/away-{path.rpartition('/')[2]}")
    try:
        yield
    finally:
        for path in paths:
            backup1.check_output("mv %s %s", f"/root/away-{path.rpartition('/')[2]}", path)


def needed_segments(backup1, archive):
    """The segments from the start of the newest backup on, as its label in the archive has it."""
    label = sorted(backup1.check_output(f"find {archive} -name '*.backup' -printf '%f\\n'").split())[-1]
    return [path for path in segments(backup1, archive) if path.rpartition("/")[2][:24] >= label[:24]]


def test_wal_comes_by_the_servers_own_key_which_opens_nothing_else(db1, backup1):
    command = psql(db1, "SHOW archive_command")
    assert "wal_over_ssh.py push" in command
    [line] = backup1.check_output("cat /var/lib/postgresql/.ssh/authorized_keys").splitlines()
    assert line.startswith('restrict,command="')
    directory = command.split(" push ")[1].split()[0]
    ssh = f"ssh -F none -i {directory}/id_ed25519 -o UserKnownHostsFile={directory}/known_hosts -o BatchMode=yes"
    done = db1.run(f"runuser -u postgres -- {ssh} postgres@backup1 id")
    assert done.rc == 1
    assert "may only push and pull WAL" in done.stderr
    assert "uid=" not in done.stdout


def test_what_was_committed_a_moment_ago_is_in_the_archive_of_the_other_host(db1, backup1, archive):
    name = psql(db1, "SELECT pg_walfile_name(pg_switch_wal())")
    deadline = time.monotonic() + 60
    while not backup1.file(f"{archive}/{name}.gz").exists:
        assert time.monotonic() < deadline, f"{name} has not arrived"
        time.sleep(0.2)
    assert backup1.file(f"{archive}/{name}.gz").user == "postgres"
    assert backup1.file(f"{archive}/{name}.gz").mode == 0o600


def test_nothing_of_the_way_is_left_behind(db1, backup1):
    assert db1.run("pgrep --full '[s]shd: postgres'").stdout == ""
    assert backup1.run("pgrep --exact ssh").stdout == ""
    assert backup1.check_output("find /tmp -maxdepth 1 -name 'wellkept-tunnel-*'") == ""


def test_the_archive_is_whole(backup1, archive):
    assert len(needed_segments(backup1, archive)) > 3
    assert verification() == {}


@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_gap_is_found(db1, backup1, archive, place):
    psql(db1, "SELECT pg_switch_wal()")
    needed = needed_segments(backup1, archive)
    # Without its last segment an archive only ends earlier; without the backup's own end it is incomplete.
    number = {"start": 0, "middle": len(needed) // 2, "end": len(needed) - 2}[place]
    with moved_away(backup1, needed[number]):
        found = verification()
    assert needed[number].rpartition("/")[2][:24] in str(found), found


def test_an_archive_without_any_wal_is_found(backup1, archive):
    with moved_away(backup1, *segments(backup1, archive)):
        found = verification()
    assert "failed" in str(found), found


def test_wal_of_another_timeline_is_found(backup1, archive):
    """As after somebody promoted a copy of the cluster that archives to the same place."""
    needed = needed_segments(backup1, archive)
    other = archive.replace("/00000001", "/00000002")
    name = needed[-1].rpartition("/")[2].replace("00000001", "00000002", 1)
    backup1.check_output(
        "mkdir -m 0700 %s && cp -p %s %s && chown -R postgres:postgres %s", other, needed[-1], f"{other}/{name}", other
    )
    try:
        found = verification()
    finally:
        backup1.check_output("rm -r %s", other)
    assert "timeline" in str(found), found


def test_another_content_under_the_same_name_is_refused_and_seen_by_the_next_backup(db1, backup1, archive):
    """A second cluster that archives to the same place, or a segment that was overwritten there."""
    psql(db1, "CREATE TABLE IF NOT EXISTS seen_from_outside (at timestamptz)")
    psql(db1, "INSERT INTO seen_from_outside VALUES (now())")
    current = psql(db1, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    older = segments(backup1, archive)[-1]
    backup1.check_output("cp -p %s %s", older, f"{archive}/{current}.gz")
    before = backup1.check_output("sha256sum %s", f"{archive}/{current}.gz")
    try:
        assert "another segment" in str(verification())
        psql(db1, "SELECT pg_switch_wal()")
        deadline = time.monotonic() + 60
        while psql(db1, "SELECT last_failed_wal FROM pg_stat_archiver") != current:
            assert time.monotonic() < deadline, "the server has not noticed that its segment was refused"
            time.sleep(0.2)
        assert "holds another content" in db1.check_output("tail -n 200 /var/log/postgresql/*.log")
        assert backup1.check_output("sha256sum %s", f"{archive}/{current}.gz") == before
        found = check_statuses("backup", "db1")
        assert current in str(found), found
    finally:
        backup1.check_output("rm %s", f"{archive}/{current}.gz")
    assert check_statuses("backup", "db1") == {}
    assert backup1.file(f"{archive}/{current}.gz").exists
    assert verification() == {}


def test_while_the_backup_host_lets_nobody_in_wal_stays_and_then_all_of_it_comes(db1, backup1, archive):
    keys = "/var/lib/postgresql/.ssh/authorized_keys"
    backup1.check_output("mv %s %s", keys, f"{keys}.away")
    try:
        psql(db1, "INSERT INTO seen_from_outside VALUES (now())")
        name = psql(db1, "SELECT pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + 60
        while psql(db1, "SELECT last_failed_wal FROM pg_stat_archiver") != name:
            assert time.monotonic() < deadline, "archiving has not failed"
            time.sleep(0.2)
        assert "it stays here, and the server tries again" in db1.check_output("tail -n 200 /var/log/postgresql/*.log")
        assert not backup1.file(f"{archive}/{name}.gz").exists
    finally:
        backup1.check_output("mv %s %s", f"{keys}.away", keys)
    assert check_statuses("backup", "db1") == {}
    assert backup1.file(f"{archive}/{name}.gz").exists
