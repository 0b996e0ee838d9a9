"""Damage of every kind, forgery, clocks, kills and full disks: verification finds all of it, and nothing else."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.contents import shown as in_words
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, format_time
from ansible_collections.wellkept.maintenance.plugins.module_utils.lock import exclusive, is_free, shared
from support.backups import BackupSite, backup_site
from support.damage import flip
from support.modules import checks_by_name, module_process, run_module
from support.waiting import wait_until

FLIPS_OF_CONTENT = 900
FLIPS_OF_KEYS = 150
FLIPS_AT_ONCE = 50
CLEAN_RUNS = 200
SEED = 20261121
WAIT = 30.0


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupSite]:
    with backup_site(tmp_path_factory.mktemp("original")) as site:
        yield site


@pytest.fixture
def site(original: BackupSite, tmp_path: Path) -> BackupSite:
    return original.copy(tmp_path)


def look(site: BackupSite, backup: Backup, seconds_later: float = 10) -> list[str]:
    """What an incremental verification finds; it takes place later, so that what was just written can be remembered."""
    remembered = site.remembered(now=time.time() + seconds_later)
    return site.engine.verify(backup.label, remembered=remembered).problems


# -- what pg_verifybackup's own tests do to a backup --


def a_relation(backup: Backup, place: str = "base/base/5") -> Path:
    """The largest file of a database."""
    files = [path for path in Path(backup.path(place)).rglob("*") if path.is_file() and path.stat().st_size]
    return max(files, key=lambda path: path.stat().st_size)


def a_tablespace(backup: Backup) -> Path:
    return next(path for path in Path(backup.path("base/pg_tblspc")).iterdir() if path.is_dir())


def extra_file(backup: Backup) -> str:
    Path(backup.path("base/extra_file")).write_text("smuggled")
    return "base/extra_file does not belong to the backup"


def extra_file_in_a_tablespace(backup: Backup) -> str:
    extra = a_tablespace(backup) / "extra_file"
    extra.write_text("smuggled")
    return f"{extra.relative_to(backup.directory)} does not belong to the backup"


def extra_file_in_pg_wal(backup: Backup) -> str:
    Path(backup.path("base/pg_wal/000000010000000000000001")).write_text("smuggled")
    return "base/pg_wal/000000010000000000000001 does not belong to the backup"


def missing_file(backup: Backup) -> str:
    Path(backup.path("base/global/pg_control")).unlink()
    return "base/global/pg_control is missing"


def missing_tablespace(backup: Backup) -> str:
    directory = a_tablespace(backup)
    shutil.rmtree(directory)
    return str(directory.relative_to(backup.directory))


def append(backup: Backup) -> str:
    with a_relation(backup).open("ab") as stream:
        stream.write(b"\0")
    return "bytes instead of"


def truncate(backup: Backup) -> str:
    path = a_relation(backup)
    os.truncate(path, 0)
    return "has 0 bytes instead of"


def replace(backup: Backup) -> str:
    path = a_relation(backup)
    path.write_bytes(bytes(path.stat().st_size))
    return f'checksum mismatch for file "{path.relative_to(backup.path("base"))}"'


def system_identifier(backup: Backup) -> str:
    """pg_control of another cluster, of the same size."""
    path = Path(backup.path("base/global/pg_control"))
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    return "pg_control"


def bad_manifest(backup: Backup) -> str:
    path = Path(backup.path("base/backup_manifest"))
    os.truncate(path, path.stat().st_size - 2)
    return "base/backup_manifest has another content than was written"


def missing_manifest(backup: Backup) -> str:
    Path(backup.path("base/backup_manifest")).unlink()
    return "base/backup_manifest: No such file or directory"


def locked_file(backup: Backup) -> str:
    a_relation(backup).chmod(0o000)
    return "cannot be read by its owner (mode 0000)"


def locked_directory(backup: Backup) -> str:
    Path(backup.path("base/pg_subtrans")).chmod(0o000)
    return "pg_subtrans"


def a_link_instead(backup: Backup) -> str:
    path = a_relation(backup)
    path.rename(f"{backup.directory}.moved")
    path.symlink_to(f"{backup.directory}.moved")
    return "is no plain file any more"


def missing_directory(backup: Backup) -> str:
    Path(backup.path("base/pg_notify")).rmdir()
    return "the directory base/pg_notify is missing"


def missing_wal(backup: Backup) -> str:
    segment = next(Path(backup.path("wal")).glob("0*"))
    segment.unlink()
    return f"wal/{segment.name} is missing"


def missing_dump(backup: Backup) -> str:
    Path(backup.path("dump/0.dump")).unlink()
    return "dump/0.dump is missing"


MUTILATIONS = [
    extra_file, extra_file_in_a_tablespace, extra_file_in_pg_wal, missing_file, missing_tablespace, append, truncate,
    replace, system_identifier, bad_manifest, missing_manifest, locked_file, locked_directory, a_link_instead,
    missing_directory, missing_wal, missing_dump,
]  # fmt: skip


@pytest.mark.parametrize("mutilate", MUTILATIONS)
def test_every_mutilation_is_found_and_named_by_an_incremental_verification(
    site: BackupSite, mutilate: Callable[[Backup], str]
) -> None:
    full, incremental = site.backups
    assert look(site, full) == []
    expected = mutilate(full)
    for seconds_later in (20, 30):  # remembering must not make it forget
        problems = look(site, full, seconds_later)
        assert any(expected in problem for problem in problems), problems
    assert look(site, incremental) == []
    assert not site.engine.verify(full.label, quick=True).sound or mutilate in (replace, system_identifier)


def test_all_that_is_wrong_is_told_not_only_the_first(site: BackupSite) -> None:
    full = site.backups[0]
    expected = [mutilate(full) for mutilate in (extra_file, replace, missing_wal, missing_dump, missing_directory)]
    problems = look(site, full)
    assert len(problems) == len(expected), problems
    for words in expected:
        assert any(words in problem for problem in problems), words


# -- bits --

# When these are wrong, the rest of a backup, or of its base, is not looked at any more.
KEYS = ("backup.json", "files.json", "base/backup_manifest", "base/PG_VERSION", "base/global/pg_control")


def kind_of(path: str) -> str:
    first, _slash, rest = path.partition("/")
    if first == "base":
        if rest in ("postgresql.auto.conf", "backup_label"):
            return rest
        return "incremental" if "INCREMENTAL." in rest else "tablespace" if "pg_tblspc" in rest else "base"
    return "globals" if path == "dump/globals.sql" else first


def by_kind(backup: Backup) -> dict[str, list[str]]:
    """Files with content, by what they are."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(backup.directory).rglob("*")):
        name = str(path.relative_to(backup.directory))
        if path.is_file() and path.stat().st_size and name not in KEYS:
            found.setdefault(kind_of(name), []).append(name)
    return found


def some_of_each_kind(chance: random.Random, backup: Backup, count: int) -> list[str]:
    kinds = {kind: chance.sample(paths, len(paths)) for kind, paths in by_kind(backup).items()}
    chosen: list[str] = []
    while len(chosen) < count:
        for kind in sorted(kinds):
            if kinds[kind] and len(chosen) < count:
                chosen.append(kinds[kind].pop())
    return chosen


def test_each_of_hundreds_of_flipped_bits_is_found_and_no_other_file_is_blamed(site: BackupSite) -> None:
    chance = random.Random(SEED)
    seen: set[str] = set()
    for number in range(FLIPS_OF_CONTENT // FLIPS_AT_ONCE):
        backup = site.backups[number % 2]
        # Every other time some are new to the memory: both ways to read the base are tried.
        if number % 4 < 2:
            shutil.rmtree(site.root / "main" / "verified", ignore_errors=True)
        chosen = some_of_each_kind(chance, backup, FLIPS_AT_ONCE)
        seen |= {kind_of(path) for path in chosen}
        flips = [
            (Path(backup.path(path)), chance.randrange(os.path.getsize(backup.path(path))), chance.randrange(8))
            for path in chosen
        ]
        for each in flips:
            flip(*each)
        problems = look(site, backup)
        for path in chosen:
            names = (f"{in_words(path)} ", f'"{path.removeprefix("base/")}"')
            assert any(name in problem for problem in problems for name in names), f"{path} was flipped unseen"
        assert len(problems) == len(chosen), problems
        for each in flips:
            flip(*each)
        assert look(site, backup) == []
    assert seen >= {"base", "incremental", "tablespace", "wal", "dump", "globals", "files"}
    assert seen >= {"postgresql.auto.conf", "backup_label"}


def test_each_flipped_bit_of_what_describes_a_backup_is_found(site: BackupSite) -> None:
    chance = random.Random(SEED + 1)
    for number in range(FLIPS_OF_KEYS):
        backup = site.backups[number // len(KEYS) % 2]
        path = Path(backup.path(KEYS[number % len(KEYS)]))
        position, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        flip(path, position, bit)
        problems = look(site, backup)
        assert any(path.name in problem for problem in problems), (path, position, bit, problems)
        flip(path, position, bit)
    assert [look(site, backup) for backup in site.backups] == [[], []]


@pytest.mark.parametrize("runs", [40, pytest.param(CLEAN_RUNS, marks=pytest.mark.long)])
def test_sound_backups_raise_no_alarm_however_often_they_are_verified(site: BackupSite, runs: int) -> None:
    began = time.time() + 10
    for number in range(runs // 2):
        # Read anew, read in part, or remembered in full.
        remembered = site.remembered(within=0 if number % 10 == 0 else 1000, rotating=True, now=began + number * 50)
        for backup in site.backups:
            assert site.engine.verify(backup.label, remembered=remembered).problems == []


# -- forgery and exchange: the hashes fit, and yet something is wrong --


def forge(site: BackupSite, backup: Backup, path: str, content: bytes) -> None:
    """Write *content* to *path* and let the description say that it belongs there."""
    Path(backup.path(path)).write_bytes(content)
    entry = {"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    files = [entry if old["path"] == path else old for old in backup.metadata["files"]]
    site.rewrite(backup, files=files)


def test_a_dump_that_was_written_empty_is_found_although_its_hash_fits(site: BackupSite) -> None:
    full = site.backups[0]
    name, facts = next(iter(full.metadata["databases"].items()))
    forge(site, full, facts["file"], b"")
    assert look(site, site.backups[0]) == [f"the dump of the database {name} is empty"]


def test_a_database_without_its_dump_is_found(site: BackupSite) -> None:
    full = site.backups[0]
    name, facts = next(iter(full.metadata["databases"].items()))
    Path(full.path(facts["file"])).unlink()
    site.rewrite(full, files=[entry for entry in full.metadata["files"] if entry["path"] != facts["file"]])
    assert look(site, site.backups[0]) == [f"the backup has no dump of the database {name}"]


def test_wal_whose_records_cannot_be_read_is_found_although_its_hash_fits(site: BackupSite) -> None:
    full = site.backups[0]
    segment = sorted(entry["path"] for entry in full.metadata["files"] if entry["path"].startswith("wal/0"))[0]
    size = os.path.getsize(full.path(segment))
    forge(site, full, segment, bytes(size))
    for seconds_later in (10, 20):
        (problem,) = look(site, site.backups[0], seconds_later)
        assert problem.startswith("WAL from ")


def test_wal_that_the_backup_never_had_is_missed(site: BackupSite) -> None:
    full = site.backups[0]
    segment = next(entry["path"] for entry in full.metadata["files"] if entry["path"].startswith("wal/0"))
    Path(full.path(segment)).unlink()
    site.rewrite(full, files=[entry for entry in full.metadata["files"] if entry["path"] != segment])
    assert f"WAL segment {segment[4:]} is missing" in look(site, site.backups[0])


def test_a_wal_segment_of_another_size_is_found_although_its_hash_fits(site: BackupSite) -> None:
    full = site.backups[0]
    segment = next(entry["path"] for entry in full.metadata["files"] if entry["path"].startswith("wal/0"))
    content = Path(full.path(segment)).read_bytes()
    forge(site, full, segment, content[:-8192])
    assert any("bytes instead of 16777216" in problem for problem in look(site, site.backups[0]))


def test_backups_under_each_others_names_are_no_backups(site: BackupSite) -> None:
    full, incremental = (Path(backup.directory) for backup in site.backups)
    aside = full.with_name("aside")
    full.rename(aside)
    incremental.rename(full)
    aside.rename(incremental)
    shown = site.verify()
    assert shown["failed"]
    described = checks_by_name(shown)["descriptions of backups"]
    assert described["status"] == "failed"
    assert "it describes the backup" in described["observed"]
    assert checks_by_name(shown)["age of the newest backup"]["status"] == "failed"


@pytest.mark.parametrize("part", ["base", "wal", "dump", "files"])
def test_parts_of_backups_in_each_others_place_are_found(site: BackupSite, part: str) -> None:
    full, incremental = site.backups
    aside = site.root / "aside"
    shutil.move(full.path(part), aside)
    if part in ("base", "wal", "dump"):
        shutil.move(incremental.path(part), full.path(part))
        assert look(site, full)
    shutil.move(aside, incremental.path(part)) if part != "files" else shutil.rmtree(aside)
    assert look(site, full if part == "files" else incremental)


# -- the repository as a whole --


def test_a_backup_whose_full_one_is_gone_fails_and_counts_for_nothing(site: BackupSite) -> None:
    full, incremental = site.backups
    shutil.rmtree(full.directory)
    checks = checks_by_name(site.verify())
    assert checks["chains of backups"]["status"] == "failed"
    assert f"{incremental.label}: it builds on {full.label}" in checks["chains of backups"]["observed"]
    assert "no backup that can be restored" in checks["age of the newest backup"]["observed"]


def test_a_stale_backup_fails_and_a_date_in_the_future_does_not_hide_it(site: BackupSite) -> None:
    full, incremental = site.backups
    old = format_time(datetime.now(UTC) - timedelta(days=29))
    later = format_time(datetime.now(UTC) + timedelta(days=400))
    point = full.metadata["restore_point"]
    site.rewrite(full, started=old, finished=old, restore_point={**point, "time": old})
    site.rewrite(incremental, finished=later)
    checks = checks_by_name(site.verify())
    assert checks["age of the newest backup"]["status"] == "failed"
    assert checks["age of the newest backup"]["observed"].startswith("29 d")
    assert checks["dates of backups"]["status"] == "warned"


def test_a_damaged_backup_is_no_evidence_of_a_recent_one(site: BackupSite) -> None:
    missing_wal(site.backups[1])
    old = format_time(datetime.now(UTC) - timedelta(days=3))
    site.rewrite(site.backups[0], restore_point={**site.backups[0].metadata["restore_point"], "time": old})
    checks = checks_by_name(site.verify())
    assert checks["age of the newest backup"]["observed"].startswith("3 d")


def test_a_dump_much_smaller_than_before_warns(site: BackupSite) -> None:
    full = site.backups[0]
    databases = {name: {**facts, "bytes": facts["bytes"] * 3} for name, facts in full.metadata["databases"].items()}
    site.rewrite(full, databases=databases)
    check = checks_by_name(site.verify())["size of the newest backup"]
    assert check["status"] == "warned"
    assert "dump of postgres" in check["observed"]


def test_what_others_may_read_warns_and_what_they_may_write_fails(site: BackupSite) -> None:
    for directory in (site.root, site.root / "main", Path(site.backups[0].directory)):
        directory.chmod(0o711)
    Path(site.backups[0].path("backup.json")).chmod(0o644)
    checks = checks_by_name(site.verify())
    assert checks["others cannot read the backups"]["status"] == "warned"
    assert checks["others cannot write to the backups"]["status"] == "passed"
    Path(site.backups[0].path("dump")).chmod(0o733)
    shown = site.verify()
    assert shown["failed"]
    assert "dump (mode 0733)" in checks_by_name(shown)["others cannot write to the backups"]["observed"]
    site.root.chmod(0o700)
    checks = checks_by_name(site.verify())
    assert checks["others cannot write to the backups"]["status"] == "passed", "nobody gets there any more"


def test_leftovers_and_strangers_are_told(site: BackupSite) -> None:
    (site.root / "main" / f".partial-{site.backups[0].label}").mkdir()
    (site.root / "main" / "notes.txt").write_text("do not delete")
    shown = site.verify()
    assert not shown["failed"]
    checks = checks_by_name(shown)
    assert checks["leftovers of killed runs"]["status"] == "warned"
    assert checks["strangers in the repository"]["observed"] == "notes.txt"


def test_no_proof_for_long_warns(site: BackupSite) -> None:
    site.repository.write_proof(site.backups[0], {"proven_at": format_time(datetime.now(UTC) - timedelta(days=20))})
    assert checks_by_name(site.verify())["proof by a restore test"]["status"] == "warned"
    assert checks_by_name(site.verify(proof_max_age="0"))["proof by a restore test"]["status"] == "passed"


# -- clocks, kills, company and full disks --


def test_readings_from_the_future_or_of_what_was_just_written_do_not_count(site: BackupSite) -> None:
    full = site.backups[0]
    ahead = site.remembered(now=time.time() + 86400)
    assert site.engine.verify(full.label, remembered=ahead).read_bytes > 0
    now = site.remembered(now=time.time() + 10)
    assert site.engine.verify(full.label, remembered=now).read_bytes >= full.metadata["bytes"] * 0.99
    a_relation(full).touch()
    at_once = site.remembered(now=a_relation(full).stat().st_ctime + 1)
    site.engine.verify(full.label, remembered=at_once)
    again = site.engine.verify(full.label, remembered=site.remembered(now=time.time() + 20))
    assert again.read_bytes >= a_relation(full).stat().st_size, "it could have been changed again unseen"


def test_killed_at_any_moment_it_leaves_nothing_that_the_next_run_does_not_put_right(site: BackupSite) -> None:
    chance = random.Random(SEED)
    for _kill in range(6):
        shutil.rmtree(site.root / "main" / "verified", ignore_errors=True)
        process = module_process("backup_verification", site.options())
        wait_until(lambda running=process: running.poll() is not None or list(site.root.glob("main/.use-*.lock")))
        time.sleep(chance.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until(lambda: not readers_of(site))
        assert not any(site.repository.is_in_use(backup.label) for backup in site.backups)
    shown = site.verify()
    assert not shown["failed"], shown["msg"]
    assert not list(site.root.glob("main/verified/.view-*"))


def readers_of(site: BackupSite) -> list[str]:
    """Programs that work in the repository."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith((b"pg_verifybackup", b"pg_waldump")) and str(site.root).encode() in b" ".join(words):
            found.append(str(entry))
    return found


def test_told_to_stop_it_ends_in_order_and_says_so(site: BackupSite) -> None:
    for _try in range(10):  # on a slow machine the signal may come too late
        shutil.rmtree(site.root / "main" / "verified", ignore_errors=True)
        process = module_process("backup_verification", site.options())
        wait_until(lambda running=process: running.poll() is not None or list(site.root.glob("main/.use-*.lock")))
        process.send_signal(signal.SIGTERM)
        output, _errors = process.communicate(timeout=WAIT)
        assert not list(site.root.glob("main/.use-*.lock"))
        if "stopped by SIGTERM" in output:
            break
    else:
        pytest.fail("it was never stopped in order")
    assert not site.verify()["failed"]


def test_what_nobody_put_in_place_goes_in_the_end_but_not_what_is_being_written(site: BackupSite) -> None:
    kept = site.root / "main" / "verified"
    kept.mkdir(exist_ok=True)
    for name in ("new", "old"):
        (kept / f".{name}.json.x1").touch()
    os.utime(kept / ".old.json.x1", (0, 0))
    (kept / "20200101T000000Z-full-0000.json").touch()
    site.remembered().clean({backup.label for backup in site.backups})
    assert [path.name for path in kept.iterdir()] == [".new.json.x1"]


def test_of_two_at_once_the_second_is_told_and_from_two_places_both_do_it(site: BackupSite) -> None:
    with exclusive(str(site.directory / "state/locks/backup_verification.lock"), {"run": "r1"}, "backup_verification"):
        shown = site.verify()
    assert shown["failed"]
    assert "held by run r1" in shown["msg"]
    processes = [
        module_process("backup_verification", site.options(state_dir=str(site.directory / f"state{number}")))
        for number in range(3)
    ]
    outputs = [process.communicate(timeout=WAIT * 2)[0] for process in processes]
    assert all("bytes of the backups" in output and '"status": "failed"' not in output for output in outputs)
    assert not list(site.root.glob("main/.use-*.lock")), "the last one removed the mark"


def test_what_is_being_read_is_in_use_until_the_last_reader_ends(site: BackupSite) -> None:
    label = site.backups[0].label
    with site.repository.in_use(label, {}):
        with site.repository.in_use(label, {}):
            assert site.repository.is_in_use(label)
        assert site.repository.is_in_use(label)
    assert not site.repository.is_in_use(label)
    assert not list(site.root.glob("main/.use-*.lock"))


def test_a_mark_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "mark").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"), shared(str(tmp_path / "mark"), {}):
        pass
    assert (tmp_path / "target").read_text() == "precious"


def test_views_that_killed_runs_left_go_and_those_in_use_stay(site: BackupSite) -> None:
    remembered = site.remembered()
    dead = site.root / "main/verified/.view-dead"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    with remembered.view() as view:
        remembered.clean({backup.label for backup in site.backups})
        assert Path(view).exists()
        assert not is_free(os.path.join(view, "lock"))
        assert not dead.exists()
    assert not Path(view).exists()


def limit_files(size: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_full_disk_keeps_nothing_from_being_verified_and_is_told(site: BackupSite) -> None:
    site.settle()
    shown = run_module("backup_verification", site.options(), preexec_fn=limit_files(2000))
    assert not shown["failed"], shown["msg"]
    checks = checks_by_name(shown)
    assert checks["bytes of the backups"]["status"] == "passed"
    assert checks["readings remembered"]["status"] == "warned"
    assert "File too large" in checks["readings remembered"]["observed"]
    assert not list(site.root.glob("main/verified/*"))


def test_damage_that_cannot_be_noted_is_told(site: BackupSite) -> None:
    for dump in Path(site.backups[0].path("dump")).iterdir():
        dump.unlink()
    for path in Path(site.backups[0].path("files/0")).glob("*.txt"):
        path.unlink()
    shown = run_module("backup_verification", site.options(), preexec_fn=limit_files(600))
    assert shown["failed"]
    assert checks_by_name(shown)[f"note of the damage of {site.backups[0].label}"]["status"] == "failed"
    assert not site.verify()["changes"][0]["after"].startswith("none")
