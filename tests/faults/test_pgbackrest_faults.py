"""What must be found, and what must not be harmed, when something of a repository of pgBackRest is broken."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.modules import module_process, run_module
from support.pgbackrest import PgbackrestSite, flip, missing, pgbackrest_site
from support.postgresql import debian_bin_dir, postgres_server
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def site() -> Iterator[PgbackrestSite]:
    """A full backup, an incremental one, and WAL beyond them; tests put right what they break."""
    with pgbackrest_site() as found:
        for _number in range(2):
            found.back_up()
        found.back_up(interval="1d")
        yield found


@contextmanager
def broken(path: Path, how: Callable[[Path], object]) -> Iterator[None]:
    """*path* is broken while the block runs."""
    # Beside the repository, on the same file system: so it keeps its owner.
    [repository] = [parent for parent in path.parents if parent.name == "repo"]
    saved = Path(tempfile.mkdtemp(prefix="saved-", dir=repository.parent)) / path.name
    path.rename(saved)
    try:
        if how is not gone:
            shutil.copy2(saved, path)
            os.chown(path, saved.stat().st_uid, saved.stat().st_gid)
            how(path)
        yield
    finally:
        path.unlink(missing_ok=True)
        saved.rename(path)
        saved.parent.rmdir()


def gone(_path: Path) -> None:
    """The file is missing."""


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def failed(shown: dict[str, Any]) -> str:
    """All that failed, in words."""
    assert shown["failed"], [check["name"] for check in shown["checks"]]
    return str(shown["msg"])


@pytest.mark.parametrize("how", [flip, cut, gone])
def test_a_damaged_file_of_a_set_is_found_and_named(site: PgbackrestSite, how: Callable[[Path], object]) -> None:
    full = site.backups()[0]
    with broken(site.set_of(full) / "pg_data" / "PG_VERSION.zst", how):
        said = failed(site.verify(full=True))
        assert "PG_VERSION" in said
        assert f"bytes of {full.label}" in said
    shown = site.verify(full=True)
    assert not shown["failed"], shown["msg"]


def test_damage_makes_the_next_backup_a_full_one(site: PgbackrestSite) -> None:
    full = site.backups()[0]
    with broken(site.set_of(full) / "pg_data" / "PG_VERSION.zst", gone):
        shown = site.try_to_back_up(check=True)
        words = [change["after"] for change in shown["changes"] if change["kind"] == "backup"]
        assert any(word.startswith("full") for word in words), words


@pytest.mark.parametrize("name", ["backup.manifest", "backup.manifest.copy"])
def test_a_damaged_manifest_that_pgbackrest_is_silent_about_is_found(site: PgbackrestSite, name: str) -> None:
    with broken(site.set_of(site.backups()[0]) / name, flip):
        assert f"{name} has another content" in failed(site.verify(full=True))


def test_a_set_that_is_gone_is_found(site: PgbackrestSite) -> None:
    newest = site.backups()[-1]
    with broken(site.set_of(newest), gone):
        assert f"bytes of {newest.label}" in failed(site.verify(full=True))


def segments(site: PgbackrestSite) -> list[str]:
    return sorted(path.name[:24] for path in (site.repo / "archive" / "main" / "15-1").rglob("0*-*"))


@pytest.mark.parametrize("where", ["start", "middle"])
def test_missing_wal_is_found_though_pgbackrest_says_ok(site: PgbackrestSite, where: str) -> None:
    full, newest = site.backups()[0], site.backups()[-1]
    number = int(full.metadata["start_lsn"].split("/")[1], 16) >> 24
    stop = int(newest.metadata["restore_point"]["lsn"].split("/")[1], 16) >> 24
    chosen = next(s for s in segments(site) if int(s[16:], 16) == (number if where == "start" else stop + 1))
    with broken(site.segment(chosen), gone):
        said = failed(site.verify())
        assert f"WAL segment {chosen} is missing" in said
        assert "status: error" not in site.pgbackrest("verify", "--output=text").stdout
    if where == "middle":
        with broken(site.segment(chosen), gone):
            shown = site.test(target="newest")
            assert chosen in failed(shown)


def test_no_wal_at_all_is_found(site: PgbackrestSite) -> None:
    with broken(site.repo / "archive" / "main" / "15-1" / "0000000100000000", gone):
        said = failed(site.verify())
        assert "there is no WAL of this cluster" in said


def test_the_last_wal_is_missed_by_its_marker(site: PgbackrestSite) -> None:
    before, last = segments(site)[-2:]
    with broken(site.segment(last), gone), broken(site.segment(before), gone):
        said = failed(site.test(target="newest"))
        assert "was written at" in said


@pytest.mark.parametrize("how", [flip, cut])
def test_a_damaged_segment_is_found(site: PgbackrestSite, how: Callable[[Path], object]) -> None:
    chosen = segments(site)[-1]
    with broken(site.segment(chosen), how):
        assert chosen in failed(site.verify(full=True))


def test_a_wrong_stored_key_is_found_by_a_drill(site: PgbackrestSite) -> None:
    other = site.directory / "other-key"
    other.write_text("not the key\n")
    other.chmod(0o600)
    for said in (failed(site.test(key_file=str(other))), failed(site.verify(key_file=str(other)))):
        assert "wrong key" in said
        assert "\ufffd" not in said


def test_a_key_that_others_can_read_is_refused(site: PgbackrestSite) -> None:
    site.key_file.chmod(0o644)
    try:
        assert "mode 0600" in failed(site.verify())
    finally:
        site.key_file.chmod(0o600)


def test_a_stale_backup_is_found(site: PgbackrestSite) -> None:
    assert "age of the newest backup" in failed(site.verify(max_age="1s"))


def test_another_pgbackrest_at_work_is_told(site: PgbackrestSite) -> None:
    before = site.sets()
    lock = next((site.directory / "spool").rglob("main-backup.lock"), None) or (
        site.directory / "spool" / "lock" / "main-backup.lock"
    )
    with lock.open("a") as stream:
        os.chown(lock, site.directory.stat().st_uid, site.directory.stat().st_gid)
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "Another pgBackRest works on this stanza" in failed(site.try_to_back_up())
    assert site.sets() == before
    assert site.repository.leftovers() == []


def test_another_cluster_cannot_use_the_stanza(site: PgbackrestSite) -> None:
    with postgres_server({"archive_mode": "on"}, debian_bin_dir(15)) as other:
        mine = other.directory / "other.conf"
        shown = run_module("backup", site.options(**other.login(), pgbackrest_config=str(mine)))
        said = failed(shown)
        assert "use the stanza of pgBackRest" in said
        assert "pgbackrest_stanza_upgrade" in said
        assert "pgbackrest" not in other.sql("SHOW archive_command")[0][0]


def test_a_failing_archive_command_is_found_before_a_backup_waits_for_it(site: PgbackrestSite) -> None:
    archive = site.repo / "archive" / "main" / "15-1" / "0000000100000000"
    before, mode = site.sets(), archive.stat().st_mode
    archive.chmod(0o500)
    try:
        said = failed(site.try_to_back_up())
        assert "the archive_command fails on" in said
    finally:
        archive.chmod(mode)
    assert site.sets() == before
    wait_until(
        lambda: site.server.sql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready$'")[0][0] == 0
    )


def test_without_pgbackrest_the_activity_is_skipped(site: PgbackrestSite, tmp_path: Path) -> None:
    for name in ("setpriv",):
        (tmp_path / name).symlink_to(shutil.which(name) or "/usr/bin/setpriv")
    shown = run_module("backup", site.options(), env={"PATH": str(tmp_path)})
    assert shown["skipped"]
    assert "apt-get install pgbackrest" in shown["msg"]


def test_killed_while_it_makes_a_backup_the_next_run_puts_it_right(site: PgbackrestSite) -> None:
    """In the base, and after it: then pgBackRest has a set that no catalogue knows, and the next run removes it."""
    rows = site.server.sql("SELECT count(*), sum(hashtext(student::text)) FROM student")
    known = len(site.sets())
    process = module_process("backup", site.options())
    wait_until(lambda: list(site.catalogue.glob("main/.partial-*")) or process.poll() is not None)
    process.kill()
    process.communicate()
    wait_until(lambda: not pgbackrest_runs(site))
    process = module_process("backup", site.options())
    wait_until(lambda: (len(site.sets()) > known and any(site.catalogue.glob("main/.partial-*/dump")))
               or process.poll() is not None)  # fmt: skip
    process.kill()
    process.communicate()
    assert list(site.catalogue.glob("main/.partial-*")), "it was not killed in the middle"
    assert len(site.sets()) == known + 1
    wait_until(lambda: not pgbackrest_runs(site))
    site.back_up(keep_full=9)
    assert not list(site.catalogue.glob("main/.partial-*"))
    assert site.sets() == sorted(backup.metadata["pgbackrest"]["label"] for backup in site.backups())
    assert site.server.sql("SELECT count(*), sum(hashtext(student::text)) FROM student") == rows
    shown = site.verify()
    assert not shown["failed"], shown["msg"]


def test_killed_while_it_expires_the_next_run_goes_on(site: PgbackrestSite) -> None:
    site.back_up(full_every="0", keep_full=9)
    assert not site.test()["failed"]
    process = module_process("backup", site.options(full_every="0", keep_full=1))
    wait_until(lambda: list(site.catalogue.glob("main/.expired-*")) or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until(lambda: not pgbackrest_runs(site))
    (left,) = site.catalogue.glob("main/.expired-*")
    site.back_up(interval="1d", keep_full=1)
    assert left.name.partition("-")[2] not in [backup.label for backup in site.backups()]
    assert not list(site.catalogue.glob("main/.expired-*"))
    assert site.sets() == sorted(backup.metadata["pgbackrest"]["label"] for backup in site.backups())


def pgbackrest_runs(site: PgbackrestSite) -> bool:
    """Whether a pgbackrest of this site, other than the server's own archiving, is still there."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(str(site.config).encode() in word for word in words) and b"archive-push" not in words:
            return True
    return False
