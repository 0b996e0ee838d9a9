"""Disks that are full where an engine writes: that is told, nothing half done stays, and the next run succeeds."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.mirrors import Servers, SmallSite, mirror_servers
from support.pgbackrest import PgbackrestSite, missing, pgbackrest_site
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")


@contextlib.contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    """A file system of *size* on *directory*, owned as that is, while the block runs."""
    status = directory.stat()
    options = f"size={size},uid={status.st_uid},gid={status.st_gid},mode={status.st_mode & 0o777:o}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(directory)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@contextlib.contextmanager
def filled(directory: Path) -> Iterator[None]:
    """No byte fits on the file system of *directory* while the block runs."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while stream.write(bytes(size)):
                    pass
    yield
    filler.unlink()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with mirror_servers() as servers:
        yield servers


@pytest.mark.parametrize("kind", ["directory", "sftp", "rsync"])
def test_a_fetch_to_a_full_disk_leaves_nothing_there(servers: Servers, tmp_path: Path, kind: str) -> None:
    site = SmallSite(tmp_path)
    site.add(size=60_000)
    disk = tmp_path / "small"
    disk.mkdir()
    with small_disk(disk, "200k"):
        mirror = servers.mirror(site, kind)
        assert not mirror.mirror()["failed"]
        shown = mirror.fetch(disk / "fetched")
        assert shown["failed"]
        assert "No space left" in shown["msg"] or "no room there" in shown["msg"], shown["msg"]
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        shown = mirror.fetch(disk / "fetched")
        assert not shown["failed"], shown["msg"]


@pytest.fixture(scope="module")
def pgbackrest() -> Iterator[PgbackrestSite]:
    if missing():
        pytest.skip(missing())
    with pgbackrest_site() as site, small_disk(site.repo.parent, "200m"):
        site.back_up()
        yield site


def test_pgbackrest_with_a_full_repository_makes_no_backup_and_the_server_keeps_its_wal(
    pgbackrest: PgbackrestSite,
) -> None:
    site = pgbackrest
    before, backups = site.sets(), [backup.label for backup in site.backups()]
    with filled(site.repo.parent):
        shown = site.try_to_back_up()
        assert shown["failed"]
        assert "the archive_command fails on" in shown["msg"] or "No space left" in shown["msg"], shown["msg"]
    assert site.sets() == before
    assert [backup.label for backup in site.backups()] == backups
    assert site.repository.leftovers() == []
    waiting = "SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready$'"
    wait_until(lambda: site.server.sql(waiting)[0][0] == 0, "the WAL that was kept to be archived")
    site.back_up()
    shown = site.verify(full=True)
    assert not shown["failed"], shown["msg"]


def test_pgbackrest_expires_from_a_full_repository(pgbackrest: PgbackrestSite) -> None:
    site = pgbackrest
    site.back_up(full_every="0", keep_full=9)
    oldest = site.backups()[0]
    with filled(site.repo.parent):
        shown = site.try_to_back_up(interval="1d", keep_full=1)
        told = shown["msg"] if shown["failed"] else ""
        gone = oldest.label not in [backup.label for backup in site.backups()]
        assert gone or "No space left" in told or "the archive_command fails on" in told, shown
    shown = site.try_to_back_up(interval="1d", keep_full=1)
    assert not shown["failed"], shown["msg"]
    assert oldest.label not in [backup.label for backup in site.backups()]
    assert site.sets() == sorted(backup.metadata["pgbackrest"]["label"] for backup in site.backups())
