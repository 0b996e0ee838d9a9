# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that archives its WAL by our helper: what it lacks, what may be set, and whether a segment arrives."""

from __future__ import annotations

import os
import pwd
import shlex
import stat
import sys
import time
import types
import typing as t

from ...errors import MaintenanceError
from ...files import write_atomically
from ...postgresql import driver, query, value
from . import wal_helper, wal_over_ssh
from .archive import directory_of
from .positions import parse_lsn, segment_name

_PYTHON = "/usr/bin/python3"
_SECONDS_TO_ARRIVE = 60.0
_SECONDS_TO_RELOAD = 10.0

_STATE = """
SELECT current_setting('archive_mode') AS mode, current_setting('archive_command') AS command,
       coalesce(current_setting('archive_library', true), '') AS library,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'archive_timeout') AS timeout,
       (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size') AS segment_bytes,
       current_setting('data_directory') AS data_directory,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS identifier,
       (SELECT count(*) FROM pg_catalog.pg_ls_archive_statusdir() WHERE name ~ '\\.ready$') AS waiting,
       (SELECT failed_count FROM pg_catalog.pg_stat_archiver) AS failed,
       coalesce((SELECT last_failed_wal FROM pg_catalog.pg_stat_archiver
                  WHERE last_failed_time > coalesce(last_archived_time, '-infinity')), '') AS failing
"""


class Wish(t.NamedTuple):
    """The options: where to, how compressed, and whether the server may be told so."""

    archive: str
    compression: str
    configure: bool
    timeout: int


class Found(t.NamedTuple):
    """What the server is set to, and how its archiver fares; ``failing`` names a segment that it failed on last."""

    mode: str
    command: str
    library: str
    timeout: int
    segment_bytes: int
    data_directory: str
    identifier: str
    waiting: int
    failed: int
    failing: str


class Verdict(t.NamedTuple):
    """``kind``: whose command it is (``ours``, ``other`` of ours, ``none``, ``foreign``); and what is to be set."""

    kind: str
    set: t.Dict[str, str]


class Arrival(t.NamedTuple):
    """The file by which a segment arrived in the archive and after how many seconds; else why it did not."""

    path: str
    seconds: float
    problem: str


def measure(connection: t.Any) -> Found:
    return Found(**query(connection, _STATE)[0])


def decide(found: Found, way: Way) -> Verdict:
    """Whose command the server runs, and which settings would make it archive in this *way*.

    A command that is not ours is never replaced: somebody relies on it.
    """
    wanted = way.command
    helper = any(mark in found.command for mark in way.marks)
    if found.library or (found.command not in ("", "(disabled)", wanted) and not helper):
        return Verdict("foreign", {})
    if found.command == wanted:
        kind = "ours"
    elif helper:
        kind = "other"
    else:
        kind = "none"
    settings = {} if kind == "ours" else {"archive_command": wanted}
    if found.timeout == 0:
        settings["archive_timeout"] = str(way.wish.timeout)
    return Verdict(kind, settings)


def program_of(found: Found) -> str:
    """The program of a foreign archive_command; never all of it, as it may hold a secret."""
    if found.library:
        return f"the library {found.library}"
    try:
        return os.path.basename(shlex.split(found.command)[0])
    except (ValueError, IndexError):
        return "a shell command"


class Way:
    """How WAL gets to the archive: here by a helper in the archive itself, as the server is on this host."""

    programs: t.ClassVar[t.Sequence[types.ModuleType]] = (wal_helper,)
    # What it is called where something of it is made, and what to do where somebody else's command is in its place.
    kind = "WAL archive"
    way_out = "leave wal_archive empty"

    def __init__(self, found: Found, wish: Wish) -> None:
        self.found = found
        self.wish = wish

    @property
    def marks(self) -> tuple[str, ...]:
        """Words by which a command of ours is known, one for another archive among them."""
        return file_name(wal_helper), file_name(wal_over_ssh)

    @property
    def command(self) -> str:
        """The archive_command that runs our helper, as the server's shell will read it."""
        helper = os.path.join(self._directories()[0], file_name(wal_helper))
        words = [python(), "-I", "-S", helper, "archive", self._directories()[1], self.wish.compression]
        return " ".join(shlex.quote(word).replace("%", "%%") for word in words) + ' "%p" "%f"'

    def account(self) -> tuple[int, int]:
        """User and group that the archive belongs to."""
        return server_account(self.found)

    def missing(self) -> list[str]:
        """The paths that are to be made or written before the server can archive: directories, then programs."""
        directories = self._directories()
        programs = [(os.path.join(directories[0], file_name(module)), module) for module in self.programs]
        return [
            *(directory for directory in directories if not os.path.lexists(directory)),
            *(path for path, module in programs if _content_of(path) != source(module)),
        ]

    def prepare(self, paths: t.Sequence[str]) -> None:
        """Make the *paths* that are missing; raises MaintenanceError where others could write."""
        uid, gid = self.account()
        directories = self._directories()
        for directory in directories:
            if directory in paths:
                os.makedirs(os.path.dirname(directory), exist_ok=True)
                os.mkdir(directory, 0o700)
                os.chown(directory, uid, gid, follow_symlinks=False)
            _refuse_shared(directory, uid)
        for module in self.programs:
            path = os.path.join(directories[0], file_name(module))
            if path in paths:
                write_atomically(path, source(module), 0o644)
                os.chown(path, uid, gid, follow_symlinks=False)

    def problem(self) -> str:
        """Why what the server sends cannot come here at all; empty when it can."""
        return ""

    def _directories(self) -> tuple[str, str]:
        return os.path.abspath(self.wish.archive), directory_of(self.wish.archive, self.found.identifier)


def server_account(found: Found) -> tuple[int, int]:
    """User and group of the server, by its data directory; raises MaintenanceError when it is not on this host."""
    try:
        status = os.stat(found.data_directory)
        control = os.path.join(found.data_directory, "global", "pg_control")
        if not os.path.exists(control):
            raise FileNotFoundError(2, "it is not there", control)
    except OSError as error:
        raise MaintenanceError(
            "archive WAL",
            where=found.data_directory,
            expected="the server on this host, and the right to see its data directory",
            observed=error.strerror or str(error),
            advice="Run the activity on the server's own host, as root or as the server's user.",
        ) from None
    if os.geteuid() not in (0, status.st_uid):
        raise MaintenanceError(
            "archive WAL",
            where=found.data_directory,
            expected=f"to run as root or as the server's user {_name_of(status.st_uid)}",
            observed=f"we run as {_name_of(os.geteuid())}",
            advice="Become root or that user, or leave wal_archive empty.",
        )
    return status.st_uid, status.st_gid


def _refuse_shared(directory: str, uid: int) -> None:
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != uid or status.st_mode & 0o022:
        raise MaintenanceError(
            "use the WAL archive",
            where=directory,
            expected=f"a directory (no link) that belongs to {_name_of(uid)}, and that no other can write to",
            observed=f"mode {stat.S_IMODE(status.st_mode):04o}, owner {_name_of(status.st_uid)}"
            + ("" if stat.S_ISDIR(status.st_mode) else ", not a directory"),
            advice=f"chown {_name_of(uid)} and chmod 0700 it, or choose another wal_archive.",
        )


def configure(connection: t.Any, settings: t.Mapping[str, str]) -> None:
    """Set them by ALTER SYSTEM and wait until the server goes by them."""
    sql = driver().sql
    for name, setting in settings.items():
        statement = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(setting))
        query(connection, statement)
    query(connection, "SELECT pg_catalog.pg_reload_conf()")
    deadline = time.monotonic() + _SECONDS_TO_RELOAD
    while _differing(connection, settings) and time.monotonic() < deadline:
        time.sleep(0.05)


def _differing(connection: t.Any, settings: t.Mapping[str, str]) -> bool:
    rows = query(connection, "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)", [list(settings)])
    return any(row["setting"] != settings[row["name"]] for row in rows)


def switch(connection: t.Any, lsn: str, segment_bytes: int) -> str:
    """End the segment that holds the record which ends at *lsn*, so that it is archived; returns its name."""
    timeline = int(value(connection, "SELECT pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn())")[:8], 16)
    query(connection, "SELECT pg_catalog.pg_switch_wal()")
    return segment_name(timeline, parse_lsn(lsn) - 1, segment_bytes)


def wait_for(connection: t.Any, found: Found, wish: Wish, segment: str, seconds: float = _SECONDS_TO_ARRIVE) -> Arrival:
    """Wait until *segment* is in the archive, and look at it; ends early when the archiver fails.

    Where others wait before it, as after an outage of the archive's host, each of them has its second.
    """
    began = time.monotonic()
    seconds += found.waiting
    directory = os.path.join(directory_of(wish.archive, found.identifier), segment[:8])
    while True:
        spent = time.monotonic() - began
        for compression, suffix in wal_helper.SUFFIXES.items():
            path = os.path.join(directory, segment + suffix)
            if os.path.lexists(path):
                return Arrival(path, spent, _problem(path, segment, compression, found.identifier))
        now = measure(connection)
        if now.failed > found.failed and now.failing:
            return Arrival("", spent, f"the archive_command fails on {now.failing}")
        if spent > seconds:
            return Arrival("", spent, f"it did not arrive within {seconds:.0f} s; {now.waiting} segments wait")
        time.sleep(0.05)


def _problem(path: str, segment: str, compression: str, identifier: str) -> str:
    try:
        wal_helper.read_file(path, segment, compression, identifier)
    except wal_helper.RefusedError as error:
        return str(error)
    return ""


def source(module: types.ModuleType = wal_helper) -> bytes:
    """A helper as it is installed."""
    loader: t.Any = module.__spec__.loader if module.__spec__ else None
    return str(loader.get_source(module.__name__)).encode()


def file_name(module: types.ModuleType) -> str:
    return module.__name__.rpartition(".")[2] + ".py"


def python() -> str:
    """The Python of this host that helpers run by."""
    return _PYTHON if os.path.exists(_PYTHON) else sys.executable


def _content_of(path: str) -> bytes | None:
    try:
        descriptor = wal_helper.open_plain(path)
    except (OSError, wal_helper.RefusedError):
        return None
    try:
        return wal_helper.read_all(descriptor)
    finally:
        os.close(descriptor)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
