"""The query review on a real server: what it shows, what it never shows, and what it compares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer, postgres_server
from support.query_review import EAGER, SETTINGS, Reviewer, prepare, slower_of, statements_of


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server(SETTINGS) as server:
        prepare(server)
        yield server


@pytest.fixture
def reviewer(server: PostgresServer, tmp_path: Path) -> Iterator[Reviewer]:
    yield Reviewer(server, tmp_path)
    with server.connect("learning") as connection:
        connection.execute("CREATE INDEX IF NOT EXISTS student_name ON student (name)")


def test_the_extension_is_installed_once_and_only_announced_in_check_mode(
    server: PostgresServer, tmp_path: Path
) -> None:
    reviewer = Reviewer(server, tmp_path)
    server.sql("DROP EXTENSION IF EXISTS pg_stat_statements")
    rehearsal = reviewer.review(check=True)
    assert [change["after"] for change in rehearsal["changes"]] == ["would be installed"]
    assert checks_by_name(rehearsal)["statement statistics"]["status"] == "unknown"
    refused = reviewer.review(create_extensions=False)
    assert checks_by_name(refused)["statement statistics"]["advice"].startswith("CREATE EXTENSION pg_stat_statements")
    first = reviewer.review()
    assert [change["name"] for change in first["changes"]] == ["pg_stat_statements in the database postgres"]
    assert not reviewer.review()["changed"]
    assert checks_by_name(first)["statement statistics"]["status"] == "passed"


def test_the_statements_that_take_most_time_are_shown_normalised(reviewer: Reviewer) -> None:
    reviewer.look_up(50)
    shown = reviewer.review()
    assert not shown["failed"], shown.get("msg")
    mine = next(one for one in statements_of(shown) if "grade FROM student" in one["statement"])
    assert mine["statement"] == "SELECT grade FROM student WHERE name = $1"
    assert (mine["database"], mine["calls"] >= 50, mine["rows_per_call"]) == ("learning", True, 1.0)
    assert mine["mean_seconds"] == pytest.approx(mine["seconds"] / mine["calls"], rel=0.02)
    assert len(statements_of(shown)) <= 20
    assert sum(one["share"] for one in statements_of(shown)) <= 1.001


def test_no_value_of_a_statement_is_ever_shown(reviewer: Reviewer) -> None:
    with reviewer.server.connect("learning") as connection:
        connection.execute("CREATE ROLE somebody")
        for number in range(3):
            connection.execute(f"ALTER ROLE somebody PASSWORD 'hunter2-{number}'")
        connection.execute("/* token=hunter2 */ SELECT count(*), 'hunter2' FROM student")
        connection.execute("EXPLAIN SELECT * FROM student WHERE name = 'hunter2'")
        connection.execute("CREATE TEMP TABLE hidden AS SELECT 'hunter2' AS word")
        connection.execute("DO $$BEGIN PERFORM 'hunter2'; END$$")
        connection.execute("DROP ROLE somebody")
    shown = reviewer.review(top=200)
    words = {one["statement"] for one in statements_of(shown)}
    assert {"ALTER ROLE …", "EXPLAIN …"} <= words
    assert "SELECT count(*), $1 FROM student" in words
    assert "hunter2" not in json.dumps(shown)


def test_a_statement_that_became_slower_is_told_of_until_it_is_fast_again(reviewer: Reviewer) -> None:
    reviewer.look_up(60)
    reviewer.review()
    reviewer.look_up(60)
    assert slower_of(reviewer.review()) == []
    with reviewer.server.connect("learning") as connection:
        connection.execute("DROP INDEX student_name")
    for _again in range(2):
        reviewer.look_up(60)
        slower = reviewer.review(**EAGER)
        (warned,) = slower_of(slower)
        assert warned["status"] == "warned"
        assert "SELECT grade FROM student WHERE name = $1" in warned["observed"]
        assert warned["evidence"]["now_seconds"] > 2 * warned["evidence"]["before_seconds"]
        assert slower["metrics"]["slower_statements"]["value"] >= 1
    reviewer.look_up(60)
    assert slower_of(reviewer.review(accepted_statements=[warned["evidence"]["queryid"]], **EAGER)) == []
    reviewer.look_up(60)
    assert slower_of(reviewer.review()) == [], "what was accepted is the new measure"


def test_counters_that_were_reset_are_compared_as_a_whole(reviewer: Reviewer) -> None:
    reviewer.look_up(60)
    reviewer.review()
    reviewer.server.sql("SELECT pg_stat_statements_reset()")
    reviewer.look_up(40)
    shown = reviewer.review()
    mine = next(one for one in statements_of(shown) if "grade FROM student" in one["statement"])
    assert mine["calls"] == 40
    assert slower_of(shown) == []


def test_the_result_of_another_server_is_not_compared_with(reviewer: Reviewer) -> None:
    reviewer.review()
    kept = checks_by_name(reviewer.previous)["statement statistics"]["evidence"]["for_next_review"]
    kept["server"] = "7"
    shown = reviewer.review()
    assert "speed of statements" not in checks_by_name(shown)


@pytest.mark.parametrize("previous", [{"checks": 7}, {"checks": [{"evidence": {"for_next_review": {"version": 1}}}]}])
def test_a_result_that_makes_no_sense_is_as_good_as_none(reviewer: Reviewer, previous: dict[str, Any]) -> None:
    shown = reviewer.review(previous=previous)
    assert not shown["failed"], shown.get("msg")
    assert "speed of statements" not in checks_by_name(shown)


def test_missing_indexes_are_named_and_excluded_tables_are_not(reviewer: Reviewer) -> None:
    with reviewer.server.connect("learning") as connection:
        for _again in range(60):
            connection.execute("SELECT count(*) FROM enrolment WHERE course = 3")
    reviewer.wait_for_scans("enrolment", 60)
    shown = checks_by_name(reviewer.review())
    foreign = shown["foreign keys without an index"]
    assert foreign["observed"] == "learning: public.enrolment (student) → public.student"
    read = shown["large tables that are read from end to end"]
    assert read["status"] == "warned"
    assert "learning: public.enrolment" in read["observed"]
    assert "payment" not in foreign["observed"]
    again = checks_by_name(reviewer.review())
    assert again["large tables that are read from end to end"]["status"] == "passed", "not since the last review"
    excluded = checks_by_name(reviewer.review(exclude_tables=["public.enrol*"]))
    assert excluded["foreign keys without an index"]["status"] == "passed"


def test_sessions_and_caches_are_measured(reviewer: Reviewer) -> None:
    with reviewer.server.connect("learning") as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT 1")
        shown = reviewer.review(warn_idle_in_transaction_seconds=0, warn_connections_used_ratio=0.0)
    checks = checks_by_name(shown)
    assert checks["sessions idle in a transaction"]["status"] == "warned"
    assert checks["connections used"]["status"] == "warned"
    assert {"cache_hit_ratio", "rollback_ratio", "deadlocks", "temp_bytes", "statement_seconds"} <= set(
        shown["metrics"]
    )


def test_a_role_without_the_right_is_told_which_grant_it_lacks(reviewer: Reviewer) -> None:
    with reviewer.server.connect("learning") as connection:
        connection.execute('CREATE ROLE "Ada L" LOGIN')
    try:
        shown = reviewer.review(login_user="Ada L")
        check = checks_by_name(shown)["statement statistics"]
        assert check["status"] == "unknown"
        assert 'GRANT pg_read_all_stats TO "Ada L"' in check["advice"]
        assert not shown["failed"]
        reviewer.server.sql('GRANT pg_monitor TO "Ada L"')
        assert checks_by_name(reviewer.review(login_user="Ada L"))["statement statistics"]["status"] == "passed"
    finally:
        reviewer.server.sql('DROP ROLE "Ada L"')


def test_a_database_that_does_not_exist_and_a_bad_size_are_refused(reviewer: Reviewer) -> None:
    assert "'shop'" in reviewer.review(databases=["shop"])["msg"]
    assert "warn_temp_bytes_per_day" in reviewer.review(warn_temp_bytes_per_day="much")["msg"]


def test_a_server_without_the_library_says_what_to_set(postgresql: PostgresServer, tmp_path: Path) -> None:
    shown = run_module("postgresql_query_review", {**postgresql.login(), "state_dir": str(tmp_path)})
    check = checks_by_name(shown)["statement statistics"]
    assert check["status"] == "unknown"
    assert check["advice"] == (
        "ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'; and restart the server."
    )
    assert not shown["failed"]
    assert not shown["changed"]
