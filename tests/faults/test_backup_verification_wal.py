"""Gaps, damage and strangers in a WAL archive: the verification of backups finds them, from each backup on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import archive as wal_archive
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.positions import parse_lsn, segment_name
from support.backups import BackupSite
from support.modules import checks_by_name, run_module
from support.postgresql import postgres_server

SEGMENT = 16 << 20


class ArchiveSite(BackupSite):
    """Backups with the archive of their cluster's WAL."""

    @property
    def archive(self) -> Path:
        return self.directory / "archive"

    @property
    def segments(self) -> list[wal_archive.Segment]:
        (cluster,) = (path for path in self.archive.iterdir() if path.is_dir() and path.name.isdigit())
        return wal_archive.segments(str(cluster))

    def first_of(self, number: int) -> str:
        """The segment in which the backup *number* begins."""
        return segment_name(1, parse_lsn(self.backups[number].metadata["start_lsn"]), SEGMENT)

    def remove(self, *names: str) -> None:
        for segment in self.segments:
            if segment.name in names:
                os.unlink(segment.path)

    def verify_all(self, **options: Any) -> dict[str, Any]:
        return self.verify(wal_archive=str(self.archive), **options)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveSite]:
    site = ArchiveSite(tmp_path_factory.mktemp("archived"))
    with postgres_server({"archive_mode": "on"}) as server:
        # Beside the server's data, which its user can walk to.
        archive = server.directory / "archive"
        options = {
            **site.options(), **server.login(), "interval": "0", "dump": False, "min_free_bytes": "1MiB",
            "wal_archive": str(archive), "wal_configure": True,
        }  # fmt: skip
        server.sql("CREATE TABLE student (id int)")
        for _backup in range(2):
            shown = run_module("backup", options)
            assert not shown["failed"], shown["msg"]
            for _segment in range(3):
                server.sql("INSERT INTO student SELECT generate_series(1, 100)")
                server.sql("SELECT pg_switch_wal()")
        # Its marker is archived last, so all of it is there when this has ended.
        shown = run_module("backup", {**options, "interval": "20h"})
        assert not shown["failed"], shown["msg"]
        shutil.copytree(archive, site.archive)
    yield site


@pytest.fixture
def site(original: ArchiveSite, tmp_path: Path) -> ArchiveSite:
    for directory in ("repository", "archive"):
        subprocess.run(["cp", "-a", str(original.directory / directory), str(tmp_path / directory)], check=True)
    return ArchiveSite(tmp_path)


def test_an_archive_without_a_gap_passes_from_each_backup_and_is_read_once(site: ArchiveSite) -> None:
    site.settle()
    first, second = site.verify_all(), site.verify_all()
    for shown in (first, second):
        assert not shown["failed"], shown["msg"]
        assert checks_by_name(shown)["WAL archive"]["status"] == "passed"
        labels = [backup.label for backup in site.backups]
        assert checks_by_name(shown)["WAL archive"]["evidence"]["covered"] == labels
        assert checks_by_name(shown)["bytes of the WAL archive"]["status"] == "passed"
    assert first["metrics"]["wal_read_bytes"]["value"] == sum(segment.size for segment in site.segments)
    assert second["metrics"]["wal_read_bytes"]["value"] == 0


def test_a_gap_in_the_middle_fails_for_the_backups_before_it(site: ArchiveSite) -> None:
    full, incremental = (backup.label for backup in site.backups)
    lost = [s.name for s in site.segments if site.first_of(0) < s.name < site.first_of(1)][1]
    site.remove(lost)
    shown = site.verify_all()
    assert shown["failed"]
    checks = checks_by_name(shown)
    assert f"WAL segment {lost} is missing" in checks[f"WAL archive from {full} on"]["observed"]
    assert f"WAL archive from {incremental} on" not in checks


def test_a_gap_where_a_backup_begins_fails(site: ArchiveSite) -> None:
    site.remove(*(segment.name for segment in site.segments if segment.name <= site.first_of(0)))
    checks = checks_by_name(site.verify_all())
    found = checks[f"WAL archive from {site.backups[0].label} on"]
    assert (found["status"], found["observed"]) == ("failed", f"WAL segment {site.first_of(0)} is missing")


def test_an_archive_that_ended_before_the_newest_backup_fails(site: ArchiveSite) -> None:
    site.remove(*(segment.name for segment in site.segments if segment.name >= site.first_of(1)))
    checks = checks_by_name(site.verify_all())
    assert checks[f"WAL archive from {site.backups[1].label} on"]["status"] == "failed"


def test_an_empty_archive_or_none_fails(site: ArchiveSite) -> None:
    site.remove(*(segment.name for segment in site.segments))
    assert "there is no WAL of this cluster" in checks_by_name(site.verify_all())["WAL archive"]["observed"]
    shutil.rmtree(site.archive)
    assert checks_by_name(site.verify_all())["WAL archive"]["status"] == "failed"


def test_a_backup_from_before_the_archive_is_told_and_is_no_failure(site: ArchiveSite) -> None:
    for path in site.archive.glob("*/00000001/*"):
        if path.name[:24] < site.first_of(1):
            path.unlink()
    shown = site.verify_all()
    assert not shown["failed"], shown["msg"]
    check = checks_by_name(shown)["WAL archive"]
    assert check["status"] == "passed"
    assert "1 are older than the archive" in check["observed"]
    for path in site.archive.glob("*/00000001/*"):
        if path.name[:24] <= site.first_of(1):
            path.unlink()
    assert checks_by_name(site.verify_all())["WAL archive"]["status"] == "warned", "now the newest one is, too"


def test_a_timeline_of_which_nobody_knows_how_it_came_about_fails(site: ArchiveSite) -> None:
    last = Path(site.segments[-1].path)
    strange = last.parent.with_name("00000002") / last.name.replace("00000001", "00000002", 1)
    strange.parent.mkdir()
    shutil.copyfile(last, strange)
    assert "how timeline 2 came about" in checks_by_name(site.verify_all())["WAL archive"]["observed"]


def test_segments_that_are_not_what_they_were_fail_and_are_named_each_time(site: ArchiveSite) -> None:
    site.settle()
    assert not site.verify_all()["failed"]
    flipped, cut, exchanged, empty, pipe, other = (Path(segment.path) for segment in site.segments[1:7])
    content = bytearray(flipped.read_bytes())
    content[100] ^= 8  # where records are: in the zeros behind them, some flips unpack to the same
    flipped.write_bytes(content)
    os.truncate(cut, cut.stat().st_size - 5)
    exchanged.write_bytes(other.read_bytes())
    os.truncate(empty, 0)
    pipe.unlink()
    os.mkfifo(pipe)
    for _time in range(2):
        check = checks_by_name(site.verify_all())["bytes of the WAL archive"]
        assert check["status"] == "failed"
        assert len(check["evidence"]["problems"]) == 5
        for victim in (flipped, cut, exchanged, empty, pipe):
            assert victim.name in check["observed"]


def test_check_mode_looks_for_gaps_and_reads_nothing(site: ArchiveSite) -> None:
    shown = site.verify_all(check=True)
    assert checks_by_name(shown)["WAL archive"]["status"] == "passed"
    assert "bytes of the WAL archive" not in checks_by_name(shown)
