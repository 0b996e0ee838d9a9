"""Where a server is, and how the password reaches its programs."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils import postgresql
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MissingToolError
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import (
    find_bin_dir,
    server_host,
    tool_environment,
)

LOGIN = {"login_host": "", "login_port": 5432, "login_unix_socket": "", "login_user": "postgres", "login_db": "x"}


@pytest.mark.parametrize(
    ("host", "socket", "expected"),
    [
        ("", "", ""),
        ("", "/run/pg", "/run/pg"),
        ("localhost", "/run/pg", "/run/pg"),
        ("db1", "/run/pg", "db1"),
        ("db1", "", "db1"),
    ],
)
def test_socket_wins_over_localhost_and_no_other_host(host: str, socket: str, expected: str) -> None:
    assert server_host({"login_host": host, "login_unix_socket": socket}) == expected


def test_password_is_in_a_private_file_and_in_no_variable(tmp_path: Path) -> None:
    environment = tool_environment({**LOGIN, "login_password": "a:b\\c"}, str(tmp_path))
    path = Path(environment["PGPASSFILE"])
    assert path.read_text() == "*:*:*:*:a\\:b\\\\c\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not any("a:b" in value for value in environment.values())


def test_without_a_password_the_password_file_of_the_user_is_left_to_libpq(tmp_path: Path) -> None:
    assert "PGPASSFILE" not in tool_environment({**LOGIN, "login_password": ""}, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_missing_programs_are_named_with_the_command_that_installs_them(tmp_path: Path) -> None:
    with pytest.raises(MissingToolError) as caught:
        find_bin_dir(str(tmp_path), 170002, ["pg_basebackup", "pg_verifybackup"])
    assert "pg_verifybackup" in str(caught.value)
    assert "apt-get install postgresql-client-17" in caught.value.advice


def test_a_missing_driver_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "driver", lambda: None)
    with pytest.raises(MissingToolError) as caught:
        postgresql.connect(LOGIN)
    assert caught.value.advice == "apt-get install python3-psycopg2"
