"""Backups and restore tests of Redis that are killed, refused or out of room: nothing of the live server is lost."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.test_redis_backup import LEAN, Platform
from support.modules import checks_by_name, module_process, run_module
from support.postgresql import PostgresServer
from support.redis import RedisServer, fill, redis_server
from support.waiting import wait_until


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with redis_server("requirepass pencil") as running:
        fill(running, 200)
        yield running


@pytest.fixture
def platform(postgresql: PostgresServer, redis: RedisServer, tmp_path: Path) -> Platform:
    return Platform(postgresql, redis, tmp_path)


def without_markers(redis: RedisServer) -> str:
    """The digest of all that the application holds."""
    with redis.connect() as connection:
        for key in connection.command("KEYS", "wellkept:marker:*") or []:  # type: ignore[union-attr]
            connection.command("DEL", key)  # type: ignore[arg-type]
    return redis.digest()


def test_a_backup_that_is_killed_while_redis_is_copied_leaves_nothing(platform: Platform, redis: RedisServer) -> None:
    before = without_markers(redis)
    redis.do("CONFIG", "SET", "rdb-key-save-delay", 3000)
    process = module_process("backup", platform.backup_options())
    try:
        wait_until(
            lambda: any(path.stat().st_size for path in platform.root.glob("main/.partial-*/redis/0.rdb")),
            process.poll,
        )
        process.kill()
    finally:
        process.communicate()
    redis.do("CONFIG", "SET", "rdb-key-save-delay", 0)
    assert platform.repository.backups() == []
    # The server notices that nobody listens any more.
    wait_until(lambda: not redis.children())
    shown = platform.run_backup()
    assert not shown["failed"], shown["msg"]
    assert "removed" in checks_by_name(shown)["leftovers of killed runs"]["observed"]
    assert platform.repository.leftovers() == []
    assert without_markers(redis) == before


def scratch_redis(platform: Platform) -> list[int]:
    """Scratch servers of Redis that run."""
    found = []
    for path in platform.scratch_dir.glob("wellkept-scratch-*/data/redis.pid"):
        pid = path.read_text().strip()
        if pid and is_alive(int(pid)):
            found.append(int(pid))
    return found


def test_restore_tests_that_are_ended_while_redis_runs_are_cleaned_up_after(
    platform: Platform, redis: RedisServer
) -> None:
    redis.do("DEBUG", "POPULATE", 100_000, "many", 30)
    assert not platform.run_backup()["failed"]
    before = redis.digest()
    end_while_redis_runs(platform, signal.SIGKILL)
    assert platform.scratch_names()
    # The next one removes what that left, and cleans up after itself when it is told to stop.
    end_while_redis_runs(platform, signal.SIGTERM)
    assert platform.scratch_names() == []
    shown = platform.test(**LEAN)
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)["restore of Redis shop"]["status"] == "passed"
    assert platform.scratch_names() == []
    assert redis.digest() == before


def end_while_redis_runs(platform: Platform, number: signal.Signals) -> None:
    process = module_process("restore_test", platform.options(**LEAN))
    try:
        (pid,) = wait_until(lambda: scratch_redis(platform), process.poll)
        process.send_signal(number)
    finally:
        process.communicate()
    # Its server dies with it.
    wait_until(lambda: not is_alive(pid))


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_scratch_server_that_outlived_its_run_is_ended_by_the_next(platform: Platform, redis: RedisServer) -> None:
    """As without setpriv, by which the kernel ends it with its run."""
    assert not platform.run_backup()["failed"]
    data = platform.scratch_dir / "wellkept-scratch-0123456789ab/data"
    data.mkdir(parents=True)
    for directory in (platform.state_dir, platform.scratch_dir, data.parent):
        directory.chmod(0o755)
    configuration = data.parent / "redis.conf"
    configuration.write_text(
        f'port 0\nunixsocket {redis.directory}/survivor\nsave ""\ndir {data}\npidfile {data}/redis.pid\n'
    )
    log = (data.parent / "server.log").open("wb")
    survivor = subprocess.Popen([str(redis.directory / "redis-server"), str(configuration)], stdout=log, stderr=log)
    try:
        wait_until(lambda: scratch_redis(platform), (data.parent / "server.log").read_text)
        shown = platform.test(**LEAN)
        assert not shown["failed"], shown["msg"]
        assert f"ended its server (process {survivor.pid})" in str(shown["checks"])
        # SIGKILL comes where the machine is too busy for it to end by the other in time.
        assert survivor.wait(60) in (-signal.SIGQUIT, -signal.SIGKILL)
        assert redis.answers()
    finally:
        survivor.kill()
        survivor.wait()


def test_a_full_disk_ends_the_backup_and_says_so(platform: Platform, redis: RedisServer) -> None:
    """The copy is larger than any other file of the backup may be."""
    redis.do("SET", "large", os.urandom(60_000_000))
    limit = 40_000_000

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    shown = run_module("backup", platform.backup_options(), preexec_fn=small_files)
    assert shown["failed"]
    assert "File too large" in shown["msg"]
    assert "Free space" in shown["msg"]
    assert platform.repository.backups() == []
    assert list(platform.root.glob("main/.partial-*")) == []
    assert not platform.run_backup()["failed"]


def test_too_little_room_is_told_before_anything_is_written(platform: Platform) -> None:
    free = shutil.disk_usage(platform.root.parent).free
    shown = platform.run_backup(min_free_bytes=str(free * 2))
    assert shown["failed"]
    assert "space in" in shown["msg"]


@pytest.mark.parametrize("harm", ["down", "wrong password"])
def test_a_server_that_cannot_be_copied_fails_the_run_and_costs_the_databases_nothing(
    platform: Platform, redis: RedisServer, harm: str
) -> None:
    server = redis.option("shop")
    if harm == "down":
        redis.stop()
    else:
        server["password"] = "chalk"
    shown = platform.run_backup(redis=[server])
    assert shown["failed"]
    assert ("Connection refused" if harm == "down" else "WRONGPASS") in shown["msg"]
    assert "chalk" not in str({**shown, "invocation": ""})
    assert checks_by_name(shown)["store redis"]["status"] == "failed"
    (backup,) = platform.repository.backups()
    assert backup.absent == ("redis",)
    assert "chalk" not in str(backup.metadata)


def test_a_server_that_dies_while_it_is_copied_costs_the_databases_nothing(
    platform: Platform, redis: RedisServer
) -> None:
    redis.do("CONFIG", "SET", "rdb-key-save-delay", 3000)
    process = module_process("backup", platform.backup_options())
    try:
        wait_until(
            lambda: any(path.stat().st_size for path in platform.root.glob("main/.partial-*/redis/0.rdb")),
            process.poll,
        )
        redis.stop()
    finally:
        said, _errors = process.communicate()
    assert "store redis" in said
    (backup,) = platform.repository.backups()
    assert backup.absent == ("redis",)
    assert not os.path.exists(backup.path("redis")), "what had come of it is gone"
    shown = platform.verify()
    assert checks_by_name(shown)["stores in the newest backup"]["status"] == "failed"
    assert checks_by_name(shown)["bytes of the backups"]["status"] == "passed"


def test_a_lost_file_fails_verification_and_restore_test(platform: Platform) -> None:
    assert not platform.run_backup()["failed"]
    platform.file().unlink()
    for shown in (platform.verify(), platform.test(**LEAN)):
        assert shown["failed"]
        assert "redis/0.rdb is missing" in shown["msg"]
