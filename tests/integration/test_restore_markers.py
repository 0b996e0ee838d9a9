"""Rows that must be there at a target, and rows that must not: asked of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils import postgresql
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.markers import Marker
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.aim import Aim
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.replay import Recovered, check_markers
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.targets import Target
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.postgresql import PostgresServer, postgres_server

STARTED = datetime(2026, 11, 21, 3, tzinfo=UTC)
STEP = timedelta(minutes=1)


class Restored:
    """A server, as if it were the restored cluster."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def connect(self, dbname: str) -> Any:
        return postgresql.connect({**self._server.login(), "login_db": dbname})


class Line:
    """WAL of one timeline, without an end."""

    line = ((1, None),)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        server.sql("CREATE SCHEMA wellkept")
        server.sql("CREATE TABLE wellkept.backup_marker (id text)")
        yield server


def verdict(server: PostgresServer, there: set[int], before: int = 3) -> str:
    """Whether the restored cluster passes that has the markers *there*, of five; the target is after so many."""
    server.sql("TRUNCATE wellkept.backup_marker")
    for number in there:
        server.sql(f"INSERT INTO wellkept.backup_marker VALUES ('m{number}')")
    moments = [STARTED + number * STEP for number in range(5)]
    markers = [Marker("postgres", f"m{n}", moment, moment, 1, 100 + n, f"p{n}") for n, moment in enumerate(moments)]
    backup = Backup("x", "/nowhere", {"marker": {"database": "postgres"}})
    aim = Aim(Target("lsn", "0/64"), backup, Line(), 100 + before - 1, None, markers)
    part = Part()
    check_markers(aim, Recovered("", "", STARTED + (before - 0.5) * STEP, {}), Restored(server), part)
    return str(part.checks[0]["status"])


def test_exactly_the_rows_before_the_target_must_be_there(server: PostgresServer) -> None:
    assert verdict(server, {0, 1, 2}) == "passed"
    assert verdict(server, {0, 2}) == "failed", "one is missing"
    assert verdict(server, {0, 1, 2, 3}) == "failed", "one is later"


def test_without_a_row_to_look_for_nothing_is_proven(server: PostgresServer) -> None:
    assert verdict(server, set(), before=0) == "failed"
