"""Rebuilds of indexes that are killed at any instant: nothing is lost, and one more run leaves nothing behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import traffic
from support.database import bloat
from support.kills import KILLERS, Kill, KillSite
from support.nursery import Nursery, Run, nursery
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id

KILLS = 52  # on the newest server; on others a quarter of it
NEWEST = max(available_majors())
# The rows of a slow index are read slowly by who has the setting for it: no processor is kept busy by it.
SCHEMA = """
CREATE FUNCTION slowly(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN PERFORM pg_sleep(current_setting('campus.pause', true)::float8); RETURN $1; END $$;
CREATE TABLE mark (id bigint PRIMARY KEY, student bigint NOT NULL, subject text NOT NULL, place point, essay text);
INSERT INTO mark SELECT g, g % 50, 'subject ' || g, point(g, g % 9), CASE WHEN g % 50 = 0 THEN
  (SELECT string_agg(md5(g::text || h), '') FROM generate_series(1, 90) h) END FROM generate_series(1, 250) g;
CREATE INDEX mark_slowly ON mark (slowly(student), subject);
CREATE UNIQUE INDEX mark_subject ON mark (subject);
CREATE INDEX mark_place ON mark USING gist (place);
"""


class Rebuilds(KillSite):
    """Bloated indexes."""

    phases = (
        "waiting for writers before build",
        "building index: scanning table",
        "waiting for writers before validation",
        "waiting for old snapshots",
        "waiting for readers before marking dead",
        "waiting for readers before dropping",
    )
    progress = "pg_stat_progress_create_index"

    def __init__(self, server: PostgresServer, modules: Nursery, state_dir: Path) -> None:
        super().__init__(server, modules, state_dir, SCHEMA)
        self.options |= {"min_gain": "8KiB", "min_free_bytes": "1MiB", "unique_indexes": "always", "retry_for": "0"}

    @contextlib.contextmanager
    def slow_run(self) -> Iterator[Run]:
        """It reads one index slowly, and has to wait for others in every phase."""
        bloat(self.server, self.database)
        self.server.sql(f"ALTER DATABASE {self.database} SET campus.pause = '0.001'")
        with traffic(self.server, self.database, "mark", hold=0.06, clients=1):
            yield self.modules.start(self.options)

    def whole_run(self) -> dict[str, Any]:
        self.server.sql(f"ALTER DATABASE {self.database} SET campus.pause = '0'")
        return super().whole_run()


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rebuilds]:
    with (
        postgres_server({"autovacuum": "off"}, bin_dir_of(request.param)) as server,
        nursery("postgresql_reindex", "psycopg.sql") as modules,
    ):
        yield Rebuilds(server, modules, tmp_path_factory.mktemp("state"))


@pytest.mark.parametrize("kill", KILLERS)
def test_killed_at_any_instant_no_index_is_lost_and_one_more_run_leaves_nothing_behind(
    site: Rebuilds, kill: Kill
) -> None:
    site.campaign(kill, KILLS if site.server.major == NEWEST else KILLS // 4, seed=2026)


@pytest.mark.long
@pytest.mark.parametrize("kill", KILLERS)
def test_killed_hundreds_of_times_no_index_is_lost(site: Rebuilds, kill: Kill) -> None:
    site.campaign(kill, 5 * KILLS, seed=time.time_ns())
