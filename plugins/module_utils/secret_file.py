# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A secret that is kept in a file of its own, which nobody else can read."""

from __future__ import annotations

import os
import stat

from .errors import MaintenanceError

_LONGEST = 4096


def read_secret(path: str, option: str) -> str:
    """The one line in the file *path*, which the *option* names; "" when it names none.

    Raises MaintenanceError where others could read or write it, or it holds no single line.
    """
    if not path:
        return ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(stream.fileno())
            content = stream.read(_LONGEST + 1) if stat.S_ISREG(status.st_mode) else b""
    except OSError as error:
        raise _refused(path, option, error.strerror or str(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise _refused(path, option, "no plain file")
    if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
        raise _refused(path, option, f"mode {stat.S_IMODE(status.st_mode):04o}, owner uid {status.st_uid}")
    try:
        secret = content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise _refused(path, option, "content that is no text") from None
    if not secret or len(content) > _LONGEST or not secret.isprintable() or secret != secret.strip():
        raise _refused(path, option, "not one line, without blanks around it")
    return secret


def _refused(path: str, option: str, observed: str) -> MaintenanceError:
    return MaintenanceError(
        f"read the secret that {option} names",
        where=path,
        expected="a file (no link) of ours or root's with one line, and mode 0600",
        observed=observed,
        advice=f"chmod 0600 it, or correct {option}.",
    )
