"""A gate in the function of an index: who builds the index waits there until a test has done what it wants to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg

from .postgresql import PostgresServer

NUMBER = 4711
# In a function in PL/pgSQL; nobody waits while the gate is open.
PASS_THE_GATE = f"PERFORM pg_catalog.pg_advisory_xact_lock_shared({NUMBER});"


class Gate:
    """The gate of one database; open, until it is closed."""

    def __init__(self, server: PostgresServer, dbname: str) -> None:
        self.server = server
        self.dbname = dbname
        self._keeper: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        self._keeper = self.server.connect(self.dbname)
        self._keeper.execute("SET idle_session_timeout = 0")
        self._keeper.execute("SET lock_timeout = 0")
        self._keeper.execute("SELECT pg_advisory_lock(%s)", [NUMBER])

    def open(self) -> None:
        if self._keeper:
            self._keeper.close()  # and the server frees the lock, unless it has died itself
            self._keeper = None

    def waiting(self) -> list[Any]:
        """The rebuild that has come to the closed gate, by when it was begun; empty until one has."""
        return self.server.sql(
            "SELECT query_start FROM pg_stat_activity WHERE wait_event = 'advisory' AND query LIKE 'REINDEX%' "
            f"AND datname = '{self.dbname}'"
        )

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self.open()
