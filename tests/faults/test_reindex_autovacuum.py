"""A rebuild makes way for an autovacuum that must not wait: the one that keeps transaction ids from wrapping round."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import old_snapshot
from support.database import assert_nothing_left_behind, assert_same, bloat, content, reindex_options
from support.nursery import nursery
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id
from support.waiting import wait_until

DATABASE = "campus"
# The age at which this table is vacuumed whatever is in the way, as low as the server allows it; and only for its age.
SCHEMA = """
CREATE FUNCTION slowly(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS
  'SELECT $1 FROM pg_sleep(current_setting(''campus.pause'', true)::float8)';
CREATE TABLE mark (id bigint PRIMARY KEY, subject text) WITH (autovacuum_enabled = off,
  autovacuum_freeze_max_age = 100000);
INSERT INTO mark SELECT g, 'subject ' || g FROM generate_series(1, 500) g;
CREATE INDEX mark_slowly ON mark (slowly(id), subject);
VACUUM (FREEZE, ANALYZE) mark;
CREATE EXTENSION amcheck;
CREATE EXTENSION pgstattuple;
"""
GROW_OLD = "DO $$ BEGIN FOR number IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
AGE = "SELECT age(relfrozenxid) FROM pg_class WHERE relname = 'mark'"


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    settings = {"autovacuum_naptime": "1s", "synchronous_commit": "off", "deadlock_timeout": "30s"}
    with postgres_server(settings, bin_dir_of(request.param)) as running:
        running.sql(f"CREATE DATABASE {DATABASE}")
        with running.connect(DATABASE) as connection:
            for statement in SCHEMA.strip().split(";")[:-1]:
                connection.execute(statement)  # type: ignore[call-overload]
        yield running


def test_an_autovacuum_that_waits_for_a_rebuild_gets_its_table_at_once(server: PostgresServer, tmp_path: Path) -> None:
    bloat(server, DATABASE)
    before = content(server, DATABASE)
    options: dict[str, Any] = reindex_options(server, tmp_path / "state", DATABASE, tables=["public.*"])
    server.sql(GROW_OLD.format(99_000), DATABASE)
    server.sql(f"ALTER DATABASE {DATABASE} SET campus.pause = '0.005'")
    with nursery("postgresql_reindex", "psycopg.sql") as modules:
        run = modules.start({**options, "max_block": "10m", "unique_indexes": "never"})
        wait_until(lambda: server.sql("SELECT 1 FROM pg_stat_progress_create_index") or run.ended)
        assert not run.ended, run.end()
        with old_snapshot(server, DATABASE):
            waiting = "SELECT 1 FROM pg_stat_progress_create_index WHERE phase = 'waiting for old snapshots'"
            wait_until(lambda: server.sql(waiting))
            server.sql(GROW_OLD.format(1_100), DATABASE)
            output = run.end()
            assert "made way for autovacuum" in output, json.loads(output)["checks"]
            wait_until(lambda: server.sql(AGE, DATABASE)[0][0] < 10_000)
        # Autovacuum may have the table for so long that the leftover is the next run's to drop.
        server.sql(f"ALTER DATABASE {DATABASE} RESET campus.pause")
        wait_until(lambda: not server.sql("SELECT 1 FROM pg_stat_progress_vacuum"))
        shown = modules.run({**options, "retry_for": "5m"})
    assert not shown["failed"], shown["msg"]
    assert_same(before, content(server, DATABASE))
    assert_nothing_left_behind(server, tmp_path / "state")
