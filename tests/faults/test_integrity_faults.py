"""Damage that is real, made in the files of a stopped server: it is found, and the rest is looked at all the same."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.halting import halted_when, told
from support.integrity import (
    Inspector,
    Proxy,
    file_of,
    flip_bit,
    learning_server,
    looked_at,
    make_slow_indexes,
    slow_down,
    spoil_index,
    spoil_table,
    statuses,
)
from support.modules import checks_by_name, module_process
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id
from support.waiting import wait_until

LONG_ENOUGH = """
SELECT clock_timestamp() - backend_start > interval '30 s' FROM pg_stat_activity WHERE backend_type = 'checkpointer'
"""
LOOKING = "SELECT pid FROM pg_stat_activity WHERE application_name = 'wellkept integrity' AND query LIKE '%{}%' AND {}"


def damage(server: PostgresServer, *harm: tuple[str, Callable[[Path], None]]) -> None:
    """Stop the server, do *harm* to the files of relations, and start it again, without checksums that would tell."""
    server.sql("CHECKPOINT")
    paths = [(file_of(server, relation), spoil) for relation, spoil in harm]
    server.stop("fast")
    for path, spoil in paths:
        spoil(path)
    server.program("pg_checksums", "--disable", "-D", str(server.data))
    server.start()


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def unprotected(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What is found in a cluster without checksums in which an index and a table are damaged, and the cluster."""
    with learning_server(bin_dir_of(request.param)) as server:
        server.sql("VACUUM student", "learning")
        inspector = Inspector(server, tmp_path_factory.mktemp("state"))
        damage(server, ("student_pkey", spoil_index), ("course", spoil_table))
        yield {"first": inspector.look(databases=["*"]), "inspector": inspector, "server": server}


def test_a_damaged_index_is_found_by_name_with_the_servers_words(unprotected: dict[str, Any]) -> None:
    check = checks_by_name(unprotected["first"])["B-tree index public.student_pkey in learning"]
    assert check["status"] == "failed"
    assert "item order invariant violated" in check["observed"]
    evidence = check["evidence"]
    assert (evidence["database"], evidence["object"]) == ("learning", "public.student_pkey")
    assert evidence["table"] == "public.student"
    assert "REINDEX" in check["advice"]


def test_a_damaged_table_is_found_by_name_with_the_servers_words(unprotected: dict[str, Any]) -> None:
    check = checks_by_name(unprotected["first"])["table public.course in learning"]
    assert check["status"] == "failed"
    assert "line pointer to page offset" in check["observed"]
    assert "block 0" in check["observed"]
    assert "restore" in check["advice"]


def test_the_undamaged_rest_is_looked_at_all_the_same(unprotected: dict[str, Any]) -> None:
    shown = unprotected["first"]
    assert shown["failed"]
    failed = {name for name, status in statuses(shown).items() if status == "failed"}
    damaged = {"B-tree index public.student_pkey in learning", "table public.course in learning"}
    assert failed == damaged
    indexes = checks_by_name(shown)["B-tree indexes"]
    assert " 1 damaged, " in indexes["observed"]
    assert indexes["evidence"]["damaged"] == ["public.student_pkey in learning"]
    assert shown["metrics"]["damaged_tables"]["value"] == 1
    assert looked_at(shown) > 300
    assert statuses(shown)["everything is looked at in time"] == "passed"


def test_without_checksums_their_failures_are_unknown(unprotected: dict[str, Any]) -> None:
    check = checks_by_name(unprotected["first"])["checksum failures"]
    assert check["status"] == "unknown"
    assert "pg_checksums --enable" in check["advice"]


def test_what_was_found_damaged_is_looked_at_in_each_run_until_it_is_mended(unprotected: dict[str, Any]) -> None:
    inspector, server = unprotected["inspector"], unprotected["server"]
    again = inspector.look(databases=["*"])
    assert looked_at(again) == 2, "the two that are damaged"
    server.sql("REINDEX INDEX student_pkey", "learning")
    server.sql("DROP TABLE course", "learning")
    mended = inspector.look()
    assert not mended["failed"], mended["msg"]
    assert mended["metrics"]["damaged_tables"]["value"] == 0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with learning_server() as server:
        yield server


@pytest.fixture
def inspector(server: PostgresServer, tmp_path: Path) -> Iterator[Inspector]:
    yield Inspector(server, tmp_path)
    server.sql("ALTER DATABASE learning RESET ALL")
    server.sql("DROP SCHEMA IF EXISTS slow CASCADE", "learning")


def test_a_page_that_fails_its_checksum_is_found_and_counted(tmp_path: Path) -> None:
    with postgres_server() as server:
        server.sql("CREATE TABLE student AS SELECT g AS id, 'student ' || g AS name FROM generate_series(1, 5000) g")
        server.sql("ALTER TABLE student ADD PRIMARY KEY (id)")
        inspector = Inspector(server, tmp_path, "postgres")
        server.sql("CHECKPOINT")
        path = server.data / server.sql("SELECT pg_relation_filepath('student_pkey')")[0][0]
        server.stop("fast")
        flip_bit(path, 3)
        server.start()
        shown = inspector.look()
    checks = checks_by_name(shown)
    assert "invalid page in block 3" in checks["B-tree index public.student_pkey in postgres"]["observed"]
    assert shown["metrics"]["damaged_tables"]["value"] == 0
    failures = checks["checksum failures"]
    assert failures["status"] == "failed"
    assert failures["observed"].startswith("postgres: ")


def test_entries_that_are_missing_are_found_by_looking_closely_only(inspector: Inspector) -> None:
    with inspector.server.connect("learning") as connection:
        connection.execute("SET allow_system_table_mods = on")
        connection.execute("CREATE TABLE exam (id int)")
        connection.execute("CREATE INDEX exam_id ON exam (id)")
        ready = "UPDATE pg_index SET indisready = {} WHERE indexrelid = 'exam_id'::regclass"
        connection.execute("INSERT INTO exam SELECT generate_series(1, 100)")
        connection.execute(ready.format("false"))
        with inspector.server.connect("learning") as other:
            other.execute("INSERT INTO exam VALUES (101)")
        connection.execute(ready.format("true"))
    try:
        shown = inspector.look()
        assert not shown["failed"]
        closely = inspector.look(heap_all_indexed=True)
        check = checks_by_name(closely)["B-tree index public.exam_id in learning"]
        assert "lacks matching index tuple" in check["observed"]
        failed = [name for name, status in statuses(closely).items() if status == "failed"]
        assert failed == ["B-tree index public.exam_id in learning"]
    finally:
        inspector.server.sql("DROP TABLE exam", "learning")


def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    with postgres_server() as server:
        server.sql("CREATE TABLE student AS SELECT g AS id FROM generate_series(1, 5000) g")
        server.sql("CREATE INDEX student_id ON student (id)")
        server.sql("CHECKPOINT")
        path = server.data / server.sql("SELECT pg_relation_filepath('student_id')")[0][0]
        server.stop("fast")
        path.unlink()
        server.start()
        shown = Inspector(server, tmp_path, "postgres").look()
    assert (
        "lacks a main relation fork" in checks_by_name(shown)["B-tree index public.student_id in postgres"]["observed"]
    )
    assert shown["metrics"]["damaged_tables"]["value"] == 0


def test_a_process_of_the_server_that_dies_is_told_of_and_the_rest_goes_on(inspector: Inspector) -> None:
    server = inspector.server
    make_slow_indexes(server, 1)
    slow_down(server, 1)
    process = module_process("postgresql_integrity", inspector.options(heap_all_indexed=True))
    found: list[Any] = []

    def at_work() -> bool:
        found[:] = server.sql(LOOKING.format("bt_index_check", "wait_event = 'PgSleep'"))
        return bool(found)

    wait_until(at_work, "the slow index is looked at")
    os.kill(found[0][0], signal.SIGKILL)
    output, _errors = process.communicate(timeout=300)
    shown = json.loads(output)
    failed = [check for check in shown["checks"] if check["status"] == "failed"]
    assert [check["name"] for check in failed] == ["B-tree index slow.t0_value in learning"]
    assert "the server's process died while it looked at it" in failed[0]["observed"]
    assert looked_at(shown) > 200
    slow_down_again(server)
    again = inspector.look(heap_all_indexed=True)
    checks = checks_by_name(again)
    assert checks["B-tree index slow.t0_value in learning"]["status"] == "failed"
    assert looked_at(again) == 0, "all others had been looked at, and it is not risked again"
    server.sql("REINDEX INDEX slow.t0_value", "learning")
    assert not inspector.look(heap_all_indexed=True)["failed"]


def slow_down_again(server: PostgresServer) -> None:
    """Switch the slowness off, once the server accepts connections again."""

    def accepts() -> bool:
        try:
            server.sql("ALTER DATABASE learning RESET ALL")
        except psycopg.OperationalError:
            return False
        return True

    wait_until(accepts, "the server accepts connections")


def test_nobody_waits_for_long_on_a_look(inspector: Inspector) -> None:
    server = inspector.server
    make_slow_indexes(server, 1, rows=3000)
    slow_down(server, 0.2)
    process = module_process("postgresql_integrity", inspector.options(heap_all_indexed=True, max_block="1s"))
    condition = "wait_event = 'PgSleep' AND clock_timestamp() - query_start > interval '2 s'"
    wait_until(
        lambda: bool(server.sql(LOOKING.format("bt_index_check", condition))),
        "the slow index is looked at under watch",
    )
    with server.connect("learning") as connection:
        began = time.monotonic()
        connection.execute("ALTER TABLE slow.t0 ADD COLUMN m int")
        waited = time.monotonic() - began
    process.send_signal(signal.SIGTERM)
    output, _errors = process.communicate(timeout=300)
    assert waited < 300, "it would have been nearly 600 s"
    assert "stopped by SIGTERM" in output


def test_a_locked_table_is_passed_over_and_named(inspector: Inspector) -> None:
    with inspector.server.connect("learning") as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE course IN ACCESS EXCLUSIVE MODE")
        shown = inspector.look()
        connection.execute("ROLLBACK")
    assert not shown["failed"]
    coverage = checks_by_name(shown)["everything is looked at in time"]
    hindered = {one["object"] for one in coverage["evidence"]["hindered"]}
    assert hindered >= {
        "public.course_pkey in learning",
        "public.course_title in learning",
        "public.course in learning",
    }
    assert "somebody holds a lock on it" in coverage["observed"]
    again = inspector.look()
    assert checks_by_name(again)["everything is looked at in time"]["evidence"]["hindered"] == []


def test_a_database_that_is_dropped_meanwhile_and_a_locked_sequence_are_no_failure(inspector: Inspector) -> None:
    server = inspector.server
    make_slow_indexes(server, 1, rows=5)
    slow_down(server, 1)
    server.sql("CREATE DATABASE zoo")
    server.sql("CREATE TABLE animal (name text)", "zoo")
    options = inspector.options(heap_all_indexed=True, databases=["learning", "zoo"], interval="0")
    sleeping = LOOKING.format("bt_index_check", "wait_event = 'PgSleep'")
    with server.connect("learning") as connection:
        connection.execute("BEGIN")
        connection.execute("ALTER SEQUENCE student_id_seq RESTART WITH 6000")
        process = halted_when(lambda: module_process("postgresql_integrity", options), lambda: server.sql(sleeping))
        server.sql("DROP DATABASE zoo WITH (FORCE)")
        output = told(process, signal.SIGCONT)
        connection.execute("ROLLBACK")
    shown = json.loads(output)
    assert not shown.get("failed"), shown["msg"]
    hindered = checks_by_name(shown)["everything is looked at in time"]["evidence"]["hindered"]
    assert {one["object"] for one in hindered} >= {"public.animal in zoo"}
    sequences = checks_by_name(shown)["sequences"]
    assert sequences["status"] == "unknown"
    assert sequences["evidence"]["unreadable"] == ["public.student_id_seq in learning"]


def test_tables_that_come_and_go_meanwhile_are_no_failure(inspector: Inspector) -> None:
    stop = threading.Event()

    def churn() -> None:
        with inspector.server.connect("learning") as connection:
            number = 0
            while not stop.is_set():
                number += 1
                connection.execute(f"CREATE TABLE passing_{number} (id serial PRIMARY KEY, t text)")
                connection.execute(f"CREATE TEMP TABLE temporary_{number} (id int PRIMARY KEY)")
                if number > 20:
                    connection.execute(f"DROP TABLE passing_{number - 20}")
                    connection.execute(f"DROP TABLE temporary_{number - 20}")
            for left in range(max(1, number - 19), number + 1):
                connection.execute(f"DROP TABLE passing_{left}")

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _again in range(3):
            shown = inspector.look(interval="0")
            assert not shown["failed"], shown["msg"]
            assert [name for name in statuses(shown) if name.startswith("database ")] == []
    finally:
        stop.set()
        thread.join()


def test_a_memory_that_was_damaged_is_begun_anew_and_told_of(inspector: Inspector) -> None:
    first = inspector.look()
    inspector.memory.write_text('{"format": 1, "things": {"x": {"file": "y"}}}')
    again = inspector.look()
    assert statuses(again)["memory of earlier runs"] == "warned"
    assert looked_at(again) == looked_at(first)
    assert "memory of earlier runs" not in statuses(inspector.look())


def test_being_stopped_loses_nothing_of_what_was_done(inspector: Inspector) -> None:
    make_slow_indexes(inspector.server, 1, rows=100)
    slow_down(inspector.server, 1)
    process = module_process("postgresql_integrity", inspector.options(heap_all_indexed=True, check_tables=False))
    sleeping = LOOKING.format("bt_index_check", "wait_event = 'PgSleep'")
    wait_until(lambda: bool(inspector.server.sql(sleeping)), "the slow index is looked at")
    process.send_signal(signal.SIGTERM)
    output, _errors = process.communicate(timeout=300)
    assert "stopped by SIGTERM" in output
    wait_until(lambda: not inspector.server.sql(sleeping), "the server ends what was looked at")
    inspector.server.sql("ALTER DATABASE learning RESET ALL")
    shown = inspector.look(heap_all_indexed=True, check_tables=False)
    everything = int(checks_by_name(shown)["B-tree indexes"]["observed"].split()[0])
    assert 1 <= looked_at(shown) < everything / 2


def test_a_server_that_is_stopped_meanwhile_is_a_failure_that_says_so(tmp_path: Path) -> None:
    with postgres_server() as server:
        server.sql("CREATE DATABASE learning")
        make_slow_indexes(server, 1)
        slow_down(server, 1)
        inspector = Inspector(server, tmp_path)
        options = inspector.options(heap_all_indexed=True, interval="0")
        sleeping = LOOKING.format("bt_index_check", "wait_event = 'PgSleep'")
        process = halted_when(lambda: module_process("postgresql_integrity", options), lambda: server.sql(sleeping))
        server.stop("fast")
        output = told(process, signal.SIGCONT)
    assert '"failed": true' in output
    assert "terminating connection due to administrator command" in output


def test_a_connection_that_is_lost_is_no_damage_and_what_was_looked_at_is_taken_again(inspector: Inspector) -> None:
    server = inspector.server
    make_slow_indexes(server, 1, rows=5)
    slow_down(server, 1)
    wait_until(lambda: bool(server.sql(LONG_ENOUGH)[0][0]), "the server has run for a while")
    proxy = Proxy(server.port)
    try:
        through = {"login_host": "127.0.0.1", "login_port": proxy.port, "login_password": server.password}
        options = inspector.options(heap_all_indexed=True, interval="0", **through)
        sleeping = LOOKING.format("bt_index_check", "wait_event = 'PgSleep'")
        process = halted_when(lambda: module_process("postgresql_integrity", options), lambda: server.sql(sleeping))
        proxy.cut()
        output = told(process, signal.SIGCONT)
    finally:
        proxy.close()
    shown = json.loads(output)
    assert not shown.get("failed"), shown["msg"]
    assert looked_at(shown) > 200, "its memory is another one, by the port"
    hindered = checks_by_name(shown)["everything is looked at in time"]["evidence"]["hindered"]
    assert hindered == [], "it was taken again"
