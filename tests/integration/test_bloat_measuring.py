"""Measuring beside everything else that goes on in a database, with whatever rights and extensions there are."""

from __future__ import annotations

import contextlib
import os
import pwd
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat import tables, ways
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.measure import (
    BloatSettings,
    measure_index,
    measure_indexes,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.tables import measure_tables
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from support.bloat import PROGRAMS, measured, quiet_server, release, session
from support.postgresql import PostgresServer
from support.waiting import wait_until

LONG = 'Ünïcode "quoted" %s index; DROP TABLE x; -- '.ljust(61, "x")  # of 63 bytes, for two of its letters have two


@pytest.fixture(scope="module", params=PROGRAMS, ids=release)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with quiet_server(request.param, {"max_prepared_transactions": "2"}) as running:
        yield running


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    """A database of its own for a test that leaves roles, locks or extensions behind in it."""
    server.sql("CREATE DATABASE scratch")
    try:
        yield "scratch"
    finally:
        server.sql("DROP DATABASE scratch WITH (FORCE)")


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def fill(server: PostgresServer, name: str, dbname: str = "postgres", rows: int = 5000) -> None:
    """A table with an index ``<name>_key`` of which two thirds are bloat."""
    server.sql(
        f"CREATE TABLE {name} (id int, note text); INSERT INTO {name} SELECT g, 'a' FROM generate_series(1, {rows}) g;"
        f"CREATE INDEX {name}_key ON {name} (id); DELETE FROM {name} WHERE id % 3 <> 0",
        dbname,
    )
    server.sql(f"VACUUM ANALYZE {name}", dbname)


# -- what there is in a database --


def test_names_that_need_quotes_and_have_63_bytes_are_measured_and_sampled(server: PostgresServer) -> None:
    assert len(LONG.encode()) == 63
    name = quoted(LONG)
    server.sql(
        f"CREATE SCHEMA {name}; CREATE TABLE {name}.{name} AS SELECT g AS {name} FROM generate_series(1, 5000) g;"
        f"CREATE INDEX {quoted(LONG[:-1] + 'i')} ON {name}.{name} ({name})"
    )
    for settings, method in (({}, "pgstatindex"), ({"sample_above_bytes": 8192, "sample_pages": 5}, "sampled")):
        index = measured(server, **settings)[LONG[:-1] + "i"]
        assert (index.schema, index.table, index.method) == (LONG, LONG, method)
        assert index.bloat_ratio == pytest.approx(0, abs=0.03 if method == "pgstatindex" else 0.1)


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1", "UTF8"])
def test_databases_of_any_encoding_are_measured(server: PostgresServer, encoding: str) -> None:
    server.sql(f"CREATE DATABASE other ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        with server.connect("other", client_encoding="UTF8") as connection:
            connection.execute("CREATE EXTENSION pgstattuple; CREATE EXTENSION pageinspect")
            connection.execute('CREATE TABLE "Gebühr" AS SELECT g AS id FROM generate_series(1, 5000) g')
            connection.execute('CREATE INDEX "für" ON "Gebühr" (id)')
        for above, method in ((1024**3, "pgstatindex"), (8192, "sampled")):
            assert measured(server, dbname="other", sample_above_bytes=above)["für"].method == method
    finally:
        server.sql("DROP DATABASE other WITH (FORCE)")


def test_every_kind_of_relation_is_measured_or_left_out_as_it_should(server: PostgresServer, tmp_path: Path) -> None:
    place = server.directory / "tablespace"
    place.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(place, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    server.sql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
    server.sql(
        "CREATE TABLE parted (id int, note text) PARTITION BY RANGE (id);"
        "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (1) TO (10000);"
        "CREATE INDEX parted_key ON parted (id);"
        "INSERT INTO parted SELECT g, 'a' FROM generate_series(1, 5000) g;"
        "CREATE MATERIALIZED VIEW seen AS SELECT id FROM parted; CREATE UNIQUE INDEX seen_key ON seen (id);"
        "CREATE UNLOGGED TABLE unlogged AS SELECT id FROM parted; CREATE INDEX unlogged_key ON unlogged (id);"
        "CREATE INDEX elsewhere_key ON parted_1 (note) TABLESPACE elsewhere;"
        "CREATE INDEX summary ON parted_1 USING brin (id); CREATE INDEX spaces ON parted_1 USING spgist (note);"
        "CREATE INDEX half_full ON parted_1 (id) WITH (fillfactor = 50);"
        "CREATE TABLE new (id int PRIMARY KEY, note text)"
    )
    found = measured(server)
    assert "parted_key" not in found
    for name in ("parted_1_id_idx", "seen_key", "unlogged_key", "elsewhere_key", "half_full", "new_pkey"):
        assert (found[name].method, found[name].confidence) == ("pgstatindex", "high")
        assert found[name].bloat_ratio == pytest.approx(0, abs=0.05)
    assert found["elsewhere_key"].tablespace == "elsewhere"
    assert (found["half_full"].fillfactor, found["new_pkey"].is_primary, found["seen_key"].is_unique) == (
        50,
        True,
        True,
    )
    assert found["new_pkey"].size_bytes == 8192
    assert found["new_pkey"].is_constraint
    for name in ("summary", "spaces"):
        assert (found[name].method, found[name].bloat_ratio) == ("none", None)
        assert found[name].reason
    toast = [index for index in found.values() if index.is_toast]
    assert {index.method for index in toast} == {"pgstatindex"}
    assert {index.schema for index in toast} == {"pg_toast"}


def test_a_toast_index_is_chosen_by_the_name_of_the_table_that_it_belongs_to(server: PostgresServer) -> None:
    server.sql("CREATE TABLE IF NOT EXISTS letters (id int PRIMARY KEY, body text)")
    found = measured(server, tables=("public.letters",))
    assert sorted(index.is_toast for index in found.values()) == [False, True]
    assert not any(index.is_toast for index in measured(server, exclude_tables=("public.*",)).values())


def test_system_catalogs_are_measured_and_shared_ones_only_when_asked_for(server: PostgresServer) -> None:
    without, within, beyond = (
        measured(server, catalogs=catalogs, shared_catalogs=shared)
        for catalogs, shared in ((False, False), (True, False), (True, True))
    )
    assert not any(index.is_catalog for index in without.values())
    assert within["pg_class_oid_index"].method == "pgstatindex"
    assert "pg_database_oid_index" not in within
    assert beyond["pg_database_oid_index"].method == "pgstatindex"


def test_temporary_tables_of_others_are_left_alone(server: PostgresServer) -> None:
    with server.connect() as other:
        other.execute("CREATE TEMP TABLE mine (id int PRIMARY KEY)")
        assert "mine_pkey" not in measured(server)


def test_an_invalid_index_is_named_as_such(server: PostgresServer) -> None:
    server.sql("CREATE TABLE twice AS SELECT 1 AS id FROM generate_series(1, 2)")
    with pytest.raises(Exception, match="duplicated"):
        server.sql("CREATE UNIQUE INDEX CONCURRENTLY twice_key ON twice (id)")
    index = measured(server)["twice_key"]
    assert (index.is_valid, index.method, index.bloat_ratio) == (False, "none", None)
    assert "invalid" in index.reason
    server.sql("DROP TABLE twice")


def test_an_index_that_is_being_built_is_named_as_such(server: PostgresServer) -> None:
    server.sql("CREATE TABLE slow AS SELECT g AS id FROM generate_series(1, 100) g")
    with server.connect() as holder, server.connect() as builder:
        with holder.transaction():
            holder.execute("INSERT INTO slow VALUES (0)")
            build = threading.Thread(
                target=lambda: builder.execute("CREATE INDEX CONCURRENTLY slow_key ON slow (id)"), daemon=True
            )
            build.start()
            wait_until(
                lambda: server.sql("SELECT count(*) FROM pg_stat_progress_create_index WHERE index_relid <> 0")[0][0]
            )
            index = measured(server)["slow_key"]
        build.join(300)
    assert (index.method, index.reason) == ("none", "it is being built")
    assert measured(server)["slow_key"].method == "pgstatindex"


# -- what happens meanwhile --


def test_an_index_that_vanishes_before_it_is_measured_does_not_fail_the_others(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, "going")
    fill(server, "staying")
    once = dropping(server, ["DROP INDEX going_key"])
    monkeypatch.setattr(ways, "measure_by", meanwhile(ways.measure_by, once))
    found = measured(server)
    assert "going_key" not in found
    assert found["staying_key"].bloat_ratio == pytest.approx(2 / 3, abs=0.03)


def test_an_index_that_is_rebuilt_smaller_while_it_is_sampled_is_measured_as_it_is_then(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, "shrinking")
    once = dropping(server, ["REINDEX INDEX shrinking_key"])
    monkeypatch.setattr(ways, "measure_by", meanwhile(ways.measure_by, once, "shrinking_key"))
    index = measured(server, sample_above_bytes=8192, sample_pages=100, tables=("public.shrinking",))["shrinking_key"]
    assert index.bloat_ratio == pytest.approx(0, abs=0.1)
    assert index.size_bytes == server.sql("SELECT pg_relation_size('shrinking_key')")[0][0]


def dropping(server: PostgresServer, statements: list[str]) -> Any:
    def run() -> None:
        while statements:
            server.sql(statements.pop())

    return run


def meanwhile(measure_by: Any, act: Any, name: str = "") -> Any:
    """*measure_by*, before which *act* happens (only before it measures *name*, if that is given)."""

    def other(way: str, context: Any, facts: Any) -> Any:
        if name in ("", facts.name):
            act()
        return measure_by(way, context, facts)

    return other


def test_tables_and_indexes_that_come_and_go_all_the_time_do_not_fail_the_run(server: PostgresServer) -> None:
    stop = threading.Event()

    def churn() -> None:
        with server.connect() as connection:
            while not stop.is_set():
                connection.execute("CREATE TABLE churn (id int PRIMARY KEY, note text)")
                connection.execute("CREATE INDEX churn_part ON churn (id) WHERE note IS NULL")
                connection.execute("DROP TABLE churn")

    worker = threading.Thread(target=churn, daemon=True)
    worker.start()
    try:
        with session(server) as connection:
            for _time in range(15):
                measure_indexes(connection, BloatSettings(catalogs=False), Remembered())
                measure_tables(connection, BloatSettings(catalogs=False))
    finally:
        stop.set()
        worker.join(300)


@contextlib.contextmanager
def locked(server: PostgresServer, statement: str, application: str = "an upgrade") -> Iterator[int]:
    """Hold what *statement* locks while the block runs; gives the process that holds it."""
    with server.connect(application_name=application) as holder, holder.transaction():
        holder.execute(statement)  # type: ignore[call-overload]
        yield holder.info.backend_pid


@pytest.mark.parametrize("statement", ["LOCK TABLE busy IN ACCESS EXCLUSIVE MODE", "TRUNCATE busy"])
def test_a_locked_table_is_not_waited_for_and_its_holder_is_named(server: PostgresServer, statement: str) -> None:
    server.sql("DROP TABLE IF EXISTS busy, free")
    fill(server, "busy")
    fill(server, "free")
    server.sql("CREATE INDEX busy_note ON busy (note); CREATE INDEX busy_both ON busy (id, note)")
    with locked(server, statement) as process:
        began = time.monotonic()
        with session(server) as connection:
            found = {index.name: index for index in measure_indexes(connection, SHORT, Remembered())}
            tables = {table.name: table for table in measure_tables(connection, SHORT)}
        seconds = time.monotonic() - began
    # Once for all indexes of the table, and once for the table; it is locked for as long as that takes.
    assert seconds < 200 * SHORT.lock_timeout_ms / 1000
    assert found["free_key"].bloat_ratio == pytest.approx(2 / 3, abs=0.03)
    busy = [found[f"busy_{name}"] for name in ("key", "note", "both")]
    if statement.startswith("TRUNCATE"):
        assert {index.method for index in busy} == {"none"}
        assert {index.reason for index in busy} == {f"locked by process {process} of the server (an upgrade)"}
    assert tables["busy"].reason == f"locked by process {process} of the server (an upgrade)"
    assert measured(server)["busy_key"].method == "pgstatindex"


SHORT = BloatSettings(lock_timeout_ms=300, catalogs=False)


def test_a_prepared_transaction_that_holds_a_lock_is_named(server: PostgresServer) -> None:
    fill(server, "prepared")
    server.sql("BEGIN; TRUNCATE prepared; PREPARE TRANSACTION 'forgotten'")
    try:
        assert measured(server, lock_timeout_ms=100)["prepared_key"].reason == "locked by a prepared transaction"
    finally:
        server.sql("ROLLBACK PREPARED 'forgotten'")


def test_those_who_wait_behind_the_measurement_do_not_wait_long(server: PostgresServer) -> None:
    """Somebody waits for the table: we do not queue up behind them either, nor do we hold what they wait for."""
    fill(server, "queue")
    # The reader ends first, so that the other can go on and end, too.
    with server.connect() as other, locked(server, "SELECT * FROM queue LIMIT 1"):
        waiting = threading.Thread(target=lambda: other.execute("TRUNCATE queue"), daemon=True)
        waiting.start()
        wait_until(
            lambda: server.sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'")[0][0]
        )
        found = measured(server, lock_timeout_ms=300)
        assert found["queue_key"].size_bytes > 0
    waiting.join(300)
    assert not waiting.is_alive()


def test_the_settings_of_the_session_are_as_they_were(server: PostgresServer) -> None:
    with session(server) as connection:
        connection.execute("SET lock_timeout = '7s'")
        connection.execute("SET statement_timeout = '70s'")
        measure_indexes(connection, BloatSettings(), Remembered())
        shown = [connection.execute(f"SHOW {name}").fetchone()[0] for name in ("lock_timeout", "statement_timeout")]
    assert shown == ["7s", "70s"]


def test_a_measurement_that_takes_too_long_is_given_up_with_the_reason(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, "slow_to_read")
    with server.connect() as holder, holder.transaction():
        # It is locked after it was listed, for as long as it takes.
        lock = meanwhile(ways.measure_by, lambda: holder.execute("TRUNCATE slow_to_read"), "slow_to_read_key")
        monkeypatch.setattr(ways, "measure_by", lock)
        found = measured(server, lock_timeout_ms=60_000, timeout_ms=200, tables=("public.slow_to_read",))
    index = found["slow_to_read_key"]
    assert (index.bloat_ratio, index.confidence) == (None, "none")
    assert "measuring took longer than 0.2 s" in index.reason


def test_a_session_that_the_server_ends_is_an_error_and_not_a_measurement(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(server, "ended")
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'wellkept test'"
    monkeypatch.setattr(ways, "measure_by", meanwhile(ways.measure_by, dropping(server, [kill])))
    with pytest.raises(MaintenanceError):
        measured(server, tables=("public.ended",))
    with session(server) as connection:
        judge = tables.judge
        monkeypatch.setattr(tables, "judge", lambda *facts: server.sql(kill) and judge(*facts))
        with pytest.raises(MaintenanceError):
            measure_tables(connection, BloatSettings(catalogs=False))


def test_a_damaged_index_is_named_and_does_not_fail_the_others(server: PostgresServer) -> None:
    with quiet_server(server.bin_dir) as other:
        for name in ("torn", "whole"):
            fill(other, name)
        path = other.data / other.sql("SELECT pg_relation_filepath('torn_key')")[0][0]
        other.stop("fast")
        with path.open("r+b") as stream:
            stream.seek(2 * 8192 + 100)
            stream.write(os.urandom(4000))
        other.start()
        found = measured(other)
    assert found["whole_key"].method == "pgstatindex"
    assert (found["torn_key"].method, found["torn_key"].bloat_ratio) == ("none", None)
    assert "could not be read: invalid page" in found["torn_key"].reason


# -- what may be used --


@contextlib.contextmanager
def role(server: PostgresServer, *grants: str, dbname: str = "postgres") -> Iterator[str]:
    server.sql("CREATE ROLE watcher LOGIN")
    try:
        for grant in grants:
            server.sql(grant, dbname)
        yield "watcher"
    finally:
        server.sql("DROP OWNED BY watcher", dbname)
        server.sql("DROP ROLE watcher")


def test_the_role_that_may_scan_tables_measures_all_and_without_it_the_grant_is_named(
    server: PostgresServer, database: str
) -> None:
    server.sql("CREATE EXTENSION pgstattuple; CREATE EXTENSION pageinspect", database)
    fill(server, "theirs", database)
    with role(server, "GRANT pg_stat_scan_tables TO watcher", dbname=database):
        index = measured(server, dbname=database, user="watcher", sample_above_bytes=8192)["theirs_key"]
    assert (index.method, index.confidence) == ("pgstatindex", "high")
    assert index.bloat_ratio == pytest.approx(2 / 3, abs=0.03)
    with role(server, dbname=database):
        index = measured(server, dbname=database, user="watcher")["theirs_key"]
    assert (index.bloat_ratio, index.confidence) == (None, "none")
    assert "GRANT pg_stat_scan_tables TO watcher" in index.reason


def test_a_schema_that_may_not_be_used_is_named_too(server: PostgresServer, database: str) -> None:
    server.sql('CREATE SCHEMA "Tools"; CREATE EXTENSION pgstattuple SCHEMA "Tools"', database)
    fill(server, "theirs", database)
    assert measured(server, dbname=database)["theirs_key"].method == "pgstatindex"
    with role(server, "GRANT pg_stat_scan_tables TO watcher", dbname=database):
        index = measured(server, dbname=database, user="watcher")["theirs_key"]
    assert 'GRANT USAGE ON SCHEMA "Tools" TO watcher' in index.reason


def test_without_the_extension_unique_keys_are_estimated_and_others_compared(
    server: PostgresServer, database: str
) -> None:
    fill(server, "plain", database, rows=200_000)
    server.sql("CREATE UNIQUE INDEX plain_unique ON plain (id); ALTER TABLE plain ALTER id SET NOT NULL", database)
    server.sql("DELETE FROM plain WHERE id % 2 = 0", database)
    server.sql("VACUUM ANALYZE plain", database)
    remembered = Remembered()
    first = measured(server, remembered, database)
    assert (first["plain_unique"].method, first["plain_unique"].confidence) == ("estimate", "low")
    assert "CREATE EXTENSION pgstattuple" in first["plain_unique"].reason
    assert (first["plain_key"].method, first["plain_key"].bloat_ratio) == ("baseline", None)
    before = dict(server.sql("SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index", database))
    server.sql("REINDEX TABLE plain", database)
    after = dict(server.sql("SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index", database))
    truth = 1 - after["plain_unique"] / before["plain_unique"]
    assert first["plain_unique"].bloat_ratio == pytest.approx(truth, abs=0.03)
    for index in measured(server, remembered, database).values():
        remembered.learn(index)
    server.sql("DELETE FROM plain WHERE id % 5 <> 0", database)
    server.sql("VACUUM ANALYZE plain", database)
    second = measured(server, remembered, database)["plain_key"]
    server.sql("REINDEX INDEX plain_key", database)
    size = server.sql("SELECT pg_relation_size('plain_key')", database)[0][0]
    assert second.bloat_ratio == pytest.approx(1 - size / second.size_bytes, abs=0.05)
    assert second.confidence == "low"


def test_functions_that_others_made_under_the_same_names_are_never_called(
    server: PostgresServer, database: str
) -> None:
    server.sql("CREATE EXTENSION pgstattuple; CREATE EXTENSION pageinspect", database)
    body = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called'; END $$"
    for signature in (
        "pgstatindex(oid)",
        "pgstatindex(bigint)",
        "pgstatindex(int)",
        "bt_page_stats(text, int)",
        "bt_page_stats(regclass, bigint)",
        "format(text, text, text)",
    ):
        server.sql(f"CREATE FUNCTION public.{signature} RETURNS text {body}", database)
    fill(server, "theirs", database)
    for settings, method in (({}, "pgstatindex"), ({"sample_above_bytes": 8192}, "sampled")):
        assert measured(server, dbname=database, **settings)["theirs_key"].method == method


# -- one index --


def test_one_index_is_measured_anew_whatever_is_remembered(server: PostgresServer) -> None:
    server.sql("DROP TABLE IF EXISTS one")
    fill(server, "one")
    remembered = Remembered()
    oid = measured(server, remembered)["one_key"].oid
    server.sql("UPDATE pg_class SET reltuples = 1 WHERE relname = 'one_key'")
    with session(server) as connection:
        index = measure_index(connection, oid, BloatSettings(min_size_bytes=1024**3))
        assert (index.name, index.method) == ("one_key", "pgstatindex")
        assert index.bloat_ratio == pytest.approx(2 / 3, abs=0.03)
        with pytest.raises(MaintenanceError, match="measure an index"):
            measure_index(connection, 1, BloatSettings())


def test_indexes_too_small_to_matter_are_listed_but_not_read(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "measure_by", lambda *_any: pytest.fail("it was read"))
    found = measured(server, min_size_bytes=1024**4)
    assert {index.method for index in found.values()} <= {"small", "none"}
    assert "small" in {index.method for index in found.values()}


def test_a_lock_that_is_released_while_it_is_waited_for_leads_to_a_measurement(server: PostgresServer) -> None:
    fill(server, "released")
    size = server.sql("SELECT pg_relation_size('released_key')")[0][0]
    found: dict[str, Any] = {}
    with server.connect() as holder:
        with holder.transaction():
            holder.execute("DELETE FROM released")
            holder.execute("ALTER INDEX released_key RENAME TO renamed_key")  # locks the index
            holder.execute("REINDEX INDEX renamed_key")
            waiter = threading.Thread(
                target=lambda: found.update(measured(server, lock_timeout_ms=60_000, tables=("public.released",))),
                daemon=True,
            )
            waiter.start()
            wait_until(
                lambda: server.sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessShareLock'")[0][0]
            )
        waiter.join(300)
    assert [name for name in found if not name.startswith("pg_toast")] == ["renamed_key"]
    assert found["renamed_key"].method == "pgstatindex"
    assert found["renamed_key"].size_bytes == server.sql("SELECT pg_relation_size('renamed_key')")[0][0] < size
