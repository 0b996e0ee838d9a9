"""Rebuilds of indexes that are killed at any instant: nothing is lost, and one more run leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import traffic
from support.database import (
    assert_nothing_left_behind,
    assert_nothing_lost,
    assert_same,
    bloat,
    content,
    kill_postmaster,
    wait_until_up,
)
from support.nursery import Nursery, Run, nursery
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id

KILLS = 52  # on the newest server; on others a quarter of it
NEWEST = max(available_majors())
DATABASE = "campus"
# The phases of a rebuild that last: those in which it waits, and the one whose work is slowed down. The others are
# passed in less than a millisecond, and met by the kills that come at any time.
PHASES = (
    "waiting for writers before build",
    "building index: scanning table",
    "waiting for writers before validation",
    "waiting for old snapshots",
    "waiting for readers before marking dead",
    "waiting for readers before dropping",
)
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
CREATE EXTENSION amcheck;
CREATE EXTENSION pgstattuple;
"""

Kill = Callable[["Site", Run, random.Random], bool]


class Site:
    """A database whose indexes are bloated, and the module that rebuilds them."""

    def __init__(self, server: PostgresServer, state_dir: Path, modules: Nursery) -> None:
        self.server = server
        self.modules = modules
        self.state_dir = state_dir
        server.sql(f"CREATE DATABASE {DATABASE}")
        server.sql(SCHEMA, DATABASE)
        self.content = content(server, DATABASE)
        self.seconds = 0.0
        self.options = {
            **server.login(),
            "state_dir": str(state_dir),
            "databases": [DATABASE],
            "tables": ["public.*"],
            "min_gain": "8KiB",
            "min_free_bytes": "1MiB",
            "unique_indexes": "always",
            "retry_for": "0",
        }

    @contextlib.contextmanager
    def slow_run(self) -> Iterator[Run]:
        """A run that has something to do, does some of it slowly, and has to wait for others."""
        bloat(self.server, DATABASE)
        self.server.sql(f"ALTER DATABASE {DATABASE} SET campus.pause = '0.001'")
        with traffic(self.server, DATABASE, "mark", hold=0.06, clients=1):
            yield self.modules.start(self.options)

    def rebuild(self) -> dict[str, Any]:
        """A whole run, at full speed."""
        self.server.sql(f"ALTER DATABASE {DATABASE} SET campus.pause = '0'")
        return self.modules.run(self.options)

    def measure(self) -> None:
        """How long a slow run takes now."""
        began = time.monotonic()
        with self.slow_run() as run:
            assert not json.loads(run.end()).get("failed")
        self.seconds = time.monotonic() - began

    def kill_once(self, kill: Kill, phase: str, chance: random.Random) -> str:
        """Kill a run in *phase*, or anywhere if that is empty; returns the phase that was seen just before."""
        for attempt in range(1, 21):
            with self.slow_run() as run:
                seen = self._wait_for(run, phase, self.seconds * chance.random() / attempt)
                met = not run.ended and (not phase or seen == phase) and kill(self, run, chance)
                output = run.end()
                wait_until_up(self.server)
            if met:
                assert not output or json.loads(output)["checks"] is not None, output
                return seen
        raise AssertionError(f"no run was ever seen {phase or 'at work'}")

    def _wait_for(self, run: Run, phase: str, seconds: float) -> str:
        progress = "SELECT phase FROM pg_stat_progress_create_index WHERE datname = current_database()"
        end = time.monotonic() + seconds
        with self.server.connect(DATABASE) as connection:
            while not run.ended:
                row = connection.execute(progress).fetchone()
                seen = str(row[0]) if row else ""
                if seen == phase if phase else time.monotonic() > end:
                    return seen
                time.sleep(0.002)
        return ""


def kill_module(_site: Site, run: Run, _chance: random.Random) -> bool:
    run.kill()
    return True


def kill_backend(site: Site, _run: Run, chance: random.Random) -> bool:
    """The server process that rebuilds; if none does, any that works for the module."""
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'wellkept%'"
    rebuilds = "SELECT pid FROM pg_stat_progress_create_index"
    found = site.server.sql(rebuilds) or site.server.sql(ours)
    if found:
        os.kill(chance.choice(found)[0], signal.SIGKILL)
    return bool(found)


def kill_server(site: Site, _run: Run, _chance: random.Random) -> bool:
    kill_postmaster(site.server)
    site.server.start()
    return True


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (
        postgres_server({"autovacuum": "off"}, bin_dir_of(request.param)) as server,
        nursery("postgresql_reindex", "psycopg.sql") as modules,
    ):
        yield Site(server, tmp_path_factory.mktemp("state"), modules)


def campaign(site: Site, kill: Kill, kills: int, seed: int) -> None:
    """Kill *kills* runs, now and then let one go to its end, and look what is there each time."""
    chance = random.Random(seed)
    # Half of them in the phases that last, the same number in each; half anywhere.
    plan = [phase for _round in range(kills // 2 // len(PHASES) + 1) for phase in PHASES]
    plan += [""] * (kills - len(plan))
    chance.shuffle(plan)
    site.measure()
    met: Counter[str] = Counter()
    for number, phase in enumerate(plan, 1):
        met[site.kill_once(kill, phase, chance)] += 1
        assert_nothing_lost(site.content, content(site.server, DATABASE))
        if chance.random() < 0.3 or number == len(plan):
            shown = site.rebuild()
            assert not shown["failed"], shown["msg"]
            assert_nothing_left_behind(site.server, site.state_dir)
            assert_same(site.content, content(site.server, DATABASE))
    print(f"{met.total()} kills: {dict(met)}")
    assert met.total() == len(plan) >= kills
    assert all(met[phase] >= kills // 2 // len(PHASES) for phase in PHASES)


@pytest.mark.parametrize("kill", [kill_module, kill_backend, kill_server])
def test_killed_at_any_instant_no_index_is_lost_and_one_more_run_leaves_nothing_behind(site: Site, kill: Kill) -> None:
    campaign(site, kill, KILLS if site.server.major == NEWEST else KILLS // 4, seed=2026)


@pytest.mark.long
@pytest.mark.parametrize("kill", [kill_module, kill_backend, kill_server])
def test_killed_hundreds_of_times_no_index_is_lost(site: Site, kill: Kill) -> None:
    campaign(site, kill, 5 * KILLS, seed=time.time_ns())
