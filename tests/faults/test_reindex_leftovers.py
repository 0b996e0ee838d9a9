"""What interrupted rebuilds left is removed whatever it is called, and nothing that somebody made is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.clients import old_snapshot
from support.database import (
    LONG,
    LONG_LETTERS,
    Content,
    assert_nothing_left_behind,
    assert_same,
    bloat,
    content,
    create_database,
    definitions,
    reindex_options,
)
from support.modules import checks_by_name, run_module
from support.postgresql import PostgresServer, available_majors, bin_dir_of, postgres_server, server_id
from support.waiting import wait_until

DATABASE = "campus"
# Those whose indexes cannot be rebuilt by the server while others use them.
EXCLUSION = '"Kurs Plan"."Teil""nehmer; --_int8range_excl"'


@pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with postgres_server({"autovacuum": "off"}, bin_dir_of(request.param)) as running:
        create_database(running, DATABASE)
        yield running


@pytest.fixture
def before(server: PostgresServer) -> Content:
    bloat(server, DATABASE)
    return content(server, DATABASE)


@pytest.fixture
def options(server: PostgresServer, tmp_path: Path) -> dict[str, Any]:
    return reindex_options(server, tmp_path / "state", DATABASE)


def rebuildable(found: Content) -> list[str]:
    """The indexes of tables and TOAST tables that the server can rebuild while others use them."""
    no_storage = {row[13] for row in found.indexes.values() if row[13]}
    return [
        name
        for name, row in found.indexes.items()
        if name != EXCLUSION and name.removeprefix("public.") not in no_storage
    ]


def interrupt(server: PostgresServer, statement: str, dbname: str = DATABASE) -> None:
    """Begin *statement*, and cancel it when it waits for others."""
    with server.connect(dbname) as connection:
        pid = connection.info.backend_pid
        errors: list[psycopg.Error] = []

        def work() -> None:
            try:
                connection.execute(statement)  # type: ignore[call-overload]
            except psycopg.Error as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        waits = f"SELECT phase FROM pg_stat_progress_create_index WHERE pid = {pid} AND phase LIKE 'waiting%'"
        locked = f"SELECT 1 FROM pg_locks WHERE pid = {pid} AND NOT granted"
        wait_until(lambda: server.sql(waits) and server.sql(locked))
        connection.cancel()
        thread.join(300)
        assert errors, f"{statement} was not interrupted"


def leftovers(server: PostgresServer) -> list[str]:
    invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid ORDER BY 1"
    return [name for (name,) in server.sql(invalid, DATABASE)]


def test_indexes_of_every_kind_are_rebuilt_and_keep_all_that_they_are(
    server: PostgresServer, before: Content, options: dict[str, Any]
) -> None:
    shown = run_module("postgresql_reindex", options)
    assert not shown["failed"], shown["msg"]
    assert shown["metrics"]["rebuilt_indexes"]["value"] >= 12, shown["changes"]
    names = " ".join(change["name"] for change in shown["changes"])
    for part in (LONG, LONG_LETTERS, "pg_toast_", "pages_page", "visit_2026_1_pkey", '"Kurs ""und"" Teilnehmer.x"'):
        assert part in names
    assert_same(before, content(server, DATABASE))
    assert_nothing_left_behind(server, options["state_dir"])
    again = run_module("postgresql_reindex", options)
    assert (again["failed"], again["changed"], again["metrics"]["rebuilt_indexes"]["value"]) == (False, False, 0)


@pytest.mark.parametrize("suffix", ["ccnew", "ccold"])
def test_real_leftovers_of_every_index_are_dropped_and_nothing_else(
    server: PostgresServer, before: Content, options: dict[str, Any], suffix: str
) -> None:
    """Each rebuild is interrupted twice, so that names are cut short and counted: ``_ccnew``, ``_ccnew1``."""
    names = rebuildable(before)
    for name in names:
        for _time in range(2):
            statement = f"REINDEX INDEX CONCURRENTLY {name}"
            if suffix == "ccnew":
                with old_snapshot(server, DATABASE):
                    interrupt(server, statement)
            else:
                with server.connect(DATABASE) as reader:
                    reader.execute("BEGIN")
                    table = before_table(server, name)
                    if table.startswith("pg_toast."):  # LOCK TABLE takes no TOAST tables
                        reader.execute(f"SELECT count(*) FROM {table}")  # type: ignore[call-overload]
                    else:
                        reader.execute(f"SELECT FROM {table} LIMIT 0")  # type: ignore[call-overload]
                    interrupt(server, statement)
    made = leftovers(server)
    assert len(made) == 2 * len(names), made
    assert sum(f"_{suffix}" in name for name in made) == len(made), made
    shown = run_module("postgresql_reindex", options)
    assert not shown["failed"], shown["msg"]
    assert leftovers(server) == []
    assert sum(change["kind"] == "leftover index" for change in shown["changes"]) == len(made)
    assert_same(before, content(server, DATABASE))
    assert_nothing_left_behind(server, options["state_dir"])


def before_table(server: PostgresServer, index: str) -> str:
    quoted = index.replace("'", "''")
    row = server.sql(f"SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = '{quoted}'::regclass", DATABASE)
    return str(row[0][0])


def test_check_mode_names_leftovers_and_drops_none(
    server: PostgresServer, before: Content, options: dict[str, Any]
) -> None:
    with old_snapshot(server, DATABASE):
        interrupt(server, "REINDEX INDEX CONCURRENTLY student_pkey")
    shown = run_module("postgresql_reindex", options, check=True)
    assert [change["name"] for change in shown["changes"] if change["kind"] == "leftover index"] == [
        f"{DATABASE}.public.student_pkey_ccnew"
    ]
    assert leftovers(server) == ["student_pkey_ccnew"]
    assert not run_module("postgresql_reindex", options)["failed"]
    assert_same(before, content(server, DATABASE))


DECOYS = {
    "a valid index of the same definition": 'CREATE INDEX "student_young_ccnew" ON student (born DESC NULLS LAST) '
    "WHERE born > '1990-06-01'",
    "a valid index with a name of 63 bytes": f'CREATE INDEX "{"d" * 57}_ccnew" ON student (name)',
    "a valid unique index": 'CREATE UNIQUE INDEX "student_pkey_ccold" ON student (id)',
    "an index of another table": 'CREATE INDEX "student_email_key_ccnew1" ON visit_2026_1 (page)',
}


def test_indexes_that_only_look_like_leftovers_stay(
    server: PostgresServer, before: Content, options: dict[str, Any]
) -> None:
    for statement in DECOYS.values():
        server.sql(statement, DATABASE)
    # Invalid ones that somebody began to build; the first has the columns of another index than its name says, the
    # second is unique where the index that it seems to belong to is not.
    with old_snapshot(server, DATABASE):
        interrupt(server, "CREATE INDEX CONCURRENTLY student_email_key_ccnew ON student (name, id)")
        interrupt(server, "CREATE UNIQUE INDEX CONCURRENTLY student_lower_name_ccnew ON student (lower(name), id)")
        interrupt(server, "CREATE INDEX CONCURRENTLY student_of_somebody ON student (id, name)")
    made = leftovers(server)
    with server.connect(DATABASE) as connection:
        expected = definitions(connection)
    shown = run_module("postgresql_reindex", options)
    assert not shown["failed"], shown["msg"]
    assert leftovers(server) == made
    with server.connect(DATABASE) as connection:
        assert definitions(connection) == expected
    assert not [change for change in shown["changes"] if change["kind"] == "leftover index"]
    for name in made:
        assert checks_by_name(shown)[f"invalid index {DATABASE}.public.{name}"]["status"] == "warned"
    decoys = ["student_young_ccnew", "d" * 57 + "_ccnew", "student_pkey_ccold", "student_email_key_ccnew1", *made]
    server.sql("DROP INDEX " + ", ".join(f'"{name}"' for name in decoys), DATABASE)
    assert_same(before, content(server, DATABASE))


def test_a_leftover_that_somebody_rebuilds_at_this_moment_is_left_to_them(
    server: PostgresServer, before: Content, options: dict[str, Any]
) -> None:
    """What looks like a leftover is a rebuild by hand that goes on."""
    with server.connect(DATABASE) as reader, server.connect(DATABASE) as connection:
        reader.execute("BEGIN; LOCK TABLE student IN ACCESS SHARE MODE")
        by_hand = threading.Thread(
            target=lambda: connection.execute("REINDEX INDEX CONCURRENTLY student_email_key"), daemon=True
        )
        by_hand.start()
        wait_until(lambda: leftovers(server) == ["student_email_key_ccold"])
        shown = run_module("postgresql_reindex", options)
        assert leftovers(server) == ["student_email_key_ccold"]
        assert not [change for change in shown["changes"] if change["kind"] == "leftover index"]
        reader.execute("ROLLBACK")
        by_hand.join(300)
        assert not by_hand.is_alive()
    assert leftovers(server) == []
    assert_same(before, content(server, DATABASE))
