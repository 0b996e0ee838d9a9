# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The server archives by pgBackRest: it is set up, the stanza is made, and a marker is sent all the way."""

from __future__ import annotations

import contextlib
import shlex
import time
import typing as t

from ...errors import MaintenanceError
from ...options import read_duration
from ...postgresql import connect
from ...quantities import human_seconds
from ...result import Part
from ..repository import Repository
from ..wal import archiving
from ..wal.archiving import Found, Way, Wish
from ..wal.keeping import check_settings, check_waiting, set_up
from ..wal.markers import write_marker
from ..wal.positions import format_lsn
from .configuration import Setup, plan_setup
from .room import report_room
from .sets import Sets
from .wal import PgbackrestWal, require_program

_SECONDS_TO_ARRIVE = 120.0
_BETWEEN_LOOKS = 0.2
_OK, _NO_STANZA, _NO_BACKUP = 0, 1, 2


class ByPgbackrest(Way):
    """WAL goes by ``pgbackrest archive-push``, as the configuration *setup* says."""

    kind = "pgBackRest"
    way_out = "choose the engine that fits it"

    def __init__(self, sets: Sets, setup: Setup, found: Found, wish: Wish) -> None:
        super().__init__(found, wish)
        self.sets = sets
        self.setup = setup

    @property
    def marks(self) -> tuple[str, ...]:
        return (f"--config={self.setup.path}",)

    @property
    def command(self) -> str:
        """Where somebody else wrote the configuration, a command of pgBackRest's that is there already is right."""
        there = self.found.command
        if self.setup.is_foreign and "pgbackrest" in there and "archive-push" in there:
            return there
        access = self.sets.tool.access
        words = [self.sets.tool.program, f"--config={access.config}", f"--stanza={access.stanza}", "archive-push"]
        return " ".join(shlex.quote(word).replace("%", "%%") for word in words) + ' "%p"'

    def missing(self) -> list[str]:
        return self.setup.missing

    def prepare(self, paths: t.Sequence[str]) -> None:
        if not self.setup.is_foreign:
            self.setup.write()


def keep_wal(
    params: t.Mapping[str, t.Any], sets: Sets, repository: Repository, part: Part, *, check_mode: bool
) -> None:
    """Measure, decide, set up what is missing, and send a marker through the archive."""
    wish = Wish("", "", params["wal_configure"], round(read_duration(params, "wal_timeout")))
    with contextlib.closing(connect(params, application_name="wellkept backup")) as connection:
        found = archiving.measure(connection)
        archiving.server_account(found)
        setup = plan_setup(params, sets.tool.access, found.data_directory)
        if not setup.is_foreign:
            require_program(params["compression"].partition(":")[0])
        way = ByPgbackrest(sets, setup, found, wish)
        _prepare(way, params, part, check_mode=check_mode)
        verdict = set_up(connection, way, part, check_mode=check_mode)
        if not check_mode:
            found = archiving.measure(connection)
            way = ByPgbackrest(sets, setup, found, wish)
            verdict = archiving.decide(found, way)
        check_settings(found, verdict, way, part, check_mode=check_mode)
        if not check_mode and found.mode != "off" and verdict.kind == "ours":
            marker = write_marker(connection, repository, params["login_db"], "heartbeat")
            _prove(connection, marker.lsn, way, part)
            found = archiving.measure(connection)
        check_waiting(found, part, repaired=check_mode and bool(way.missing() or verdict.set))
        report_room(params, sets, setup, connection, part)
        if not setup.missing:
            _tell_unknown_sets(sets, repository, part)


def _prepare(way: ByPgbackrest, params: t.Mapping[str, t.Any], part: Part, *, check_mode: bool) -> None:
    """The configuration, then the stanza: without it the server could archive nothing."""
    part.require(
        "configuration of pgBackRest",
        True,
        expected="one that says where the repository is",
        observed=f"{way.setup.path}, " + ("somebody else's, used as it is" if way.setup.is_foreign else "ours"),
    )
    missing = way.missing()
    if check_mode and missing:
        part.change(
            "pgBackRest", f"stanza {way.sets.tool.access.stanza}", "unknown", "would be made if it is not there"
        )
        return
    if not check_mode:
        way.prepare(missing)
        for path in missing:
            part.change(way.kind, path, "absent or old", "made")
    _make_stanza(way, params, part, check_mode=check_mode)


def _make_stanza(way: ByPgbackrest, params: t.Mapping[str, t.Any], part: Part, *, check_mode: bool) -> None:
    """Create the stanza, or upgrade it where it is of an older version of the server and that is allowed."""
    sets, name = way.sets, way.sets.tool.access.stanza
    sets.forget()
    databases = sets.info.get("db", [])
    ours = any(str(database["system-id"]) == way.found.identifier for database in databases[-1:])
    if ours:
        words = f"of the cluster {way.found.identifier}"
    elif not databases and sets.info["status"]["code"] in (_NO_STANZA, _NO_BACKUP):
        words = _run(sets, "stanza-create", part, check_mode=check_mode)
    elif params["pgbackrest_stanza_upgrade"] and databases:
        words = _run(sets, "stanza-upgrade", part, check_mode=check_mode)
    else:
        _refuse_other_cluster(sets, way.found.identifier, databases)
    part.require(f"stanza {name}", True, expected=f"one of the cluster {way.found.identifier}", observed=words)


def _run(sets: Sets, command: str, part: Part, *, check_mode: bool) -> str:
    name = f"stanza {sets.tool.access.stanza}"
    done = command.replace("stanza-", "") + "d"
    if not check_mode:
        sets.tool.run(command, what=f"{command} {sets.tool.access.stanza} with pgBackRest")
    part.change("pgBackRest", name, "absent" if command == "stanza-create" else "of an older cluster", done)
    sets.forget()
    return f"would be {done}" if check_mode else done


def _refuse_other_cluster(sets: Sets, identifier: str, databases: t.Sequence[t.Mapping[str, t.Any]]) -> t.NoReturn:
    found = databases[-1] if databases else {"system-id": "unknown", "version": "unknown"}
    raise MaintenanceError(
        "use the stanza of pgBackRest",
        where=sets.words,
        expected=f"the system identifier {identifier} of the server",
        observed=f"{found['system-id']}, of a server of version {found['version']}"
        if databases
        else str(sets.info["status"]["message"]),
        advice="It is another cluster's: correct pgbackrest_stanza, or the login options. After an upgrade of "
        "PostgreSQL by pg_upgrade, set pgbackrest_stanza_upgrade: true once.",
    )


def _prove(connection: t.Any, lsn: int, way: ByPgbackrest, part: Part) -> None:
    """A row written now must arrive in the repository: nothing else shows that all between here and there works."""
    wal = way.sets.live_wal(way.found.identifier)
    segment = archiving.switch(connection, format_lsn(lsn), way.found.segment_bytes)
    began = time.monotonic()
    missing = wait_for(connection, wal, [segment], way.found)
    seconds = time.monotonic() - began
    arrived = part.require(
        "WAL archived end to end",
        not missing,
        expected="a row written now, in a segment in the repository",
        observed=missing or f"{segment} after {human_seconds(seconds)}",
        advice="See the server's log for what the archive_command says.",
        lsn=format_lsn(lsn),
    )
    if not arrived:
        return
    part.metric("wal_archived_seconds", round(seconds, 3), "seconds")
    try:
        way.sets.tool.run("check", what="check with pgBackRest")
        said = ""
    except MaintenanceError as error:
        said = f"{error.observed}. {error.advice}"
    part.require(
        "pgbackrest check",
        not said,
        expected="configuration, stanza and archive that fit the server",
        observed=said or "they do",
        advice="Its own message says what it lacked.",
    )


def _tell_unknown_sets(sets: Sets, repository: Repository, part: Part) -> None:
    """Tell of sets that a broken connection has left on the repository's host; they may also be another catalogue's."""
    left = {name.partition("-")[2] for name in repository.leftovers()}
    unknown = sets.unknown(left | {backup.label for backup in repository.backups()})
    if unknown:
        part.check(
            "sets of pgBackRest without a backup",
            "warned",
            expected=f"a backup in {repository.directory} for each set that this activity made",
            observed=", ".join(unknown[:5]),
            advice="The connection to the repository's host broke while they were made, or another catalogue has them. "
            "If none has, remove each by pgbackrest expire --set=… on the repository's host.",
        )


def wait_for(connection: t.Any, wal: PgbackrestWal, names: t.Collection[str], before: Found) -> str:
    """Wait until the segments *names* are in the archive, or archiving fails; returns why they are not, or ""."""
    deadline = time.monotonic() + _SECONDS_TO_ARRIVE
    while True:
        wal.forget()
        missing = sorted(set(names) - wal.names())
        if not missing:
            return ""
        now = archiving.measure(connection)
        if now.failed > before.failed and now.failing:
            return f"{', '.join(missing[:5])} missing; the archive_command fails on {now.failing}"
        if time.monotonic() > deadline:
            return f"{', '.join(missing[:5])} did not arrive within {_SECONDS_TO_ARRIVE:.0f} s"
        time.sleep(_BETWEEN_LOOKS)
