# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""WAL archiving as a part of the activity backup: it is set up, proven end to end, and thinned out."""

from __future__ import annotations

import contextlib
import os
import shutil
import typing as t

from ...errors import MaintenanceError
from ...options import read_duration, refuse
from ...postgresql import connect
from ...quantities import human_bytes, human_seconds
from ...result import Part
from ..database_host import login_of
from ..repository import Repository
from . import archive as wal_archive
from . import archiving
from .archiving import Found, Verdict, Way, Wish
from .markers import Marker, write_marker
from .positions import format_lsn, parse_lsn, segment_name
from .remote import OverSsh

_MANY_WAITING = 8
_NO_COMMAND = "Set wal_configure: true to have it set, or set it yourself: "


def read_wish(params: t.Mapping[str, t.Any]) -> Wish:
    """The options; raises MaintenanceError where they make no sense."""
    timeout = round(read_duration(params, "wal_timeout"))
    archive = params["wal_archive"]
    if not os.path.isabs(archive) or os.path.realpath(archive).count("/") < 2:
        refuse("wal_archive", expected="an absolute path, at least two levels below the root", observed=archive)
    program = {"zstd": "zstd", "lz4": "lz4"}.get(params["wal_compression"])
    if program and not shutil.which(program, path="/usr/local/bin:/usr/bin:/bin"):
        raise MaintenanceError(
            f"compress WAL by {program}",
            expected=f"the program {program}",
            observed="it is not installed",
            advice=f"apt-get install {program}, or set wal_compression to gzip.",
        )
    return Wish(archive, params["wal_compression"], params["wal_configure"], timeout)


def keep_wal(params: t.Mapping[str, t.Any], repository: Repository, part: Part, *, check_mode: bool) -> None:
    """Measure, decide, set up what is missing, and send a marker through the archive."""
    wish = read_wish(params)
    with contextlib.closing(connect(params, application_name="wellkept backup")) as connection:
        found = archiving.measure(connection)
        way = way_of_wal(params, found, wish)
        way.account()
        verdict = set_up(connection, way, part, check_mode=check_mode)
        if not check_mode:
            found = archiving.measure(connection)
            verdict = archiving.decide(found, way)
        check_settings(found, verdict, way, part, check_mode=check_mode)
        if not check_mode and found.mode != "off" and verdict.kind in ("ours", "other") and _is_open(way, part):
            marker = write_marker(connection, repository, params["login_db"], "heartbeat")
            _prove(connection, marker, found, wish, part)
            found = archiving.measure(connection)
        check_waiting(found, part, repaired=check_mode and bool(way.missing() or verdict.set))


def way_of_wal(params: t.Mapping[str, t.Any], found: Found, wish: Wish) -> Way:
    remote = login_of(params)
    return OverSsh(remote, params["wal_ssh"], found, wish) if remote else Way(found, wish)


def _is_open(way: Way, part: Part) -> bool:
    """Whether the server's host gets through to the archive, where that is on another host."""
    if not isinstance(way, OverSsh):
        return True
    problem = way.problem()
    return part.require(
        "way of WAL over SSH",
        not problem,
        expected="the server's user on its host gets through to the archive's account on this one",
        observed=problem or "it does",
        advice="WAL stays on the server's host meanwhile, and fills its disk. See that sshd runs here and that the "
        "server's host can reach it, then run this again.",
    )


def set_up(connection: t.Any, way: Way, part: Part, *, check_mode: bool) -> Verdict:
    found, wish = way.found, way.wish
    words = "would be made" if check_mode else "made"
    paths = way.missing()
    if not check_mode:
        way.prepare(paths)
        paths = [path for path in paths if path not in way.missing()]
    for path in paths:
        part.change(way.kind, path, "absent or old", words)
    verdict = archiving.decide(found, way)
    if not wish.configure or verdict.kind == "foreign":
        return verdict
    for name, setting in verdict.set.items():
        before = {"archive_command": found.command, "archive_timeout": str(found.timeout)}[name]
        part.change("setting", name, before or "empty", f"{'would be ' if check_mode else ''}{setting}")
    if verdict.set and not check_mode:
        archiving.configure(connection, verdict.set)
    return verdict


def check_settings(found: Found, verdict: Verdict, way: Way, part: Part, *, check_mode: bool) -> None:
    part.require(
        "archive_mode",
        found.mode != "off",
        expected="on",
        observed=found.mode,
        advice="It takes a restart of the server, which is yours to choose: ALTER SYSTEM SET archive_mode = on, then "
        "restart PostgreSQL.",
    )
    would_be_set = check_mode and way.wish.configure and verdict.kind != "foreign"
    if verdict.kind == "foreign":
        part.require(
            "archive_command",
            False,
            expected="the helper of this collection, or none",
            observed=f"another one, by {archiving.program_of(found)}; it was left alone",
            advice=f"Two archives in one server are not possible: {way.way_out}, or take that command away.",
        )
    else:
        part.require(
            "archive_command",
            verdict.kind == "ours" or would_be_set,
            expected=way.command,
            observed=found.command if verdict.kind != "none" else "none",
            advice=f"{_NO_COMMAND}ALTER SYSTEM SET archive_command = …; SELECT pg_reload_conf().",
        )
    part.check(
        "archive_timeout",
        "passed" if found.timeout or would_be_set else "warned",
        expected="a time after which a segment is archived though it is not full",
        observed=human_seconds(found.timeout) if found.timeout else "none: 0",
        advice="In a quiet hour the last transactions stay on this host until a segment is full. Set wal_configure: "
        "true, or archive_timeout yourself.",
    )


def check_waiting(found: Found, part: Part, *, repaired: bool) -> None:
    part.check(
        "WAL waiting to be archived",
        "failed" if found.failing and not repaired else "warned" if found.waiting > _MANY_WAITING else "passed",
        expected=f"at most {_MANY_WAITING} segments, and no failure",
        observed=f"{found.waiting} segments" + (f"; it failed last on {found.failing}" if found.failing else ""),
        advice="See the server's log for what the archive_command says. WAL fills the server's disk meanwhile.",
    )
    part.metric("wal_waiting", found.waiting, "count")


def _prove(connection: t.Any, marker: Marker, found: Found, wish: Wish, part: Part) -> None:
    """A row written now must arrive in the archive: nothing else shows that all between here and there works."""
    segment = archiving.switch(connection, format_lsn(marker.lsn), found.segment_bytes)
    arrival = archiving.wait_for(connection, found, wish, segment)
    arrived = part.require(
        "WAL archived end to end",
        not arrival.problem,
        expected="a row written now, in a sound segment in the archive",
        observed=f"{segment} {arrival.problem}"
        if arrival.problem
        else f"{os.path.basename(arrival.path)} after {human_seconds(arrival.seconds)}",
        advice="See the server's log for what the archive_command says.",
        marker=marker.id,
        lsn=format_lsn(marker.lsn),
    )
    if arrived:
        part.metric("wal_archived_seconds", round(arrival.seconds, 3), "seconds")


def thin_out(params: t.Mapping[str, t.Any], repository: Repository, identifier: str, part: Part) -> None:
    """Remove what no kept backup of the cluster needs; without a backup, nothing."""
    directory = wal_archive.directory_of(params["wal_archive"], identifier)
    if not os.path.isdir(directory):
        return
    backups = [b.metadata for b in repository.backups() if str(b.metadata["system_identifier"]) == identifier]
    if backups:
        sizes = backups[0]["settings"]["wal_segment_size"]
        oldest = segment_name(1, min(parse_lsn(b["start_lsn"]) for b in backups), sizes)
        paths = wal_archive.dispensable(directory, oldest)
        if paths:
            count, size = wal_archive.remove(directory, paths)
            part.change(
                "WAL archive", directory, f"{count} files, {human_bytes(size)}", "removed: no backup needs them"
            )
    present = wal_archive.segments(directory)
    part.metric("wal_archive_segments", len(present), "count")
    part.metric("wal_archive_bytes", sum(segment.size for segment in present), "bytes")
