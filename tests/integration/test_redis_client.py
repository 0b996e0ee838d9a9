"""Our own client of Redis with real servers: what it says when something is in the way, and that it keeps secrets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.redis.client import Redis, RedisError
from support.ports import free_port
from support.redis import RedisServer, redis_server


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def test_every_kind_of_answer_is_read(server: RedisServer) -> None:
    with server.connect() as connection:
        assert connection.command("SET", "name", b"\x00\r\n\xff") == "OK"
        assert connection.command("GET", "name") == b"\x00\r\n\xff"
        assert connection.command("GET", "no such key") is None
        assert connection.command("APPEND", "empty", "") == 0
        assert connection.command("GET", "empty") == b""
        assert connection.command("RPUSH", "list", "a", 2) == 2
        assert connection.command("LRANGE", "list", 0, -1) == [b"a", b"2"]
        assert connection.command("LRANGE", "none", 0, -1) == []
        assert connection.command("EVAL", "return {1, {redis.error_reply('X y')}, false}", 0)[2] is None  # type: ignore[index]


def test_an_error_is_told_and_the_connection_goes_on(server: RedisServer) -> None:
    with server.connect() as connection:
        connection.command("SET", "text", "x")
        with pytest.raises(RedisError) as caught:
            connection.command("LPUSH", "text", "secret value")
        assert caught.value.code == "WRONGTYPE"
        assert "secret value" not in str(caught.value)
        assert connection.command("GET", "text") == b"x"


def test_a_large_value_comes_whole(server: RedisServer) -> None:
    value = bytes(range(256)) * 40_000
    with server.connect() as connection:
        connection.command("SET", "large", value)
        assert connection.command("GET", "large") == value


def test_tcp_and_unix_socket_lead_to_the_same_server(server: RedisServer) -> None:
    server.do("SET", "here", "yes")
    with Redis({"host": "127.0.0.1", "port": server.port}) as connection:
        assert connection.command("GET", "here") == b"yes"


def test_info_is_read(server: RedisServer) -> None:
    with server.connect() as connection:
        info = connection.info()
    assert info["role"] == "master"
    assert info["tcp_port"] == str(server.port)


@pytest.mark.parametrize(
    ("login", "code", "advice"),
    [
        ({}, "NOAUTH", "Set the password"),
        ({"password": "chalk"}, "WRONGPASS", "Correct the username and the password"),
        ({"password": "pencil", "username": "nobody"}, "WRONGPASS", "Correct the username"),
    ],
)
def test_a_login_that_is_refused_says_why(login: dict[str, str], code: str, advice: str) -> None:
    with (
        redis_server("requirepass pencil") as server,
        pytest.raises(RedisError) as caught,
        Redis({"unix_socket": str(server.socket), **login}) as connection,
    ):
        connection.command("PING")
    assert caught.value.code == code
    assert advice in str(caught.value)
    assert "chalk" not in str(caught.value)
    assert "pencil" not in str(caught.value)


def test_what_a_user_may_not_do_is_told() -> None:
    with redis_server("requirepass pencil") as server:
        server.do("ACL", "SETUSER", "keeper", "on", ">chalk", "~wellkept:*", "+set", "+info")
        login = {"unix_socket": str(server.socket), "username": "keeper", "password": "chalk"}
        with Redis(login) as connection:
            assert connection.command("SET", "wellkept:x", 1) == "OK"
            with pytest.raises(RedisError) as caught:
                connection.command("PSYNC", "?", "-1")
            assert caught.value.code == "NOPERM"
            assert "ACL SETUSER" in caught.value.advice
            with pytest.raises(RedisError) as caught:
                connection.command("SET", "other", 1)
            assert caught.value.code == "NOPERM"


def test_a_server_that_repeats_what_it_was_sent_betrays_no_password() -> None:
    """With AUTH renamed, the server answers with the words that it did not understand."""
    with redis_server("rename-command AUTH HELLO_AUTH") as server, pytest.raises(RedisError) as caught:
        Redis({"unix_socket": str(server.socket), "password": "pencil"})
    assert "unknown command" in str(caught.value)
    assert "pencil" not in str(caught.value)


def test_no_server_at_all_is_told() -> None:
    with pytest.raises(MaintenanceError, match=r"Connection refused.*Start the server"):
        Redis({"host": "127.0.0.1", "port": free_port()})
    with pytest.raises(MaintenanceError, match="No such file"):
        Redis({"unix_socket": "/nowhere/redis.sock"})
    with pytest.raises(MaintenanceError, match="connect to Redis"):
        Redis({"unix_socket": "/" + "x" * 200})
    with pytest.raises(MaintenanceError, match="connect to Redis"):
        Redis({"host": "127.0.0.1", "port": 70000})


@contextmanager
def answering(answer: Callable[[socket.socket], Any]) -> Iterator[int]:
    """A port at which *answer* deals with the one connection that comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _address = listener.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)


@pytest.mark.parametrize(
    ("said", "observed"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1"),
        (b"", "closed the connection"),
        (b"$100\r\nonly this", "closed the connection"),
        (b"+no end", "closed the connection"),
    ],
)
def test_what_is_no_redis_server_is_told(said: bytes, observed: str) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(said)

    with answering(answer) as port, pytest.raises(MaintenanceError) as caught:
        Redis({"host": "127.0.0.1", "port": port}).command("PING")
    assert observed in caught.value.observed


def test_a_server_that_says_nothing_is_not_waited_for_forever() -> None:
    released = threading.Event()
    with answering(lambda _connection: released.wait(60)) as port:
        with pytest.raises(MaintenanceError, match="no answer in time"):
            Redis({"host": "127.0.0.1", "port": port}, timeout=0.2)
        released.set()
