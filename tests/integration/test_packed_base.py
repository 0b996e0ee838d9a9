"""Compressed bases as operators use them: backed up, verified, restored and proven, in chains of every kind."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engine import Order, Source
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.packed.packing import PART_BYTES
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.programs import workers
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, Repository
from support.modules import checks_by_name, run_module
from support.packed import archives
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id
from support.restore import RestoreSite
from support.waiting import wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        running.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g")
        yield running


@pytest.fixture
def site(server: PostgresServer, tmp_path: Path) -> RestoreSite:
    return RestoreSite(server, tmp_path)


def assert_proven(site: RestoreSite, backup: Backup) -> None:
    part = site.prove(backup)
    assert part.failures() == []
    assert part.metrics["rows_compared"]["value"] >= 20000


def assert_like_its_manifest(server: PostgresServer, base: Path) -> None:
    subprocess.run([str(server.bin_dir / "pg_verifybackup"), "--quiet", "--no-parse-wal", str(base)], check=True)


@pytest.mark.parametrize("compression", ["zstd:3", "lz4", "gzip"])
def test_a_compressed_backup_is_smaller_and_restored_to_the_byte(
    site: RestoreSite, tmp_path: Path, compression: str
) -> None:
    backup = site.back_up(compression=compression)
    name, _colon, level = compression.partition(":")
    packed = backup.metadata["packed"]
    assert (packed["compression"], packed["level"]) == (name, int(level or 1))
    assert backup.metadata["bytes_by_part"]["base"] < packed["bytes"] / 2
    assert site.engine.verify(backup.label).sound
    site.engine.restore(backup.label, str(tmp_path / "restored"))
    assert_like_its_manifest(site.server, tmp_path / "restored")
    assert (tmp_path / "restored").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "restored").rglob("*") if path.is_file()} == {0o600}
    assert_proven(site, backup)


def test_chains_of_compressed_and_other_backups_are_restored_and_proven(site: RestoreSite) -> None:
    backup = site.back_up(compression="none")
    for number, compression in enumerate(("zstd", "none", "gzip")):
        site.server.sql(f"UPDATE student SET name = 'changed {number}' WHERE id % 97 = {number}")
        backup = site.back_up(backup.label, compression=compression)
    assert [b.metadata.get("packed", {}).get("compression") for b in site.engine.list()] == [None, "zstd", None, "gzip"]
    assert all(verification.sound for verification in site.engine.verify_chain(backup.label))
    assert_proven(site, backup)
    assert site.scratch_names() == []


def test_tablespaces_inside_of_the_data_directory_are_in_the_archives_too(tmp_path: Path) -> None:
    with postgres_server({"allow_in_place_tablespaces": "on"}) as server:
        site = RestoreSite(server, tmp_path)
        server.sql("CREATE TABLESPACE inside LOCATION ''")
        server.sql("CREATE TABLE course TABLESPACE inside AS SELECT g AS id FROM generate_series(1, 20000) g")
        full = site.back_up(compression="zstd")
        server.sql("UPDATE course SET id = -id WHERE id % 100 = 0")
        incremental = site.back_up(full.label, compression="zstd")
        for backup in (full, incremental):
            names = {path.name for path in Path(backup.path("base")).iterdir()}
            assert names == {"backup_manifest", *(path.name for path in archives(backup))}
            assert site.engine.verify(backup.label).sound
            site.engine.restore(backup.label, str(tmp_path / backup.label))
            assert_like_its_manifest(server, tmp_path / backup.label)
            (place,) = (tmp_path / backup.label / "pg_tblspc").iterdir()
            assert max(path.stat().st_size for path in place.rglob("*") if path.is_file()) > 600_000


@pytest.mark.parametrize("major", available_majors(), ids=server_id)
def test_every_version_of_postgresql_can_be_backed_up_so(major: int, tmp_path: Path) -> None:
    with postgres_server(bin_dir=bin_dir_of(major)) as server:
        server.sql("CREATE TABLE student AS SELECT g AS id FROM generate_series(1, 1000) g")
        options = module_options(server, tmp_path)
        shown = run_module("backup", {**options, "compression": "zstd:2", "jobs": 2})
        assert not shown["failed"], shown["msg"]
        engine = CoreEngine(Repository(options["repository"], "main"), options["bin_dir"])
        (backup,) = engine.list()
        assert backup.metadata["packed"]["level"] == 2
        engine.restore(backup.label, str(tmp_path / "restored"))
        assert_like_its_manifest(server, tmp_path / "restored")


def module_options(server: PostgresServer, directory: Path) -> dict[str, Any]:
    return {
        **server.login(),
        "bin_dir": str(server.bin_dir),
        "repository": str(directory / "repository"),
        "state_dir": str(directory / "state"),
        "min_free_bytes": "1MiB",
    }


def test_what_was_read_of_archives_is_not_read_again(server: PostgresServer, tmp_path: Path) -> None:
    options = module_options(server, tmp_path)
    assert not run_module("backup", {**options, "compression": "zstd"})["failed"]
    where = {name: options[name] for name in ("repository", "state_dir", "bin_dir")}
    newest = max(path.stat().st_ctime for path in Path(options["repository"]).rglob("*"))
    # Until then a change could have happened within the same tick of the file system's clock.
    wait_until(lambda: time.time() - newest > 2.1)
    first = run_module("backup_verification", where)
    again = run_module("backup_verification", where)
    assert not first["failed"], first["msg"]
    assert not again["failed"], again["msg"]
    assert first["metrics"]["read_bytes"]["value"] > 1_000_000
    assert again["metrics"]["read_bytes"]["value"] == 0


def test_turning_compression_on_raises_no_alarm_about_the_size(server: PostgresServer, tmp_path: Path) -> None:
    options = {**module_options(server, tmp_path), "interval": "0", "full_every": "0"}
    assert not run_module("backup", options)["failed"]
    shown = run_module("backup", {**options, "compression": "zstd"})
    assert checks_by_name(shown)["size of the backup"]["status"] == "passed"
    where = {name: options[name] for name in ("repository", "state_dir", "bin_dir")}
    verified = run_module("backup_verification", where)
    assert {check["status"] for name, check in checks_by_name(verified).items() if "size" in name} <= {"passed"}


@pytest.mark.parametrize(("option", "value"), [("compression", "zstd:99"), ("compression", "brotli"), ("jobs", -1)])
def test_options_that_make_no_sense_are_refused_before_anything_is_written(
    server: PostgresServer, tmp_path: Path, option: str, value: Any
) -> None:
    shown = run_module("backup", {**module_options(server, tmp_path), option: value})
    assert shown["failed"]
    assert option in shown["msg"]
    assert not (tmp_path / "repository").exists()


def test_room_is_foreseen_for_what_is_unpacked(site: RestoreSite) -> None:
    full = site.back_up(compression="zstd")
    incremental = site.back_up(full.label, compression="zstd")
    plain = sum(backup.metadata["packed"]["bytes"] for backup in (full, incremental))
    assert site.engine.restored_bytes(full) == full.metadata["packed"]["bytes"]
    # The chain is unpacked first, and then combined beside that.
    assert site.engine.restored_bytes(incremental) == 2 * plain
    order = Order("full", "", full.started, dump=False)
    size = 100_000 * MIB
    source = Source(size, 0, 16 * MIB)
    uncompressed = site.engine.plan(order, source).bytes
    compressed = site.engine.plan(order._replace(compression="zstd", jobs=1), source).bytes
    ratio = full.metadata["bytes_by_part"]["base"] / full.metadata["packed"]["bytes"]
    assert size * ratio + 3 * PART_BYTES < compressed < uncompressed / 2
    assert workers(3) == 3


def test_files_of_the_base_are_known_without_unpacking(site: RestoreSite) -> None:
    for compression in ("none", "zstd"):
        backup = site.back_up(compression=compression)
        assert site.engine.holds(backup, "postgresql.conf")
        assert not site.engine.holds(backup, "recovery.signal")


def test_the_archives_can_be_unpacked_by_hand(site: RestoreSite, tmp_path: Path) -> None:
    backup = site.back_up(compression="zstd")
    restored = tmp_path / "by hand"
    restored.mkdir()
    command = f"zstd -dc {backup.path('base')}/*.tar.zst | tar -x --ignore-zeros -C '{restored}'"
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)
    shutil.copy(backup.path("base", "backup_manifest"), restored)
    assert_like_its_manifest(site.server, restored)
