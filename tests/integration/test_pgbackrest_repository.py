"""Each way to compress a repository of pgBackRest leads back to the same content; and room in it is foreseen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.modules import checks_by_name
from support.pgbackrest import PgbackrestSite, missing, pgbackrest_site

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def site() -> Iterator[PgbackrestSite]:
    with pgbackrest_site() as found:
        yield found


@pytest.mark.parametrize("compression, suffix", [("gzip:1", ".gz"), ("lz4", ".lz4"), ("none", "")])
def test_a_full_backup_is_compressed_so_verified_and_restored(
    site: PgbackrestSite, compression: str, suffix: str
) -> None:
    site.back_up(compression=compression, full_every="0")
    made = site.backups()[-1]
    assert (site.set_of(made) / "pg_data" / f"PG_VERSION{suffix}").exists()
    for shown in (site.verify(full=True), site.test(target="newest")):
        assert not shown["failed"], shown["msg"]
    [segment] = list((site.repo / "archive").rglob(f"{last_segment(site)}-*"))
    assert segment.suffix == suffix
    assert made.label in site.repository.proven()


def last_segment(site: PgbackrestSite) -> str:
    return str(site.server.sql("SELECT last_archived_wal FROM pg_stat_archiver")[0][0])[:24]


def test_room_for_another_full_backup_is_foreseen(site: PgbackrestSite) -> None:
    """That so much must stay free as no disk has is the same to it as a repository that has filled up."""
    name = f"space in {site.repo}"
    found = checks_by_name(site.back_up(interval="1d"))[name]
    assert found["status"] == "passed"
    assert found["evidence"]["needed_bytes"] > 1 << 20
    for check in (True, False):
        shown = site.try_to_back_up(check=check, interval="1d", min_free_bytes="1000TiB")
        assert checks_by_name(shown)[name]["status"] == "failed"
        assert "takes no WAL" in checks_by_name(shown)[name]["advice"]


def test_a_set_that_a_broken_connection_has_left_is_told_and_not_removed(site: PgbackrestSite) -> None:
    done = site.pgbackrest("backup", "--type=full", "--annotation=wellkept=20200101T000000Z-full-0000")
    assert done.returncode == 0, done.stderr
    (theirs,) = set(site.sets()) - {backup.metadata["pgbackrest"]["label"] for backup in site.backups()}
    found = checks_by_name(site.back_up(interval="1d"))["sets of pgBackRest without a backup"]
    assert (found["status"], found["observed"]) == ("warned", theirs)
    assert theirs in site.sets()
    assert site.pgbackrest("expire", f"--set={theirs}").returncode == 0
    assert "sets of pgBackRest without a backup" not in checks_by_name(site.back_up(interval="1d"))
