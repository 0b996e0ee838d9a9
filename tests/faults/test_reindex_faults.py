"""Rebuilds of indexes when things go wrong: they end with a reason, harm nobody, and the next run succeeds."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import Client, bystander
from support.database import (
    Content,
    assert_nothing_left_behind,
    assert_same,
    bloat,
    content,
    reindex_options,
)
from support.gate import PASS_THE_GATE, Gate
from support.modules import checks_by_name, module_process, run_module
from support.postgresql import PostgresServer, postgres_server
from support.standby import standby_of
from support.waiting import wait_until

DATABASE = "campus"
SETTINGS = {
    "autovacuum": "off",
    "max_prepared_transactions": "4",
    "shared_preload_libraries": "pg_stat_statements",
    "max_slot_wal_keep_size": "64MB",
    "max_wal_size": "1GB",
}
# The rows of a slow index are read slowly by who has the setting for it, and by nobody while the gate is closed.
SCHEMA = f"""
CREATE FUNCTION slowly(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$
  BEGIN PERFORM pg_sleep(current_setting('campus.pause', true)::float8); {PASS_THE_GATE} RETURN $1; END $$;
CREATE TABLE mark (id bigint PRIMARY KEY, student bigint NOT NULL, subject text);
INSERT INTO mark SELECT g, g % 50, 'subject ' || g FROM generate_series(1, 1000) g;
CREATE INDEX mark_slowly ON mark (slowly(student), subject);
CREATE TABLE seat (id bigint PRIMARY KEY, room text);
INSERT INTO seat SELECT g, 'room ' || g FROM generate_series(1, 300) g;
CREATE INDEX seat_room ON seat (room);
CREATE INDEX seat_room_id ON seat (room, id);
CREATE EXTENSION amcheck;
CREATE EXTENSION pgstattuple;
CREATE EXTENSION pg_stat_statements;
"""
SLOW = "0.001"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server(SETTINGS) as running:
        running.sql(f"CREATE DATABASE {DATABASE}")
        running.sql(SCHEMA, DATABASE)
        yield running


@pytest.fixture
def before(server: PostgresServer) -> Content:
    bloat(server, DATABASE)
    pause(server, "0")
    return content(server, DATABASE)


@pytest.fixture
def gate(server: PostgresServer) -> Iterator[Gate]:
    made = Gate(server, DATABASE)
    yield made
    made.open()


@pytest.fixture
def options(server: PostgresServer, tmp_path: Path) -> dict[str, Any]:
    return reindex_options(server, tmp_path / "state", DATABASE, tables=["public.*"])


def pause(server: PostgresServer, seconds: str) -> None:
    """For how long new sessions pause at each row of the slow index."""
    server.sql(f"ALTER DATABASE {DATABASE} SET campus.pause = '{seconds}'")


def rebuilding(server: PostgresServer, index: str = "") -> bool:
    """Whether a rebuild is under way, of the table of *index* or at all."""
    table = index.split("_", maxsplit=1)[0]
    rows = server.sql("SELECT relid::regclass::text FROM pg_stat_progress_create_index", DATABASE)
    return bool(rows) and rows[0][0].startswith(table)


def begin(gate: Gate, options: dict[str, Any], **others: Any) -> subprocess.Popen[str]:
    """Start a run, and return when it rebuilds the slow index, which goes on when the gate is opened."""
    gate.close()
    process = module_process("postgresql_reindex", {**options, **others})
    wait_until(lambda: gate.waiting() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    return process


def end(gate: Gate, process: subprocess.Popen[str]) -> dict[str, Any]:
    gate.open()
    output, errors = process.communicate(timeout=300)
    assert output, errors
    return {"failed": False, **json.loads(output)}


def changed(shown: dict[str, Any], kind: str = "index") -> list[str]:
    return sorted(change["name"].removeprefix(f"{DATABASE}.public.") for change in shown["changes"]
                  if change["kind"] == kind)  # fmt: skip


def left(shown: dict[str, Any]) -> dict[str, str]:
    evidence = checks_by_name(shown)["bloated indexes"]["evidence"]["left"]
    return {each["index"].removeprefix(f"{DATABASE}.public."): each["reason"] for each in evidence}


def assert_heals(server: PostgresServer, options: dict[str, Any], expected: Content) -> dict[str, Any]:
    """One more run succeeds, and all is as it was."""
    pause(server, "0")
    shown = run_module("postgresql_reindex", options)
    assert not shown["failed"], shown["msg"]
    assert_same(expected, content(server, DATABASE))
    assert_nothing_left_behind(server, options["state_dir"])
    return shown


# -- the disk --


@as_root
def test_a_disk_that_fills_up_during_a_rebuild_ends_it_with_that_reason(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate, tmp_path: Path
) -> None:
    disk = server.directory / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        owner = server.data.stat()
        os.chown(disk, owner.st_uid, owner.st_gid)
        server.sql(f"CREATE TABLESPACE small LOCATION '{disk}'")
        server.sql("ALTER INDEX mark_slowly SET TABLESPACE small", DATABASE)
        expected = content(server, DATABASE)
        process = begin(gate, options, min_free_bytes="0")
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(1 << 16)):
                pass
        shown = end(gate, process)
        assert "No space left on device" in json.dumps(shown["checks"]), shown["checks"]
        assert "mark_slowly" in left(shown)
        assert "mark_slowly" not in changed(shown)
        assert "mark_pkey" in changed(shown), "elsewhere there is room"
        assert_same(expected, content(server, DATABASE))
        (disk / "filler").unlink()
        assert "mark_slowly" in changed(assert_heals(server, options, expected))
    finally:
        server.sql("ALTER INDEX mark_slowly SET TABLESPACE pg_default", DATABASE)
        server.sql("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", str(disk)], check=True)


# -- others at work --


def test_indexes_that_go_away_meanwhile_are_no_failure_and_the_others_are_rebuilt(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate
) -> None:
    process = begin(gate, options)
    server.sql("ALTER INDEX seat_room RENAME TO seat_in_room; DROP INDEX seat_room_id", DATABASE)
    try:
        shown = end(gate, process)
        assert not shown["failed"], shown["msg"]
        assert {"mark_slowly", "mark_pkey"} <= set(changed(shown))
        assert {name: "dropped, rebuilt or renamed" in reason for name, reason in left(shown).items()} == {
            "seat_room": True,
            "seat_room_id": True,
        }
    finally:
        server.sql(
            "ALTER INDEX seat_in_room RENAME TO seat_room; CREATE INDEX seat_room_id ON seat (room, id)", DATABASE
        )
    assert_heals(server, options, before)


def test_a_table_that_is_dropped_during_its_rebuild_goes_at_once_and_is_no_failure(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate
) -> None:
    server.sql("CREATE TABLE fleeting AS SELECT * FROM mark", DATABASE)
    server.sql("CREATE INDEX fleeting_slowly ON fleeting (slowly(student), subject)", DATABASE)
    bloat(server, DATABASE, "fleeting%")
    process = begin(gate, {**options, "tables": ["public.fleeting", "public.seat"]})
    drop = Client(server, "DROP TABLE IF EXISTS fleeting", DATABASE, pause=1)
    with drop.at_work(), bystander(server).at_work() as machine:
        wait_until(lambda: drop.count or drop.errors, "the table to be dropped although the rebuild goes on")
        shown = end(gate, process)
    assert not shown["failed"], shown["msg"]
    assert drop.errors == []
    assert drop.longest < 5 + 4 * machine.longest
    assert {"seat_room", "seat_room_id", "seat_pkey"} <= set(changed(shown))
    assert_heals(server, options, before)


def test_upserts_that_storm_a_unique_index_meet_no_error_and_its_rebuild_is_left(
    server: PostgresServer, before: Content, options: dict[str, Any]
) -> None:
    upsert = "INSERT INTO seat (id, room) VALUES (7, 'room 7') ON CONFLICT (id) DO UPDATE SET room = excluded.room"
    clients = [Client(server, upsert, DATABASE) for _number in range(4)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client.at_work())
        wait_until(lambda: all(client.count for client in clients))
        shown = run_module("postgresql_reindex", {**options, "unique_indexes": "auto", "retry_for": "10s"})
    assert not shown["failed"], shown["msg"]
    assert [client.errors for client in clients] == [[], [], [], []]
    assert {"seat_room", "mark_slowly", "mark_pkey"} <= set(changed(shown))
    assert "seat_pkey" not in changed(shown)
    assert "upserts" in left(shown)["seat_pkey"]
    assert_heals(server, options, content(server, DATABASE))


@pytest.mark.long
def test_a_prepared_transaction_that_comes_meanwhile_ends_with_the_window_and_the_next_run_cleans_up(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate
) -> None:
    process = begin(gate, options, time_budget="6s", tables=["public.mark"], unique_indexes="never")
    with server.connect(DATABASE) as connection:
        connection.execute("BEGIN; LOCK TABLE mark IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'forgotten'")
    try:
        shown = end(gate, process)
        assert "mark_slowly" not in changed(shown)
        assert "mark_slowly" in left(shown)
        expected = json.dumps(shown["checks"])
        assert "mark_slowly_ccnew" in expected, "what could not be dropped under the transaction is told"
        again = run_module("postgresql_reindex", {**options, "tables": ["public.mark"]})
        assert "forgotten" in left(again)["mark_slowly"]
    finally:
        server.sql("ROLLBACK PREPARED 'forgotten'", DATABASE)
    assert_heals(server, options, before)


# -- the server and its sessions --


def sessions(server: PostgresServer, condition: str) -> list[int]:
    ours = f"SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'wellkept%' AND {condition}"
    return [pid for (pid,) in server.sql(ours)]


def test_without_its_watcher_no_rebuild_goes_on_and_with_a_new_one_it_is_done(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate
) -> None:
    process = begin(gate, options, retry_for="5m")
    (watcher,) = sessions(server, "query NOT LIKE 'REINDEX%'")
    begun = gate.waiting()
    server.sql(f"SELECT pg_terminate_backend({watcher})")
    wait_until(lambda: gate.waiting() != begun, "the rebuild to be cancelled")
    shown = end(gate, process)
    assert not shown["failed"], shown["msg"]
    assert shown["metrics"]["cancelled_rebuilds"]["value"] >= 1
    assert "mark_slowly" in changed(shown)
    assert_heals(server, options, before)


def test_a_session_that_an_administrator_ends_is_told_and_leaves_nothing(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate
) -> None:
    process = begin(gate, options)
    (worker,) = sessions(server, "query LIKE 'REINDEX%'")
    server.sql(f"SELECT pg_terminate_backend({worker})")
    shown = end(gate, process)
    assert "terminating connection due to administrator command" in json.dumps([shown.get("msg"), shown["checks"]])
    assert_heals(server, options, before)


def test_a_server_that_is_restarted_meanwhile_is_told_and_the_next_run_cleans_up(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate
) -> None:
    process = begin(gate, options)
    server.stop("fast")
    server.start()
    shown = end(gate, process)
    assert shown["failed"], shown
    assert "mark_slowly" not in changed(shown)
    assert_heals(server, options, before)


def test_settings_of_the_database_that_end_long_statements_do_not_end_rebuilds(
    server: PostgresServer, before: Content, options: dict[str, Any], gate: Gate
) -> None:
    names = {
        "statement_timeout": "200ms",
        "lock_timeout": "100ms",
        "idle_session_timeout": "300ms",
        "idle_in_transaction_session_timeout": "100ms",
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
    }
    if server.major >= 17:
        names["transaction_timeout"] = "300ms"
    for name, value in names.items():
        server.sql(f"ALTER DATABASE {DATABASE} SET {name} = '{value}'")
    try:
        pause(server, SLOW)
        shown = run_module("postgresql_reindex", options)
        assert not shown["failed"], shown["msg"]
        assert "mark_slowly" in changed(shown), left(shown)
    finally:
        for name in names:
            server.sql(f"ALTER DATABASE {DATABASE} RESET {name}")
    assert_same(before, content(server, DATABASE))


# -- tables that cannot be indexed again --


FAULTY = {
    "an error": ("RAISE EXCEPTION 'no such student'", "CREATE INDEX", "no such student"),
    "the same key twice": ("RETURN 1", "CREATE UNIQUE INDEX", "could not create unique index"),
}


@pytest.mark.parametrize("kind", FAULTY)
def test_an_index_that_cannot_be_built_any_more_is_kept_and_told_and_leaves_nothing(
    server: PostgresServer, before: Content, options: dict[str, Any], kind: str
) -> None:
    """Its function says other things than when the index was built."""
    body, create, words = FAULTY[kind]
    function = (
        "CREATE OR REPLACE FUNCTION key_of(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN {}; END $$"
    )
    server.sql(function.format("RETURN $1"), DATABASE)
    server.sql(f"{create} seat_key ON seat (key_of(id))", DATABASE)
    bloat(server, DATABASE, "seat_key")
    with server.connect(DATABASE) as connection:
        connection.execute(function.format(body))  # type: ignore[call-overload]
    try:
        shown = run_module("postgresql_reindex", options)
        assert words in json.dumps(shown["checks"])
        assert "seat_key" in left(shown)
        assert {"seat_room", "seat_pkey", "mark_slowly"} <= set(changed(shown))
        invalid = server.sql("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid", DATABASE)
        assert invalid == []
    finally:
        server.sql("DROP INDEX seat_key; DROP FUNCTION key_of", DATABASE)
    assert_same(before, content(server, DATABASE))


# -- replicas --


def test_a_standby_that_lags_puts_a_rebuild_off_until_it_has_caught_up(
    server: PostgresServer, before: Content, options: dict[str, Any]
) -> None:
    with standby_of(server) as standby:
        standby.sql("SELECT pg_wal_replay_pause()")
        server.sql("CREATE TABLE noise AS SELECT generate_series(1, 20000); DROP TABLE noise")
        shown = run_module("postgresql_reindex", {**options, "max_replica_lag": "256KiB"})
        assert not shown["failed"], shown["msg"]
        assert changed(shown) == []
        assert all("the standby walreceiver" in reason for reason in left(shown).values()), left(shown)
        standby.sql("SELECT pg_wal_replay_resume()")
        behind = "SELECT 1 FROM pg_stat_replication WHERE replay_lsn < pg_current_wal_lsn()"
        wait_until(lambda: not server.sql(behind))
        shown = assert_heals(server, {**options, "max_replica_lag": "256KiB", "retry_for": "5m"}, before)
        assert "mark_slowly" in changed(shown)
        refused = run_module("postgresql_reindex", {**options, **standby.login()})
        assert refused["skipped"]
        assert "standby" in refused["msg"]


def test_a_dead_slot_that_would_be_lost_puts_a_rebuild_off(
    server: PostgresServer, before: Content, options: dict[str, Any]
) -> None:
    server.sql("SELECT pg_create_physical_replication_slot('dead', true)")
    try:
        with server.connect() as connection:
            room = "SELECT safe_wal_size FROM pg_replication_slots WHERE slot_name = 'dead'"
            noise = "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 8000)) FROM generate_series(1, %s)"
            while (left_over := connection.execute(room).fetchone()[0]) > 16_000:  # type: ignore[index]
                connection.execute(noise, [max(1, (left_over - 16_000) // 8_200)])
        shown = run_module("postgresql_reindex", options)
        assert not shown["failed"], shown["msg"]
        assert changed(shown) == [], server.sql("SELECT * FROM pg_replication_slots")
        assert any("the replication slot dead (inactive)" in reason for reason in left(shown).values()), left(shown)
    finally:
        server.sql("SELECT pg_drop_replication_slot('dead')")
    assert_heals(server, options, before)
