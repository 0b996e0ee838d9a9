"""The restore test on real backups: what passes, what it measures, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup
from support.modules import checks_by_name
from support.postgresql import postgres_server
from support.restore import RestoreSite
from support.waiting import wait_until

SCHEMA = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE student (id int PRIMARY KEY, name text, mood mood, about json, marks int[]);
INSERT INTO student SELECT g, 'student ' || g, 'good', json_build_object('n', g), ARRAY[g, g + 1]
  FROM generate_series(1, 2000) g;
CREATE TABLE enrolment (student int, course int) PARTITION BY HASH (student);
CREATE TABLE enrolment_0 PARTITION OF enrolment FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE enrolment_1 PARTITION OF enrolment FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO enrolment SELECT g, g % 7 FROM generate_series(1, 2000) g;
CREATE MATERIALIZED VIEW busy_course AS SELECT course, count(*) FROM enrolment GROUP BY course;
INSERT INTO enrolment VALUES (99999, 3);
CREATE UNLOGGED TABLE page_cache AS SELECT 1 AS a;
CREATE TABLE mother (a int, b text);
CREATE TABLE child (b text, c int, a int);
ALTER TABLE child INHERIT mother;
INSERT INTO child VALUES ('b', 3, 1);
CREATE EXTENSION pg_stat_statements
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestoreSite]:
    with postgres_server() as server:
        site = RestoreSite(server, tmp_path_factory.mktemp("restore"))
        server.sql('CREATE DATABASE "learning platform"')
        server.sql('ALTER DATABASE "learning platform" SET default_transaction_read_only = on')
        with server.connect("learning platform") as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(SCHEMA)
        site.fill_pgbench(1)
        yield site


@pytest.fixture(scope="module")
def some_backup(site: RestoreSite) -> Backup:
    """A backup for tests that only need one to be there."""
    return site.back_up()


def names_and_statuses(shown: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in shown["checks"]}


def test_a_good_backup_is_proven_and_nothing_is_left(site: RestoreSite) -> None:
    backup = site.back_up()
    shown = site.test()
    assert not shown["failed"], shown["msg"]
    checks = checks_by_name(shown)
    assert set(names_and_statuses(shown).values()) == {"passed"}
    assert checks["content of the restored database learning platform"]["observed"].startswith("6 tables, 4009 rows")
    reasons = {
        e["table"]: e["reason"]
        for e in checks["content of the restored database learning platform"]["evidence"]["not_compared"]
    }
    assert list(reasons) == ["public.page_cache"]
    left_out = {
        e["table"]: e["reason"]
        for e in checks["content of the restored dump of learning platform"]["evidence"]["not_compared"]
    }
    assert "materialized view" in left_out["public.busy_course"]
    assert {"rto_seconds", "rpo_seconds", "verify_seconds", "restore_seconds", "replay_seconds", "compare_seconds",
            "amcheck_seconds", "dump_seconds"} <= set(shown["metrics"])  # fmt: skip
    phases = ("fetch", "unpack", "replay", "start")
    whole = sum(shown["metrics"][f"{phase}_seconds"]["value"] for phase in phases)
    assert shown["metrics"]["rto_seconds"]["value"] == pytest.approx(whole, abs=0.01)
    assert all(f"{phase} " in checks["RTO of main"]["observed"] for phase in (*phases, "checks"))
    assert [change["kind"] for change in shown["changes"]] == ["proof"]
    assert site.repository.proven() == [backup.label]
    assert shown["artifacts"][0]["path"] == site.repository.proof_path(backup.label)
    assert site.scratch_names() == []
    assert site.servers() == []
    assert site.server.sql("SELECT count(*) FROM pgbench_accounts") == [(100000,)]


def test_a_second_run_restores_nothing_and_changes_nothing(site: RestoreSite, some_backup: Backup) -> None:
    assert site.test(restore_dump=False, amcheck=False)["changed"]
    again = site.test(interval="6d", restore_dump=False, amcheck=False)
    assert not again["changed"]
    assert not again["failed"]
    assert checks_by_name(again)["proof of the newest backup"]["observed"].startswith("proven on 20")
    assert "restore_seconds" not in again["metrics"]
    assert {"rpo_seconds", "rto_seconds"} <= set(again["metrics"])
    assert names_and_statuses(again)["RTO of main"] == "passed"


def test_a_newer_backup_is_due_and_check_mode_says_so_without_restoring(site: RestoreSite) -> None:
    newer = site.back_up(dump=False)
    shown = site.test(check=True, interval="6d")
    assert not shown["failed"]
    assert shown["changed"]
    assert shown["changes"][0]["name"] == newer.label
    assert "would be proven" in shown["changes"][0]["after"]
    assert newer.label not in site.repository.proven()
    assert "restore_seconds" not in shown["metrics"]


def test_a_chain_of_incremental_backups_is_restored(site: RestoreSite) -> None:
    full = site.back_up()
    site.server.sql("UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid % 1000 = 0")
    middle = site.back_up(parent=full.label)
    site.server.sql("DELETE FROM pgbench_accounts WHERE aid = 77777")
    last = site.back_up(parent=middle.label)
    shown = site.test()
    assert not shown["failed"], shown["msg"]
    assert shown["changes"][0]["name"] == last.label
    assert "3 backup(s)" in checks_by_name(shown)["bytes of the newest backup"]["observed"]
    site.server.sql("INSERT INTO pgbench_accounts (aid, bid, abalance) VALUES (77777, 1, 0)")


@pytest.mark.parametrize("round_number", range(5))
def test_no_false_alarm_while_pgbench_writes(site: RestoreSite, round_number: int) -> None:
    with site.busy(clients=4):
        site.back_up()
        shown = site.test(restore_dump=round_number == 0, amcheck=round_number == 0)
    assert not shown["failed"], shown["msg"]
    assert set(names_and_statuses(shown).values()) == {"passed"}


def test_assertions_are_asked_in_the_restored_cluster(site: RestoreSite, some_backup: Backup) -> None:
    site.server.sql("DELETE FROM pgbench_history")

    def assertion(name: str, query: str, expected: Any) -> dict[str, Any]:
        return {"name": name, "database": "learning platform", "query": query, "expected": expected}

    shown = site.test(
        restore_dump=False,
        amcheck=False,
        assertions=[
            assertion("number of students", "SELECT count(*) FROM student", 2000),
            assertion("there are students", "SELECT count(*) > 0 FROM student", True),
            assertion("names like %", "SELECT count(*) FROM student WHERE name LIKE '%s%'", "2000"),
            assertion("no mark", "SELECT max(id) FROM student WHERE id < 0", "null"),
            assertion("too few", "SELECT count(*) FROM student", 3),
            assertion("nonsense", "SELECT nonsense", "1"),
            assertion("writing", "DELETE FROM student RETURNING 1", "1"),
        ],
    )
    found = {name.split(" in ")[0]: status for name, status in names_and_statuses(shown).items()}
    for name in ("number of students", "there are students", "names like %", "no mark"):
        assert found[f"assertion {name}"] == "passed"
    for name in ("too few", "nonsense", "writing"):
        assert found[f"assertion {name}"] == "failed"
    assert "read-only transaction" in str(shown["checks"])


def test_an_interval_without_a_unit_or_a_wrong_one_is_refused(site: RestoreSite, some_backup: Backup) -> None:
    shown = site.test(rto_target="an hour")
    assert shown["failed"]
    assert "rto_target" in shown["msg"]


def test_a_path_too_long_for_a_socket_is_no_hindrance(site: RestoreSite, some_backup: Backup, tmp_path: Path) -> None:
    long_path = tmp_path / ("long" * 20)
    before = set(Path("/tmp").glob("wellkept-socket-*"))
    shown = site.test(scratch_dir=str(long_path), restore_dump=False, amcheck=False)
    assert not shown["failed"], shown["msg"]
    assert not list(long_path.iterdir())
    # Other tests make such directories meanwhile: there, servers listen, or they go soon.
    left = set(Path("/tmp").glob("wellkept-socket-*")) - before
    wait_until(lambda: not [path for path in left if path.exists() and not somebody_listens_in(path)])


def somebody_listens_in(directory: Path) -> bool:
    return f"{directory}/" in Path("/proc/net/unix").read_text()


def test_what_the_live_cluster_set_for_itself_does_not_reach_the_scratch_cluster(site: RestoreSite) -> None:
    site.server.sql("ALTER SYSTEM SET archive_command = 'touch /tmp/wellkept-archived-%f'")
    site.server.sql("ALTER SYSTEM SET port = 1")
    try:
        site.back_up()
        shown = site.test()
    finally:
        site.server.sql("ALTER SYSTEM RESET ALL")
    assert not shown["failed"], shown["msg"]


@pytest.mark.long
def test_fifty_rounds_under_load_give_no_false_alarm(site: RestoreSite) -> None:
    parent = ""
    for number in range(50):
        with site.busy(clients=4):
            backup = site.back_up(parent=parent)
            shown = site.test(restore_dump=number % 10 == 0)
        assert not shown["failed"], f"round {number}: {shown['msg']}"
        assert set(names_and_statuses(shown).values()) == {"passed"}, f"round {number}"
        parent = backup.label if number % 5 != 4 else ""
        if not parent:
            for old in site.repository.backups():
                site.repository.expire(old.label)
