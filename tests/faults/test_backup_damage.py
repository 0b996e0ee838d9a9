"""Damage of every kind to real backups, a full one and an incremental one on it: all is found, and nothing else."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, Repository
from support.damage import append, flip, remove, truncate
from support.modules import run_module
from support.postgresql import postgres_server

FLIPS = 200
CLEAN_RUNS = 50
SEED = 20261121


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CoreEngine]:
    directory = tmp_path_factory.mktemp("damage")
    uploads = directory / "uploads"
    uploads.mkdir()
    for number in range(20):
        (uploads / f"{number}.txt").write_text(f"submission {number}\n" * (number + 1))
    (uploads / "empty").mkdir()
    with postgres_server() as server:
        options = {
            **server.login(),
            "bin_dir": str(server.bin_dir),
            "repository": str(directory / "repository"),
            "state_dir": str(directory / "state"),
            "min_free_bytes": "1MiB",
            "interval": "0",
            "files": [str(uploads)],
        }
        server.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g")
        assert not run_module("backup", options)["failed"]
        server.sql("UPDATE student SET name = 'x' WHERE id % 100 = 0")
        assert not run_module("backup", options)["failed"]
        engine = CoreEngine(Repository(str(directory / "repository"), "main"), str(server.bin_dir))
        assert [backup.type for backup in engine.list()] == ["full", "incremental"]
        yield engine


def kind_of(path: str) -> str:
    """What a file in a backup is, so that every kind gets its share of the damage."""
    first, _slash, rest = path.partition("/")
    if first == "base":
        for name in ("backup_manifest", "postgresql.auto.conf", "backup_label"):
            if rest == name:
                return name
        return "incremental" if "INCREMENTAL." in rest else "base"
    return "globals" if path == "dump/globals.sql" else first


def files_by_kind(backups: list[Backup]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for backup in backups:
        for path in sorted(Path(backup.directory).rglob("*")):
            if path.is_file() and path.stat().st_size:
                kind = kind_of(str(path.relative_to(backup.directory)))
                found.setdefault(kind, []).append(path)
    return found


def label_of(engine: CoreEngine, path: Path) -> str:
    return path.relative_to(engine.repository.directory).parts[0]


def test_every_flipped_bit_is_found_in_every_kind_of_file(engine: CoreEngine) -> None:
    chance = random.Random(SEED)
    kinds = files_by_kind(engine.list())
    expected = {"base", "incremental", "backup_manifest", "postgresql.auto.conf", "backup_label", "wal", "dump"}
    assert set(kinds) == expected | {"globals", "files", "files.json", "catalog.json", "backup.json"}
    missed = []
    for number in range(FLIPS):
        kind = sorted(kinds)[number % len(kinds)]
        path = chance.choice(kinds[kind])
        position, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, position, bit)
        if engine.verify(label_of(engine, path)).sound:
            missed.append((kind, str(path), position, bit))
        flip(path, position, bit)
    assert missed == []
    assert all(engine.verify(backup.label).sound for backup in engine.list())


def test_sound_backups_raise_no_alarm(engine: CoreEngine) -> None:
    problems = [engine.verify(backup.label).problems for _round in range(CLEAN_RUNS // 2) for backup in engine.list()]
    assert len(problems) == CLEAN_RUNS
    assert not any(problems)


def exchange_for_link(path: Path) -> None:
    path.rename(f"{path}.moved")
    path.symlink_to(f"{path}.moved")


@pytest.mark.parametrize("harm", [remove, truncate, append, exchange_for_link])
@pytest.mark.parametrize(
    "kind", ["base", "incremental", "wal", "dump", "globals", "files", "files.json", "backup.json"]
)
def test_files_that_are_gone_cut_grown_or_exchanged_are_found(
    engine: CoreEngine, kind: str, harm: Callable[[Path], None]
) -> None:
    path = files_by_kind(engine.list())[kind][0]
    label = label_of(engine, path)
    content = path.read_bytes()
    harm(path)
    try:
        assert not engine.verify(label).sound
        # The cheap look finds it too, but for a link: pg_verifybackup follows it.
        assert (kind in ("base", "incremental") and harm is exchange_for_link) or not engine.verify(
            label, quick=True
        ).sound
    finally:
        for changed in (path, Path(f"{path}.moved")):
            changed.unlink(missing_ok=True)
        path.write_bytes(content)
    assert engine.verify(label).sound


@pytest.mark.parametrize("place", ["extra", "base/extra", "wal/extra", "dump/9.dump", "files/0/extra"])
def test_files_that_do_not_belong_to_the_backup_are_found(engine: CoreEngine, place: str) -> None:
    backup = engine.list()[0]
    extra = Path(backup.path(place))
    extra.write_text("smuggled")
    try:
        verification = engine.verify(backup.label)
        assert any("extra" in problem or "9.dump" in problem for problem in verification.problems)
    finally:
        extra.unlink()


def test_a_directory_that_a_server_needs_and_no_manifest_lists_is_missed(engine: CoreEngine) -> None:
    backup = engine.list()[0]
    Path(backup.path("base", "pg_notify")).rmdir()
    try:
        assert engine.verify(backup.label).problems == ["the directory base/pg_notify is missing"]
    finally:
        Path(backup.path("base", "pg_notify")).mkdir(mode=0o700)


def test_backups_that_were_exchanged_for_each_other_are_found(engine: CoreEngine) -> None:
    full, incremental = engine.list()
    for source, target in ((incremental, full), (full, incremental)):
        original = Path(target.path("backup.json")).read_bytes()
        shutil.copyfile(source.path("backup.json"), target.path("backup.json"))
        try:
            assert not engine.verify(target.label).sound
        finally:
            Path(target.path("backup.json")).write_bytes(original)
