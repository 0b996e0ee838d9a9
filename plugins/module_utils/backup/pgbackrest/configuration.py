# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the engine, and the configuration of pgBackRest that is written from them."""

from __future__ import annotations

import os
import pwd
import stat
import typing as t

from ...errors import MaintenanceError
from ...files import write_atomically
from ...options import refuse
from ...postgresql import server_host
from ..packed.compression import parse_compression
from ..programs import workers
from .tool import Access

# By this first line we know a file again that we wrote.
_OURS = "# Written by wellkept.maintenance.backup, and written anew when its options change."
# Which backups go is decided by our rules; so pgBackRest is told to keep all.
_KEEP_ALL = "9999999"
_COMPRESSIONS = {"gzip": "gz", "lz4": "lz4", "zstd": "zst"}


class Setup(t.NamedTuple):
    """The configuration file: whether it is ours to write, what it should hold, and what it needs around it."""

    path: str
    content: str
    directories: t.Tuple[str, ...]
    uid: int
    gid: int

    @property
    def is_foreign(self) -> bool:
        """Whether somebody else wrote it: then it is used as it is."""
        return os.path.lexists(self.path) and not _first_line(self.path).startswith(_OURS)

    @property
    def effective(self) -> str:
        """The text that counts: somebody else's, or ours as it is or will be."""
        return (_content(self.path) or "") if self.is_foreign else self.content

    @property
    def missing(self) -> list[str]:
        """Directories that are to be made, and the file itself where it is to be written."""
        if self.is_foreign:
            return []
        paths = [directory for directory in self.directories if not os.path.lexists(directory)]
        return paths if _content(self.path) == self.content else [*paths, self.path]

    def write(self) -> None:
        """Make what is missing, for the server's user alone."""
        for directory in self.directories:
            if directory in self.missing:
                os.makedirs(os.path.dirname(directory), exist_ok=True)
                os.mkdir(directory, 0o750)
                os.chown(directory, self.uid, self.gid, follow_symlinks=False)
            _refuse_shared(directory, self.uid)
        if self.path not in self.missing:
            return
        try:
            # The way to it must be open to the server's user, whatever our umask is.
            if not os.path.isdir(os.path.dirname(self.path)):
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
                os.chmod(os.path.dirname(self.path), 0o755)  # noqa: S103 (no secret but the file's own content)
            write_atomically(self.path, self.content.encode(), 0o600)
            os.chown(self.path, self.uid, self.gid, follow_symlinks=False)
        except OSError as error:
            raise MaintenanceError(
                "write the configuration of pgBackRest",
                where=self.path,
                expected="a file that we may write",
                observed=error.strerror or str(error),
                advice="Set pgbackrest_config to a path that this user may write, or become root.",
            ) from None


def plan_setup(params: t.Mapping[str, t.Any], access: Access, data_directory: str) -> Setup:
    """What the configuration should be for the server on *data_directory*."""
    account = os.stat(data_directory)
    directories = [params["pgbackrest_spool_path"]]
    if not params["pgbackrest_repo_host"]:
        directories.append(params["pgbackrest_repo_path"])
    content = configuration(params, access, data_directory)
    return Setup(access.config, content, tuple(directories), account.st_uid, account.st_gid)


def configuration(params: t.Mapping[str, t.Any], access: Access, data_directory: str) -> str:
    """The text of the configuration."""
    settings = {
        **_repository(params, access.key),
        "repo1-retention-full": _KEEP_ALL,
        "expire-auto": "n",
        "start-fast": "y",
        "resume": "n",
        **_compression(params),
        "process-max": str(workers(params["jobs"])),
        "archive-async": "y" if params["pgbackrest_archive_async"] else "n",
        "spool-path": params["pgbackrest_spool_path"],
        "lock-path": os.path.join(params["pgbackrest_spool_path"], "lock"),
        "log-level-file": "off",
    }
    server = {
        "pg1-path": data_directory,
        "pg1-port": str(params["login_port"]),
        "pg1-user": params["login_user"],
        "pg1-database": params["login_db"],
    }
    if server_host(params).startswith("/"):
        server["pg1-socket-path"] = server_host(params)
    lines = [_OURS, "[global]", *_lines(settings), "", f"[{access.stanza}]", *_lines(server)]
    return "\n".join(lines) + "\n"


def _repository(params: t.Mapping[str, t.Any], key: str) -> dict[str, str]:
    if params["pgbackrest_repo_host"]:
        found = {
            "repo1-host": params["pgbackrest_repo_host"],
            "repo1-host-user": params["pgbackrest_repo_host_user"],
            "repo1-host-config": params["pgbackrest_repo_host_config"],
        }
        return {name: value for name, value in found.items() if value}
    secret = {"repo1-cipher-type": "aes-256-cbc", "repo1-cipher-pass": key} if key else {}
    return {"repo1-path": params["pgbackrest_repo_path"], **secret}


def _compression(params: t.Mapping[str, t.Any]) -> dict[str, str]:
    chosen = parse_compression(params["compression"])
    if chosen is None:
        return {"compress-type": "none"}
    return {"compress-type": _COMPRESSIONS[chosen.name], "compress-level": str(chosen.level)}


def _lines(settings: t.Mapping[str, str]) -> list[str]:
    for name, value in settings.items():
        if "\n" in value or value != value.strip():
            refuse(name, expected="a value on one line, without blanks around it", observed="another one")
    return [f"{name}={value}" for name, value in settings.items()]


def read_access(params: t.Mapping[str, t.Any], user: str, key: str) -> Access:
    """How the module that makes backups reaches the repository."""
    return Access(
        params["pgbackrest_config"],
        params["pgbackrest_stanza"] or params["cluster"],
        user,
        key,
        params["pgbackrest_repo_host"],
        params["pgbackrest_repo_host_user"],
        params["pgbackrest_repo_host_config"],
    )


def _refuse_shared(directory: str, uid: int) -> None:
    status = os.lstat(directory)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022:
        return
    raise MaintenanceError(
        "use a directory for pgBackRest",
        where=directory,
        expected=f"a directory (no link) that belongs to {name_of(uid)}, and that no other can write to",
        observed=f"mode {stat.S_IMODE(status.st_mode):04o}, owner {name_of(status.st_uid)}"
        + ("" if stat.S_ISDIR(status.st_mode) else ", not a directory"),
        advice=f"chown {name_of(uid)} and chmod 0750 it, or choose another.",
    )


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _first_line(path: str) -> str:
    return (_content(path) or "").partition("\n")[0]


def _content(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return None
