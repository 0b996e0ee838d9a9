"""Vacuums that are killed at any instant: nothing is lost, no lock is left, and the next run finishes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.kills import KILLERS, Kill, KillSite
from support.nursery import Nursery, Run, nursery
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id

KILLS = 50  # on the newest server; on others a fifth of it
NEWEST = max(available_majors())
SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, words text, seen int);
INSERT INTO orders SELECT g, repeat('w', 60) || g, g FROM generate_series(1, 6000) g;
CREATE INDEX orders_words ON orders (words);
CREATE INDEX orders_seen ON orders (seen);
"""
# Dead rows on every page, dead entries in every index, and the content as it was.
USE = "UPDATE orders SET seen = seen + 1 WHERE id % 3 = 0; UPDATE orders SET seen = seen - 1 WHERE id % 3 = 0"
DIRTY = "SELECT pg_relation_size('orders') / 8192 - all_visible FROM pg_visibility_map_summary('orders')"


class Vacuums(KillSite):
    """A table full of dead rows."""

    phases = ("scanning heap", "vacuuming indexes", "vacuuming heap")
    progress = "pg_stat_progress_vacuum"

    def __init__(self, server: PostgresServer, modules: Nursery, state_dir: Path) -> None:
        super().__init__(server, modules, state_dir, SCHEMA)
        # A killed vacuum has done a part of it: the rest may be too little to be due by itself.
        self.options |= {"dirty_share": 0.0001, "min_dirty_pages": 1}

    @contextlib.contextmanager
    def slow_run(self) -> Iterator[Run]:
        """It pauses again and again, as the throttle says."""
        self.server.sql(USE, self.database)
        assert self.server.sql(DIRTY, self.database)[0][0] > 50
        yield self.modules.start({**self.options, "vacuum_cost_delay_ms": 10, "vacuum_cost_limit": 200})

    def assert_finished(self, shown: dict[str, Any]) -> None:
        super().assert_finished(shown)
        if not self.is_clean():
            # A page that somebody had pinned just then, VACUUM leaves to the next one.
            self.whole_run()
        assert self.is_clean(), shown

    def is_clean(self) -> bool:
        return self.server.sql(DIRTY, self.database) == [(0,)]


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vacuums]:
    with (
        postgres_server({"autovacuum": "off"}, bin_dir_of(request.param)) as server,
        nursery("postgresql_vacuum", "psycopg.sql") as modules,
    ):
        yield Vacuums(server, modules, tmp_path_factory.mktemp("state"))


@pytest.mark.parametrize("kill", KILLERS)
def test_killed_at_any_instant_nothing_is_lost_and_the_next_run_finishes(site: Vacuums, kill: Kill) -> None:
    site.campaign(kill, KILLS if site.server.major == NEWEST else KILLS // 5, seed=2026)


@pytest.mark.long
@pytest.mark.parametrize("kill", KILLERS)
def test_killed_hundreds_of_times_nothing_is_lost(site: Vacuums, kill: Kill) -> None:
    site.campaign(kill, 5 * KILLS, seed=time.time_ns())
