"""What pgBackRest itself says on its repository host, and what must be found when something is broken there.

Tests go on from what those before them have left; each puts right what it breaks.
"""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from conftest import FLEET, check_statuses, connect, play, psql

NEW = ("--extra-vars", "backup_interval=0")
DUE = {("db1", activity) for activity in ("backup", "backup_verification", "restore_test")}
CONFIG = "/etc/wellkept/pgbackrest.conf"
KEY = "/etc/wellkept/pgbackrest.key"
ADMITTED = "/home/pgbackrest/.ssh/authorized_keys"
LIMIT = 120
FAILING = "SELECT last_failed_time > coalesce(last_archived_time, '-infinity') FROM pg_stat_archiver"
FLIP = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(700)
    byte = file.read(1)[0]
    file.seek(700)
    file.write(bytes([byte ^ 1]))
"""


@pytest.fixture(scope="module")
def db1():
    return connect("db1")


@pytest.fixture(scope="module")
def backup1():
    return connect("backup1")


def info(backup1):
    """What pgBackRest says on its repository host, to the account that it has there."""
    said = backup1.check_output("runuser -u pgbackrest -- pgbackrest --stanza=learning --output=json info")
    [stanza] = json.loads(said)
    assert stanza["status"]["code"] == 0, stanza["status"]
    return stanza


def newest(backup1):
    return info(backup1)["backup"][-1]


def catalogued(db1):
    """The labels of the backups in the catalogue, and of what is half done there."""
    found = db1.check_output("find /srv/backups/learning -mindepth 1 -maxdepth 1 -type d -printf '%f\\n'").split()
    return sorted(name for name in found if name[0].isdigit()), sorted(n for n in found if n.startswith(".partial"))


def wait_until(state, what):
    deadline = time.monotonic() + LIMIT
    while not state():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


@contextlib.contextmanager
def away(host, path):
    host.check_output("mv %s %s", path, f"{path}.away")
    try:
        yield
    finally:
        host.check_output("mv %s %s", f"{path}.away", path)


def verification(*arguments):
    return check_statuses("backup_verification", "db1", *arguments)


# -- what the daily runs have done --


def test_the_first_run_makes_proves_and_verifies_a_backup_and_the_next_changes_nothing(runs):
    assert [run.check_mode for run in runs] == [True, False, False]
    for run in runs[1:]:
        assert run.verdict in ("passed", "warned")
        assert run.results.keys() >= DUE
        assert not DUE & set(run.not_passed()), run.not_passed()
    assert {("db1", "backup"), ("db1", "restore_test")} <= set(runs[1].changed)
    assert runs[2].changed == []


def test_pgbackrest_knows_the_backup_as_the_one_in_the_catalogue(db1, backup1):
    stanza = info(backup1)
    assert stanza["cipher"] == "aes-256-cbc"
    [made] = stanza["backup"]
    assert made["type"] == "full"
    assert catalogued(db1) == ([made["annotation"]["wellkept"]], [])


def test_pgbackrests_own_check_passes_on_both_hosts(db1, backup1):
    for host, user, config in ((db1, "postgres", f"--config={CONFIG}"), (backup1, "pgbackrest", "")):
        done = host.run(f"runuser -u {user} -- pgbackrest {config} --stanza=learning check")
        assert done.rc == 0, done.stderr + done.stdout


def test_wal_is_archived_in_the_background(db1, backup1):
    assert "archive-async=y" in db1.file(CONFIG).content_string
    name = switched(db1)
    wait_until(lambda: name in archived(backup1), f"{name} has not arrived")
    # Only what pushes in the background makes this place for its answers, which go as soon as they were read.
    assert db1.file("/var/spool/pgbackrest/archive/learning/out").is_directory


def switched(db1):
    """The name of a segment that has content and is complete as of now."""
    psql(db1, "SELECT pg_logical_emit_message(true, 'test', 'content')")
    return psql(db1, "SELECT pg_walfile_name(pg_switch_wal())")


def archived(backup1):
    """The names of the archived segments."""
    return [path.rpartition("/")[2][:24] for path in segments(backup1)]


def segments(backup1):
    return sorted(backup1.check_output("find /srv/pgbackrest/archive/learning -name '0*-*.zst' -type f").split())


def test_the_keys_of_either_host_open_nothing_but_pgbackrest(db1, backup1):
    for host, account, other in ((db1, "postgres", "pgbackrest@backup1"), (backup1, "pgbackrest", "postgres@db1")):
        done = host.run(f"runuser -u {account} -- ssh -o BatchMode=yes {other} id")
        assert done.rc != 0
        assert "uid=" not in done.stdout


def test_the_key_of_the_repository_is_where_it_must_be_and_nowhere_else(db1, artifacts):
    key = (FLEET / "secrets" / "repository").read_text().split()[0]
    assert db1.file(KEY).mode == 0o600
    for path in (CONFIG, "/etc/postgresql", "/srv/backups", "/var/lib/wellkept", "/var/log/postgresql"):
        assert db1.run("grep --recursive --quiet --fixed-strings -- %s %s", key, path).rc == 1, path
    for path in artifacts.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path


# -- by hand --


def test_later_backups_build_on_the_full_one(db1, backup1):
    before = newest(backup1)["label"]
    full = before.partition("_")[0]
    assert check_statuses("backup", "db1", *NEW) == {}
    incremental = newest(backup1)
    assert (incremental["type"], incremental["prior"]) == ("incr", before)
    assert check_statuses("backup", "db1", *NEW, "--extra-vars", "backup_pgbackrest_differential=true") == {}
    differential = newest(backup1)
    assert (differential["type"], differential["prior"]) == ("diff", full)
    assert catalogued(db1) == (sorted(made["annotation"]["wellkept"] for made in info(backup1)["backup"]), [])


def test_a_restore_ends_at_the_moment_that_is_asked_for(db1):
    psql(db1, "INSERT INTO moments VALUES (clock_timestamp())")
    moment = psql(db1, "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    psql(db1, "INSERT INTO moments VALUES (clock_timestamp())")
    assert check_statuses("backup", "db1") == {}
    asked = {
        "restore_test_target": f"time:{moment}",
        "restore_test_interval": "0",
        "restore_test_assertions": [
            {
                "name": "nothing of later",
                "database": "learning",
                "query": f"SELECT count(*) FROM moments WHERE at > '{moment}'",
                "expected": "0",
            }
        ],
    }
    status, results = play("restore_test", "--extra-vars", json.dumps(asked))
    assert status == 0, results["db1", "restore_test"]
    checks = {check["name"]: check for check in results["db1", "restore_test"]["checks"]}
    for name in ("recovery to the target time", "assertion nothing of later, at the target, in learning"):
        assert checks[name]["status"] == "passed", sorted(checks)
    assert psql(db1, f"SELECT count(*) FROM moments WHERE at > '{moment}'") == "1"


def test_nothing_is_left_of_restores(db1, backup1):
    assert len(db1.check_output("pgrep --full [b]in/postgres").split()) == 1
    assert db1.check_output("find / -xdev -name PG_VERSION -path '*/wellkept/*' -not -path '/proc/*'") == ""
    # A scratch server archives nothing: so no timeline begins.
    assert {name[:8] for name in archived(backup1)} == {"00000001"}


def test_all_of_it_is_sound(backup1):
    assert verification("--extra-vars", "backup_verification_full=true") == {}
    done = backup1.run("runuser -u pgbackrest -- pgbackrest --stanza=learning --output=text verify")
    assert "error" not in done.stdout, done.stdout


# -- in trouble --


def test_a_flipped_bit_in_the_repository_is_found_and_named(backup1):
    full = info(backup1)["backup"][0]["label"]
    data = f"/srv/pgbackrest/backup/learning/{full}/pg_data"
    path = backup1.check_output("find %s -type f -size +1k -print -quit", data)
    backup1.check_output("cp -p %s /root/saved", path)
    try:
        backup1.check_output("python3 -c %s %s", FLIP, path)
        found = verification("--extra-vars", "backup_verification_full=true")
    finally:
        backup1.check_output("cp -p /root/saved %s", path)
    assert path.partition(f"/{full}/")[2] in str(found), found


@pytest.mark.parametrize("place", [0, -2])
def test_a_missing_segment_is_found_though_pgbackrest_says_ok(backup1, place):
    start = newest(backup1)["archive"]["start"]
    path = [path for path in segments(backup1) if path.rpartition("/")[2][:24] >= start][place]
    with away(backup1, path):
        found = verification()
        theirs = backup1.run("runuser -u pgbackrest -- pgbackrest --stanza=learning --output=text verify").stdout
    assert path.rpartition("/")[2][:24] in str(found), found
    assert "status: error" not in theirs


def test_a_stored_key_that_is_not_the_repositorys_is_found(db1):
    """Though the repository host has the right one, and would tell it."""
    with away(db1, KEY):
        db1.check_output("install -m 0600 /dev/null %s && echo another >%s", KEY, KEY)
        for activity in ("backup_verification", "restore_test", "backup"):
            _status, results = play(activity, "--extra-vars", "restore_test_interval=0")
            assert results["db1", activity]["outcome"] == "failed", activity
            assert "wrong key" in str(results["db1", activity]), activity


def test_while_the_repository_host_is_down_wal_stays_and_nothing_is_half_done(db1, backup1):
    before = catalogued(db1)
    sets = [made["label"] for made in info(backup1)["backup"]]
    backup1.check_output("systemctl stop ssh.socket ssh.service")
    try:
        name = switched(db1)
        for activity in ("backup", "backup_verification"):
            _status, results = play(activity, *NEW)
            assert results["db1", activity]["outcome"] == "failed", results["db1", activity]
            assert "Connection refused" in str(results["db1", activity]), results["db1", activity]
            assert "its host does not answer" in str(results["db1", activity]), results["db1", activity]
        assert db1.file(f"/var/lib/postgresql/{major(db1)}/main/pg_wal/{name}").exists
    finally:
        backup1.check_output("systemctl start ssh.service")
    assert catalogued(db1) == before
    assert [made["label"] for made in info(backup1)["backup"]] == sets
    wait_until(lambda: name in archived(backup1), f"{name} has not arrived")


def test_a_queue_that_is_stuck_is_told_and_comes_through_afterwards(db1, backup1):
    """The repository host answers, but lets the server no longer in."""
    with away(backup1, ADMITTED):
        name = switched(db1)
        wait_until(lambda: psql(db1, FAILING) == "t", "archiving has not failed")
        assert any(word.startswith("archiver") for word in check_statuses("health_check", "db1"))
        _status, results = play("backup", *NEW)
        assert results["db1", "backup"]["outcome"] == "failed"
        assert name not in archived(backup1)
    wait_until(lambda: name in archived(backup1), f"{name} has not arrived")
    assert check_statuses("backup", "db1", *NEW) == {}
    assert verification() == {}


def major(db1):
    return psql(db1, "SHOW server_version_num")[:2]
