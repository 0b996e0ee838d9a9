"""The query review on PostgreSQL 15, whose counters have other columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.modules import checks_by_name
from support.postgresql import PostgresServer, postgres_server
from support.query_review import EAGER, SETTINGS, Reviewer, prepare, slower_of, statements_of

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
pytestmark = pytest.mark.skipif(not DEBIAN_15.exists(), reason="PostgreSQL 15 is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server(SETTINGS, DEBIAN_15) as server:
        prepare(server)
        yield server


def test_an_older_server_is_reviewed_and_compared_as_well(server: PostgresServer, tmp_path: Path) -> None:
    reviewer = Reviewer(server, tmp_path)
    reviewer.look_up(60)
    first = reviewer.review()
    assert not first["failed"], first.get("msg")
    mine = next(one for one in statements_of(first) if "grade FROM student" in one["statement"])
    assert (mine["statement"], mine["calls"]) == ("SELECT grade FROM student WHERE name = $1", 60)
    assert checks_by_name(first)["foreign keys without an index"]["status"] == "warned"
    with server.connect("learning") as connection:
        connection.execute("DROP INDEX student_name")
    reviewer.look_up(60)
    assert len(slower_of(reviewer.review(**EAGER))) == 1
