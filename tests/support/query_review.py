"""Query reviews of a test's own server, one after the other, as the role makes them by way of the ledger."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import psycopg

from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer

SETTINGS = {"shared_preload_libraries": "pg_stat_statements"}
SCHEMA = """
CREATE TABLE student (id int PRIMARY KEY, name text, grade int);
INSERT INTO student SELECT g, 'student ' || g, g % 10 FROM generate_series(1, 30000) g;
CREATE INDEX student_name ON student (name);
CREATE TABLE enrolment (student int REFERENCES student, course int);
INSERT INTO enrolment SELECT g, g % 7 FROM generate_series(1, 20000) g;
CREATE TABLE payment (student int REFERENCES student, cents int);
CREATE INDEX payment_student ON payment (student, cents);
INSERT INTO payment SELECT g, 100 FROM generate_series(1, 20000) g;
ANALYZE
"""
LOOK_UP = "SELECT grade FROM student WHERE name = %s"
EAGER = {"regression_min_seconds": 0.0001}  # what is fast here is fast by tenths of milliseconds


class Reviewer:
    """Runs reviews of one server, each with what the one before left."""

    def __init__(self, server: PostgresServer, state: Path) -> None:
        self.server, self.state = server, state
        self.previous: dict[str, Any] = {}

    def review(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {**self.server.login(), "state_dir": str(self.state), "previous": self.previous, **options}
        shown = run_module("postgresql_query_review", given, check=check)
        if not check:
            self.previous = json.loads(json.dumps(shown))
        return shown

    def look_up(self, times: int) -> None:
        """Ask for students by name: by the index, where there is one."""
        with self.server.connect("learning", cursor_factory=psycopg.ClientCursor) as connection:
            connection.execute("SET enable_seqscan = off")
            for number in range(1, times + 1):
                connection.execute(LOOK_UP, [f"student {number}"])

    def wait_for_scans(self, table: str, scans: int) -> None:
        """Wait until the server has counted *scans* sequential scans: sessions tell their counters late."""
        statement = f"SELECT seq_scan FROM pg_stat_user_tables WHERE relname = '{table}'"
        for _attempt in range(600):
            if self.server.sql(statement, "learning")[0][0] >= scans:
                return
            time.sleep(0.1)
        raise AssertionError(f"the server did not count {scans} scans of {table}")


def prepare(server: PostgresServer) -> None:
    server.sql("CREATE DATABASE learning")
    with server.connect("learning") as connection:
        connection.execute(SCHEMA)


def statements_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = checks_by_name(shown)["statements by total time"]["evidence"]["statements"]
    return found


def slower_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """The checks of statements that became slower, as far as they are the test's own."""
    named = [check for check in shown["checks"] if check["name"].startswith("speed of statement ")]
    return [check for check in named if "grade FROM student" in check["observed"]]
