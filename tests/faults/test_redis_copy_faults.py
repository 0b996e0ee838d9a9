"""What can go wrong while a Redis server is copied, and what can be wrong with the copy: all of it is told."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.redis_copies import RedisCopies
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.redis import instance, rdb, snapshot
from ansible_collections.wellkept.maintenance.plugins.module_utils.redis.client import Redis, RedisError
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import redis_content
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_redis import ScratchRedis
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.damage import empty, flip
from support.ports import free_port
from support.redis import RedisServer, fill, redis_server
from support.redis_backups import RedisBackups, observed, statuses
from support.waiting import wait_until

FLIPS = 200
SEED = 20261121
# So that a copy of a thousand keys lasts a second and more.
SLOW = "rdb-key-save-delay 1000"


@pytest.fixture
def backups(tmp_path: Path) -> RedisBackups:
    return RedisBackups(tmp_path)


def nothing_is_left(backups: RedisBackups) -> bool:
    return backups.repository.backups() == [] and backups.repository.leftovers() == []


# -- servers that cannot be copied --


def test_a_server_that_is_down_is_told_before_anything_is_written(backups: RedisBackups) -> None:
    with pytest.raises(MaintenanceError, match="Connection refused"):
        backups.back_up({"name": "shop", "host": "127.0.0.1", "port": free_port()})
    assert nothing_is_left(backups)


@pytest.mark.parametrize(("password", "code"), [("", "NOAUTH"), ("chalk", "WRONGPASS")])
def test_a_wrong_password_is_told_and_not_betrayed(backups: RedisBackups, password: str, code: str) -> None:
    with redis_server("requirepass pencil") as server, pytest.raises(RedisError) as caught:
        backups.back_up({**server.option("shop"), "password": password})
    assert caught.value.code == code
    assert not password or password not in str(caught.value)
    assert nothing_is_left(backups)


def test_a_user_that_may_not_copy_is_told_which_right_it_lacks(backups: RedisBackups) -> None:
    with redis_server() as server:
        server.do("ACL", "SETUSER", "keeper", "on", ">chalk", "~*", "+info", "+set", "+replconf")
        with pytest.raises(RedisError, match="psync"):
            backups.back_up({**server.option("shop"), "username": "keeper", "password": "chalk"})
    assert nothing_is_left(backups)


def test_a_server_that_still_loads_its_data_is_not_copied(backups: RedisBackups) -> None:
    with redis_server("key-load-delay 100000", "loading-process-events-interval-bytes 1024") as server:
        server.do("DEBUG", "POPULATE", 20_000, "many", 40)
        server.do("SAVE")
        server.stop()
        server.start(wait=False)

        def loading() -> bool:
            try:
                server.do("PING")
            except RedisError as error:
                return error.code == "LOADING"
            except MaintenanceError:
                return False
            raise AssertionError("it has loaded already")

        wait_until(loading, server.log.read_text)
        with pytest.raises(RedisError) as caught:
            backups.back_up(server.option("shop"))
        assert caught.value.code == "LOADING"
        assert "still loading" in caught.value.advice
    assert nothing_is_left(backups)


def test_empty_lines_of_a_server_that_waits_before_it_begins_are_no_answer(backups: RedisBackups) -> None:
    """It waits for other replicas, five seconds by default, and sends one every ten: so one copy in two met one."""
    with redis_server("repl-diskless-sync-delay 4", "repl-ping-replica-period 1") as server:
        server.do("SET", "a", "1")
        assert backups.back_up(server.option("shop")).metadata["stores"]["redis"]["servers"][0]["keys"] == 2


def test_a_replica_without_its_master_is_not_copied(backups: RedisBackups) -> None:
    with (
        redis_server(f"replicaof 127.0.0.1 {free_port()}") as replica,
        pytest.raises(MaintenanceError, match=r"the link to 127\.0\.0\.1 is down"),
    ):
        backups.back_up(replica.option("shop"))
    assert nothing_is_left(backups)


def in_the_middle(server: RedisServer, backups: RedisBackups, harm: Callable[[], None]) -> MaintenanceError:
    """What a copy ends with when *harm* is done as soon as its first bytes are there."""
    outcome: list[Any] = []

    def back_up() -> None:
        try:
            outcome.append(backups.back_up(server.option("shop")))
        except MaintenanceError as error:
            outcome.append(error)

    thread = threading.Thread(target=back_up)
    thread.start()
    try:
        wait_until(lambda: any(path.stat().st_size for path in backups.repository_files("0.rdb")) or outcome)
        harm()
    finally:
        thread.join(120)
    (found,) = outcome
    assert isinstance(found, MaintenanceError), found
    return found


@pytest.fixture
def slow_server() -> Iterator[RedisServer]:
    with redis_server() as server:
        fill(server, 1000)
        server.do("DEBUG", "POPULATE", 5000, "many", 2000)
        server.do("CONFIG", "SET", *SLOW.split())
        yield server


def test_a_server_that_dies_while_it_is_copied_leaves_no_backup(
    slow_server: RedisServer, backups: RedisBackups
) -> None:
    error = in_the_middle(slow_server, backups, slow_server.stop)
    assert "closed the connection" in error.observed or "reset" in error.observed
    assert nothing_is_left(backups)
    slow_server.start()
    assert backups.back_up(slow_server.option("shop"))


def test_a_copy_whose_writer_is_killed_leaves_no_backup(slow_server: RedisServer, backups: RedisBackups) -> None:
    """The server itself lives on; the process that it forked to send its data is ended, as by the OOM killer."""

    def kill() -> None:
        for pid in slow_server.children():
            os.kill(pid, signal.SIGKILL)

    error = in_the_middle(slow_server, backups, kill)
    assert "closed the connection" in error.observed or "reset" in error.observed
    assert nothing_is_left(backups)


def test_a_server_that_hangs_is_not_waited_for_forever(
    slow_server: RedisServer, backups: RedisBackups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "SILENCE", 1.0)

    def hang() -> None:
        for pid in slow_server.children():
            os.kill(pid, signal.SIGSTOP)

    error = in_the_middle(slow_server, backups, hang)
    assert error.observed == "no answer in time"
    assert nothing_is_left(backups)


def test_a_copy_has_a_time_limit(slow_server: RedisServer, backups: RedisBackups) -> None:
    with pytest.raises(MaintenanceError, match="within the timeout"):
        backups.back_up(slow_server.option("shop"), timeout="0.5s")
    assert nothing_is_left(backups)


def test_a_copy_from_another_server_than_announced_is_refused(backups: RedisBackups) -> None:
    """Something between us and the server mixes up whom it talks to."""
    with redis_server() as one, redis_server() as other:
        one.do("SET", "a", 1)
        with mixing(one.port, other.port) as port, pytest.raises(MaintenanceError) as caught:
            backups.back_up({"name": "shop", "host": "127.0.0.1", "port": port})
    assert caught.value.expected == "one server from the beginning to the end"
    assert nothing_is_left(backups)


class mixing:  # noqa: N801 (a context manager)
    """A port that leads to the one server, and from the third connection on to the other."""

    def __init__(self, first: int, then: int) -> None:
        self._targets = [first, first]
        self._then = then
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *_error: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._targets.pop(0) if self._targets else self._then))
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while block := source.recv(65536):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return


def test_a_copy_that_was_begun_for_somebody_else_before_the_marker_is_refused(backups: RedisBackups) -> None:
    with redis_server("repl-diskless-sync no") as server:
        fill(server, 100)
        server.do("CONFIG", "SET", "rdb-key-save-delay", 3000)
        with server.connect() as other:
            other.command("REPLCONF", "capa", "eof")
            other.command("REPLCONF", "rdb-only", "1")
            other.send("PSYNC", "?", "-1")
            assert "FULLRESYNC" in str(other.read_reply())
            with pytest.raises(MaintenanceError, match="when it began to send its data to somebody else"):
                backups.back_up(server.option("shop"))
        assert nothing_is_left(backups)
        server.do("CONFIG", "SET", "rdb-key-save-delay", 0)
        wait_until(lambda: not server.children())
        assert backups.back_up(server.option("shop"))


# -- copies that are not as they were --


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisBackups, RedisServer]]:
    with redis_server() as server:
        fill(server, 400)
        yield RedisBackups(tmp_path_factory.mktemp("whole")), server


def test_redis_check_rdb_alone_finds_every_flipped_bit(whole: tuple[RedisBackups, RedisServer]) -> None:
    """Beside our hash: what is damaged before it reaches us has the server's own checksum against it."""
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    path = backups.file(backup)
    assert rdb.check(str(path)).keys == backup.metadata["stores"]["redis"]["servers"][0]["keys"]
    chance = random.Random(SEED)
    missed = []
    for _flip in range(FLIPS):
        position, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, position, bit)
        found = rdb.check(str(path), timeout=60)
        if not found.problem and not found.refused:
            missed.append((position, bit))
        flip(path, position, bit)
    assert missed == []
    assert rdb.check(str(path)).problem == ""


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_checksum(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def text(path: Path) -> None:
    path.write_text("-ERR max number of clients reached\r\n")


def damage(path: Path) -> None:
    flip(path, path.stat().st_size // 2, 3)


@pytest.mark.parametrize("harm", [empty, cut, cut_checksum, text, damage])
def test_a_damaged_file_whose_hash_was_made_to_fit_is_found_by_the_restore(
    whole: tuple[RedisBackups, RedisServer], harm: Callable[[Path], None]
) -> None:
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    harm(backups.file(backup))
    assert rdb.check(str(backups.file(backup))).problem
    believed = backups.rewrite(backups.believe(backup), keys=None)
    assert backups.verify(believed)[backup.label]
    part, _proven = backups.prove(believed)
    assert statuses(part)["restore of Redis shop"] == "failed", part.checks
    assert backups.scratch_names() == []


def test_a_damaged_file_is_not_started(whole: tuple[RedisBackups, RedisServer]) -> None:
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    damage(backups.file(backup))
    part, _proven = backups.prove(backup)
    assert "SHA-256" in observed(part, "restore of Redis shop")


def test_swapped_files_of_two_servers_are_found(whole: tuple[RedisBackups, RedisServer]) -> None:
    backups, server = whole
    with redis_server() as other:
        other.do("SET", "only", "here")
        backup = backups.back_up(server.option("shop"), other.option("queue"))
    first, second = backups.file(backup, 0), backups.file(backup, 1)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    believed = backups.believe(backup)
    problems = backups.verify(believed)[backup.label]
    assert len(problems) == 2
    assert "redis/0.rdb (Redis shop): it shows" in problems[0]
    part, _proven = backups.prove(believed)
    for name in ("shop", "queue"):
        assert statuses(part)[f"keys of the restored Redis {name}"] == "failed"
        assert observed(part, f"marker in the restored Redis {name}") == "it has another value"


def test_an_older_copy_in_the_place_of_a_newer_one_is_found(whole: tuple[RedisBackups, RedisServer]) -> None:
    backups, server = whole
    old = backups.back_up(server.option("shop"))
    new = backups.back_up(server.option("shop"))
    backups.file(new).write_bytes(backups.file(old).read_bytes())
    believed = backups.believe(new)
    assert "it shows" in backups.verify(believed)[new.label][0]
    part, _proven = backups.prove(believed)
    assert statuses(part)["marker in the restored Redis shop"] == "failed"
    assert observed(part, "marker in the restored Redis shop") == "it is not there"


def test_a_missing_file_is_found(whole: tuple[RedisBackups, RedisServer]) -> None:
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    backups.file(backup).unlink()
    part, _proven = backups.prove(backup)
    assert statuses(part)["restore of Redis shop"] == "failed"
    assert "No such file" in observed(part, "restore of Redis shop")


def test_lost_keys_are_found(whole: tuple[RedisBackups, RedisServer]) -> None:
    """The file is sound, but holds less than the server did."""
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    bounds = {**backup.metadata["stores"]["redis"]["servers"][0]["bounds"]}
    least, most = bounds["3"]
    part, _proven = backups.prove(backups.rewrite(backup, bounds={**bounds, "3": [least + 1, most + 1]}))
    assert statuses(part)["keys of the restored Redis shop"] == "failed"
    assert "database 3 has 100 keys instead of 101" in observed(part, "keys of the restored Redis shop")


def test_keys_that_were_not_loaded_are_found(whole: tuple[RedisBackups, RedisServer]) -> None:
    """As if the server had left one out of those that redis-check-rdb has counted in the file."""
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    keys = backup.metadata["stores"]["redis"]["servers"][0]["keys"]
    part, _proven = backups.prove(backups.rewrite(backup, keys=keys + 1))
    assert f"of {keys + 1} in the file" in observed(part, "keys of the restored Redis shop")
    assert statuses(part)["keys of the restored Redis shop"] == "failed"


def test_keys_that_the_copy_lacks_are_told_when_it_is_made(whole: tuple[RedisBackups, RedisServer]) -> None:
    backups, server = whole
    copy = backups.back_up(server.option("shop")).metadata["stores"]["redis"]["servers"][0]
    found = []
    for keys in (copy["keys"], copy["keys"] - 1, copy["keys"] + 1):
        store, part = RedisCopies({}), Part()
        store.copies = [{**copy, "keys": keys}]
        store.report(part)
        found.append(statuses(part)["keys in the copy of Redis shop"])
    assert found == ["passed", "failed", "failed"]


def test_a_file_of_another_moment_than_the_server_announced_makes_no_backup(
    whole: tuple[RedisBackups, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived is sound, and not what was said to come."""
    backups, server = whole
    earlier = backups.file(backups.back_up(server.option("shop")))
    server.do("INCR", "visits")
    genuine = instance.copy

    def copy(server: Any, path: str, **options: Any) -> Any:
        answer = genuine(server, path, **options)
        Path(path).write_bytes(earlier.read_bytes())
        return answer

    monkeypatch.setattr(instance, "copy", copy)
    with pytest.raises(MaintenanceError) as refused:
        backups.back_up(server.option("shop"))
    assert refused.value.expected != refused.value.observed
    assert " at " in refused.value.observed


def test_a_value_that_cannot_be_read_is_told(whole: tuple[RedisBackups, RedisServer]) -> None:
    """As if what was loaded under a key were of another type than the server says."""
    _backups, server = whole
    server.do("SET", "plain", "text")
    with server.connect() as connection:
        assert redis_content._unreadable(connection, "string", b"plain") == ""
        for kind in ("list", "set", "zset", "hash", "stream"):
            assert "WRONGTYPE" in redis_content._unreadable(connection, kind, b"plain")


def test_a_marker_that_has_expired_is_not_called_found(whole: tuple[RedisBackups, RedisServer]) -> None:
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    marker = backup.metadata["stores"]["redis"]["servers"][0]["marker"]
    marker["expires"] = "2026-01-01T00:00:00Z"
    part, _proven = backups.prove(backups.rewrite(backup, marker=marker))
    assert statuses(part)["marker in the restored Redis shop"] == "unknown"


def test_a_checksum_that_is_switched_off_is_warned_about(backups: RedisBackups) -> None:
    with redis_server("rdbchecksum no") as server:
        fill(server, 50)
        part = Part()
        backup = backups.back_up(server.option("shop"), part=part)
        assert statuses(part)["checksum of Redis shop"] == "warned"
        part, _proven = backups.prove(backup)
        assert set(statuses(part).values()) == {"passed"}


def test_without_its_checksum_a_restore_looks_into_packed_values(backups: RedisBackups) -> None:
    """redis-check-rdb reads on where a plain load would crash, or serve nonsense, later on."""
    with redis_server("rdbchecksum no", "rdbcompression no") as server:
        server.do("HSET", "packed", "field", "value", "other", "value")
        backup = backups.back_up(server.option("shop", marker_for="0"))
    path = backups.file(backup)
    content = bytearray(path.read_bytes())
    position = content.index(b"field")
    content[position - 1] = 0xA0  # a length inside of the packed value
    path.write_bytes(content)
    believed = backups.believe(backup)
    part, _proven = backups.prove(believed)
    assert statuses(part)["restore of Redis shop"] == "failed", part.checks


def test_a_scratch_server_that_dies_while_it_is_looked_into_fails_the_test(
    whole: tuple[RedisBackups, RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    backups, server = whole
    backup = backups.back_up(server.option("shop"))

    def connect(scratch: ScratchRedis, _timeout: float) -> Redis:
        connection = Redis({"unix_socket": scratch.socket})
        assert scratch.process
        scratch.process.kill()
        return connection

    monkeypatch.setattr(ScratchRedis, "connect", connect)
    part, proven = backups.prove(backup)
    assert part.failures()[0]["name"] == "restore of Redis shop"
    assert "see the server's log" in part.failures()[0]["advice"].lower()
    assert proven.missed == ["Redis shop"]
    assert backups.scratch_names() == []


# -- programs that are missing, or lie --


def fake_checker(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = directory / "redis-check-rdb"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


SOUND = r"echo '[offset 1] \\o/ RDB looks OK! \\o/'; echo '[info] 3 keys read'; echo '[info] 0 expires'"


@pytest.mark.parametrize(
    ("script", "observed_words"),
    [
        ("exit 0", "exit status 0"),
        ("echo '--- RDB ERROR DETECTED ---'; exit 0", "ERROR DETECTED"),
        (f"{SOUND}; exit 1", "exit status 1"),
        ("echo '[info] 3 keys read'; echo '[info] 0 expires'", "exit status 0"),
        (r"echo '[offset 1] \\o/ RDB looks OK! \\o/'", "exit status 0"),
        ("kill -SEGV $$", "exit status -11"),
    ],
)
def test_the_words_of_redis_check_rdb_count(
    whole: tuple[RedisBackups, RedisServer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    observed_words: str,
) -> None:
    _backups, server = whole
    fake_checker(tmp_path, monkeypatch, script)
    with pytest.raises(MaintenanceError) as caught:
        RedisBackups(tmp_path).back_up(server.option("shop"))
    assert observed_words in caught.value.observed


def test_a_checker_that_is_too_old_says_nothing_of_the_file(
    whole: tuple[RedisBackups, RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _backups, server = whole
    with monkeypatch.context() as patched:
        fake_checker(tmp_path, patched, 'echo "Can\'t handle RDB format version 12"; exit 1')
        part, backups = Part(), RedisBackups(tmp_path)
        backup = backups.back_up(server.option("shop"), part=part)
        assert statuses(part)["copy of Redis shop"] == "unknown"
        assert "older than the server" in observed(part, "copy of Redis shop")
        part = Part()
        assert backups.verify(backup, part=part) == {}
        assert statuses(part) == {"RDB files as redis-check-rdb reads them": "unknown"}
    part = Part()
    assert backups.verify(backup, part=part) == {}
    assert part.checks == []
    part, _proven = backups.prove(backup)
    assert not part.failures()


def test_a_file_of_a_newer_server_is_neither_called_good_nor_bad(whole: tuple[RedisBackups, RedisServer]) -> None:
    backups, server = whole
    backup = backups.back_up(server.option("shop"))
    path = backups.file(backup)
    path.write_bytes(b"REDIS0999" + path.read_bytes()[9:])
    believed = backups.rewrite(backups.believe(backup), keys=None)
    part = Part()
    assert backups.verify(believed, part=part) == {}
    assert statuses(part) == {"RDB files as redis-check-rdb reads them": "unknown"}
    part, proven = backups.prove(believed)
    assert statuses(part)["restore of Redis shop"] == "unknown"
    assert proven.missed == ["Redis shop"]


def test_without_redis_check_rdb_nothing_is_called_checked(
    whole: tuple[RedisBackups, RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _backups, server = whole
    monkeypatch.setattr(rdb, "find_program", lambda _name: None)
    part = Part()
    backup = RedisBackups(tmp_path).back_up(server.option("shop"), part=part)
    assert statuses(part)["copy of Redis shop"] == "unknown"
    assert "apt-get install redis-tools" in observed(part, "copy of Redis shop")
    assert "keys in the copy of Redis shop" not in statuses(part)
    assert backup.metadata["stores"]["redis"]["servers"][0]["keys"] is None


# -- scratch servers --


def test_a_scratch_directory_inside_of_the_live_one_is_refused(tmp_path: Path) -> None:
    with redis_server() as server:
        (server.directory / "inside").mkdir(mode=0o700)
        backups = RedisBackups(server.directory / "inside")
        backup = backups.back_up(server.option("shop"))
        with pytest.raises(MaintenanceError, match="lies inside the directory"):
            backups.prove(backup)
        assert backups.scratch_names() == []


def test_names_that_would_be_mistaken_are_refused(backups: RedisBackups) -> None:
    with redis_server() as server:
        for names in (["a", "a"], ["../a"], [""], ["a b"]):
            with pytest.raises(MaintenanceError, match="read the option redis"):
                backups.back_up(*(server.option(name) for name in names))
    assert nothing_is_left(backups)
