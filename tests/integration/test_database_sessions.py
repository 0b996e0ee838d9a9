"""Sessions, rights, extensions and holders of the horizon on real servers of every version that is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.database import (
    extensions,
    horizon,
    rights,
    scope,
    session,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import query, value
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.postgresql import PostgresServer
from support.waiting import wait_until

DEFAULTS = {"login_host": "", "login_db": "postgres", "login_password": ""}
EVERYTHING: dict[str, Any] = {"databases": ["*"], "exclude_databases": []}


@contextlib.contextmanager
def opened(server: PostgresServer, dbname: str = "postgres", **params: Any) -> Iterator[Any]:
    connection = session.open_session({**DEFAULTS, **server.login(), **params}, dbname, purpose="test")
    try:
        yield connection
    finally:
        connection.close()


@pytest.fixture(scope="module")
def server(each_postgresql: PostgresServer) -> PostgresServer:
    """With a role that may nothing, and databases that cannot all be reached."""
    for statement in (
        "CREATE ROLE carer LOGIN",
        "CREATE ROLE owner LOGIN",
        'CREATE DATABASE "Shop ""2"""',
        "CREATE DATABASE closed ALLOW_CONNECTIONS false",
        "CREATE DATABASE private",
        "REVOKE CONNECT ON DATABASE private FROM PUBLIC",
        "CREATE TABLE theirs AS SELECT 1 AS a",
    ):
        each_postgresql.sql(statement)
    return each_postgresql


def test_a_session_has_known_settings_and_a_name(server: PostgresServer) -> None:
    with opened(server) as connection:
        shown = {
            name: value(connection, f"SHOW {name}")
            for name in ("search_path", "statement_timeout", "lock_timeout", "client_connection_check_interval",
                         "application_name", "idle_in_transaction_session_timeout")
        }  # fmt: skip
    assert shown == {
        "search_path": "pg_catalog, pg_temp",
        "statement_timeout": "0",
        "lock_timeout": "0",
        "client_connection_check_interval": "500ms",
        "application_name": "wellkept test",
        "idle_in_transaction_session_timeout": "1min",
    }


def test_two_of_one_purpose_never_share_a_database_and_the_second_names_the_first(server: PostgresServer) -> None:
    with opened(server) as first, opened(server) as second, opened(server, 'Shop "2"') as elsewhere:
        session.claim(first, "vacuum")
        session.claim(second, "reindex")
        session.claim(elsewhere, "vacuum")
        with pytest.raises(MaintenanceError) as caught:
            session.claim(second, "vacuum")
        assert f"process {first.info.backend_pid}" in caught.value.observed
        assert "wellkept test" in caught.value.observed
        first.close()
        wait_until(lambda: value(second, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 2)
        session.claim(second, "vacuum")


def test_a_primary_is_not_refused(server: PostgresServer) -> None:
    with opened(server) as connection:
        assert session.refuse_standby(connection) == ""


def test_all_databases_are_chosen_but_those_that_cannot_be_reached(server: PostgresServer) -> None:
    with opened(server) as connection:
        found = scope.chosen(connection, {**DEFAULTS, **server.login(), **EVERYTHING})
    assert [database.name for database in found.databases] == ['Shop "2"', "postgres", "private", "template1"]
    assert found.skipped == [("closed", "it allows no connections"), ("template0", "it allows no connections")]
    assert {database.name for database in found.databases if database.is_template} == {"template1"}
    assert all(database.size_bytes > 1_000_000 for database in found.databases)


def test_a_role_without_connect_skips_the_database_and_says_so(server: PostgresServer) -> None:
    with opened(server, login_user="carer") as connection:
        found = scope.chosen(connection, {**DEFAULTS, **server.login(), **EVERYTHING, "databases": ["p*"]})
    assert [database.name for database in found.databases] == ["postgres"]
    assert found.skipped[0][0] == "private"
    assert "GRANT CONNECT" in found.skipped[0][1]


def test_a_pattern_that_matches_no_database_is_an_error(server: PostgresServer) -> None:
    with opened(server) as connection, pytest.raises(MaintenanceError, match="databases"):
        scope.chosen(connection, {**DEFAULTS, **server.login(), "databases": ["shop"], "exclude_databases": []})


@pytest.mark.parametrize(
    ("include", "exclude", "observed"),
    [
        (["closed"], [], "closed: it allows no connections"),
        (["*"], ["*"], "none is chosen"),
        ([], [], "none is chosen"),
    ],
)
def test_options_that_leave_no_database_are_an_error(
    server: PostgresServer, include: list[str], exclude: list[str], observed: str
) -> None:
    params = {**DEFAULTS, **server.login(), "databases": include, "exclude_databases": exclude}
    with opened(server) as connection, pytest.raises(MaintenanceError) as error:
        scope.chosen(connection, params)
    assert error.value.observed == observed


def may(connection: Any, table: str) -> list[bool]:
    version = connection.info.server_version
    words = f"{rights.maintainable_sql(version)} AS vacuum, {rights.reindexable_sql(version)} AS reindex"
    return list(query(connection, f"SELECT {words} FROM pg_class c WHERE c.relname = %s", [table])[0].values())


def test_rights_say_who_may_maintain_what(server: PostgresServer) -> None:
    with opened(server) as connection:
        assert rights.read_rights(connection).maintains_all
        assert may(connection, "theirs") == [True, True]
    with opened(server, login_user="carer") as connection:
        mine = rights.read_rights(connection)
        assert (mine.role, mine.is_superuser, mine.maintains_all, mine.sees_all_sessions) == (
            "carer", False, False, False
        )  # fmt: skip
        assert may(connection, "theirs") == [False, False]
    server.sql('ALTER DATABASE "Shop ""2""" OWNER TO owner')
    server.sql("CREATE TABLE theirs AS SELECT 1 AS a", 'Shop "2"')
    with opened(server, 'Shop "2"', login_user="owner") as connection:
        assert may(connection, "theirs") == [True, False]
        assert may(connection, "pg_database") == [False, False]


def test_the_role_for_maintenance_may_maintain_all(server: PostgresServer) -> None:
    if server.major < 17:
        pytest.skip("pg_maintain came with PostgreSQL 17")
    server.sql("CREATE ROLE keeper LOGIN")
    server.sql("GRANT pg_maintain, pg_read_all_stats TO keeper")
    with opened(server, login_user="keeper") as connection:
        mine = rights.read_rights(connection)
        assert (mine.maintains_all, mine.sees_all_sessions) == (True, True)
        assert may(connection, "theirs") == [True, True]
        assert may(connection, "pg_database") == [True, True]


def test_an_extension_is_provided_once_and_the_change_is_recorded(server: PostgresServer) -> None:
    announced, made, again = Part(), Part(), Part()
    options: dict[str, Any] = {"create": True, "check_mode": False}
    with opened(server, 'Shop "2"') as connection:
        planned = extensions.provide(connection, "pg_visibility", create=True, part=announced, check_mode=True)
        assert (planned, announced.changed) == (None, True)
        assert extensions.schema_of(connection, "pg_visibility") is None
        assert extensions.provide(connection, "pg_visibility", create=False, part=made, check_mode=False) is None
        assert extensions.provide(connection, "pg_visibility", part=made, **options) == "public"
        assert made.changes[0]["name"] == 'pg_visibility in the database Shop "2"'
        assert extensions.provide(connection, "pg_visibility", part=again, **options) == "public"
        assert not again.changed
        assert extensions.provide(connection, "no such extension", part=again, **options) is None
        assert extensions.may_execute(connection, "public", "pg_visibility_map_summary(regclass)")
    with opened(server, 'Shop "2"', login_user="carer") as connection:
        assert not extensions.may_execute(connection, "public", "pg_visibility_map_summary(regclass)")


def test_nothing_is_installed_in_a_template_or_without_the_right_and_nothing_is_written(server: PostgresServer) -> None:
    part = Part()
    with server.connect() as watcher:
        before = watcher.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
        for dbname, user in (("template1", "postgres"), ("postgres", "carer")):
            with opened(server, dbname, login_user=user) as connection:
                options: dict[str, Any] = {"create": True, "part": part, "check_mode": False}
                assert extensions.provide(connection, "pgstattuple", **options) is None
        after = watcher.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
    assert not part.changed
    assert before == after


def test_a_long_transaction_is_found_without_its_query(server: PostgresServer) -> None:
    with server.connect(application_name="report") as reader, opened(server) as connection:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT 'a secret'")
        reader.execute("SELECT count(*) FROM theirs")
        pid = str(reader.info.backend_pid)
        found = {holder.name: holder for holder in horizon.holders(connection)}
        assert found[pid].kind == "session"
        assert found[pid].database == "postgres"
        assert "report" in found[pid].detail
        assert "idle in transaction" in found[pid].detail
        assert "secret" not in horizon.describe(found[pid])
        assert pid in found[pid].advice
        assert found[pid].xmin == int(
            value(connection, "SELECT backend_xmin FROM pg_stat_activity WHERE pid = %s", [pid])
        )
        reader.execute("ROLLBACK")
        assert pid not in {holder.name for holder in horizon.holders(connection)}


def test_a_slot_that_holds_back_no_rows_is_left_out(server: PostgresServer) -> None:
    server.sql("SELECT pg_create_physical_replication_slot('idle', true)")
    try:
        with opened(server) as connection:
            assert "idle" not in {holder.name for holder in horizon.holders(connection)}
    finally:
        server.sql("SELECT pg_drop_replication_slot('idle')")


def test_holders_are_sorted_by_age(server: PostgresServer) -> None:
    with server.connect() as older, server.connect() as newer, opened(server) as connection:
        for reader in (older, newer):
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM theirs")
            server.sql("SELECT txid_current()")
        pids = {str(older.info.backend_pid), str(newer.info.backend_pid)}
        mine = [holder for holder in horizon.holders(connection) if holder.name in pids]
        assert [holder.name for holder in mine] == [str(older.info.backend_pid), str(newer.info.backend_pid)]
        assert mine[0].xmin_age > mine[1].xmin_age
