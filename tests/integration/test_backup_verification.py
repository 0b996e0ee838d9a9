"""The module ``backup_verification`` on real backups: what it reads, what it remembers, and what it says."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.backups import MONTH, BackupSite, backup_site
from support.modules import checks_by_name, run_module
from support.postgresql import postgres_server


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupSite]:
    with backup_site(tmp_path_factory.mktemp("verification")) as site:
        yield site


@pytest.fixture
def site(original: BackupSite, tmp_path: Path) -> BackupSite:
    return original.copy(tmp_path)


def statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks_by_name(shown).items()}


def metric(shown: dict[str, Any], name: str) -> float:
    return float(shown["metrics"][name]["value"])


def test_every_byte_is_read_once_and_then_not_again(site: BackupSite) -> None:
    site.settle()
    first, second = site.verify(), site.verify()
    for shown in (first, second):
        assert not shown["failed"], shown["msg"]
        assert not shown["changed"]
        assert set(statuses(shown).values()) == {"passed"}, statuses(shown)
    total = sum(backup.metadata["bytes"] for backup in site.backups)
    assert metric(first, "read_bytes") >= total * 0.99
    assert metric(first, "verified_bytes") == metric(second, "verified_bytes") == total
    assert metric(second, "read_bytes") <= total * 0.05
    assert "unchanged since it was" in checks_by_name(second)["bytes of the backups"]["observed"]


def test_what_is_remembered_is_private_and_losing_it_costs_one_reading(site: BackupSite) -> None:
    site.settle()
    site.verify()
    kept = site.root / "main" / "verified"
    assert kept.stat().st_mode & 0o077 == 0
    assert {path.name for path in kept.iterdir()} == {f"{backup.label}.json" for backup in site.backups}
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.iterdir())
    shutil.rmtree(kept)
    again = site.verify()
    assert not again["failed"]
    assert metric(again, "read_bytes") >= metric(again, "verified_bytes") * 0.99


@pytest.mark.parametrize("harm", ["cut", "flip", "exchange"])
def test_a_damaged_memory_is_not_believed(site: BackupSite, harm: str) -> None:
    site.settle()
    site.verify()
    first, second = sorted((site.root / "main" / "verified").iterdir())
    content = bytearray(first.read_bytes())
    if harm == "cut":
        first.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        digit = max(place for place, byte in enumerate(content) if chr(byte).isdigit())
        content[digit] ^= 1  # still a digit, and all of it still JSON
        first.write_bytes(content)
    else:
        first.write_bytes(second.read_bytes())
    shown = site.verify()
    assert not shown["failed"]
    assert metric(shown, "read_bytes") >= site.backups[0].metadata["bytes"] * 0.99


def test_what_is_remembered_counts_only_for_what_the_backup_said_then(site: BackupSite) -> None:
    """Files that did not change, of a backup that says by now that they should hold something else."""
    full = site.backups[0]
    later = site.remembered().now + 10
    assert site.engine.verify(full.label, remembered=site.remembered(now=later)).sound
    other = [
        {**entry, "sha256": "0" * 64} if entry["path"] == "dump/0.dump" else entry for entry in full.metadata["files"]
    ]
    site.rewrite(full, files=other)
    (problem,) = site.engine.verify(full.label, remembered=site.remembered(now=later + 10)).problems
    assert problem.startswith("dump/0.dump has another content")


def test_full_reads_everything_and_finds_what_a_disk_lost(site: BackupSite) -> None:
    """A disk that loses a bit leaves the times as they were: here the memory is taught the new ones."""
    site.settle()
    site.verify()
    victim = Path(site.backups[0].path("base", "global", "1260"))
    content = bytearray(victim.read_bytes())
    content[100] ^= 4
    victim.write_bytes(content)
    site.settle()
    forget_change(site, victim)
    unseen = site.verify()
    assert not unseen["failed"], "incremental means that such a loss is not seen each day"
    shown = site.verify(full=True)
    assert shown["failed"]
    assert "base/global/1260" in shown["msg"].replace('"global/1260"', "base/global/1260")
    assert shown["changes"][0]["kind"] == "noted damage"
    assert site.repository.noted_damage(site.backups[0].label)


def forget_change(site: BackupSite, victim: Path) -> None:
    """Let the memory hold how *victim* looks now, as if it had never been written to."""
    backup = site.backups[0]
    readings = site.remembered().of(backup)
    readings.keep(str(victim.relative_to(backup.directory)), victim.stat())
    readings.save(damaged=False)


def test_within_the_stated_time_everything_is_read_again_some_each_day(site: BackupSite) -> None:
    site.settle()
    backup = site.backups[0]
    began = site.remembered().now
    read = []
    for day in range(61):
        memory = site.remembered(rotating=True, now=began + day * 86400.0)
        found = site.engine.verify(backup.label, remembered=memory)
        assert found.sound
        assert memory.now - found.read_since < MONTH, "at no time is a reading older than stated"
        read.append(found.read_bytes)
    total = read[0]
    assert total >= backup.metadata["bytes"] * 0.99
    assert total <= sum(read[1:31]) < total * 1.2, "all of it once, and not much more"
    assert total <= sum(read[31:61]) < total * 1.2
    assert sum(size > 0 for size in read[1:]) > 30, "some each day, not all at once"


def test_a_budget_is_kept_the_newest_chain_comes_first_and_the_rest_is_told(site: BackupSite) -> None:
    site.settle()
    full = site.backups[0]
    shown = site.verify(read_budget=str(full.metadata["bytes"] // 4))
    assert not shown["failed"]
    check = checks_by_name(shown)["every byte read within reread_within"]
    assert check["status"] == "warned"
    assert "still to be read" in check["observed"]
    assert metric(shown, "unread_bytes") > 0
    assert metric(shown, "read_bytes") < full.metadata["bytes"]
    rest = site.verify()
    assert metric(rest, "unread_bytes") == 0
    assert metric(rest, "read_bytes") + metric(shown, "read_bytes") >= metric(rest, "verified_bytes") * 0.99
    assert set(statuses(rest).values()) == {"passed"}


def test_check_mode_reads_and_writes_nothing_and_says_what_would_be_read(site: BackupSite) -> None:
    before = sorted(site.root.rglob("*"))
    shown = site.verify(check=True)
    assert not shown["failed"], shown["msg"]
    assert not shown["changed"]
    assert metric(shown, "read_bytes") == 0
    assert "would be read" in checks_by_name(shown)["names and sizes of the backups"]["observed"]
    assert sorted(site.root.rglob("*")) == before


def test_damage_is_noted_once_and_the_note_goes_when_it_is_repaired(site: BackupSite) -> None:
    site.settle()
    site.verify()
    dump = next(Path(site.backups[1].path("dump")).glob("*.dump"))
    content = dump.read_bytes()
    dump.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    first, second = site.verify(), site.verify()
    assert first["failed"]
    assert second["failed"]
    assert [change["name"] for change in first["changes"]] == [site.backups[1].label]
    assert second["changes"] == []
    dump.write_bytes(content)
    repaired = site.verify()
    assert not repaired["failed"]
    assert repaired["changes"][0]["after"].startswith("none: ")
    assert not site.repository.noted_damage(site.backups[1].label)


def test_damage_that_somebody_else_noted_has_everything_read_again(site: BackupSite) -> None:
    site.settle()
    site.verify()
    label = site.backups[0].label
    site.repository.note_damage(label, ["a restore test found it"])
    shown = site.verify()
    assert not shown["failed"]
    assert metric(shown, "read_bytes") >= site.backups[0].metadata["bytes"] * 0.99
    assert not site.repository.noted_damage(label)


def test_a_repository_without_backups_fails_and_in_check_mode_is_skipped(site: BackupSite) -> None:
    shutil.rmtree(site.root)
    assert "at least one backup" in site.verify()["msg"]
    assert site.verify(check=True)["skipped"]


def test_missing_programs_skip_with_the_command_that_installs_them(site: BackupSite, tmp_path: Path) -> None:
    shown = site.verify(bin_dir=str(tmp_path))
    assert shown["skipped"]
    assert "apt-get install postgresql-" in shown["msg"]


def test_a_backup_builds_on_what_was_verified_lately_without_reading_it_again(tmp_path: Path) -> None:
    site = BackupSite(tmp_path)
    with postgres_server() as server:
        options = {**site.options(), **server.login(), "interval": "0", "min_free_bytes": "1MiB"}
        assert not run_module("backup", options)["failed"]
        site.settle()
        site.verify()
        shown = run_module("backup", options)
        observed = checks_by_name(shown)["chain to build on"]["observed"]
        assert ", 0 B read now" in observed
        victim = Path(site.backups[0].path("base", "global", "1260"))
        content = victim.read_bytes()
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = run_module("backup", options)
        assert checks_by_name(found)["chain to build on"]["status"] == "warned"
        assert site.backups[-1].type == "full"
        assert site.repository.noted_damage(site.backups[0].label)
