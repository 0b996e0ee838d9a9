# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a restic repository is, and how it is opened: a directory of this host, or one of another host by SFTP."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import stat
import typing as t

from ....errors import MaintenanceError, UnavailableError
from ....ssh.login import Login, read_login_option
from ....ssh.openssh import command

_SFTP = re.compile(
    r"sftp:(?:(?P<user>[A-Za-z0-9_][\w.-]*)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][\w.-]*):(?P<path>/.*)"
)


class Location(t.NamedTuple):
    """A repository as restic calls it; ``remote`` is the account that it is reached by, None on this host."""

    name: str
    path: str
    remote: Login | None = None

    def arguments(self) -> list[str]:
        """What restic is to be told to open it."""
        arguments = ["--repo", self.name]
        if self.remote:
            connect = shlex.join([*command(self.remote, "-s"), "sftp"])
            # restic reads the value of this option as a line of CSV.
            arguments += ["--option", '"{}"'.format(f"sftp.command={connect}".replace('"', '""'))]
        return arguments


def read_location(name: str, ssh: t.Mapping[str, t.Any] | None = None) -> Location:
    """The repository *name*, reached with the port, key and host keys in *ssh*; raises MaintenanceError for others."""
    found = _SFTP.fullmatch(name)
    if found:
        return Location(name, found["path"], _remote(found["user"] or "", found["host"].strip("[]"), ssh or {}))
    if not name.startswith("/"):
        raise MaintenanceError(
            "find the restic repository",
            where=name,
            expected="the absolute path of a directory, or sftp:user@host:/path",
            observed="another form",
            advice="Correct the option restic_repository.",
        )
    return Location(os.path.normpath(name), os.path.normpath(name))


def _remote(user: str, host: str, ssh: t.Mapping[str, t.Any]) -> Login:
    option = {**ssh, "host": host, "user": user or getpass.getuser()}
    return read_login_option("restic_ssh", option, "reach the restic repository by SFTP")


def refuse_key_file(path: str) -> None:
    """Raise UnavailableError unless *path* is a file with a password that nobody but its owner can read or change."""
    expected, observed = "a file with the password of the repository, that only its owner can read", ""
    try:
        status = os.lstat(path) if path else None
    except OSError as error:
        status, observed = None, error.strerror or str(error)
    if status is None:
        observed = observed or "none was named"
    elif not stat.S_ISREG(status.st_mode):
        observed = "it is no plain file"
    elif status.st_uid not in (0, os.geteuid()):
        observed = f"it belongs to uid {status.st_uid}, and we are {os.geteuid()}"
    elif status.st_mode & 0o077:
        observed = f"mode {stat.S_IMODE(status.st_mode):04o}: others can read or change it"
    elif not status.st_size:
        observed = "it is empty"
    elif not os.access(path, os.R_OK):
        observed = "we may not read it"
    else:
        return
    raise UnavailableError(
        "read the key of the restic repository",
        where=path or "restic_key_file",
        expected=expected,
        observed=observed,
        advice="Name it in restic_key_file, chmod 0600 it, and keep a copy far from this host: without it nothing in "
        "the repository can be read.",
    )
