"""Looking for damage on servers before 18, whose amcheck can do less and whose catalogs have other columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.integrity import Inspector, learning_server, looked_at, statuses
from support.modules import checks_by_name
from support.postgresql import PostgresServer, available_majors, bin_dir_of, server_id

OLDER = [major for major in available_majors() if major < 18]
pytestmark = pytest.mark.skipif(not OLDER, reason="no PostgreSQL before 18 is installed")


@pytest.fixture(scope="module", params=OLDER, ids=server_id)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with learning_server(bin_dir_of(request.param)) as server:
        yield server


def test_all_but_gin_indexes_is_looked_at_and_all_of_the_catalogs_is_read(
    server: PostgresServer, tmp_path: Path
) -> None:
    with server.connect("learning") as connection:
        connection.execute('CREATE TABLE word (w text COLLATE "und-x-icu" PRIMARY KEY)')
        connection.execute("ALTER TABLE word ADD CONSTRAINT short CHECK (length(w) < 9) NOT VALID")
        connection.execute("UPDATE pg_collation SET collversion = '0.1' WHERE collname IN ('und-x-icu', 'fr-x-icu')")
    shown = Inspector(server, tmp_path).look(heap_all_indexed=True)
    assert not shown["failed"], shown.get("msg")
    found = statuses(shown)
    assert "GIN indexes" not in found
    assert found["B-tree indexes"] == found["tables"] == found["sequences"] == "passed"
    assert looked_at(shown) > 200
    assert not any(name.startswith(("amcheck in", "database ")) for name in found)
    collations = checks_by_name(shown)["collation versions"]["evidence"]["collations"]
    assert [one["name"] for one in collations] == ["pg_catalog.und-x-icu"], "and not one that no index uses"
    assert checks_by_name(shown)["constraints hold"]["observed"].startswith("short of public.word in learning")
