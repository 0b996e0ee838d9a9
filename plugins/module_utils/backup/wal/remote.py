# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The WAL archive is on this host, the server on another: what both of them need for the WAL to come over SSH.

The server's user gets a key pair of its own on its host, and its public key is let in here, for one command alone.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import shlex
import typing as t

from ...errors import MaintenanceError
from ...files import write_atomically
from ...ssh.login import Login
from ...ssh.openssh import run_there
from . import archiving, wal_helper, wal_over_ssh
from . import sender as wal_sender
from .archive import directory_of
from .archiving import Found, Way, Wish

OPTIONS: dict[str, t.Any] = {
    "host": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 22},
    "user": {"type": "str", "default": "postgres"},
    "timeout_seconds": {"type": "int", "default": 120},
    "directory": {"type": "path", "default": ""},
    "authorized_keys": {"type": "path", "default": ""},
    "host_keys": {"type": "list", "elements": "path", "default": [], "no_log": False},
}
_HOST_KEYS = "/etc/ssh/ssh_host_*_key.pub"
_WHAT = "archive WAL over SSH"
# A file that no archive has.
_NO_FILE = "FFFFFFFF.history"


class OverSsh(Way):
    """From the server's host *remote* to the account ``wal_ssh.user`` of this host."""

    programs = (wal_helper, wal_over_ssh)

    def __init__(self, remote: Login, options: t.Mapping[str, t.Any], found: Found, wish: Wish) -> None:
        super().__init__(found, wish)
        self.remote = remote._replace(purpose=_WHAT)
        self.options = options
        self.receiver = _account(options["user"])
        self.sender = self._ask()

    @property
    def command(self) -> str:
        words = self._words_of("push")
        return " ".join(shlex.quote(word).replace("%", "%%") for word in words) + ' "%p" "%f"'

    def account(self) -> tuple[int, int]:
        return self.receiver.pw_uid, self.receiver.pw_gid

    def missing(self) -> list[str]:
        there = [f"{self.remote.host}:{path}" for path in self.sender["missing"]]
        return [*super().missing(), *there, *([] if self.is_let_in() else [self.authorized_keys])]

    def prepare(self, paths: t.Sequence[str]) -> None:
        super().prepare([path for path in paths if path.startswith("/")])
        if self.sender["missing"]:
            self.sender = self._ask(make=True)
        if self.wish.configure and not self.is_let_in():
            self._let_in()

    def problem(self) -> str:
        """Why the server's user does not get through to here; empty when it does."""
        if not self.is_let_in():
            return f"its key is not let in here; add to {self.authorized_keys}: {self.line()}"
        words = [*self._words_of("pull"), self.found.identifier, _NO_FILE, os.devnull]
        return str(self._ask(attempt=words)["attempt"])

    # -- the far end ---------------------------------------------------------------------------------------------------

    def _ask(self, *, make: bool = False, attempt: t.Sequence[str] = ()) -> dict[str, t.Any]:
        """What ``sender`` answers on the server's host; raises MaintenanceError where it cannot do what it should."""
        files = {archiving.file_name(module): archiving.source(module).decode() for module in self.programs}
        order = {
            "make": make,
            "attempt": list(attempt),
            "data_directory": self.found.data_directory,
            "identifier": self.found.identifier,
            "directory": self.options["directory"],
            "comment": self._comment(),
            "files": {**files, wal_over_ssh.KNOWN_HOSTS: self._known_hosts()},
        }
        seconds = 60 + self.options["timeout_seconds"]
        program = archiving.source(wal_sender).decode()
        answer = json.loads(run_there(self.remote, program, json.dumps(order), timeout=seconds))
        if "observed" in answer:
            raise MaintenanceError(_WHAT, where=str(self.remote), **answer)
        return dict(answer)

    def _words_of(self, kind: str) -> list[str]:
        """The command of the server's user, up to what PostgreSQL adds."""
        directory = self.sender["directory"]
        return [
            *(self.sender["python"], "-I", "-S", "-B", os.path.join(directory, archiving.file_name(wal_over_ssh))),
            *(kind, directory, f"{self.receiver.pw_name}@{self._host()}"),
            *(str(self.options["port"]), str(self.options["timeout_seconds"])),
        ]

    def _host(self) -> str:
        if not self.options["host"]:
            raise MaintenanceError(
                _WHAT,
                expected="the name or address by which the server's host reaches this one",
                observed="wal_ssh.host is empty",
                advice="Set wal_ssh.host; the role backup takes backup_host for it.",
            )
        return str(self.options["host"])

    def _known_hosts(self) -> str:
        """Our own host keys, as the server's host is to know them: nobody has to take them on trust."""
        port = self.options["port"]
        name = self._host() if port == 22 else f"[{self._host()}]:{port}"
        lines = []
        for path in self.options["host_keys"] or sorted(glob.glob(_HOST_KEYS)):
            with open(path, encoding="ascii", errors="replace") as stream:
                kind, key = stream.read().split()[:2]
            lines.append(f"{name} {kind} {key}\n")
        if not lines:
            raise MaintenanceError(
                _WHAT,
                expected="the host keys of this host's sshd",
                observed=f"no {_HOST_KEYS}",
                advice="Install openssh-server here, or name the files of its public keys in wal_ssh.host_keys.",
            )
        return "".join(lines)

    # -- this end ------------------------------------------------------------------------------------------------------

    @property
    def authorized_keys(self) -> str:
        return str(self.options["authorized_keys"]) or os.path.join(self.receiver.pw_dir, ".ssh", "authorized_keys")

    def line(self) -> str:
        """What lets the server's user in, to keep and to fetch WAL of this cluster and for nothing else."""
        archive = os.path.abspath(self.wish.archive)
        helper = os.path.join(archive, archiving.file_name(wal_over_ssh))
        directory = directory_of(self.wish.archive, self.found.identifier)
        words = [archiving.python(), "-I", "-S", "-B", helper, "receive", directory, self.wish.compression]
        command = " ".join(map(shlex.quote, words)).replace("\\", "\\\\").replace('"', '\\"')
        return f'restrict,command="{command}" {" ".join(self._key())} {self._comment()}'

    def is_let_in(self) -> bool:
        return self.line() in self._lines()

    def _key(self) -> list[str]:
        return str(self.sender["public_key"] or "none none").split()[:2]

    def _comment(self) -> str:
        return f"wellkept-wal-{self.found.identifier}-{self.remote.host}"

    def _lines(self) -> list[str]:
        with _acting_as(self.receiver):
            try:
                descriptor = wal_helper.open_plain(self.authorized_keys)
            except FileNotFoundError:
                return []
            with os.fdopen(descriptor, encoding="utf-8", errors="surrogateescape") as stream:
                return stream.read().splitlines()

    def _let_in(self) -> None:
        """Add the line; it takes the place of an older one for the same cluster and host, and of this key."""
        key = self._key()[1]
        others = [
            line for line in self._lines() if not line.endswith(f" {self._comment()}") and key not in line.split()
        ]
        with _acting_as(self.receiver):
            os.makedirs(os.path.dirname(self.authorized_keys), mode=0o700, exist_ok=True)
            text = "".join(f"{line}\n" for line in [*others, self.line()])
            write_atomically(self.authorized_keys, text.encode("utf-8", "surrogateescape"))


def _account(name: str) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        raise MaintenanceError(
            _WHAT,
            expected=f"the account {name} on the backup host, to receive WAL",
            observed="there is none",
            advice="Install the server's package there, which makes the account postgres, or set wal_ssh.user.",
        ) from None
    if os.geteuid() not in (0, account.pw_uid):
        raise MaintenanceError(
            _WHAT,
            expected=f"to run as root or as {name} on the backup host",
            observed=f"we run as uid {os.geteuid()}",
            advice="Become root or that user.",
        )
    return account


@contextlib.contextmanager
def _acting_as(account: pwd.struct_passwd) -> t.Iterator[None]:
    """Do as *account* what we do in its own directories: so no link there leads root anywhere."""
    if os.geteuid() != 0 or account.pw_uid == 0:
        yield
        return
    group = os.getegid()
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
