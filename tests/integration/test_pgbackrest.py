"""The engine pgbackrest on a real server: set up, backed up, verified, restored, thinned out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.modules import checks_by_name, run_module
from support.pgbackrest import KEY, PgbackrestSite, missing, pgbackrest_site
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def site() -> Iterator[PgbackrestSite]:
    """Tests use it in their order: each goes on from what the one before it has left."""
    with pgbackrest_site() as found:
        yield found


def kinds(shown: dict[str, Any]) -> list[str]:
    return [change["kind"] for change in shown["changes"]]


def test_check_mode_says_what_would_be_set_up_and_touches_nothing(site: PgbackrestSite) -> None:
    before = sorted(site.directory.iterdir())
    shown = site.try_to_back_up(check=True)
    assert not shown["failed"], shown["msg"]
    assert {"pgBackRest", "setting", "backup"} <= set(kinds(shown))
    assert [path for path in sorted(site.directory.iterdir()) if path.name != "state"] == before
    assert (
        site.server.sql("SHOW archive_command") == [("",)]
        or "disabled" in site.server.sql("SHOW archive_command")[0][0]
    )


def test_first_run_sets_all_up_and_makes_a_full_backup_that_is_encrypted(site: PgbackrestSite) -> None:
    shown = site.back_up()
    checks = checks_by_name(shown)
    for name in ("stanza main", "WAL archived end to end", "pgbackrest check", "content can be compared"):
        assert checks[name]["status"] == "passed", checks[name]
    (backup,) = site.backups()
    assert backup.type == "full"
    assert backup.metadata["pgbackrest"]["encrypted"]
    assert site.set_of(backup).is_dir()
    # The key is where it must be, readable by the server's user alone, and nowhere else.
    assert site.config.stat().st_mode & 0o777 == 0o600
    assert KEY in site.config.read_text()
    assert KEY not in json.dumps(shown)
    assert KEY not in json.dumps(backup.metadata)
    assert KEY not in site.server.sql("SHOW archive_command")[0][0]


def test_incremental_backup_builds_on_the_full_one(site: PgbackrestSite) -> None:
    site.server.sql("UPDATE student SET name = 'x' WHERE id < 10")
    site.back_up()
    full, incremental = site.backups()
    assert incremental.chain == [full.label, incremental.label]
    assert incremental.metadata["pgbackrest"]["prior"] == full.metadata["pgbackrest"]["label"]


def test_nothing_is_made_when_nothing_is_due(site: PgbackrestSite) -> None:
    before = site.sets()
    shown = site.back_up(interval="1d")
    assert shown["changes"] == []
    assert checks_by_name(shown)["newest backup in its place"]["status"] == "passed"
    assert site.sets() == before


def test_sound_backups_are_verified_and_not_read_again(site: PgbackrestSite) -> None:
    shown = site.verify(full=True)
    assert not shown["failed"], shown["msg"]
    assert {check["status"] for check in shown["checks"]} == {"passed"}
    assert shown["metrics"]["read_bytes"]["value"] > 1 << 20
    assert site.verify()["metrics"]["read_bytes"]["value"] == 0


def test_restore_test_proves_the_newest_backup_and_the_last_commit(site: PgbackrestSite) -> None:
    settings = site.server.sql("SELECT name, setting FROM pg_settings WHERE source = 'configuration file' ORDER BY 1")
    shown = site.test(target="newest", amcheck=True)
    assert not shown["failed"], shown["msg"]
    checks = checks_by_name(shown)
    assert checks["content of the restored database postgres"]["status"] == "passed"
    assert checks["recovery to the target newest"]["status"] == "passed"
    assert checks["marker rows at the target"]["status"] == "passed"
    assert site.repository.proven() == [site.backups()[-1].label]
    assert KEY not in json.dumps(shown)
    after = site.server.sql("SELECT name, setting FROM pg_settings WHERE source = 'configuration file' ORDER BY 1")
    assert after == settings
    # The scratch server archived nothing: the timeline that it began is not in the repository.
    assert not list((site.repo / "archive" / "main" / "15-1").glob("00000002*"))


def test_retention_is_ours_and_never_takes_what_the_newest_proven_backup_needs(site: PgbackrestSite) -> None:
    proven = site.backups()[-1]
    rules = {"full_every": "0", "keep_full": 1}
    site.back_up(**rules)
    labels = [backup.label for backup in site.backups()]
    assert set(proven.chain) < set(labels)
    assert len(site.sets()) == 3
    assert not site.test()["failed"]
    shown = site.back_up(**rules)
    gone = {change["name"] for change in shown["changes"] if change["after"].startswith("expired")}
    assert gone == set(proven.chain)
    assert site.sets() == sorted(backup.metadata["pgbackrest"]["label"] for backup in site.backups())
    oldest = site.backups()[0]
    (first, *_others) = sorted(
        path.name[:24] for path in (site.repo / "archive" / "main" / "15-1").rglob("0*-*") if path.is_file()
    )
    assert int(first[16:], 16) == int(oldest.metadata["start_lsn"].split("/")[1], 16) >> 24
    verified = site.verify()
    assert not verified["failed"], verified["msg"]


def test_differential_backup_builds_on_the_full_one_alone(site: PgbackrestSite) -> None:
    for _number in range(2):
        site.back_up(pgbackrest_differential=True)
    full, first, second = site.backups()[-3:]
    assert first.chain == [full.label, first.label]
    assert second.chain == [full.label, second.label]
    assert second.metadata["pgbackrest"]["prior"] == full.metadata["pgbackrest"]["label"]


def test_a_backup_that_pgbackrest_made_by_itself_is_left_alone_and_not_built_on(site: PgbackrestSite) -> None:
    done = site.pgbackrest("backup", "--type=incr")
    assert done.returncode == 0, done.stderr
    (theirs,) = set(site.sets()) - {backup.metadata["pgbackrest"]["label"] for backup in site.backups()}
    shown = site.back_up()
    assert checks_by_name(shown)["incremental backup"]["status"] == "warned"
    assert site.backups()[-1].type == "full"
    assert theirs in site.sets()


def test_a_configuration_of_somebody_else_is_used_as_it_is(site: PgbackrestSite) -> None:
    theirs = site.directory / "theirs.conf"
    text = site.config.read_text().partition("\n")[2].replace("process-max=", "process-max=1\n#")
    theirs.write_text(text)
    theirs.chmod(0o644)
    ours = site.server.sql("SHOW archive_command")[0][0]
    command = ours.replace(str(site.config), str(theirs))
    archive_by(site, command)
    shown = site.back_up(pgbackrest_config=str(theirs), wal_configure=False)
    assert "used as it is" in checks_by_name(shown)["configuration of pgBackRest"]["observed"]
    assert theirs.read_text() == text
    assert site.server.sql("SHOW archive_command") == [(command,)]
    archive_by(site, ours)


def archive_by(site: PgbackrestSite, command: str) -> None:
    site.server.sql(f"ALTER SYSTEM SET archive_command = '{command}'")
    site.server.sql("SELECT pg_reload_conf()")
    wait_until(lambda: site.server.sql("SHOW archive_command") == [(command,)])


def test_restore_into_place_to_a_time_brings_back_what_was_there_then(site: PgbackrestSite) -> None:
    site.back_up()
    site.server.sql("CREATE TABLE kept AS SELECT 1 AS id")
    site.back_up(interval="1d")
    now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    moment = site.server.sql(now)[0][0]
    site.server.sql("DROP TABLE student")
    site.back_up(interval="1d")
    before = site.server.sql("SHOW archive_command")
    site.server.stop("fast")
    options = {**site.server.login(), **site.reading(), "target": f"time:{moment}", "confirm": "main"}
    shown = run_module("postgresql_restore", options)
    assert not shown["failed"], shown["msg"]
    assert site.server.sql("SELECT count(*) FROM kept") == [(1,)]
    assert site.server.sql("SELECT count(*) FROM student") == [(5000,)]
    assert site.server.sql("SHOW archive_command") == before
    # Its new timeline goes on in the same archive, and is backed up by a full one.
    site.back_up()
    assert site.backups()[-1].type == "full"
    assert site.backups()[-1].metadata["timeline"] == 2
    verified = site.verify()
    assert not verified["failed"], verified["msg"]
