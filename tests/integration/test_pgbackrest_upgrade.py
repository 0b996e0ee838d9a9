"""After an upgrade of PostgreSQL by pg_upgrade, a cluster has another system identifier than its stanza."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from support.modules import checks_by_name
from support.pgbackrest import PgbackrestSite, missing, pgbackrest_site

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def site() -> Iterator[PgbackrestSite]:
    """A cluster with a backup, which was then upgraded; tests go on from what the one before them has left."""
    with pgbackrest_site() as found:
        found.back_up()
        upgrade(found)
        yield found


def upgrade(site: PgbackrestSite) -> None:
    """Upgrade the cluster, to the same major version, and put it in the old one's place with its configuration."""
    server = site.server
    new = server.directory / "new"
    server.stop("fast")
    access = ["-U", "postgres", "--auth=trust", "-k", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
    server.program("initdb", "-D", str(new), *access)
    places = ["-b", str(server.bin_dir), "-B", str(server.bin_dir), "-d", str(server.data), "-D", str(new)]
    server.program("pg_upgrade", *places, "-U", "postgres", "-s", str(server.directory))
    for name in ("postgresql.conf", "postgresql.auto.conf", "pg_hba.conf"):
        shutil.copyfile(server.data / name, new / name)
    server.data.rename(server.directory / "old")
    new.rename(server.data)
    server.start()


def identifier(site: PgbackrestSite) -> str:
    return str(site.server.sql("SELECT system_identifier::text FROM pg_control_system()")[0][0])


def identifiers(site: PgbackrestSite) -> list[str]:
    """Those that the stanza has had, as pgBackRest says."""
    said = json.loads(site.pgbackrest("info", "--output=json").stdout)
    return [str(database["system-id"]) for database in said[0]["db"]]


def test_until_it_is_allowed_the_mismatch_and_what_to_do_are_said_and_nothing_changes(site: PgbackrestSite) -> None:
    (before,) = site.backups()
    old, new = before.metadata["system_identifier"], identifier(site)
    assert old != new
    for check in (True, False):
        shown = site.try_to_back_up(check=check)
        assert shown["failed"]
        for word in (old, new, "pg_upgrade", "pgbackrest_stanza_upgrade: true"):
            assert word in shown["msg"], word
    assert identifiers(site) == [old]
    assert [backup.label for backup in site.backups()] == [before.label]
    assert site.repository.leftovers() == []


def test_once_it_is_allowed_the_stanza_is_upgraded_and_a_full_backup_made_and_proven(site: PgbackrestSite) -> None:
    (before,) = site.backups()
    shown = site.back_up(pgbackrest_stanza_upgrade=True)
    assert checks_by_name(shown)["stanza main"]["observed"] == "upgraded"
    assert identifiers(site) == [before.metadata["system_identifier"], identifier(site)]
    kept, made = site.backups()
    assert kept.label == before.label
    assert (made.type, made.metadata["system_identifier"]) == ("full", identifier(site))
    assert made.metadata["pgbackrest"]["archive_id"] == "15-2"
    tested = site.test(target="newest")
    assert not tested["failed"], tested["msg"]
    assert site.repository.proven() == [made.label]


def test_later_runs_need_the_permission_no_more_and_what_was_before_stays_sound(site: PgbackrestSite) -> None:
    shown = site.back_up()
    assert [change["kind"] for change in shown["changes"] if change["kind"] == "pgBackRest"] == []
    assert site.backups()[-1].type == "incremental"
    verified = verify(site)
    assert not verified["failed"], verified["msg"]
    assert site.pgbackrest("check").returncode == 0


def verify(site: PgbackrestSite) -> dict[str, Any]:
    return site.verify(full=True)
