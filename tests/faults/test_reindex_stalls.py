"""Nobody waits for a rebuild longer than the bound, also where a plain one would keep everybody waiting."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.clients import Client, bystander, old_snapshot
from support.database import assert_nothing_left_behind, assert_same, bloat, content
from support.gate import PASS_THE_GATE, Gate
from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id
from support.waiting import wait_until

DATABASE = "campus"
MAX_BLOCK = 1.0
DEADLOCK_TIMEOUT = 3
# How long somebody waits who depends on several others, of which each has to get its turn on a busy machine.
TURNS = 4
# A rebuild reads the function's 300 values slowly, and begins to when the gate is open: time for others to come.
SCHEMA = f"""
CREATE FUNCTION slowly(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN PERFORM pg_sleep(current_setting('campus.pause', true)::float8); {PASS_THE_GATE} RETURN $1; END $$;
CREATE TABLE mark (id bigint PRIMARY KEY, student bigint NOT NULL, subject text);
INSERT INTO mark SELECT g, g % 50, 'subject ' || g FROM generate_series(1, 300) g;
CREATE INDEX mark_slowly ON mark (slowly(student), subject);
CREATE EXTENSION amcheck;
CREATE EXTENSION pgstattuple;
"""
ALTER = "ALTER TABLE mark ALTER subject SET DEFAULT 'none'"
SELECT = "SELECT count(*) FROM mark WHERE id < 10"
UPDATE = "UPDATE mark SET subject = subject WHERE id = 7"


class Clients:
    """An ALTER TABLE now and then, and readers and writers of the table all the time; how long they waited at most.

    ``machine`` is what the machine may add to that, by what a client waited whom no lock concerns.
    """

    def __init__(self, server: PostgresServer, alter_every: float = 2) -> None:
        self.alter = Client(server, ALTER, DATABASE, pause=alter_every)
        self.select = Client(server, SELECT, DATABASE, pause=0.005)
        self.update = Client(server, UPDATE, DATABASE, pause=0.005)
        self.bystander = bystander(server)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        with self.alter.at_work(), self.select.at_work(), self.update.at_work(), self.bystander.at_work():
            yield

    @property
    def errors(self) -> list[Exception]:
        return [*self.alter.errors, *self.select.errors, *self.update.errors]

    @property
    def longest(self) -> float:
        return max(self.alter.longest, self.select.longest, self.update.longest)

    @property
    def machine(self) -> float:
        return TURNS * self.bystander.longest

    def __str__(self) -> str:
        kinds = {"ALTER": self.alter, "SELECT": self.select, "UPDATE": self.update, "machine": self.bystander}
        return ", ".join(f"{name} {client.longest:.2f} s" for name, client in kinds.items())


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    settings = {"autovacuum": "off", "deadlock_timeout": f"{DEADLOCK_TIMEOUT}s"}
    with postgres_server(settings, bin_dir_of(request.param)) as running:
        running.sql(f"CREATE DATABASE {DATABASE}")
        running.sql(SCHEMA, DATABASE)
        running.sql(f"ALTER DATABASE {DATABASE} SET campus.pause = '0.001'")
        yield running


@pytest.fixture
def options(server: PostgresServer, tmp_path: Path) -> dict[str, Any]:
    bloat(server, DATABASE, "mark_slowly")
    return {
        **server.login(),
        "state_dir": str(tmp_path / "state"),
        "databases": [DATABASE],
        "tables": ["public.*"],
        "min_gain": "8KiB",
        "min_free_bytes": "1MiB",
        "max_block": f"{MAX_BLOCK}s",
        "unique_indexes": "never",
    }


class Work(threading.Thread):
    """Something that goes on beside the test."""

    def __init__(self, what: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.what = what
        self.result: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.result = self.what()
        except Exception as error:
            self.error = error


def drop_leftovers(server: PostgresServer) -> None:
    for (name,) in server.sql("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid", DATABASE):
        server.sql(f"DROP INDEX {name}", DATABASE)


def phase(server: PostgresServer) -> str:
    rows = server.sql("SELECT phase FROM pg_stat_progress_create_index")
    return str(rows[0][0]) if rows else ""


def with_a_snapshot_that_began_meanwhile(
    server: PostgresServer, rebuild: Callable[[], Any], hold: float, come: Callable[[Clients], bool]
) -> tuple[Clients, Any]:
    """Rebuild; meanwhile open a transaction, and let clients come when the rebuild waits for it.

    The transaction ends *hold* seconds after it is true of the clients that they have *come*.
    """
    clients = Clients(server)
    work = Work(rebuild)
    gate = Gate(server, DATABASE)
    with contextlib.ExitStack() as stack:
        with gate.closed():
            work.start()
            wait_until(gate.waiting)
            snapshot = stack.enter_context(old_snapshot(server, DATABASE))
        with snapshot:
            wait_until(lambda: phase(server) == "waiting for old snapshots")
            stack.enter_context(clients.at_work())
            wait_until(lambda: come(clients))
            time.sleep(hold)
            snapshot.execute("ROLLBACK")
        work.join(300)
        assert not work.is_alive()
    return clients, work.result


def test_without_a_watchdog_the_same_scene_keeps_everybody_waiting(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    """The test of the tests that follow."""
    hold = 3 * MAX_BLOCK
    rebuild = functools.partial(server.sql, "REINDEX INDEX CONCURRENTLY mark_slowly", DATABASE)
    waiting = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'a client' AND wait_event_type = 'Lock'"
    seen, _nothing = with_a_snapshot_that_began_meanwhile(
        server, rebuild, hold, lambda _clients: len(server.sql(waiting)) == 3
    )
    assert min(seen.alter.longest, seen.select.longest, seen.update.longest) > hold - MAX_BLOCK
    drop_leftovers(server)


def test_without_a_watchdog_a_rebuild_ends_in_a_deadlock_with_who_waits_for_it(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    """A waiting ALTER TABLE has a snapshot, for which the rebuild waits. The victim is, as a rule, who waited first."""
    rebuild = Work(lambda: server.sql("REINDEX INDEX CONCURRENTLY mark_slowly", DATABASE))
    alter = Work(lambda: server.sql(ALTER, DATABASE))
    gate = Gate(server, DATABASE)
    with gate.closed():
        rebuild.start()
        wait_until(gate.waiting)
        alter.start()
        wait_until(lambda: server.sql("SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"))
    for work in (alter, rebuild):
        work.join(300)
    assert [type(error) for error in (alter.error, rebuild.error) if error] == [psycopg.errors.DeadlockDetected]
    print(f"the victim: {'the ALTER TABLE' if alter.error else 'the rebuild'}")
    drop_leftovers(server)


def test_nobody_is_the_victim_of_a_deadlock_with_a_rebuild(server: PostgresServer, options: dict[str, Any]) -> None:
    """However long others may be kept waiting: with somebody for whom the rebuild waits, it never comes to its end."""
    before = content(server, DATABASE)
    clients = Clients(server, alter_every=0.1)
    with clients.at_work():
        shown = run_module("postgresql_reindex", {**options, "retry_for": "5s", "max_block": "1m"})
    print(f"nobody waited longer than {clients}")
    assert not shown["failed"], shown["msg"]
    assert clients.errors == []
    assert clients.longest < DEADLOCK_TIMEOUT + clients.machine, str(clients)
    assert shown["metrics"]["cancelled_rebuilds"]["value"] >= 1
    assert_same(before, content(server, DATABASE))
    assert_nothing_left_behind(server, options["state_dir"])


def protected(server: PostgresServer, options: dict[str, Any], hold: float) -> None:
    before = content(server, DATABASE)
    rebuild = functools.partial(run_module, "postgresql_reindex", {**options, "retry_for": f"{hold + 300}s"})
    seen, shown = with_a_snapshot_that_began_meanwhile(server, rebuild, hold, lambda clients: clients.alter.count > 0)
    print(f"a snapshot held for {hold:.0f} s meanwhile: longest stall {seen.longest:.2f} s: {seen}")
    assert not shown["failed"], shown["msg"]
    assert seen.errors == []
    assert seen.longest <= MAX_BLOCK + 0.5 + seen.machine, str(seen)
    assert shown["metrics"]["cancelled_rebuilds"]["value"] >= 1
    waited = shown["metrics"]["longest_wait_seconds"]["value"]
    assert seen.longest - 0.5 - seen.machine <= waited <= seen.longest + 0.5 + seen.machine, "it knows what it caused"
    assert shown["metrics"]["rebuilt_indexes"]["value"] == 1, checks_by_name(shown)["bloated indexes"]
    assert_same(before, content(server, DATABASE))
    assert_nothing_left_behind(server, options["state_dir"])


def test_a_snapshot_that_begins_after_the_rebuild_stalls_nobody_longer_than_the_bound(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    protected(server, options, hold=5)


@pytest.mark.long
def test_a_snapshot_held_for_a_minute_stalls_nobody_longer_than_the_bound(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    protected(server, options, hold=60)


def test_no_rebuild_is_begun_while_an_old_snapshot_is_held_and_its_holder_is_named(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    before = content(server, DATABASE)
    with old_snapshot(server, DATABASE) as holder:
        server.sql("SELECT pg_sleep(2.5)")
        seen = Clients(server)
        with seen.at_work():
            shown = run_module("postgresql_reindex", {**options, "retry_for": "0"})
        pid = holder.info.backend_pid
    print(f"a snapshot held before: longest stall {seen.longest:.2f} s: {seen}")
    assert not shown["failed"], shown["msg"]
    assert seen.errors == []
    assert seen.longest <= 0.5 + seen.machine, str(seen)
    assert shown["metrics"]["rebuilt_indexes"]["value"] == 0
    (left,) = checks_by_name(shown)["bloated indexes"]["evidence"]["left"]
    assert str(pid) in left["reason"]
    assert "the old snapshot" in left["reason"]
    assert_same(before, content(server, DATABASE))


def test_a_long_reader_of_the_table_is_waited_for_by_nobody_but_the_rebuild(
    server: PostgresServer, options: dict[str, Any]
) -> None:
    """The rebuild ends only when readers that began before its end have gone: it keeps a lock until then."""
    before = content(server, DATABASE)
    work = Work(lambda: run_module("postgresql_reindex", {**options, "retry_for": "5m"}))
    select = Client(server, SELECT, DATABASE, pause=0.005)
    machine = bystander(server)
    gate = Gate(server, DATABASE)
    with server.connect(DATABASE) as reader:
        with gate.closed():
            work.start()
            wait_until(gate.waiting)
            reader.execute("BEGIN")
            reader.execute("LOCK TABLE mark IN ACCESS SHARE MODE")
        wait_until(lambda: phase(server).startswith("waiting for readers"))
        with select.at_work(), machine.at_work():
            time.sleep(3)
        reader.execute("ROLLBACK")
    work.join(300)
    shown = work.result
    assert not shown["failed"], shown["msg"]
    assert select.longest <= 0.5 + TURNS * machine.longest
    assert shown["metrics"]["rebuilt_indexes"]["value"] == 1
    assert_same(before, content(server, DATABASE))
    assert_nothing_left_behind(server, options["state_dir"])
