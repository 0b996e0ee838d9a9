"""What is broken on purpose beside the databases, and must be found; each test puts right what it breaks."""

from __future__ import annotations

import contextlib
import json

import pytest
from conftest import check_statuses, connect, play
from stores import KEY, VAULT, backups, mirrored

ALL = ("--extra-vars", "backup_verification_full=true")
NEW = ("--extra-vars", "backup_interval=0")
AGAIN = ("--extra-vars", "restore_test_interval=0s")


@pytest.fixture(scope="module")
def app1():
    return connect("app1")


@pytest.fixture(scope="module")
def backup1():
    return connect("backup1")


@pytest.fixture(scope="module")
def vault1():
    return connect("vault1")


@contextlib.contextmanager
def flipped(host, path):
    """One bit in the middle of the file is another; its times and its size are as before."""
    host.check_output("cp --archive %s /root/original", path)
    program = "import sys; f = open(sys.argv[1], 'r+b'); n = f.seek(0, 2) // 2; f.seek(n); b = f.read(1)[0]; f.seek(n)"
    host.check_output("chmod u+w %s && python3 -c %s %s", path, f"{program}; f.write(bytes([b ^ 16]))", path)
    host.check_output("touch --reference /root/original %s", path)
    try:
        yield
    finally:
        host.check_output("cp --archive /root/original %s && rm /root/original", path)


def failed(activity, *arguments):
    """The checks that failed: {name: observed}."""
    found = check_statuses(activity, "app1", *arguments)
    return {name: observed for name, (status, observed) in found.items() if status == "failed"}


def largest(host, directory):
    return host.check_output(f"find {directory} -type f -printf '%s %p\\n' | sort -n | tail -1").split()[1]


def test_a_flipped_bit_in_a_pack_of_restic_is_found(backup1):
    with flipped(backup1, largest(backup1, "/srv/restic/learning/data")):
        found = failed("backup_verification", *ALL)
        assert list(found) == ["restic repository sftp:restic@backup1:/learning"], found
        assert "application files of the backup, from restic" in failed("restore_test", *AGAIN)
    assert failed("backup_verification", *ALL) == {}
    assert failed("restore_test", *AGAIN) == {}


def test_a_flipped_bit_in_a_copy_of_redis_is_found(app1):
    [label] = backups(app1)
    with flipped(app1, f"/srv/backups/learning/{label}/redis/0.rdb"):
        found = failed("backup_verification", *ALL)
        assert "redis/0.rdb has another content than was written" in found[f"bytes of {label}"]
    assert failed("backup_verification", *ALL) == {}


def test_a_flipped_bit_in_the_vault_is_found_there(app1, vault1):
    [label] = backups(app1)
    everything = ("--extra-vars", "backup_mirror_full=true")
    with flipped(vault1, f"{VAULT}/repository/learning/{label}/redis/0.rdb"):
        found = failed("backup_mirror", *everything)
        assert "redis/0.rdb has another content than was sent" in found["copy at vault"]
    assert failed("backup_mirror", *everything) == {}


def test_a_mirror_by_rsync_has_the_same_bytes(app1, vault1):
    login = {"host": "vault1", "key_file": "/root/.ssh/wellkept", "known_hosts": "/root/.ssh/wellkept_hosts"}
    by_rsync = {"name": "second", "type": "rsync", "user": "rsync-app1", "path": "/srv/rsync-app1", **login}
    status, results = play("backup_mirror", "--extra-vars", json.dumps({"backup_mirror_destinations": [by_rsync]}))
    assert (status, results["app1", "backup_mirror"]["outcome"]) == (0, "passed")
    [label] = backups(app1)
    here = mirrored(app1, f"/srv/backups/learning/{label}")
    assert mirrored(vault1, f"/srv/rsync-app1/repository/learning/{label}") == here


def test_a_wrong_key_is_found_by_the_drill(app1):
    app1.check_output("umask 077; echo another >/etc/wellkept/wrong.key")
    found = failed("restore_test", *AGAIN, "--extra-vars", "restore_test_restic_key_file=/etc/wellkept/wrong.key")
    assert "wrong password or no key found" in found["application files of the backup, from restic"]


def test_while_the_host_of_restic_and_redis_are_down_or_the_key_is_lost_the_databases_are_backed_up(app1, backup1):
    [whole] = backups(app1)
    # Should this session be lost, sshd comes back by itself.
    backup1.check_output("systemd-run --quiet --on-active=300 systemctl start ssh.service")
    backup1.check_output("systemctl stop ssh.socket ssh.service 2>/dev/null || systemctl stop ssh.service")
    app1.check_output("systemctl stop redis-server")
    try:
        found = failed("backup", *NEW)
        assert set(found) == {"store restic", "store redis"}, found
        assert "backup1" in found["store restic"]
        assert "127.0.0.1:6379" in found["store redis"]
    finally:
        app1.check_output("systemctl start redis-server")
        backup1.check_output("systemctl start ssh.service")
    [first, lacking] = backups(app1)
    assert first == whole
    metadata = json.loads(app1.check_output(f"cat /srv/backups/learning/{lacking}/backup.json"))
    assert set(metadata["lacks"]) == {"redis", "restic"}

    app1.check_output(f"mv {KEY} {KEY}.away")
    try:
        found = failed("backup")
        assert "read the key of the restic repository" in found["store restic"]
    finally:
        app1.check_output(f"mv {KEY}.away {KEY}")

    assert set(failed("backup_verification")) == {"stores in the newest backup"}
    assert "stores in the backup" in failed("restore_test")

    # All is there again: the next run saves it, though the newest backup is young, and all is proven.
    assert check_statuses("backup", "app1") == {}
    assert check_statuses("backup_verification", "app1") == {}
    assert check_statuses("restore_test", "app1") == {}
    assert check_statuses("backup_mirror", "app1") == {}
    assert backups(app1)[0] == whole
