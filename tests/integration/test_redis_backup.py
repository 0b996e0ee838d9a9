"""Redis beside a cluster: backed up, verified and restored by the modules, as on a platform."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.contents import look_at
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.reading import read_files
from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer
from support.redis import RedisServer, fill, redis_server
from support.restore import RestoreSite

FLIPS = 200
SEED = 20261121
LEAN = {"amcheck": False, "restore_dump": False}


class Platform(RestoreSite):
    """A cluster and a Redis server, with their repository."""

    def __init__(self, server: PostgresServer, redis: RedisServer, directory: Path) -> None:
        super().__init__(server, directory)
        self.redis = redis

    def backup_options(self, **others: Any) -> dict[str, Any]:
        options = {**self.options(), "interval": "0", "dump": False, "min_free_bytes": "1MiB", **others}
        del options["run_as"]
        return {"redis": [self.redis.option("shop")], **options}

    def run_backup(self, check: bool = False, **others: Any) -> dict[str, Any]:
        return run_module("backup", self.backup_options(**others), check=check)

    def verify(self, **others: Any) -> dict[str, Any]:
        names = ("repository", "cluster", "state_dir", "bin_dir")
        options = {name: value for name, value in self.options().items() if name in names}
        return run_module("backup_verification", {**options, **others})

    def file(self) -> Path:
        """The newest copy."""
        return Path(self.repository.backups()[-1].path("redis", "0.rdb"))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server("requirepass pencil") as running:
        fill(running, 300)
        yield running


@pytest.fixture(scope="module")
def platform(postgresql: PostgresServer, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """With one backup, which tests only read."""
    platform = Platform(postgresql, redis, tmp_path_factory.mktemp("platform"))
    shown = platform.run_backup()
    assert not shown["failed"], shown["msg"]
    return platform


def test_check_mode_asks_the_server_and_writes_nothing(platform: Platform) -> None:
    before = platform.redis.do("DBSIZE")
    shown = platform.run_backup(check=True)
    assert not shown["failed"], shown
    assert len(platform.repository.backups()) == 1
    assert platform.redis.do("DBSIZE") == before


def test_a_backup_says_what_it_knows_of_the_copy_and_no_secret(platform: Platform, redis: RedisServer) -> None:
    backup = platform.repository.backups()[-1]
    (facts,) = backup.metadata["stores"]["redis"]["servers"]
    assert facts["name"] == "shop"
    assert facts["checksum"] is True
    assert backup.metadata["bytes_by_part"]["redis"] == platform.file().stat().st_size == facts["bytes"]
    assert platform.file().stat().st_mode & 0o777 == 0o600
    assert "pencil" not in Path(backup.path("backup.json")).read_text()


def test_every_flipped_bit_of_a_copy_is_found(platform: Platform) -> None:
    """By the step of the verification that reads files, of which a whole run takes half a second."""
    path, backup = platform.file(), platform.repository.backups()[-1]
    content, chance, missed = path.read_bytes(), random.Random(SEED), []
    for _flip in range(FLIPS):
        position, bit = chance.randrange(len(content)), chance.randrange(8)
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        path.write_bytes(damaged)
        outcome = read_files(look_at(backup), ["redis/0.rdb"], platform.engine.bin_dir, None, None)
        if [problem.path for problem in outcome.problems] != ["redis/0.rdb"]:
            missed.append((position, bit))
    path.write_bytes(content)
    assert missed == []
    assert not read_files(look_at(backup), ["redis/0.rdb"], platform.engine.bin_dir, None, None).problems


def test_a_damaged_copy_fails_the_verification(platform: Platform) -> None:
    path = platform.file()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        label = platform.repository.backups()[-1].label
        assert "redis/0.rdb" in checks_by_name(platform.verify())[f"bytes of {label}"]["observed"]
    finally:
        path.write_bytes(content)
    assert not platform.verify()["failed"]


def test_a_restore_test_proves_the_copy_once(platform: Platform) -> None:
    asked = [{"name": "there are tags", "server": "shop", "command": ["SCARD", "tags:1"], "min": "1"}]
    options: dict[str, Any] = {**LEAN, "interval": "6d", "redis_assertions": asked}
    shown = platform.test(**options)
    assert not shown["failed"], shown["msg"]
    checks = checks_by_name(shown)
    for name in (
        "restore of Redis shop",
        "keys of the restored Redis shop",
        "marker in the restored Redis shop",
        "values in the restored Redis shop",
        "assertion there are tags in Redis shop",
    ):
        assert checks[name]["status"] == "passed"
    assert shown["metrics"]["redis_load_seconds shop"]["value"] > 0
    loaded = shown["metrics"]["redis_load_seconds shop"]["value"]
    assert shown["metrics"]["rto_seconds"]["value"] > loaded
    assert platform.scratch_names() == []
    again = platform.test(**options)
    assert not again["changed"]
    assert "restore of Redis shop" not in checks_by_name(again)
    # A new assertion was never asked: so the proof is not enough.
    asked.append({"name": "it is a shop", "server": "shop", "command": ["GET", "counter"], "expected": "12345"})
    more = platform.test(**options)
    assert checks_by_name(more)["assertion it is a shop in Redis shop"]["status"] == "passed"
    assert checks_by_name(more)["content of the restored Redis shop"]["status"] == "passed"


def test_a_failed_assertion_takes_the_proof_back(platform: Platform) -> None:
    label = platform.repository.backups()[-1].label
    assert not platform.test(**LEAN)["failed"]
    assert Path(platform.repository.proof_path(label)).exists()
    wrong = [{"name": "it is large", "server": "shop", "command": ["DBSIZE"], "min": "1000000"}]
    shown = platform.test(**LEAN, redis_assertions=wrong)
    assert shown["failed"]
    assert not Path(platform.repository.proof_path(label)).exists()


def test_an_assertion_that_expects_nothing_is_refused(platform: Platform) -> None:
    shown = platform.test(redis_assertions=[{"name": "nothing", "server": "shop", "command": ["DBSIZE"]}])
    assert shown["failed"]
    assert "one of expected" in shown["msg"]
