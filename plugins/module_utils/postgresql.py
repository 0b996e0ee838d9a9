# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reach a PostgreSQL server: login options, connections with psycopg 3 or 2, queries, and its client programs."""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import typing as t

from .errors import MaintenanceError, MissingToolError
from .processes import find_program, run


@functools.lru_cache(maxsize=None)
def driver() -> t.Any:
    """psycopg 3, else psycopg2, with its ``sql``; None when neither is installed. Loaded only when it is needed."""
    for name in ("psycopg", "psycopg2"):
        try:
            importlib.import_module(f"{name}.sql")
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


LOGIN_OPTIONS: dict[str, dict[str, t.Any]] = {
    "login_host": {"type": "str", "default": ""},
    "login_port": {"type": "int", "default": 5432},
    "login_unix_socket": {"type": "str", "default": ""},
    "login_user": {"type": "str", "default": "postgres"},
    "login_password": {"type": "str", "default": "", "no_log": True},
    "login_db": {"type": "str", "default": "postgres"},
}

CONNECT_TIMEOUT = 10

# What the server (or libpq) says, and what an operator should do about it.
_ADVICE = (
    (r"password authentication failed|no password supplied", "Correct login_user and login_password."),
    (r"no pg_hba\.conf entry|Peer authentication failed", "Allow this user and address in pg_hba.conf of the server."),
    (r"too many clients|remaining connection slots", "Find out what holds the connections, or raise max_connections."),
    (r"starting up|shutting down|in recovery mode", "Wait until the server has started, then run this again."),
    (r"Connection refused|No such file or directory|timeout", "Start the server, or correct login_host, login_port "
     "and login_unix_socket."),
    (r'database ".*" does not exist', "Correct login_db."),
    (r'role ".*" does not exist', "Correct login_user."),
)  # fmt: skip


class QueryError(MaintenanceError):
    """A statement that the server refused; ``sqlstate`` is its code (``55P03``: a lock was not to be had in time)."""

    def __init__(self, statement: str, error: Exception, where: str) -> None:
        said = getattr(getattr(error, "diag", None), "message_primary", None) or str(error).strip() or repr(error)
        super().__init__(
            f"run {' '.join(statement.split())[:80]!r}",
            where=where,
            expected="the server to carry it out",
            observed=said,
            advice="The server's own message says what it lacked.",
        )
        self.sqlstate: str = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or ""


def connect(
    params: t.Mapping[str, t.Any],
    dbname: str | None = None,
    *,
    autocommit: bool = True,
    application_name: str = "wellkept",
) -> t.Any:
    """A connection by the login options in *params* to *dbname* (else ``login_db``).

    Raises MaintenanceError that says where it tried and what to do, MissingToolError when no driver is installed.
    """
    if driver() is None:
        raise MissingToolError(
            "connect to PostgreSQL",
            expected="the Python library psycopg (3) or psycopg2",
            observed=f"{sys.executable} has neither psycopg nor psycopg2",
            advice="apt-get install python3-psycopg2",
        )
    database = dbname or params["login_db"]
    options: dict[str, t.Any] = {
        "host": server_host(params),
        "port": params["login_port"],
        "user": params["login_user"],
        "dbname": database,
        "password": params.get("login_password") or None,
        "application_name": application_name,
        "connect_timeout": CONNECT_TIMEOUT,
        # In a database of the encoding SQL_ASCII, names would else be bytes, or refused when they are not ASCII.
        "client_encoding": "UTF8",
    }
    try:
        connection = driver().connect(**{name: value for name, value in options.items() if value not in (None, "")})
    except driver().OperationalError as error:
        raise _not_connected(params, database, str(error).strip()) from None
    connection.autocommit = autocommit
    return connection


def server_host(params: t.Mapping[str, t.Any]) -> str:
    """The directory of the socket, the host name, or "" for libpq's own default; a socket wins over localhost."""
    if params.get("login_unix_socket") and params.get("login_host") in (None, "", "localhost"):
        return str(params["login_unix_socket"])
    return str(params.get("login_host") or "")


def server_name(params: t.Mapping[str, t.Any]) -> str:
    """The server as an operator would write it: ``/run/postgresql:5432`` or ``db1:5432``."""
    if params.get("login_shown"):
        return str(params["login_shown"])
    return f"{server_host(params) or 'local socket'}:{params['login_port']}"


def _not_connected(params: t.Mapping[str, t.Any], database: str, said: str) -> MaintenanceError:
    advice = next((words for pattern, words in _ADVICE if re.search(pattern, said)), "See the server's log.")
    return MaintenanceError(
        "connect to PostgreSQL",
        where=server_name(params),
        expected=f"a connection as {params['login_user']} to the database {database}",
        observed=" ".join(said.split()),
        advice=advice,
    )


def query(connection: t.Any, statement: t.Any, parameters: t.Sequence[t.Any] = ()) -> list[dict[str, t.Any]]:
    """Run one *statement* (text, or composed by ``driver().sql``) and return its rows by column name, if it has any.

    ``%s`` in *statement* stand for *parameters*; without parameters a ``%`` is only a ``%``. Raises QueryError.
    """
    try:
        cursor = connection.cursor()
        try:
            cursor.execute(statement, tuple(parameters) or None)
            if cursor.description is None:
                return []
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]  # noqa: B905 (Python 3.9 has no strict)
        finally:
            cursor.close()
    except driver().Error as error:
        words = statement if isinstance(statement, str) else "a composed statement"
        raise QueryError(words, error, _place(connection)) from None


def value(connection: t.Any, statement: t.Any, parameters: t.Sequence[t.Any] = ()) -> t.Any:
    """The first column of the first row of *statement*, or None when there is no row."""
    rows = query(connection, statement, parameters)
    return next(iter(rows[0].values())) if rows else None


def identifier(*names: str) -> t.Any:
    """``identifier("public", "student")`` → the quoted name, to be put into a composed statement."""
    return driver().sql.Identifier(*names)


def server_version(connection: t.Any) -> int:
    """The server's version as a number: 180006 for 18.6."""
    return int(value(connection, "SHOW server_version_num"))


def server_facts(connection: t.Any) -> dict[str, t.Any]:
    """Version, identity and role of the server: ``{version, system_identifier, in_recovery, timeline, …}``."""
    facts: dict[str, t.Any] = query(
        connection,
        "SELECT current_setting('server_version_num')::int AS version, "
        "(SELECT system_identifier::text FROM pg_control_system()) AS system_identifier, "
        "(SELECT timeline_id FROM pg_control_checkpoint()) AS timeline, "
        "pg_is_in_recovery() AS in_recovery, pg_postmaster_start_time()::text AS started, "
        "current_setting('data_checksums') = 'on' AS data_checksums, "
        "current_setting('wal_segment_size') AS wal_segment_size, "
        "(SELECT count(*) FROM pg_settings WHERE name = 'summarize_wal' AND setting = 'on') = 1 AS summarize_wal",
    )[0]
    return facts


def databases(connection: t.Any) -> list[str]:
    """Names of the databases that allow connections, sorted."""
    rows = query(connection, "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname")
    return [row["datname"] for row in rows]


def tool_environment(params: t.Mapping[str, t.Any], directory: str) -> dict[str, str]:
    """The environment in which PostgreSQL's programs log in like :func:`connect` does.

    The password is in a file of mode 0600 in the private *directory*, so that it is neither an argument nor a variable
    that others could read. Remove the directory when the programs have ended.
    """
    environment = {
        "PGPORT": str(params["login_port"]),
        "PGUSER": str(params["login_user"]),
        "PGCONNECT_TIMEOUT": str(CONNECT_TIMEOUT),
    }
    if server_host(params):
        environment["PGHOST"] = server_host(params)
    if params.get("login_password"):
        path = os.path.join(directory, "pgpass")
        secret = str(params["login_password"]).replace("\\", "\\\\").replace(":", "\\:")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write(f"*:*:*:*:{secret}\n")
        environment["PGPASSFILE"] = path
    return environment


def find_bin_dir(
    bin_dir: str | None, server_version_number: int, programs: t.Sequence[str] = ("pg_basebackup",)
) -> str:
    """The directory with PostgreSQL's *programs*: *bin_dir* if given, else Debian's for that version, else in PATH.

    Raises MissingToolError when a program is not there, MaintenanceError when it is older than the server.
    """
    major = server_version_number // 10000
    candidates = [bin_dir] if bin_dir else [f"/usr/lib/postgresql/{major}/bin", _directory_in_path(programs[0])]
    for candidate in candidates:
        if candidate and all(find_program(program, candidate) for program in programs):
            _refuse_other_version(candidate, programs[0], major)
            return candidate
    missing = [program for program in programs if not find_program(program, str(candidates[0]))]
    server_programs = {"initdb", "pg_ctl", "postgres", "pg_combinebackup"} & set(programs)
    raise MissingToolError(
        f"find PostgreSQL's programs {', '.join(programs)}",
        where=bin_dir or "",
        expected=f"all of them in {' or '.join(c for c in candidates if c)}",
        observed=f"missing: {', '.join(missing or programs)}",
        advice=f"apt-get install postgresql-{'' if server_programs else 'client-'}{major} (or set bin_dir)",
    )


def program_version(bin_dir: str, program: str) -> str:
    """``18.6`` for a program of that version; the program's own words when they hold no number."""
    words = run([os.path.join(bin_dir, program), "--version"], timeout=30).stdout.strip()
    found = re.search(r"\) (\d+(?:\.\d+)*)", words)
    return found.group(1) if found else words


def _directory_in_path(program: str) -> str:
    found = find_program(program)
    return os.path.dirname(found) if found else ""


def _refuse_other_version(bin_dir: str, program: str, major: int) -> None:
    version = program_version(bin_dir, program)
    if version.split(".")[0] != str(major):
        raise MissingToolError(
            f"find PostgreSQL's programs of version {major}",
            where=bin_dir,
            expected=f"{program} {major}, like the server",
            observed=f"{program} {version}",
            advice=f"apt-get install postgresql-client-{major} (or set bin_dir)",
        )


def _place(connection: t.Any) -> str:
    try:
        return f"database {connection.info.dbname}"
    except driver().Error:
        return "a connection that was lost"
