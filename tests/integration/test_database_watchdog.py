"""The watchdog on a real server: a statement is cancelled before anybody waits on it for long, and never unwatched."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.database import watchdog
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.session import open_session
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.watchdog import Pair, Watched, run_watched
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import value
from support.postgresql import PostgresServer, postgres_server

LONG = 120.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        running.sql("CREATE TABLE student (id int PRIMARY KEY, name text)")
        running.sql("INSERT INTO student SELECT g, 'student ' || g FROM generate_series(1, 1000) g")
        yield running


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still for some seconds looks like a watch that does not answer; one test is about that."""
    monkeypatch.setattr(watchdog, "BLIND_FOR", LONG)


@pytest.fixture
def pair(server: PostgresServer) -> Iterator[Pair]:
    login = {"login_host": "", "login_db": "postgres", "login_password": "", **server.login()}
    with Pair(lambda: open_session(login, "postgres", purpose="watchdog")) as opened:
        # Opened before tests use the pair from two threads.
        assert opened.work.info.backend_pid != opened.watch.info.backend_pid
        yield opened


class Background:
    """Something that runs in a thread, and how long it took."""

    def __init__(self, what: Callable[[], Any]) -> None:
        self.what = what
        self.result: Any = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self.result = self.what()
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - began

    def end(self) -> Any:
        self.thread.join(LONG)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
        return self.result


def until(server: PostgresServer, condition: str) -> None:
    """Wait until *condition* holds on the server."""
    end = time.monotonic() + LONG
    with server.connect() as connection:
        while not connection.execute(f"SELECT {condition}").fetchone()[0]:  # type: ignore[index, call-overload]
            assert time.monotonic() < end, condition
            time.sleep(0.01)


@contextmanager
def old_snapshot(server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    with server.connect() as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        yield connection
        connection.execute("ROLLBACK")


WAITS = "EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"
REINDEX = "REINDEX INDEX CONCURRENTLY public.student_pkey"


def drop_leftovers(server: PostgresServer) -> None:
    for (name,) in server.sql("SELECT c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid WHERE "
                              "c.relname ~ '_cc(new|old)'"):  # fmt: skip
        server.sql(f'DROP INDEX "{name}"')


def test_a_statement_that_nobody_waits_on_runs_to_its_end(pair: Pair) -> None:
    watched = pair.run(REINDEX, max_block=1)
    assert watched.ended == "done", watched
    assert watched.longest_wait == 0
    assert watched.seconds > 0


def test_who_waits_on_a_rebuild_is_set_free_while_the_old_snapshot_that_it_waits_for_is_still_open(
    server: PostgresServer, pair: Pair
) -> None:
    with old_snapshot(server), server.connect() as altering, server.connect() as reading:
        pid = altering.info.backend_pid
        running = Background(lambda: pair.run(REINDEX, max_block=0.5))
        until(server, WAITS.format(pid=pair.work.info.backend_pid))
        alter = Background(lambda: altering.execute("ALTER TABLE student ALTER name SET STATISTICS 50"))
        until(server, WAITS.format(pid=pid))
        select = Background(lambda: reading.execute("SELECT count(*) FROM student").fetchone())
        alter.end()
        assert select.end() == (1000,)
        watched: Watched = running.end()
    assert watched.ended == "blocking"
    assert f"process {pid} " in watched.reason
    assert watched.longest_wait >= 0.5
    assert watched.held_up > 0
    drop_leftovers(server)


def test_a_wait_that_is_borne_is_recorded_and_stops_nothing(server: PostgresServer, pair: Pair) -> None:
    with server.connect() as altering:
        with old_snapshot(server):
            running = Background(lambda: pair.run(REINDEX, max_block=LONG))
            until(server, WAITS.format(pid=pair.work.info.backend_pid))
            alter = Background(lambda: altering.execute("ALTER TABLE student ALTER name SET STATISTICS 60"))
            until(
                server,
                "EXISTS (SELECT FROM pg_locks l, pg_stat_activity a WHERE NOT l.granted "
                f"AND l.pid = {altering.info.backend_pid} AND a.pid = {pair.watch.info.backend_pid} "
                "AND a.query_start > l.waitstart + interval '0.4 s')",
            )
        alter.end()
    watched: Watched = running.end()
    assert watched.ended == "done", watched
    assert watched.longest_wait >= 0.3


def test_a_lost_watch_connection_cancels_the_work_and_the_pair_is_whole_again(
    server: PostgresServer, pair: Pair
) -> None:
    running = Background(lambda: pair.run("SELECT pg_catalog.pg_sleep(100)", max_block=1))
    until(server, "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(100)' AND state = 'active' "
                  "AND pid <> pg_backend_pid())")  # fmt: skip
    server.sql(f"SELECT pg_terminate_backend({pair.watch.info.backend_pid})")
    watched: Watched = running.end()
    assert watched.ended == "unwatched"
    assert "lost" in watched.reason
    assert pair.run("SELECT 1", max_block=1).ended == "done"


def test_a_watch_connection_that_does_not_answer_cancels_the_work(
    server: PostgresServer, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = pair.watch.info.backend_pid
    monkeypatch.setattr(watchdog, "BLIND_FOR", 1.0)
    running = Background(lambda: pair.run("SELECT pg_catalog.pg_sleep(100)", max_block=1))
    until(server, "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(100)' AND state = 'active' "
                  "AND pid <> pg_backend_pid())")  # fmt: skip
    os.kill(pid, signal.SIGSTOP)
    try:
        watched: Watched = running.end()
    finally:
        os.kill(pid, signal.SIGCONT)
    assert watched.ended == "unwatched"
    assert "did not answer" in watched.reason
    monkeypatch.setattr(watchdog, "BLIND_FOR", LONG)
    assert pair.run("SELECT 1", max_block=1).ended == "done"


def test_a_rebuild_that_an_old_snapshot_keeps_waiting_gives_up_in_the_end(server: PostgresServer, pair: Pair) -> None:
    with old_snapshot(server):
        watched = pair.run(REINDEX, max_block=1, max_held_up=0.3)
    assert watched.ended == "waiting", watched
    assert watched.held_up >= 0.3
    drop_leftovers(server)


def test_the_time_that_is_left_ends_it(pair: Pair) -> None:
    watched = pair.run("SELECT pg_catalog.pg_sleep(100)", max_block=1, timeout=0.3)
    assert watched.ended == "timeout", watched
    assert pair.run("SELECT pg_catalog.pg_sleep(0.4)", max_block=1).ended == "done"


def test_a_cancellation_by_somebody_else_is_told_from_a_failure(server: PostgresServer, pair: Pair) -> None:
    running = Background(lambda: pair.run("SELECT pg_catalog.pg_sleep(100)", max_block=1))
    active = (
        f"EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pair.work.info.backend_pid} AND query LIKE '%sleep(100)')"
    )
    until(server, active)
    server.sql(f"SELECT pg_cancel_backend({pair.work.info.backend_pid})")
    assert running.end().ended == "cancelled"
    failed = pair.run("SELECT 1/0", max_block=1)
    assert failed.ended == "failed"
    assert "division by zero" in failed.reason
    assert failed.error.sqlstate == "22012"


def test_a_work_connection_that_was_ended_is_told_and_opened_anew(server: PostgresServer, pair: Pair) -> None:
    pid = pair.work.info.backend_pid
    running = Background(lambda: pair.run("SELECT pg_catalog.pg_sleep(100)", max_block=1))
    until(server, f"EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid} AND state = 'active')")
    server.sql(f"SELECT pg_terminate_backend({pid})")
    assert running.end().ended == "failed"
    assert pair.run("SELECT 1", max_block=1).ended == "done"
    assert pair.work.info.backend_pid != pid


def test_no_cancellation_reaches_the_statement_after_the_one_it_was_meant_for(
    server: PostgresServer, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "why_stop", lambda *_: ("blocking", "as the test wants it"))
    for _again in range(20):
        assert run_watched(pair.work, pair.watch, "SELECT pg_catalog.pg_sleep(100)", max_block=1).ended == "blocking"
        assert value(pair.work, "SELECT count(*) FROM generate_series(1, 20000)") == 20000


# One page a tenth of a second, so that it is at work for as long as the test looks.
SLOWLY = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
BUSY = "EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE relid = 'public.{}'::regclass)"


@pytest.fixture(scope="module")
def vacuuming() -> Iterator[PostgresServer]:
    """A server whose autovacuum comes every second."""
    with postgres_server({"autovacuum_naptime": "1s"}) as running:
        running.sql(
            "CREATE TABLE course (id int PRIMARY KEY, filler text) WITH (autovacuum_vacuum_threshold = 1, "
            f"autovacuum_vacuum_scale_factor = 0, fillfactor = 10, {SLOWLY})"
        )
        running.sql("CREATE TABLE exam (id int) WITH (autovacuum_freeze_max_age = 100000)")
        running.sql(
            "CREATE PROCEDURE spend(transactions int) LANGUAGE plpgsql AS 'BEGIN FOR i IN 1..transactions LOOP "
            "PERFORM pg_current_xact_id(); COMMIT; END LOOP; END'"
        )
        yield running


@contextmanager
def pair_on(server: PostgresServer) -> Iterator[Pair]:
    login = {"login_host": "", "login_db": "postgres", "login_password": "", **server.login()}
    with Pair(lambda: open_session(login, "postgres", purpose="watchdog")) as opened:
        assert opened.work.info.backend_pid != opened.watch.info.backend_pid
        yield opened


def test_an_autovacuum_at_work_on_the_table_is_not_driven_away(vacuuming: PostgresServer) -> None:
    vacuuming.sql("INSERT INTO course SELECT g, repeat('x', 500) FROM generate_series(1, 2000) g")
    vacuuming.sql("UPDATE course SET filler = 'y'")
    until(vacuuming, BUSY.format("course"))
    worker = vacuuming.sql("SELECT pid FROM pg_stat_progress_vacuum WHERE relid = 'course'::regclass")[0][0]
    with pair_on(vacuuming) as pair:
        watched = pair.run("REINDEX INDEX CONCURRENTLY public.course_pkey", max_block=LONG)
    assert watched.ended == "autovacuum", watched
    assert f"(process {worker})" in watched.reason
    assert vacuuming.sql("SELECT pid FROM pg_stat_progress_vacuum WHERE relid = 'course'::regclass") == [(worker,)]


def test_an_autovacuum_that_prevents_wraparound_is_let_through_at_once(vacuuming: PostgresServer) -> None:
    lock = "DO 'BEGIN LOCK TABLE public.exam IN SHARE UPDATE EXCLUSIVE MODE; PERFORM pg_sleep(600); END'"
    with pair_on(vacuuming) as pair:
        running = Background(lambda: pair.run(lock, max_block=LONG))
        until(vacuuming, "EXISTS (SELECT FROM pg_locks WHERE relation = 'public.exam'::regclass AND granted)")
        vacuuming.sql("CALL spend(110000)")
        watched: Watched = running.end()
    assert watched.ended == "autovacuum", watched
    assert "waited for the table" in watched.reason
    until(vacuuming, "age(relfrozenxid) < 100000 FROM pg_class WHERE relname = 'exam'")
