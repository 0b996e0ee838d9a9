"""What all activities inside databases refuse: options that would let them pass without having looked at anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer, postgres_server

MODULES = ("postgresql_vacuum", "postgresql_reindex", "postgresql_integrity", "postgresql_query_review")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    settings = {"shared_preload_libraries": "pg_stat_statements", "autovacuum": "off"}
    with postgres_server(settings) as running:
        running.sql("CREATE TABLE student (id int); INSERT INTO student SELECT generate_series(1, 100000)")
        running.sql("CREATE INDEX student_id ON student (id)")
        running.sql("DELETE FROM student WHERE id % 10 <> 0; ")
        running.sql("VACUUM (ANALYZE) student")
        yield running


@pytest.fixture
def options(server: PostgresServer, tmp_path: Path) -> dict[str, Any]:
    return {**server.login(), "state_dir": str(tmp_path)}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("option", ["tables", "databases"])
def test_a_misspelt_pattern_is_told(module: str, option: str, options: dict[str, Any]) -> None:
    shown = run_module(module, {**options, option: ["*", "no_such.*"]}, check=True)
    assert shown["failed"]
    assert f"Correct {option}" in shown["msg"], shown["msg"]
    assert "'no_such.*'" in shown["msg"]
    assert not run_module(module, {**options, "tables": ["public.stud*"]}, check=True)["failed"]


@pytest.mark.parametrize("module", MODULES[:3])
def test_a_wait_of_nothing_cannot_be_promised(module: str, options: dict[str, Any]) -> None:
    shown = run_module(module, {**options, "max_block": "0s"})
    assert shown["failed"]
    assert "Correct max_block" in shown["msg"]


def test_a_rehearsal_without_the_means_of_measuring_is_no_promise_that_nothing_is_to_be_rebuilt(
    options: dict[str, Any], server: PostgresServer
) -> None:
    options = {**options, "min_gain": "64KiB", "amcheck": False}
    rehearsed = run_module("postgresql_reindex", options, check=True)
    check = checks_by_name(rehearsed)["indexes that could be measured better"]
    assert check["status"] == "unknown"
    assert "postgres.public.student_id" in check["observed"]
    assert "pgstattuple in the database postgres" in check["observed"]
    server.sql("CREATE EXTENSION pgstattuple")
    rehearsed = run_module("postgresql_reindex", options, check=True)
    assert {each["status"] for each in rehearsed["checks"]} == {"passed"}
    assert "public.student_id" in str(rehearsed["changes"])


def test_a_role_that_may_measure_nothing_does_not_pass(options: dict[str, Any], server: PostgresServer) -> None:
    server.sql("CREATE ROLE onlooker LOGIN")
    shown = run_module("postgresql_reindex", {**options, "login_user": "onlooker", "min_gain": "64KiB"})
    check = checks_by_name(shown)["indexes that could be measured better"]
    assert (check["status"], "GRANT pg_stat_scan_tables TO onlooker" in check["advice"]) == ("unknown", True)
