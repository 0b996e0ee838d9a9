"""The server's socket on another host, reached through SSH: as it was there, and gone with whoever needed it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils import postgresql
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import database_host
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from support.modules import COLLECTIONS
from support.postgresql import PostgresServer, postgres_server
from support.ssh import SshServer, ssh_server
from support.waiting import wait_until


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        running.directory.chmod(0o755)  # the account is another one
        yield running


@pytest.fixture
def server() -> Iterator[SshServer]:
    with ssh_server() as running:
        yield running


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where tunnels of this test alone are made; the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="wk-", dir="/tmp") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield Path(directory)


def options(server: SshServer, postgres: PostgresServer, **others: Any) -> dict[str, Any]:
    return {
        **postgres.login(),
        "login_db": "postgres",
        "login_host": "",
        "database_host": "db1",
        "ssh": {
            "host": server.host,
            "port": server.port,
            "user": server.user,
            "key_file": str(server.key_file),
            "known_hosts": str(server.known_hosts),
        },
        **others,
    }


def tunnels() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("wellkept-tunnel-*"))


def test_the_socket_there_is_reached_from_here_and_nothing_is_left(server: SshServer, postgres: PostgresServer) -> None:
    before = tunnels()
    with database_host.reached(options(server, postgres)) as login:
        assert login["login_unix_socket"] != str(postgres.socket_dir)
        assert Path(login["login_unix_socket"]).stat().st_mode & 0o077 == 0
        assert postgresql.server_name(login).startswith("db1") or server.host in postgresql.server_name(login)
        with contextlib.closing(postgresql.connect(login)) as connection:
            assert postgresql.value(connection, "SELECT inet_client_addr() IS NULL")
        assert server.sessions()
    assert tunnels() == before
    wait_until(lambda: not server.sessions(), "the session has ended")


def test_the_loopback_address_there_is_reached_with_its_password(server: SshServer, postgres: PostgresServer) -> None:
    given = options(server, postgres, login_host="127.0.0.1", login_unix_socket="", login_password=postgres.password)
    with database_host.reached(given) as login, contextlib.closing(postgresql.connect(login)) as connection:
        assert str(postgresql.value(connection, "SELECT host(inet_client_addr())")) == "127.0.0.1"


def test_an_address_that_is_reached_from_here_needs_no_tunnel(server: SshServer, postgres: PostgresServer) -> None:
    given = options(server, postgres, login_host="db1.example.org")
    given["login_unix_socket"] = ""
    with database_host.reached(given) as login:
        assert login == given
    with database_host.reached({**options(server, postgres), "database_host": ""}) as login:
        assert login["login_unix_socket"] == str(postgres.socket_dir)
    assert server.sessions() == []


@pytest.mark.parametrize(
    "others",
    [
        {"engine": "pgbackrest"},
        {"redis": [{"name": "cache", "host": "127.0.0.1"}]},
        {"redis": [{"unix_socket": "/run/r"}]},
    ],
)
def test_what_would_be_sought_on_the_wrong_host_is_refused(
    server: SshServer, postgres: PostgresServer, others: dict[str, Any]
) -> None:
    with (
        pytest.raises(MaintenanceError, match="another host from this one"),
        database_host.reached(options(server, postgres, **others)),
    ):
        raise AssertionError("it was let through")
    there = {"engine": "core", "redis": [{"name": "cache", "host": "app1", "unix_socket": ""}]}
    with database_host.reached(options(server, postgres, **there)):
        pass


def test_a_changed_host_key_is_refused_and_what_to_do_is_said(server: SshServer, postgres: PostgresServer) -> None:
    server.new_host_key()
    server.restart()
    with pytest.raises(MaintenanceError) as caught, database_host.reached(options(server, postgres)):
        raise AssertionError("it was let through")
    assert "Host key verification failed" in caught.value.observed
    assert "find out who answers in its place" in caught.value.advice
    assert tunnels() == []


def test_each_thing_in_the_way_has_its_own_advice(server: SshServer, postgres: PostgresServer, tmp_path: Path) -> None:
    def advice(**others: Any) -> str:
        given = options(server, postgres)
        given["ssh"].update(others)
        with pytest.raises(MaintenanceError) as caught, database_host.reached(given):
            raise AssertionError("it was let through")
        return f"{caught.value.observed} {caught.value.advice}"

    other_key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other_key], check=True)
    assert "authorized_keys" in advice(key_file=str(other_key))
    assert "Start" in advice(port=1)
    elsewhere = options(server, postgres, login_unix_socket="/nowhere")
    with pytest.raises(MaintenanceError) as caught, database_host.reached(elsewhere) as login:
        postgresql.connect(login)
    assert "open failed" in caught.value.observed
    assert "/nowhere" in caught.value.advice


def test_a_tunnel_that_is_cut_is_named_as_the_cause(server: SshServer, postgres: PostgresServer) -> None:
    expected = pytest.raises(MaintenanceError, match="keep the SSH tunnel")
    with expected as caught, database_host.reached(options(server, postgres)) as login:
        connection = postgresql.connect(login)
        assert postgresql.value(connection, "SELECT 1") == 1
        server.cut()
        wait_until(lambda: not server.sessions(), "the session has ended")
        postgresql.query(connection, "SELECT 2")
    assert "nothing was kept" in caught.value.advice
    assert tunnels() == []


HOLDER = """
import json, sys, time
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import database_host
with database_host.reached(json.load(sys.stdin)) as login:
    print(login["login_unix_socket"], flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_module_leaves_no_tunnel(server: SshServer, postgres: PostgresServer, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
    )
    assert process.stdin and process.stdout
    json.dump(options(server, postgres), process.stdin)
    process.stdin.close()
    place = Path(process.stdout.readline().strip())
    with psycopg.connect(host=str(place), port=postgres.port, user="postgres") as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    process.send_signal(number)
    process.wait(timeout=60)
    wait_until(lambda: not server.sessions(), "ssh has ended with its module, and so sshd's session")
    # The next one removes what lay there, once nobody can have just begun to use it.
    old = time.time() - 3600
    os.utime(place, (old, old))
    with database_host.reached(options(server, postgres)):
        assert not place.exists()
