# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The login that a module is told to use, whatever then speaks SSH: the program ssh, or the library paramiko."""

from __future__ import annotations

import os
import re
import typing as t

from ..options import reading

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    "host": {"type": "str", "default": ""},
    "port": {"type": "int", "default": 22},
    "user": {"type": "str", "default": ""},
    "key_file": {"type": "path", "default": ""},
    "known_hosts": {"type": "path", "default": ""},
}

# How long a host may take to let us in, and how often it has to show afterwards that it is there.
CONNECT_SECONDS = 60
ALIVE_SECONDS = 30
ALIVE_TRIES = 4

_HOST = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@-]*")
# Neither the configuration of ssh nor programs that are told how to call it have a way to write these.
_UNQUOTABLE = re.compile(r"[\"'\\\x00-\x1f]")


class Login(t.NamedTuple):
    """An account on another host, our key for it, and the host keys that we accept; ``purpose`` is for errors."""

    host: str
    port: int = 22
    user: str = ""
    key_file: str = ""
    known_hosts: str = ""
    purpose: str = "reach another host by SSH"

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + ("" if self.port == 22 else f":{self.port}")


def read_login(option: t.Mapping[str, t.Any], purpose: str) -> Login:
    """The login in the values of OPTIONS; where a file is not named, ssh takes its own. Raises ValueError."""
    given = {name: option[name] for name in OPTIONS if option.get(name)}
    login = Login(**{"host": "", **given, "purpose": purpose})
    if not _HOST.fullmatch(login.host) or not _USER.fullmatch(login.user):
        raise ValueError("host and user must be given, as plain words")
    for name in ("key_file", "known_hosts"):
        path = getattr(login, name)
        if path and not os.path.isabs(path):
            raise ValueError(f"{name}: an absolute path, not {path!r}")
        if _UNQUOTABLE.search(path):
            raise ValueError(f"{name}: a path without quotation marks and backslashes, not {path!r}")
    return login


def read_login_option(name: str, option: t.Mapping[str, t.Any], purpose: str) -> Login:
    """The login in the module's option *name*; raises MaintenanceError that names it."""
    with reading(name, expected="host, port and user, and absolute paths of key_file and known_hosts"):
        return read_login(option, purpose)
