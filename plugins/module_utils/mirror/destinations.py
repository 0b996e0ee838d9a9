# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of a destination, and the way to open it: ``sftp``, ``rsync`` or ``directory``."""

from __future__ import annotations

import os
import re
import typing as t

from ..errors import MaintenanceError
from ..quantities import parse_duration, parse_size
from ..ssh.login import OPTIONS as LOGIN_OPTIONS
from ..ssh.login import Login, read_login
from .destination import Connection, Pace, lost
from .directory import DirectoryConnection
from .rsync import PLAIN_PATH, RsyncConnection
from .sftp import SftpConnection

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "type": {"type": "str", "choices": ["sftp", "rsync", "directory"], "required": True},
    "path": {"type": "str", "required": True},
    **LOGIN_OPTIONS,
    "known_hosts": {"type": "path", "default": "/root/.ssh/known_hosts"},
    "append_only": {"type": "bool", "default": False},
    "keep_within": {"type": "str", "default": ""},
    "bwlimit": {"type": "str", "default": "0"},
}


class Destination(t.NamedTuple):
    """Where a mirror is, and how it is reached."""

    name: str
    type: str
    path: str
    append_only: bool
    bytes_per_second: int
    # What is older than so many seconds may be missing in an append-only mirror; None: nothing may.
    keep_within: t.Optional[float]
    login: t.Optional[Login]


def read_destination(name: str, option: t.Dict[str, t.Any]) -> Destination:
    """Raises ValueError for what makes no sense."""
    if not NAME.fullmatch(name):
        raise ValueError("name: letters, digits, dash and underscore, at most 41")
    login = None
    if option["type"] == "directory":
        if not os.path.isabs(option["path"]) or os.path.realpath(option["path"]) == "/":
            raise ValueError(f"path: an absolute one, not {option['path']!r}")
    else:
        login = _read_login(name, option)
    if option["type"] == "rsync" and not PLAIN_PATH.fullmatch(option["path"]):
        raise ValueError(f"path: letters, digits and ./_-+@ alone, not {option['path']!r}")
    rate = parse_size(option["bwlimit"])
    keep_within = parse_duration(option["keep_within"]) if option["keep_within"] else None
    if keep_within is not None and not option["append_only"]:
        raise ValueError("keep_within: only for append_only; others follow what expires here")
    return Destination(name, option["type"], option["path"], option["append_only"], rate, keep_within, login)


def _read_login(name: str, option: t.Dict[str, t.Any]) -> Login:
    login = read_login(option, f"work on the mirror {name}")
    if not login.key_file or not login.known_hosts:
        raise ValueError("key_file and known_hosts must be given")
    return login


def open_destination(destination: Destination, scratch: str, *, create: bool) -> Connection:
    """Raises MaintenanceError when it cannot be reached; *scratch* is a private directory here.

    Its directory there is made when it is missing, if we may *create* it.
    """
    pace = Pace(destination.bytes_per_second)
    path, append_only = destination.path, destination.append_only
    try:
        if destination.login is None:
            return DirectoryConnection(path, append_only=append_only, pace=pace)
        if destination.type == "sftp":
            return SftpConnection(destination.login, path, append_only=append_only, pace=pace, create=create)
        rate = destination.bytes_per_second
        return RsyncConnection(
            destination.login, path, scratch, append_only=append_only, bytes_per_second=rate, create=create
        )
    except OSError as error:
        if destination.login is None:
            raise _no_directory(destination, error) from None
        raise lost(destination.name, error) from None


def _no_directory(destination: Destination, error: OSError) -> MaintenanceError:
    return MaintenanceError(
        f"open the mirror {destination.name}",
        where=destination.path,
        expected="a directory (no link) that exists: it is not created, for it may lie on what is not mounted",
        observed=error.strerror or str(error),
        advice="Mount it, or create the directory.",
    )
