"""Connections, queries and programs against a real server."""

from __future__ import annotations

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError, MissingToolError
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import (
    QueryError,
    connect,
    databases,
    find_bin_dir,
    program_version,
    query,
    server_facts,
    value,
)
from support.ports import free_port
from support.postgresql import PostgresServer

DEFAULTS = {"login_host": "", "login_db": "postgres", "login_password": ""}


def test_queries_answer_rows_by_name_and_a_percent_sign_needs_no_care(postgresql: PostgresServer) -> None:
    with connect({**DEFAULTS, **postgresql.login()}) as connection:
        assert query(connection, "SELECT 1 AS one, 'a' || '%' AS two") == [{"one": 1, "two": "a%"}]
        assert query(connection, "SELECT %s::int + 1 AS n", [2]) == [{"n": 3}]
        assert query(connection, "SET lock_timeout = 5") == []
        assert value(connection, "SELECT 1 WHERE false") is None
        assert "postgres" in databases(connection)
        assert "template0" not in databases(connection)


def test_facts_tell_who_the_server_is(postgresql: PostgresServer) -> None:
    with connect({**DEFAULTS, **postgresql.login()}) as connection:
        facts = server_facts(connection)
    assert facts["version"] >= 140000
    assert facts["system_identifier"].isdigit()
    assert facts["in_recovery"] is False
    assert facts["summarize_wal"] is True


def test_a_refused_statement_keeps_its_code_and_the_servers_words(postgresql: PostgresServer) -> None:
    with connect({**DEFAULTS, **postgresql.login()}) as connection, pytest.raises(QueryError) as caught:
        query(connection, "SELECT * FROM nowhere")
    assert caught.value.sqlstate == "42P01"
    assert 'relation "nowhere" does not exist' in caught.value.observed


def test_a_wrong_password_is_told_with_what_to_correct_and_without_the_password(postgresql: PostgresServer) -> None:
    login = {**DEFAULTS, "login_host": "127.0.0.1", "login_port": postgresql.port, "login_user": "postgres"}
    with pytest.raises(MaintenanceError) as caught:
        connect({**login, "login_password": "wrong-one"})
    assert "login_password" in caught.value.advice
    assert "wrong-one" not in str(caught.value)


def test_a_server_that_is_down_is_told_with_its_place() -> None:
    port = free_port()
    with pytest.raises(MaintenanceError) as caught:
        connect({**DEFAULTS, "login_host": "127.0.0.1", "login_port": port, "login_user": "postgres"})
    assert caught.value.where == f"127.0.0.1:{port}"
    assert "Start the server" in caught.value.advice


def test_programs_are_found_and_those_of_another_version_refused(postgresql: PostgresServer) -> None:
    bin_dir = str(postgresql.bin_dir)
    assert find_bin_dir(bin_dir, 180006, ["pg_basebackup", "pg_verifybackup"]) == bin_dir
    assert program_version(bin_dir, "pg_basebackup").startswith("18.")
    with pytest.raises(MissingToolError, match="version 16"):
        find_bin_dir(bin_dir, 160004)
