# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup host works for a cluster on another host: how that is reached, and a tunnel to its server."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import typing as t

from ..errors import MaintenanceError
from ..lock import exclusive, is_free
from ..postgresql import driver, server_name
from ..processes import last_words
from ..ssh import errors
from ..ssh.login import CONNECT_SECONDS, Login, read_login_option
from ..ssh.login import OPTIONS as LOGIN_OPTIONS
from ..ssh.openssh import command
from .programs import guarded

_PREFIX = "wellkept-tunnel-"
_LOCK = "lock"
_USER = "postgres"
_PURPOSE = "reach the host of the cluster by SSH"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Where Debian's and the PGDG's servers have their socket.
_SOCKET_DIRECTORY = "/run/postgresql"

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    "database_host": {"type": "str", "default": ""},
    "ssh": {
        "type": "dict",
        "default": {},
        "options": {**LOGIN_OPTIONS, "user": {"type": "str", "default": _USER}},
    },
}


def login_of(params: t.Mapping[str, t.Any]) -> Login | None:
    """The host of the cluster when the module does not run there; None when it does."""
    if not params.get("database_host"):
        return None
    given = {name: value for name, value in (params.get("ssh") or {}).items() if value}
    return read_login_option("ssh", {"host": params["database_host"], "user": _USER, **given}, _PURPOSE)


# -- the tunnel --------------------------------------------------------------------------------------------------------


def needs_tunnel(params: t.Mapping[str, t.Any]) -> bool:
    """Whether the login options say where the server is on its own host: a socket, or its own loopback address."""
    return bool(params.get("login_unix_socket")) or params.get("login_host") in ("", None, *_LOOPBACK)


@contextlib.contextmanager
def reached(params: t.Mapping[str, t.Any]) -> t.Iterator[t.Dict[str, t.Any]]:
    """The module's options *params*, with login options that reach the server from here while the block runs.

    Where the module runs on the server's host, or the server listens to us, they are what they were. Otherwise ssh
    forwards a socket of ours to the server's; the kernel ends it with us, however we end.
    """
    remote = login_of(params)
    if remote:
        _refuse_what_would_be_sought_here(params)
    if remote is None or not needs_tunnel(params):
        yield dict(params)
        return
    _remove_leftovers()
    directory = tempfile.mkdtemp(prefix=_PREFIX, dir=_short_directory())
    try:
        with exclusive(os.path.join(directory, _LOCK), {"activity": "tunnel"}, "the tunnel"):
            tunnel = _Tunnel(remote, params, directory)
            try:
                tunnel.wait_until_open()
                with tunnel.blamed_if_broken():
                    yield tunnel.login(params)
            finally:
                tunnel.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _refuse_what_would_be_sought_here(params: t.Mapping[str, t.Any]) -> None:
    """Raise MaintenanceError for options that would lead to this host's own servers instead of the other's."""
    problem = ""
    if params.get("engine", "core") != "core":
        problem = f"the engine {params['engine']}, which has repository hosts of its own: leave out backup_host"
    for server in params.get("redis") or []:
        if server.get("unix_socket") or server.get("host") in _LOOPBACK:
            problem = f"redis {server.get('name')} by a socket or a loopback address: name its host as seen from here"
    if problem:
        raise MaintenanceError(
            "back up another host from this one",
            where=str(params["database_host"]),
            expected="the engine core, and servers of Redis that are reached from this host",
            observed=problem,
            advice="Correct the options, or run the activity on the host itself.",
        )


class _Tunnel:
    """A running ssh that forwards a socket in the private *directory* to the server."""

    def __init__(self, remote: Login, params: t.Mapping[str, t.Any], directory: str) -> None:
        self.remote = remote
        self.directory = directory
        name = f".s.PGSQL.{params['login_port']}"
        self.socket = os.path.join(directory, name)
        if params.get("login_host") in _LOOPBACK and not params.get("login_unix_socket"):
            host = str(params["login_host"])
            self.target = f"{f'[{host}]' if ':' in host else host}:{params['login_port']}"
        else:
            self.target = os.path.join(params.get("login_unix_socket") or _SOCKET_DIRECTORY, name)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        more = ("-N", "-o", "ExitOnForwardFailure=yes", "-o", "StreamLocalBindMask=0177", "-L")
        self._process = subprocess.Popen(
            guarded(command(remote, *more, f"{self.socket}:{self.target}")),
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
        )

    def wait_until_open(self) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        while not self._listens():
            if self._process.poll() is not None:
                raise errors.from_openssh(self.remote, self._words())
            if time.monotonic() > deadline:
                raise errors.unreachable(self.remote, f"no connection within {CONNECT_SECONDS} s")
            time.sleep(0.02)

    def _listens(self) -> bool:
        """The socket is there a moment before ssh listens to it."""
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            client.connect(self.socket)
            return True
        return False

    def login(self, params: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        shown = f"{self.remote.host}, {server_name(params)} over SSH"
        return {**params, "login_host": "", "login_unix_socket": self.directory, "login_shown": shown}

    @contextlib.contextmanager
    def blamed_if_broken(self) -> t.Iterator[None]:
        """Raise what is behind an error in the block when that is the tunnel; the server's own words would mislead."""
        try:
            yield
        except MaintenanceError as error:
            self._tell_if_broken(error, error.observed)
            raise
        except driver().Error as error:
            self._tell_if_broken(error, str(error).strip())
            raise

    def _tell_if_broken(self, error: Exception, seen: str) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Sessions may learn of it a moment before ssh ends.
            self._process.wait(timeout=2)
        words = last_words(self._words())
        refused = "open failed" in words
        if self._process.returncode is None and not refused:
            return
        advice = "See why the connection broke, and run it again; nothing was kept of what was half done."
        if refused:
            advice = (
                f"Start the server, or correct login_unix_socket; sshd there must allow forwarding to {self.target}."
            )
        raise MaintenanceError(
            "reach the server through the SSH tunnel" if refused else "keep the SSH tunnel to the server",
            where=str(self.remote),
            expected=f"a way to {self.target}" if refused else "a connection until the end",
            observed=f"{words if words != 'no message' else 'the connection was lost'}; then: {seen}",
            advice=advice,
        ) from error

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        self._said.close()

    def _words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


def _short_directory() -> str:
    """The path of a socket may have 107 bytes."""
    directory = tempfile.gettempdir()
    return directory if len(directory) < 60 else "/tmp"  # noqa: S108 - what is made there is private


def _remove_leftovers() -> None:
    """Remove the directories of tunnels whose module was killed; their ssh ended with it."""
    with os.scandir(_short_directory()) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for path in found:
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            old = time.time() - status.st_mtime > CONNECT_SECONDS
            if old and status.st_uid == os.geteuid() and is_free(os.path.join(path, _LOCK)):
                shutil.rmtree(path, ignore_errors=True)
