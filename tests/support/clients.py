"""Clients of a database while it is maintained: what they had to wait for, and transactions that are in the way."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from .postgresql import PostgresServer


class Client(threading.Thread):
    """Carries out one statement again and again, and remembers how long the longest took.

    With *lasting* it connects anew when its session is lost; otherwise the error is kept, and it ends.
    """

    def __init__(
        self,
        server: PostgresServer,
        statement: str,
        dbname: str = "postgres",
        *,
        pause: float = 0,
        lasting: bool = False,
    ) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.statement = statement
        self.dbname = dbname
        self.pause = pause
        self.lasting = lasting
        self.longest = 0.0
        self.count = 0
        self.errors: list[Exception] = []
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            try:
                with self.server.connect(self.dbname, application_name="a client") as connection:
                    self._work(connection)
            except psycopg.OperationalError as error:
                if not self.lasting:
                    self.errors.append(error)
                    return
                self.done.wait(0.02)
            except psycopg.Error as error:
                self.errors.append(error)
                return

    def _work(self, connection: psycopg.Connection[Any]) -> None:
        while not self.done.is_set():
            began = time.monotonic()
            connection.execute(self.statement)  # type: ignore[call-overload]
            self.longest = max(self.longest, time.monotonic() - began)
            self.count += 1
            if self.pause:
                self.done.wait(self.pause)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[Client]:
        self.start()
        try:
            yield self
        finally:
            self.done.set()
            self.join()


class Bystander(Client):
    """A client whom no lock concerns: what it had to wait for was the machine, in its pauses, too."""

    def _work(self, connection: psycopg.Connection[Any]) -> None:
        ended = time.monotonic()
        while not self.done.wait(self.pause):
            connection.execute(self.statement)  # type: ignore[call-overload]
            before, ended = ended, time.monotonic()
            self.longest = max(self.longest, ended - before)
            self.count += 1


def bystander(server: PostgresServer) -> Client:
    """Who waits for what another process does waits several times as long, at worst: each has to get its turn."""
    return Bystander(server, "SELECT 1", pause=0.001)


@contextlib.contextmanager
def traffic(server: PostgresServer, dbname: str, table: str, hold: float = 0.15, clients: int = 2) -> Iterator[None]:
    """Short transactions with a snapshot and a writer's lock on *table*: whatever waits for writers, readers or old
    snapshots waits for about *hold* seconds, and nobody waits for it."""
    statement = (
        f"BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE {table} IN ROW EXCLUSIVE MODE; "
        f"SELECT pg_sleep({hold}); COMMIT"
    )
    with contextlib.ExitStack() as stack:
        for _number in range(clients):
            stack.enter_context(Client(server, statement, dbname, lasting=True).at_work())
        yield


@contextlib.contextmanager
def old_snapshot(server: PostgresServer, dbname: str = "postgres") -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has seen the database and stays open; it holds no lock on any table."""
    with server.connect(dbname, application_name="the old snapshot") as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        try:
            yield connection
        finally:
            with contextlib.suppress(psycopg.Error):
                connection.execute("ROLLBACK")
