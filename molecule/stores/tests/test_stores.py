"""Files by restic, Redis and the mirror as the tools themselves see them, apart from what the modules say of them."""

from __future__ import annotations

import json

import pytest
from conftest import connect
from stores import RESTIC, VAULT, backups, mirrored, restic, ssh_to

DUE = {("app1", activity) for activity in ("backup", "backup_verification", "backup_mirror", "restore_test")}
RELEASES = {"12": ("restic 0.14", "v=7."), "13": ("restic 0.18", "v=8.")}


@pytest.fixture(scope="module")
def app1():
    return connect("app1")


@pytest.fixture(scope="module")
def vault1():
    return connect("vault1")


def test_these_are_the_programs_that_the_release_has(app1):
    restic_version, redis_version = RELEASES[app1.system_info.release.split(".")[0]]
    assert app1.check_output("restic version").startswith(restic_version)
    assert redis_version in app1.check_output("redis-server --version")


def test_every_run_did_all_that_was_due(runs):
    rehearsal, first, second = runs
    assert [run.check_mode for run in runs] == [True, False, False]
    for run in (first, second):
        assert set(run.results) >= DUE
        assert {key: words for key, words in run.not_passed().items() if key in DUE} == {}
    assert "failed" not in {run.verdict for run in runs}
    assert DUE & {key for key, result in rehearsal.results.items() if result["changes"]} == {("app1", "backup")}


def test_the_second_run_changes_nothing(runs):
    assert set(runs[1].changed) >= DUE - {("app1", "backup_verification")}
    assert runs[2].changed == []


def test_restic_itself_finds_the_snapshot_and_the_repository_sound(app1):
    [snapshot] = json.loads(restic(app1, "snapshots --json"))
    assert snapshot["paths"] == ["/etc/postgresql", "/srv/learning/uploads"]
    [label] = backups(app1)
    assert f"backup={label}" in snapshot["tags"]
    assert "no errors were found" in restic(app1, "check --read-data")


def test_restic_itself_restores_the_files(app1):
    restic(app1, "restore latest --target /root/restored")
    try:
        there = "cd %s && find . -type f -exec sha256sum {} + | sort"
        for directory in ("/srv/learning/uploads", "/etc/postgresql"):
            assert app1.check_output(there, f"/root/restored{directory}") == app1.check_output(there, directory)
        assert app1.file("/root/restored/srv/learning/uploads/images/first").linked_to.endswith("1.txt")
    finally:
        app1.check_output("rm -r /root/restored")


def test_what_lies_on_the_host_of_restic_is_encrypted(app1):
    backup1 = connect("backup1")
    name = "postgresql.conf"
    assert app1.run(f"grep --recursive --quiet {name} /etc/postgresql").rc == 0
    assert backup1.run(f"grep --recursive --quiet {name} /srv/restic").rc == 1


def test_redis_itself_finds_the_copy_sound_and_whole(app1):
    [label] = backups(app1)
    said = app1.check_output(f"redis-check-rdb /srv/backups/learning/{label}/redis/0.rdb")
    assert "RDB looks OK" in said
    # The sessions, and the marker of this backup: nobody has written since.
    keys = int(app1.check_output("redis-cli DBSIZE"))
    assert keys > 1000
    assert f"{keys} keys read" in said
    assert app1.check_output(f"redis-cli EXISTS wellkept:marker:{label}") == "1"


def test_the_restore_test_compared_rows_with_files_and_asked_redis(runs):
    checks = {check["name"]: check["status"] for check in runs[1].results["app1", "restore_test"]["checks"]}
    for name in (
        "application files of the backup, from restic",
        "restore of Redis sessions",
        "marker in the restored Redis sessions",
    ):
        assert checks[name] == "passed", checks
    assert [name for name, status in checks.items() if "submissions" in name and status == "passed"], checks


def test_nothing_of_the_restore_is_left(app1):
    assert len(app1.check_output("ps -C redis-server -o pid=").split()) == 1
    [server] = [line for line in app1.check_output("ps -C postgres -o args=").splitlines() if " -D " in line]
    assert " -D /var/lib/postgresql/" in server
    assert app1.run("find /var/lib/wellkept -path '*scratch/*' | grep .").stdout == ""


def test_every_byte_of_the_backup_is_in_the_vault(app1, vault1):
    [label] = backups(app1)
    here = mirrored(app1, f"/srv/backups/learning/{label}")
    assert len(here) > 100
    assert mirrored(vault1, f"{VAULT}/repository/learning/{label}") == here


def test_the_account_in_the_vault_can_neither_remove_nor_change_nor_run_anything(app1, vault1):
    [label] = backups(app1)
    backup = f"repository/learning/{label}"
    name = f"{backup}/backup.json"
    before = mirrored(vault1, VAULT)
    connection = "-F none -i /root/.ssh/wellkept -o UserKnownHostsFile=/root/.ssh/wellkept_hosts -o BatchMode=yes"
    for command in (f"rm {name}", f"rename {name} gone", f"put /etc/hostname {name}", f"rmdir {backup}"):
        done = app1.run(f"printf '%s\\n' '{command}' | sftp {connection} -b - mirror-app1@vault1")
        assert done.rc != 0, f"{command}: {done.stdout}"
    for command in (f"rm -rf {VAULT}/repository", "id", "bash -i"):
        done = app1.run(f"{ssh_to('mirror-app1@vault1')} '{command}' </dev/null")
        assert "uid=" not in done.stdout
    assert mirrored(vault1, VAULT) == before


def test_no_key_or_password_is_where_others_can_read_it(app1, artifacts):
    secrets = [path.read_text().split()[0] for path in (artifacts.parent / "secrets").iterdir()]
    assert len(secrets) == 2
    for path in (artifacts / "ledger.db", *(artifacts / "reports" / "latest").iterdir()):
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), path
    [label] = backups(app1)
    found = app1.check_output(f"cat /srv/backups/learning/{label}/backup.json")
    assert not any(secret in found for secret in secrets)
    assert app1.file("/srv/backups").mode == 0o700
    assert RESTIC in found
