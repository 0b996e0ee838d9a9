# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library paramiko, for what the program ssh does not offer: SFTP with several streams in one connection."""

from __future__ import annotations

import contextlib
import socket
import typing as t

from ..errors import MaintenanceError, MissingToolError
from . import errors
from .login import ALIVE_SECONDS, ALIVE_TRIES, CONNECT_SECONDS, Login


def connect(login: Login) -> t.Any:
    """A paramiko client that is logged in; raises MaintenanceError that says what was refused, by whom."""
    paramiko = import_paramiko(login.purpose)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        client.load_host_keys(login.known_hosts)
        client.connect(
            login.host, port=login.port, username=login.user, key_filename=login.key_file,
            allow_agent=False, look_for_keys=False,
            timeout=CONNECT_SECONDS, banner_timeout=CONNECT_SECONDS, auth_timeout=CONNECT_SECONDS,
        )  # fmt: skip
        transport = client.get_transport()
        transport.set_keepalive(ALIVE_SECONDS)
        # paramiko sends, and does not look whether anything is acknowledged; the kernel does.
        with contextlib.suppress(OSError, AttributeError):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, ALIVE_SECONDS * ALIVE_TRIES * 1000)
    except BaseException as error:
        client.close()
        if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
            raise _refused(login, error, paramiko) from None
        raise
    return client


def import_paramiko(purpose: str) -> t.Any:
    try:
        import paramiko
    except ImportError:
        raise MissingToolError(
            purpose,
            expected="the Python library paramiko",
            observed="it is not installed",
            advice="apt-get install python3-paramiko",
        ) from None
    return paramiko


def _refused(login: Login, error: BaseException, paramiko: t.Any) -> MaintenanceError:
    if isinstance(error, paramiko.BadHostKeyException):
        return errors.host_key_changed(login)
    if isinstance(error, paramiko.AuthenticationException):
        return errors.not_let_in(login)
    if "known_hosts" in str(error):
        return errors.host_key_unknown(login)
    filename = getattr(error, "filename", None)
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return errors.unreachable(login, f"{filename}: {words}" if filename else words)
