"""Indexes whose bloat is known, because they are rebuilt afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.measure import (
    BloatSettings,
    IndexBloat,
    measure_indexes,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.session import open_session

from support.postgresql import PostgresServer, embedded_bin_dir, postgres_server

OLDER = [Path(f"/usr/lib/postgresql/{major}/bin") for major in (15, 16, 17)]
PROGRAMS = [embedded_bin_dir(), *(path for path in OLDER if (path / "initdb").exists())]
SETTINGS = {"autovacuum": "off", "shared_buffers": "64MB"}


def release(bin_dir: Path) -> str:
    """What a test that runs with the server in *bin_dir* is called: ``embedded``, ``15``."""
    return bin_dir.parent.name if bin_dir in OLDER else "embedded"


@contextlib.contextmanager
def quiet_server(bin_dir: Path, settings: dict[str, str] | None = None) -> Iterator[PostgresServer]:
    """A server that vacuums nothing by itself, with the extensions for measuring."""
    with postgres_server({**SETTINGS, **(settings or {})}, bin_dir) as server:
        server.sql("CREATE EXTENSION pgstattuple; CREATE EXTENSION pageinspect")
        yield server


@contextlib.contextmanager
def session(server: PostgresServer, dbname: str = "postgres", user: str = "postgres") -> Iterator[Any]:
    """A session as the modules open it."""
    login = {"login_host": "", "login_db": "postgres", "login_password": "", **server.login(), "login_user": user}
    connection = open_session(login, dbname, purpose="test")
    try:
        yield connection
    finally:
        connection.close()


def measured(
    server: PostgresServer,
    remembered: Remembered | None = None,
    dbname: str = "postgres",
    user: str = "postgres",
    **settings: Any,
) -> dict[str, IndexBloat]:
    """The indexes of *dbname* by name, measured now or remembered."""
    wanted = BloatSettings(**{"catalogs": False, **settings})
    with session(server, dbname, user) as connection:
        found = measure_indexes(connection, wanted, remembered or Remembered())
    return {index.name: index for index in found}


def carry_out(server: PostgresServer, statement: str) -> None:
    """Run *statement*, and return when the server has counted what it did, which it else does later."""
    with server.connect() as connection:
        connection.execute(statement)  # type: ignore[call-overload]
        connection.execute("SELECT pg_stat_force_next_flush()")
