# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""From the backup host to the host of the cluster: by OpenSSH, with a key, to a host that is known, or not at all."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
import typing as t

from ..errors import MaintenanceError, MissingToolError
from ..lock import exclusive, is_free
from ..postgresql import driver, server_name
from ..processes import find_program, last_words
from .programs import guarded
from .wal.wal_over_ssh import options

_PREFIX = "wellkept-tunnel-"
_LOCK = "lock"
_SECONDS_TO_OPEN = 30.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Where Debian's and the PGDG's servers have their socket.
_SOCKET_DIRECTORY = "/run/postgresql"

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    "database_host": {"type": "str", "default": ""},
    "ssh": {
        "type": "dict",
        "default": {},
        "options": {
            "host": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 22},
            "user": {"type": "str", "default": "postgres"},
            "key_file": {"type": "path", "default": ""},
            "known_hosts": {"type": "path", "default": ""},
        },
    },
}


class Remote(t.NamedTuple):
    """An account on the host of the cluster, our key for it, and the host keys that we accept."""

    host: str
    port: int = 22
    user: str = "postgres"
    key_file: str = ""
    known_hosts: str = ""

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")


def remote_of(params: t.Mapping[str, t.Any]) -> Remote | None:
    """The host of the cluster when the module does not run there; None when it does."""
    if not params.get("database_host"):
        return None
    given = {name: value for name, value in (params.get("ssh") or {}).items() if value}
    return Remote(**{"host": params["database_host"], **given})


def command(remote: Remote, *more: str) -> list[str]:
    """ssh to *remote*, with the options *more*; what is to run there is to be added."""
    program = find_program("ssh")
    if program is None:
        raise MissingToolError(
            f"reach {remote.host} by SSH",
            expected="the program ssh",
            observed="it is not installed",
            advice="apt-get install openssh-client",
        )
    return [
        program, "-F", "none", "-T", "-x", "-a", "-p", str(remote.port), "-l", remote.user,
        *options(remote.key_file, remote.known_hosts), "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4",
        *more, "--", remote.host,
    ]  # fmt: skip


def not_reached(remote: Remote, said: str, what: str = "") -> MaintenanceError:
    """The error for an ssh that ended with the words *said*."""
    words = "\n".join(line for line in said.splitlines() if not line.startswith("@"))
    advice = "See that sshd runs there and lets this key in; the server's log there says more."
    if "Host key verification failed" in words or "No matching host key" in words:
        advice = (
            f"The host key is not the one in known_hosts. When {remote.host} was made anew, replace its line there "
            "by the new key, taken from the host itself; otherwise find out who answers in its place."
        )
    elif "Permission denied" in words:
        advice = f"Add the public key to authorized_keys of {remote.user} on {remote.host}, or correct ssh.key_file."
    elif "timed out" in words or "refused" in words or "resolve" in words:
        advice = f"Start {remote.host} or its sshd, or correct ssh.host and ssh.port."
    return MaintenanceError(
        what or "reach the host of the cluster by SSH",
        where=str(remote),
        expected="a connection",
        observed=last_words(words),
        advice=advice,
    )


def run_there(remote: Remote, program: str, text: str, *, what: str, timeout: float = 120) -> str:
    """Run the *program*, in Python, on *remote* with *text* as input; returns what it wrote, or raises."""
    try:
        done = subprocess.run(
            guarded([*command(remote), python_reading_program()]),
            input=framed(program) + text.encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise not_reached(remote, f"no answer within {timeout:g} s", what) from None
    if done.returncode != 0:
        raise not_reached(remote, done.stderr.decode(errors="replace"), what)
    return done.stdout.decode()


def python_reading_program() -> str:
    """What is to run there, so that a program comes by its standard input and stands in no list of processes."""
    reading = "import sys; f = sys.stdin.buffer; exec(compile(f.read(int(f.readline())), 'wellkept', 'exec'))"
    return f"exec python3 -I -S -c {shlex.quote(reading)}"


def framed(program: str) -> bytes:
    """The *program* as :func:`python_reading_program` reads it; what follows is for the program itself."""
    text = program.encode()
    return b"%d\n%s" % (len(text), text)


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
    remote = remote_of(params)
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

    def __init__(self, remote: Remote, params: t.Mapping[str, t.Any], directory: str) -> None:
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
        deadline = time.monotonic() + _SECONDS_TO_OPEN
        while not self._listens():
            if self._process.poll() is not None:
                raise not_reached(self.remote, self._words())
            if time.monotonic() > deadline:
                raise not_reached(self.remote, f"no connection within {_SECONDS_TO_OPEN:.0f} s")
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
            old = time.time() - status.st_mtime > _SECONDS_TO_OPEN
            if old and status.st_uid == os.geteuid() and is_free(os.path.join(path, _LOCK)):
                shutil.rmtree(path, ignore_errors=True)


# -- accounts ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def acting_as(account: pwd.struct_passwd) -> t.Iterator[None]:
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
