"""Application files by restic: runs that are killed, others at work, full disks, and hosts that do not answer."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.registry import clear_leftover
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic import program
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.store import Making
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.modules import COLLECTIONS
from support.restic import DAY, POINT, ResticSite, checks, restic_program, statuses
from support.ssh import SshServer, ssh_server
from support.waiting import wait_until

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def site(tmp_path: Path) -> ResticSite:
    return ResticSite(tmp_path)


@contextlib.contextmanager
def running(site: ResticSite, *arguments: str, slowly: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """restic with *arguments*, so slow that it is at work for as long as the block runs, with its lock."""
    before = set(site.locks())
    command = [restic_program(), "--repo", site.location, "--password-file", str(site.key), "--no-cache"]
    process = subprocess.Popen([*command, slowly or "--limit-download=1", *arguments], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: set(site.locks()) - before, "a lock of restic")
        yield process
    finally:
        process.kill()
        process.wait()


def slow_backup(site: ResticSite) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    (site.directory / "more").write_bytes(os.urandom(20 << 20))
    return running(site, "backup", str(site.directory / "more"), slowly="--limit-upload=1")


# -- locks --


@pytest.mark.parametrize("task", ["backup", "prune", "check"])
def test_locks_of_killed_runs_keep_nobody_from_work(site: ResticSite, task: str) -> None:
    first = site.back_up()
    with slow_backup(site) if task == "backup" else running(site, task) as process:
        process.kill()
        process.wait()
    assert site.locks()
    backup = site.back_up()  # an exclusive lock would be in its way
    site.expire(first)  # any lock would
    assert [snapshot["id"] for snapshot in site.snapshots()] == [backup.metadata["stores"]["restic"]["snapshot"]]
    assert site.locks() == []
    assert statuses(site.verify()[0]) == {"passed"}


def test_somebody_at_work_is_waited_for_and_named_and_the_next_run_does_it(
    site: ResticSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "_LOCKED_SECONDS", 1.0)
    first = site.back_up()
    with slow_backup(site) as process:
        with pytest.raises(MaintenanceError) as refused:
            site.expire(first)
        assert f"locked by PID {process.pid}" in refused.value.observed
        assert len(site.locks()) >= 1
        site.back_up()  # which needs nobody else to be away
    # What could not be removed is a leftover by now, and goes with the next run.
    (leftover,) = site.repository.leftovers()
    clear_leftover(site.repository, leftover, [site.store()])
    assert first.metadata["stores"]["restic"]["snapshot"] not in {one["id"] for one in site.snapshots()}


def test_a_lock_of_another_host_is_never_removed(site: ResticSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_LOCKED_SECONDS", 1.0)
    first = site.back_up()
    with slow_backup(site) as process:
        process.kill()
        process.wait()
    monkeypatch.setattr(socket, "gethostname", lambda: "another-host")
    with pytest.raises(MaintenanceError, match="unlock"):
        site.expire(first)
    assert len(site.locks()) == 1


# -- killed --

BACK_UP = "import sys, pathlib; from support.restic import ResticSite; ResticSite(pathlib.Path(sys.argv[1])).back_up()"


@pytest.mark.parametrize("moment", ["while it lists", "while restic saves", "when the snapshot is there"])
def test_killed_at_any_moment_the_next_run_forgets_what_it_left(site: ResticSite, moment: str) -> None:
    first = site.back_up()
    (site.uploads / "more").write_bytes(os.urandom(30 << 20))
    seen = {
        "while it lists": lambda: list(Path(site.repository.directory).glob(".partial-*/restic")),
        "while restic saves": site.locks,
        "when the snapshot is there": lambda: len(list((site.path / "snapshots").iterdir())) > 1,
    }[moment]
    environment = {**os.environ, "PYTHONPATH": f"{COLLECTIONS}:{TESTS}"}
    process = subprocess.Popen([sys.executable, "-c", BACK_UP, str(site.directory)], env=environment)
    wait_until(lambda: seen() or process.poll() is not None, moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    (leftover,) = site.repository.leftovers()
    clear_leftover(site.repository, leftover, [site.store()])
    site.repository.remove_leftover(leftover)
    backup = site.back_up()
    ours = {one.metadata["stores"]["restic"]["snapshot"] for one in (first, backup)}
    assert {snapshot["id"] for snapshot in site.snapshots()} == ours
    part, problems = site.verify(within=0)
    assert (statuses(part), problems) == ({"passed"}, {})
    restored, _place = site.restore(backup)
    assert restored.problems == []


def test_a_backup_that_does_not_come_about_leaves_no_snapshot(site: ResticSite) -> None:
    store = site.store()
    with contextlib.suppress(RuntimeError), site.repository.new("20261121T093000Z-full-1a2b", {}) as directory:
        making = Making("20261121T093000Z-full-1a2b", site.repository, directory, POINT)
        store.create(making)
        assert len(site.snapshots()) == 1
        store.abandon(making)
        raise RuntimeError
    assert site.snapshots() == []


# -- others --


def test_two_clusters_save_at_once_and_each_forgets_its_own(site: ResticSite) -> None:
    site.back_up()
    code = BACK_UP.replace(".back_up()", ".back_up(cluster=sys.argv[2])")
    environment = {**os.environ, "PYTHONPATH": f"{COLLECTIONS}:{TESTS}"}
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(site.directory), name], env=environment)
        for name in ("main", "other")
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert len(site.snapshots()) == 3
    assert site.restic("backup", "--tag", "theirs", str(site.key)).returncode == 0
    part = Part()
    for backup in site.repository.backups():
        site.expire(backup, part)
    assert checks(part)["space in the restic repository"]["status"] == "passed"
    others = Repository(site.repository.root, "other").backups()
    left = {tuple(snapshot["tags"]) for snapshot in site.snapshots()}
    assert left == {("theirs",), ("wellkept", f"backup={others[0].label}", "cluster=other")}
    assert site.restic("check", "--read-data").returncode == 0


def test_what_was_forgotten_is_pruned_at_most_so_often(site: ResticSite) -> None:
    backups = [site.back_up() for _number in range(3)]
    memory = next((Path(site.repository.directory) / "verified").glob("store-restic-*.json"), None)
    assert memory is None
    first, second = Part(), Part()
    site.expire(backups[0], first)
    site.expire(backups[1], second)
    assert [check["status"] for check in first.checks] == ["passed"]
    assert second.checks == []
    third = Part()

    def tidy(every: str) -> None:
        site.store(restic_prune_every=every).tidy(site.repository, third)

    tidy("0")
    assert third.checks == []
    wait_until(lambda: third.checks or tidy("1s"), "it to be due")
    assert [check["status"] for check in third.checks] == ["passed"]


def test_a_snapshot_of_a_backup_that_is_no_more_is_told_and_left(site: ResticSite) -> None:
    lost, _kept = site.back_up(), site.back_up()
    shutil.rmtree(lost.directory)
    part, problems = site.verify(quick=True)
    assert problems == {}
    assert lost.label in checks(part)[f"snapshots without a backup in {site.location}"]["observed"]
    assert len(site.snapshots()) == 2


def test_a_full_disk_ends_it_with_that_reason_and_leaves_the_repository_sound(site: ResticSite) -> None:
    site.path.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m,mode=0700", "none", str(site.path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        first = site.back_up()
        (site.uploads / "more").write_bytes(os.urandom(20 << 20))
        with pytest.raises(MaintenanceError) as refused:
            site.back_up()
        assert "No space left on device" in refused.value.observed or "no space left" in refused.value.observed
        assert "Free space" in refused.value.advice
        (site.uploads / "more").unlink()
        assert site.repository.backups() == [first]
        restored, _place = site.restore(first)
        assert restored.problems == []
    finally:
        subprocess.run(["umount", "--lazy", str(site.path)], check=True)


@pytest.mark.long
def test_twenty_clean_runs_raise_no_alarm(site: ResticSite) -> None:
    for number in range(20):
        (site.uploads / f"{number}.txt").write_text(f"changed in run {number}\n" * 50)
        (site.uploads / f"new-{number}").write_bytes(os.urandom(10_000 * number))
        (site.uploads / f"new-{number - 3}").unlink(missing_ok=True)
        part = Part()
        backup = site.back_up(part)
        assert statuses(part) == {"passed"}, part.checks
        part, problems = site.verify(now=1e9 + number * DAY)
        assert (statuses(part), problems) == ({"passed"}, {}), part.checks
        if number % 4 == 3:
            restored, _place = site.restore(backup, f"restored-{number}")
            assert restored.problems == []
            site.expire(site.repository.backups()[0], part)
            assert statuses(part) == {"passed"}, part.checks


# -- by SFTP --


@pytest.fixture
def far(tmp_path: Path) -> Iterator[tuple[ResticSite, SshServer]]:
    with ssh_server(config=["ForceCommand internal-sftp"]) as server:
        ssh = {"port": server.port, "key_file": str(server.key_file), "known_hosts": str(server.known_hosts)}
        yield ResticSite(tmp_path, f"sftp:{server.user}@{server.host}:{server.path}/restic", ssh), server


def test_the_life_of_files_on_another_host(far: tuple[ResticSite, SshServer]) -> None:
    site, server = far
    part = Part()
    first, backup = site.back_up(part), site.back_up(part)
    assert statuses(part) == {"passed"}
    assert (server.data / "restic" / "config").exists()
    part, problems = site.verify()
    assert (statuses(part), problems) == ({"passed"}, {})
    restored, _place = site.restore(backup)
    assert restored.problems == []
    site.expire(first)
    assert len(list((server.data / "restic" / "snapshots").iterdir())) == 1


def test_a_host_that_is_down_or_another_than_it_was_is_told(far: tuple[ResticSite, SshServer]) -> None:
    site, server = far
    backup = site.back_up()
    server.stop()
    for words in ("refused", "Host key verification failed"):
        with pytest.raises(MaintenanceError) as told:
            site.back_up()
        assert words in told.value.observed, told.value
        with pytest.raises(MaintenanceError):
            site.store().expire(backup.label, None)
        part, problems = site.verify()
        assert problems == {}  # what could not be looked at is not called damaged
        assert statuses(part) == {"failed"}
        assert words in part.checks[0]["observed"]
        server.new_host_key()
        server.start() if words == "refused" else None
    assert json.loads(Path(backup.path("backup.json")).read_text())["stores"]["restic"]


def test_a_connection_that_breaks_ends_the_backup_and_the_next_one_succeeds(
    far: tuple[ResticSite, SshServer], tmp_path: Path
) -> None:
    site, server = far
    site.back_up()
    (site.uploads / "more").write_bytes(os.urandom(30 << 20))
    environment = {**os.environ, "PYTHONPATH": f"{COLLECTIONS}:{TESTS}"}
    code = (
        "import sys, pathlib, json; from support.restic import ResticSite\n"
        "ResticSite(pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])).back_up()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), site.location, json.dumps(site.ssh)],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    locks = server.data / "restic" / "locks"
    wait_until(lambda: any(locks.iterdir()) or process.poll() is not None, "restic to save")
    server.cut()
    server.stop()
    _nothing, errors = process.communicate(timeout=300)
    assert process.returncode != 0, errors
    server.start()
    backup = site.back_up()
    restored, _place = site.restore(backup)
    assert restored.problems == []
