"""Copies of real Redis servers restored into scratch servers: all content is there, and no live server is touched."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.redis import rdb
from ansible_collections.wellkept.maintenance.plugins.module_utils.redis.instance import MARKER_PREFIX
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import redis_test
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_directory import scratch_directory
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_redis import USER, ScratchRedis
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.redis import RedisServer, fill, redis_server
from support.redis_backups import RedisBackups, observed, statuses


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server("requirepass pencil") as running:
        fill(running)
        yield running


@pytest.fixture
def backups(tmp_path: Path) -> RedisBackups:
    return RedisBackups(tmp_path)


def test_all_types_databases_and_expiring_keys_come_back_exactly(server: RedisServer, backups: RedisBackups) -> None:
    backup = backups.back_up(server.option("shop"))
    (facts,) = backup.metadata["stores"]["redis"]["servers"]
    assert facts["keys"] == sum(server.do("EVAL", COUNT, 0))
    assert facts["bounds"]["3"] == [500, 500]
    part, proven = backups.prove(backup)
    assert set(statuses(part).values()) == {"passed"}, part.checks
    assert {"hash", "list", "set", "stream", "string", "zset"} == set(
        next(check for check in part.checks if check["name"] == "values in the restored Redis shop")["evidence"][
            "types"
        ]
    )
    # The server's own fingerprint over everything, what is set to expire included.
    assert proven.digests["shop"]["sha1"] == server.digest()
    assert backups.scratch_names() == []
    assert part.metrics["redis_load_seconds shop"]["value"] > 0


COUNT = """
local found = {}
for number = 0, 15 do redis.call('SELECT', number); found[#found + 1] = redis.call('DBSIZE') end
return found
"""


def test_a_hundred_thousand_keys_come_back_while_clients_write(backups: RedisBackups) -> None:
    with redis_server() as server:
        fill(server)
        server.do("DEBUG", "POPULATE", 120_000, "many", 40)
        stop = threading.Event()

        def write() -> None:
            with server.connect() as connection:
                number = 0
                while not stop.is_set():
                    connection.command("SET", f"new:{number}", number)
                    connection.command("DEL", f"session:{number}")
                    connection.command("SELECT", number % 3)
                    number += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            part = Part()
            backup = backups.back_up(server.option("shop"), part=part)
        finally:
            stop.set()
            writer.join()
        assert set(statuses(part).values()) == {"passed"}, part.checks
        (facts,) = backup.metadata["stores"]["redis"]["servers"]
        assert facts["keys"] > 100_000
        assert facts["keyspace"]["before"] != facts["keyspace"]["after"]
        part, _proven = backups.prove(backup)
        assert set(statuses(part).values()) == {"passed"}, part.checks


def test_a_server_that_writes_to_its_disk_first_is_copied_too(backups: RedisBackups) -> None:
    with redis_server("repl-diskless-sync no") as server:
        fill(server, 100)
        backup = backups.back_up(server.option("shop"))
        part, proven = backups.prove(backup)
        assert set(statuses(part).values()) == {"passed"}, part.checks
        assert proven.digests["shop"]["sha1"] == server.digest()


def test_without_a_marker_the_live_server_is_not_written_to(backups: RedisBackups) -> None:
    with redis_server() as server:
        server.do("SET", "a", 1)
        before = server.digest(), server.do("INFO", "commandstats").count("cmdstat_set")
        backup = backups.back_up(server.option("shop", marker_for="0"))
        part, proven = backups.prove(backup)
        assert "marker in the restored Redis shop" not in statuses(part)
        assert set(statuses(part).values()) == {"passed"}
        assert (server.digest(), server.do("INFO", "commandstats").count("cmdstat_set")) == before
        assert proven.digests["shop"]["sha1"] == server.digest()


def test_the_marker_expires(server: RedisServer, backups: RedisBackups) -> None:
    backup = backups.back_up(server.option("shop", marker_for="2h"))
    assert 7000 < server.do("TTL", MARKER_PREFIX + backup.label) <= 7200


def test_an_empty_server_is_restored_too(backups: RedisBackups) -> None:
    with redis_server() as server:
        part, _proven = backups.prove(backups.back_up(server.option("shop", marker_for="0")))
        assert set(statuses(part).values()) == {"passed"}, part.checks
        assert "it is empty" in observed(part, "values in the restored Redis shop")


def test_keys_that_have_expired_since_are_accounted_for(backups: RedisBackups) -> None:
    with redis_server() as server:
        server.do("MSET", *(word for number in range(50) for word in (f"kept:{number}", number)))
        # Already over, but still there: an expired key goes when somebody looks at it, or in its turn.
        server.do("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        for number in range(20):
            server.do("SET", f"gone:{number}", "x", "PX", 1)
        backup = backups.back_up(server.option("shop"))
    (facts,) = backup.metadata["stores"]["redis"]["servers"]
    assert facts["keys"] == 71
    part, proven = backups.prove(backup)
    assert set(statuses(part).values()) == {"passed"}, part.checks
    assert observed(part, "keys of the restored Redis shop") == "51 keys, 20 more had expired"
    assert proven.digests["shop"]["keys"] == 51


def test_a_second_test_of_a_backup_must_find_the_same_content(server: RedisServer, backups: RedisBackups) -> None:
    backup = backups.back_up(server.option("shop"))
    _part, first = backups.prove(backup)
    part, second = backups.prove(backup, before=first.digests)
    assert second.digests == first.digests
    assert statuses(part)["content of the restored Redis shop"] == "passed"
    other = {"shop": {**first.digests["shop"], "sha1": "0" * 40}}
    part, _second = backups.prove(backup, before=other)
    assert statuses(part)["content of the restored Redis shop"] == "failed"


def assertion(command: list[str], expected: str, database: int = 0) -> dict[str, Any]:
    return {"name": "it", "server": "shop", "database": database, "command": command, "expected": expected}


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (assertion(["GET", "counter"], "12345"), "passed"),
        (assertion(["GET", "counter"], "12346"), "failed"),
        (assertion(["GET", "counter"], "null", 3), "passed"),
        (assertion(["DBSIZE"], "500", 3), "passed"),
        ({**assertion(["DBSIZE"], "500", 3), "expected": None, "min": "400", "max": "500"}, "passed"),
        ({**assertion(["DBSIZE"], "500", 3), "expected": None, "min": "501"}, "failed"),
        (assertion(["hget", "large", "80"], "v" * 80, 15), "passed"),
        (assertion(["LRANGE", "queue:1", "0", "-1"], '["job 0", "job 1"]'), "passed"),
        (assertion(["EVAL_RO", "return #redis.call('KEYS', 'user:*')", "0"], "100"), "passed"),
        (assertion(["GET", "queue:1"], "x"), "failed"),
        (assertion(["DEL", "counter"], "1"), "failed"),
        (assertion(["REPLICAOF", "127.0.0.1", "6379"], "OK"), "failed"),
        (assertion(["NOSUCHCOMMAND"], "OK"), "failed"),
    ],
    ids=lambda value: " ".join(value["command"][:2]) if isinstance(value, dict) else value,
)
def test_assertions_are_asked(whole: tuple[RedisBackups, Any], asked: dict[str, Any], status: str) -> None:
    backups, backup = whole
    part, _proven = backups.prove(backup, assertions=[asked])
    assert statuses(part)["assertion it in Redis shop"] == status, part.checks


@pytest.fixture(scope="module")
def whole(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[RedisBackups, Any]:
    """A backup that tests only read."""
    backups = RedisBackups(tmp_path_factory.mktemp("whole"))
    return backups, backups.back_up(server.option("shop"))


def test_assertions_that_only_read_are_told_from_others(whole: tuple[RedisBackups, Any]) -> None:
    backups, backup = whole
    part, _proven = backups.prove(backup, assertions=[assertion(["MIGRATE", "10.0.0.1", "6379"], "OK")])
    assert observed(part, "assertion it in Redis shop") == "MIGRATE is not one"


def test_an_assertion_about_a_server_that_is_not_in_the_backup_fails(whole: tuple[RedisBackups, Any]) -> None:
    backups, backup = whole
    part, _proven = backups.prove(backup, assertions=[{**assertion(["PING"], "PONG"), "server": "lost"}])
    assert statuses(part)["Redis servers in the backup"] == "failed"


def test_the_scratch_server_is_shut_off_and_without_rights(whole: tuple[RedisBackups, Any]) -> None:
    backups, backup = whole
    with scratch_directory(str(backups.scratch), {}) as directory:
        server = ScratchRedis(directory)
        Path(server.file).write_bytes(backups.file(backup).read_bytes())
        server.configure(databases=16, memory=200 << 20)
        try:
            server.start(60)
            assert server.process
            pid = server.process.pid
            assert_without_rights(Path(f"/proc/{pid}"))
            assert_shut_off(server, pid)
        finally:
            server.stop()
    assert not Path(f"/proc/{pid}/exe").exists()
    assert not os.path.exists(os.path.dirname(server.socket))


def assert_without_rights(process: Path) -> None:
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
    if os.geteuid() == 0:
        assert {int(word) for word in status["Uid"].split()} == {pwd.getpwnam(USER).pw_uid}
        assert int(status["CapEff"], 16) & ~(1 << 2 | 1 << 1) == 0
    assert int((process / "oom_score_adj").read_text()) == 1000


def assert_shut_off(server: ScratchRedis, pid: int) -> None:
    with server.connect() as connection:
        assert connection.command("CONFIG", "GET", "port") == [b"port", b"0"]
        assert connection.command("CONFIG", "GET", "save") == [b"save", b""]
        assert connection.command("CONFIG", "GET", "appendonly") == [b"appendonly", b"no"]
        assert connection.command("CONFIG", "GET", "sanitize-dump-payload")[1] == b"yes"  # type: ignore[index]
        assert connection.info()["connected_slaves"] == "0"
    assert not listening(pid)
    assert stat.S_IMODE(os.stat(os.path.dirname(server.socket)).st_mode) == 0o700


def listening(pid: int) -> list[str]:
    """TCP sockets of the process *pid* that wait for connections."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(descriptor).removeprefix("socket:[").rstrip("]"))
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                found.append(words[1])
    return found


def test_several_servers_are_kept_apart(server: RedisServer, backups: RedisBackups) -> None:
    with redis_server() as other:
        other.do("SET", "only", "here")
        backup = backups.back_up(server.option("shop"), other.option("queue"))
        part, proven = backups.prove(backup)
        assert set(statuses(part).values()) == {"passed"}, part.checks
        assert proven.digests["queue"]["sha1"] == other.digest()
        assert proven.digests["shop"]["sha1"] == server.digest()


def test_a_replica_is_backed_up_without_a_marker(server: RedisServer, backups: RedisBackups) -> None:
    with redis_server("masterauth pencil", f"replicaof 127.0.0.1 {server.port}") as replica:
        wait_for_link(replica)
        part = Part()
        backup = backups.back_up(replica.option("shop"), part=part)
        assert statuses(part)["marker in Redis shop"] == "warned"
        assert "the server is a replica" in observed(part, "marker in Redis shop")
        part, proven = backups.prove(backup)
        assert not part.failures()
        assert statuses(part)["marker in the restored Redis shop"] == "unknown"
        assert proven.digests["shop"]["sha1"] == server.digest()


def wait_for_link(replica: RedisServer) -> None:
    from support.waiting import wait_until

    def linked() -> bool:
        with replica.connect() as connection:
            return connection.info().get("master_link_status") == "up"

    wait_until(linked, replica.log.read_text)


def test_a_user_with_few_rights_is_enough(backups: RedisBackups) -> None:
    """What the documentation asks for."""
    with redis_server() as server:
        server.do("SET", "a", 1)
        rights = ["on", ">chalk", "~wellkept:marker:*", "+info", "+psync", "+replconf", "+set"]
        server.do("ACL", "SETUSER", "keeper", *rights)
        backup = backups.back_up({**server.option("shop"), "username": "keeper", "password": "chalk"})
        part, proven = backups.prove(backup)
        assert set(statuses(part).values()) == {"passed"}, part.checks
        assert proven.digests["shop"]["sha1"] == server.digest()


def test_files_are_laid_down_for_the_operator(server: RedisServer, backups: RedisBackups, tmp_path: Path) -> None:
    from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.redis_copies import RedisCopies

    backup = backups.back_up(server.option("shop"))
    restored = RedisCopies({}).restore(backup, str(tmp_path / "down"))
    place = Path(restored.places["Redis shop"])
    assert restored.problems == []
    assert place == tmp_path / "down/redis/shop.rdb"
    assert place.read_bytes() == backups.file(backup).read_bytes()
    # As the documentation says: put in the place of the server's file, it is loaded at the next start.
    with redis_server() as new:
        new.stop()
        place.rename(new.directory / "dump.rdb")
        new.start()
        assert new.digest() == server.digest()


def test_memory_that_a_restore_needs_is_looked_for_first(
    whole: tuple[RedisBackups, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, backup = whole
    monkeypatch.setattr(redis_test, "available_memory", lambda: 1 << 20)
    part, _proven = backups.prove(backup)
    assert statuses(part) == {"room for the restore of Redis shop": "failed"}
    assert "1.0 MiB of memory available" in observed(part, "room for the restore of Redis shop")


def test_the_memory_that_is_left_is_measured() -> None:
    with open("/proc/meminfo", encoding="ascii") as stream:
        total = int(stream.readline().split()[1]) * 1024
    assert 1 << 20 < redis_test.available_memory() <= total


def test_where_no_server_is_installed_nothing_is_called_restored(
    whole: tuple[RedisBackups, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, backup = whole
    monkeypatch.setattr(rdb, "find_program", lambda _name: None)
    part, proven = backups.prove(backup, assertions=[assertion(["PING"], "PONG")])
    assert statuses(part) == {"restore of Redis shop": "unknown"}
    assert proven.digests == {}
    assert proven.missed == ["Redis shop", "assertion it in Redis shop"]
    assert "apt-get install redis-tools" in part.checks[0]["advice"]
