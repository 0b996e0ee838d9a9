# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How we log in to a host over SSH: by one key, and to no host but the one whose key is known."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import typing as t

from ..errors import MaintenanceError, MissingToolError

_TIMEOUT = 60
# A connection on which nothing is acknowledged for so long is dead.
_DEAD_AFTER = 120


class Login(t.NamedTuple):
    """Where and as whom."""

    destination: str
    host: str
    port: int
    user: str
    key_file: str
    known_hosts: str

    @property
    def where(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


def connect(login: Login) -> t.Any:
    """A paramiko client that is logged in; raises MaintenanceError that says what was refused, by whom."""
    paramiko = import_paramiko()
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        client.load_host_keys(login.known_hosts)
        client.connect(
            login.host, port=login.port, username=login.user, key_filename=login.key_file,
            allow_agent=False, look_for_keys=False,
            timeout=_TIMEOUT, banner_timeout=_TIMEOUT, auth_timeout=_TIMEOUT,
        )  # fmt: skip
        transport = client.get_transport()
        transport.set_keepalive(30)
        with contextlib.suppress(OSError, AttributeError):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_AFTER * 1000)
    except BaseException as error:
        client.close()
        if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
            raise _refused(login, error, paramiko) from None
        raise
    return client


def import_paramiko() -> t.Any:
    try:
        import paramiko
    except ImportError:
        raise MissingToolError(
            "mirror over SFTP",
            expected="the Python library paramiko",
            observed="it is not installed",
            advice="apt-get install python3-paramiko",
        ) from None
    return paramiko


def _refused(login: Login, error: BaseException, paramiko: t.Any) -> MaintenanceError:
    if isinstance(error, paramiko.BadHostKeyException):
        return host_key_changed(login)
    if isinstance(error, paramiko.AuthenticationException):
        return not_let_in(login)
    if "known_hosts" in str(error):
        return host_key_unknown(login)
    filename = getattr(error, "filename", None)
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return unreachable(login, f"{filename}: {words}" if filename else words)


def host_key_changed(login: Login) -> MaintenanceError:
    return MaintenanceError(
        f"log in to the mirror {login.destination}",
        where=login.where,
        expected=f"the host key in {login.known_hosts}",
        observed="another one: it is another host, or somebody stands in between; nothing was sent",
        advice="Ask who runs that host whether its key was changed. If so, put the new one, from them, in known_hosts.",
    )


def host_key_unknown(login: Login) -> MaintenanceError:
    return MaintenanceError(
        f"log in to the mirror {login.destination}",
        where=login.where,
        expected=f"a line for this host and port in {login.known_hosts}",
        observed="there is none, so nothing was sent",
        advice="Get the host's key from those who run it (ssh-keyscan shows what answers, not who), and add it there.",
    )


def not_let_in(login: Login) -> MaintenanceError:
    return MaintenanceError(
        f"log in to the mirror {login.destination}",
        where=login.where,
        expected=f"the key {login.key_file} to be let in",
        observed="it was refused",
        advice=f"Put {login.key_file}.pub into the account's authorized_keys there, and see the log of its sshd.",
    )


def unreachable(login: Login, words: str) -> MaintenanceError:
    return MaintenanceError(
        f"log in to the mirror {login.destination}",
        where=login.where,
        expected="an SSH server that answers, and files for the login that can be read",
        observed=words,
        advice="See whether the host is up and its port open from here, and whether key_file and known_hosts exist.",
    )


def hash_command(path: str) -> str:
    """What is run there to hash files below *path*, by the names that it reads, each ended by a zero byte."""
    return f"cd -- {shlex.quote(path)} && exec xargs -0 -r sha256sum -z --"


def parse_hashes(output: bytes) -> t.Iterator[t.Tuple[str, str]]:
    """Names and hashes in the output of :func:`hash_command`; what does not look like it is left out."""
    for line in output.split(b"\0"):
        digest, mark, name = line[:64], line[64:66], line[66:]
        if len(digest) == 64 and mark in (b"  ", b" *") and name:
            yield os.fsdecode(name), digest.decode("ascii", "replace")
