"""Looking for damage where there is none: what is looked at when, and what the catalogs are found to promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.database import session
from support.integrity import (
    Inspector,
    learning_server,
    looked_at,
    make_slow_indexes,
    slow_down,
    statuses,
)
from support.modules import checks_by_name
from support.postgresql import PostgresServer
from support.standby import standby_of
from support.waiting import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with learning_server() as server:
        yield server


@pytest.fixture
def inspector(server: PostgresServer, tmp_path: Path) -> Iterator[Inspector]:
    yield Inspector(server, tmp_path)
    server.sql("ALTER DATABASE learning RESET ALL")
    with server.connect("learning") as connection:
        connection.execute("DROP SCHEMA IF EXISTS slow CASCADE")
        connection.execute("DROP SCHEMA IF EXISTS odd CASCADE")


def odd(server: PostgresServer, statements: str) -> None:
    """Make something odd, in the schema ``odd`` of the database learning."""
    with server.connect("learning") as connection:
        connection.execute("CREATE SCHEMA odd")
        connection.execute("SET search_path = odd, public")
        connection.execute(statements)


def without_amcheck(server: PostgresServer) -> None:
    for database in ("learning", "postgres"):
        server.sql("DROP EXTENSION IF EXISTS amcheck CASCADE", database)


def test_check_mode_tells_the_plan_and_touches_nothing(inspector: Inspector) -> None:
    without_amcheck(inspector.server)
    shown = inspector.look(check=True, databases=["*"])
    assert not shown["failed"]
    assert [change["after"] for change in shown["changes"]] == ["would be installed"] * 2
    plan = checks_by_name(shown)["what would be looked at"]
    assert int(plan["observed"].split()[0]) > 300
    assert any(name.startswith("B-tree index pg_catalog.") for name in plan["evidence"]["first"])
    assert inspector.server.sql("SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'", "learning") == [(0,)]
    assert not (inspector.state / "database_integrity").exists()


def test_all_is_looked_at_once_and_not_again_before_its_time(inspector: Inspector) -> None:
    without_amcheck(inspector.server)
    first = inspector.look(databases=["*"])
    assert not first["failed"], first["msg"]
    assert {change["name"] for change in first["changes"]} == {
        "amcheck in the database learning", "amcheck in the database postgres",
    }  # fmt: skip
    found = statuses(first)
    assert [found[name] for name in ("B-tree indexes", "GIN indexes", "tables", "checksum failures")] == ["passed"] * 4
    assert looked_at(first) > 300
    second = inspector.look(databases=["*"])
    assert (second["changed"], looked_at(second)) == (False, 0)
    assert checks_by_name(second)["B-tree indexes"]["observed"].split(" sound")[0].split(" of ")[0].isdigit()
    inspector.age_memory(7 * 86400)
    assert looked_at(inspector.look(databases=["*"])) == looked_at(first)


def test_what_was_rebuilt_or_is_to_be_seen_more_closely_is_looked_at_again(inspector: Inspector) -> None:
    inspector.look()
    inspector.server.sql("REINDEX INDEX student_name", "learning")
    assert looked_at(inspector.look()) == 1
    closely = inspector.look(heap_all_indexed=True, check_tables=False)
    assert looked_at(closely) == int(checks_by_name(closely)["B-tree indexes"]["observed"].split()[0])
    assert looked_at(inspector.look(heap_all_indexed=True)) == 0


def test_tables_are_chosen_by_patterns_with_their_indexes(inspector: Inspector) -> None:
    everything = looked_at(inspector.look())
    fewer = Inspector(inspector.server, inspector.state / "fewer")
    shown = fewer.look(exclude_tables=["public.student"])
    # Its two B-trees, its GIN index, itself, its TOAST table and that table's index.
    assert everything - looked_at(shown) == 6
    assert "'shop'" in fewer.look(databases=["shop"])["msg"]


def test_what_does_not_fit_into_a_run_has_its_turn_in_a_later_one(inspector: Inspector) -> None:
    make_slow_indexes(inspector.server, 8)
    slow_down(inspector.server, 0.05)
    names = "SELECT indexrelid FROM pg_stat_user_indexes WHERE schemaname = 'slow'"
    slow = [str(oid) for (oid,) in inspector.server.sql(names, "learning")]
    options = {"heap_all_indexed": True, "check_tables": False, "tables": ["slow.*"], "max_block": "3s"}
    runs, done = 0, 0
    while done < len(slow):
        shown = inspector.look(time_budget="3s", **options)
        runs += 1
        assert not shown["failed"], shown["msg"]
        assert runs <= 20, "each run gets on"
        things = json.loads(inspector.memory.read_text())["things"]
        done = sum(entry["checked"] > 0 for key, entry in things.items() if key.split("/")[1] in slow)
    assert runs > 1, "they take 4 s and more"
    assert statuses(shown)["everything is looked at in time"] == "passed"


def test_what_never_fits_is_tried_once_and_told_of_when_its_time_is_over(inspector: Inspector) -> None:
    make_slow_indexes(inspector.server, 1, rows=100)
    options = {"heap_all_indexed": True, "check_tables": False, "tables": ["slow.*"]}
    inspector.look(time_budget="0", **options)
    inspector.server.sql("REINDEX INDEX slow.t0_value", "learning")
    slow_down(inspector.server, 1)
    for budget in ("3s", "30s"):  # on a slow machine a run may be over before anything is begun
        first = inspector.look(time_budget=budget, **options)
        hindered = checks_by_name(first)["everything is looked at in time"]["evidence"]["hindered"]
        if hindered:
            break
    assert hindered == [{"object": "slow.t0_value in learning", "why": "needs more time than a run has"}]
    again = inspector.look(time_budget="3s", **options)
    assert looked_at(again) == 0
    assert "1 (" in checks_by_name(again)["everything is looked at in time"]["observed"]
    inspector.age_memory(40 * 86400)
    late = checks_by_name(inspector.look(time_budget="3s", **options))["everything is looked at in time"]
    assert late["status"] == "warned"
    assert "slow.t0_value in learning" in late["evidence"]["late"]


def test_sequences_near_the_end_of_their_column_are_told_of(inspector: Inspector) -> None:
    odd(inspector.server, """
        CREATE SEQUENCE wide AS bigint;
        CREATE TABLE narrow (id int DEFAULT nextval('odd.wide') PRIMARY KEY);
        SELECT setval('odd.wide', 1600000000);
        CREATE TABLE tiny (id smallint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY);
        SELECT setval(pg_get_serial_sequence('odd.tiny', 'id'), 32000);
        CREATE SEQUENCE falling INCREMENT -1 MINVALUE -1000;
        SELECT setval('odd.falling', -800);
        CREATE SEQUENCE round MAXVALUE 100 CYCLE;
        SELECT setval('odd.round', 99);
        CREATE SEQUENCE fresh MAXVALUE 100
    """)  # fmt: skip
    shown = inspector.look()
    assert shown["failed"]
    checks = checks_by_name(shown)
    wide = checks["sequence odd.wide in learning"]
    assert wide["status"] == "warned"
    assert wide["observed"] == "75%: 1,600,000,000 of 2,147,483,647 of odd.narrow.id (integer)"
    assert "narrower than the sequence" in wide["advice"]
    assert checks["sequence odd.tiny_id_seq in learning"]["status"] == "failed"
    assert checks["sequence odd.falling in learning"]["status"] == "warned"
    named = {name for name in checks if name.startswith("sequence odd.")}
    assert named == {f"sequence odd.{name} in learning" for name in ("wide", "tiny_id_seq", "falling")}


def test_a_sequence_that_will_soon_be_full_is_told_of_with_the_date(inspector: Inspector) -> None:
    odd(inspector.server, "CREATE TABLE t (id serial PRIMARY KEY); SELECT setval('odd.t_id_seq', 500000000)")
    assert not [name for name in statuses(inspector.look()) if name.startswith("sequence odd")]
    inspector.age_memory(10 * 86400)
    inspector.server.sql("SELECT setval('odd.t_id_seq', 1000000000)", "learning")
    check = checks_by_name(inspector.look())["sequence odd.t_id_seq in learning"]
    assert check["status"] == "warned"
    assert "at the pace of the last 10 d full 20" in check["observed"]
    assert check["evidence"]["full_at"]


def test_invalid_and_duplicate_indexes_and_constraints_are_named(inspector: Inspector) -> None:
    odd(inspector.server, """
        CREATE TABLE t (id int PRIMARY KEY, a int, b text, c int REFERENCES t);
        CREATE INDEX t_a ON t (a); CREATE INDEX t_a_again ON t (a); CREATE INDEX t_a_down ON t (a DESC);
        CREATE INDEX t_a_some ON t (a) WHERE b IS NULL; CREATE INDEX t_id ON t (id);
        CREATE UNIQUE INDEX t_b ON t (b); CREATE INDEX t_b_plain ON t (b);
        INSERT INTO t SELECT 1, 1, 'x'; INSERT INTO t SELECT 2, 1, 'y';
        ALTER TABLE t ADD CONSTRAINT positive CHECK (a > 0) NOT VALID;
        ALTER TABLE t DISABLE TRIGGER ALL
    """)  # fmt: skip
    with inspector.server.connect("learning") as connection:
        with pytest.raises(Exception, match="could not create unique index"):
            connection.execute("CREATE UNIQUE INDEX CONCURRENTLY t_failed ON odd.t (a)")
        connection.execute("CREATE INDEX t_a_ccnew ON odd.t (c)")
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'odd.t_a_ccnew'::regclass")
    checks = checks_by_name(inspector.look())
    invalid = {one["index"]: one["why"] for one in checks["invalid indexes"]["evidence"]["indexes"]}
    assert invalid == {
        "odd.t_failed": "left by a CREATE INDEX CONCURRENTLY that failed",
        "odd.t_a_ccnew": "left by a REINDEX CONCURRENTLY that was interrupted",
    }
    duplicates = {one["index"]: one["same_as"] for one in checks["duplicate indexes"]["evidence"]["indexes"]}
    assert duplicates == {"odd.t_a_again": "odd.t_a", "odd.t_id": "odd.t_pkey", "odd.t_b_plain": "odd.t_b"}
    constraints = {(one["name"], one["why"]) for one in checks["constraints hold"]["evidence"]["constraints"]}
    assert constraints == {("positive", "not validated"), ("t_c_fkey", "its triggers are disabled")}
    assert "VALIDATE CONSTRAINT positive" in checks["constraints hold"]["advice"]
    accepted = checks_by_name(inspector.look(accepted_indexes=["odd.t_*"]))
    assert accepted["duplicate indexes"]["status"] == "passed"


def test_indexes_that_are_never_used_are_told_of_once_they_were_watched_for_long_enough(inspector: Inspector) -> None:
    odd(inspector.server, """
        CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE, b int, c int);
        INSERT INTO t SELECT g, g, g, g FROM generate_series(1, 2000) g;
        CREATE INDEX t_b ON t (b); CREATE INDEX t_c ON t (c);
        SET enable_seqscan = off; SELECT * FROM t WHERE c = 7
    """)  # fmt: skip
    inspector.server.sql("ANALYZE odd.t", "learning")
    used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 't_c'"
    wait_until(lambda: inspector.server.sql(used, "learning") != [(0,)], "the use of an index is counted")
    options = {"unused_min_bytes": "8KiB", "accepted_indexes": ["public.*"]}
    first = checks_by_name(inspector.look(**options))["indexes that are never used"]
    assert (first["status"], first["observed"]) == ("passed", "none; 1 not watched for long enough")
    inspector.age_memory(40 * 86400)
    young = checks_by_name(inspector.look(**options))["indexes that are never used"]
    assert young["status"] == "passed", "the server's statistics are too young"
    sure = checks_by_name(inspector.look(unused_after="0", **options))["indexes that are never used"]
    assert [one["index"] for one in sure["evidence"]["indexes"]] == ["odd.t_b"]
    assert "Standbys have counters of their own" in sure["advice"]


def test_tables_whose_rows_cannot_be_told_apart_are_named(inspector: Inspector) -> None:
    odd(inspector.server, """
        CREATE TABLE journal (line text); CREATE TABLE keyed (id int PRIMARY KEY);
        CREATE TABLE parts (id int) PARTITION BY RANGE (id);
        CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (1) TO (9);
        CREATE PUBLICATION feed FOR TABLE journal, keyed
    """)  # fmt: skip
    try:
        checks = checks_by_name(inspector.look())
        without = checks["tables without a primary key"]
        assert without["evidence"]["tables"] == ["odd.journal in learning", "odd.parts in learning"]
        identity = checks["replica identity of published tables"]
        assert identity["status"] == "failed"
        assert identity["evidence"]["tables"] == ["odd.journal in learning"]
        accepted = checks_by_name(inspector.look(accepted_tables=["odd.*"]))["tables without a primary key"]
        assert (accepted["status"], accepted["observed"]) == ("passed", "none; 2 accepted")
    finally:
        inspector.server.sql("DROP PUBLICATION feed", "learning")


def test_a_collation_whose_rules_have_changed_is_named(inspector: Inspector) -> None:
    recorded = "UPDATE pg_database SET datcollversion = {} WHERE datname = 'learning'"
    inspector.server.sql(recorded.format("'0.1'"))
    try:
        check = checks_by_name(inspector.look())["collation versions"]
    finally:
        inspector.server.sql(recorded.format("NULL"))
    assert check["status"] == "warned"
    (changed,) = check["evidence"]["collations"]
    assert (changed["database"], changed["name"], changed["recorded"]) == ("learning", "the database's own", "0.1")
    assert changed["indexes"] >= 2, "those on the name of a student and the title of a course"
    assert statuses(inspector.look())["collation versions"] == "passed"


def test_a_role_without_the_right_is_told_which_grant_it_lacks(inspector: Inspector) -> None:
    inspector.look()
    inspector.server.sql("CREATE ROLE ada LOGIN")
    inspector.server.sql("GRANT pg_read_all_data TO ada")
    options = {"login_user": "ada", "state_dir": str(inspector.state / "ada")}
    try:
        shown = inspector.look(**options)
        check = checks_by_name(shown)["amcheck in learning"]
        assert check["status"] == "unknown"
        for statement in check["advice"].split(";"):
            if statement.strip():
                inspector.server.sql(statement, "learning")
        granted = inspector.look(**options)
        assert not granted["failed"], granted.get("msg")
        assert "amcheck in learning" not in statuses(granted)
        assert looked_at(granted) > 200
    finally:
        inspector.server.sql("DROP OWNED BY ada", "learning")
        inspector.server.sql("DROP OWNED BY ada")
        inspector.server.sql("DROP ROLE ada")


def test_two_at_once_are_told_of_each_other(inspector: Inspector) -> None:
    params: dict[str, Any] = {"login_host": "", "login_db": "postgres", **inspector.server.login()}
    connection = session.open_session(params, "postgres", purpose="integrity")
    try:
        session.claim(connection, "integrity")
        shown = inspector.look()
        assert f"held by process {connection.info.backend_pid}" in shown["msg"]
    finally:
        connection.close()


def test_a_standby_is_looked_at_but_its_catalogs_are_its_primarys(inspector: Inspector, tmp_path: Path) -> None:
    inspector.look()
    server = inspector.server
    with standby_of(server) as standby:
        shown = Inspector(standby, tmp_path / "state").look()
    assert not shown["failed"], shown.get("msg")
    found = statuses(shown)
    assert found["B-tree indexes"] == found["tables"] == "passed"
    assert looked_at(shown) > 200
    assert "sequences" not in found
    assert "a standby" in checks_by_name(shown)["databases looked at"]["observed"]
    assert not shown["changed"]


def test_options_that_make_no_sense_are_refused_by_name(inspector: Inspector) -> None:
    assert "time_budget" in inspector.look(time_budget="soon")["msg"]
    assert "unused_min_bytes" in inspector.look(unused_min_bytes="big")["msg"]
