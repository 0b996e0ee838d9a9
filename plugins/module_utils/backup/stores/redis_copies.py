# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Redis and Valkey servers: the data of each as one RDB file, ``redis/<number>.rdb``, with what to hold it against."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import typing as t
from datetime import timedelta

from ...errors import MaintenanceError, MissingToolError
from ...options import read_duration, refuse
from ...quantities import human_bytes, human_seconds
from ...redis import instance, keyspace, rdb
from ...redis.client import LOGIN_OPTIONS, Redis, where_of
from ...result import Part
from ..programs import Written
from ..remembered import Remembered
from ..repository import Backup, Repository
from .store import Making, Restored, Saved, Store

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
# A first copy takes less than the memory does, later ones about what the last one took.
_GROWTH = 1.25
_CHUNK = 1 << 20

_OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    **LOGIN_OPTIONS,
    "marker_for": {"type": "str", "default": "35d"},
}


class RedisCopies(Store):
    """The servers in the option ``redis``."""

    name = "redis"
    options: t.ClassVar[t.Mapping[str, t.Mapping[str, t.Any]]] = {
        "redis": {"type": "list", "elements": "dict", "default": [], "options": _OPTIONS}
    }

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        super().__init__(params)
        self.servers: list[dict[str, t.Any]] = list(params.get("redis") or ())
        self.used_memory = 0
        self.copies: list[dict[str, t.Any]] = []

    @property
    def wanted(self) -> bool:
        return bool(self.servers)

    def prepare(self, repository: Repository, part: Part) -> None:
        """Every server answers, and lets us in: told before a backup is begun."""
        self.used_memory = 0
        names = [server["name"] for server in self.servers]
        for server in self.servers:
            if not _NAME.fullmatch(server["name"]) or names.count(server["name"]) > 1:
                refuse(
                    "redis",
                    expected="a name for each, of letters, digits, dot, dash and underscore, and no name twice",
                    observed=repr(server["name"]),
                )
            read_duration(server, "marker_for")
            with Redis(server) as connection:
                self.used_memory += int(instance.describe(connection)["used_memory"])

    def plan(self) -> int:
        return int(self.used_memory * _GROWTH)

    def create(self, making: Making) -> Saved:
        os.mkdir(os.path.join(making.directory, self.name), 0o700)
        written = {}
        self.copies = []
        for number, server in enumerate(self.servers):
            path = f"{self.name}/{number}.rdb"
            written[path], facts = self._copy(making, server, os.path.join(making.directory, path))
            self.copies.append({"name": server["name"], "address": where_of(server), "file": path, **facts})
        sizes = {f"Redis {copy['name']}": copy["bytes"] for copy in self.copies}
        return Saved({"servers": self.copies, "sizes": sizes}, written)

    def _copy(self, making: Making, server: dict[str, t.Any], path: str) -> tuple[Written, dict[str, t.Any]]:
        seconds = read_duration(server, "marker_for")
        taken, facts = instance.copy(
            server,
            path,
            label=making.label,
            marker_for=timedelta(seconds=seconds) if seconds else None,
            timeout=read_duration(self.params, "timeout"),
        )
        rdb.refuse_unless_of(path, taken.replication_id, taken.offset)
        facts.update(bytes=taken.bytes, checksum=rdb.has_checksum(path), **_checked(path))
        if facts["problem"]:
            raise _unsound(path, facts["problem"])
        return Written(taken.sha256, taken.bytes), facts

    def report(self, part: Part) -> None:
        for copy in self.copies:
            _report(copy, part)

    def verify(
        self, backups: t.Sequence[Backup], remembered: Remembered, part: Part, *, quick: bool = False
    ) -> dict[str, list[str]]:
        """Their bytes are read with the rest of the backup; here is told what these bytes are."""
        found: dict[str, list[str]] = {}
        unchecked: list[str] = []
        for backup in backups:
            for copy in self.facts_of(backup)["servers"]:
                problem, reason = ("", "") if quick else _look(backup, copy)
                if problem:
                    found.setdefault(backup.label, []).append(f"{copy['file']} (Redis {copy['name']}): {problem}")
                if reason:
                    unchecked.append(f"{backup.label}: {reason}")
        if unchecked:
            part.check(
                "RDB files as redis-check-rdb reads them",
                "unknown",
                expected="every file read by redis-check-rdb",
                observed="; ".join(unchecked[:3]) + (" …" if len(unchecked) > 3 else ""),
                advice="apt-get install redis-tools (or valkey-tools), not older than the server.",
            )
        return found

    def restore(self, backup: Backup, directory: str) -> Restored:
        """Lay the files down as ``redis/<name>.rdb`` below *directory*; to put one in its place is the operator's."""
        target = os.path.join(directory, self.name)
        os.makedirs(target, mode=0o700, exist_ok=True)
        places = {}
        problems = []
        copies = self.facts_of(backup)["servers"]
        for copy in copies:
            place = places[f"Redis {copy['name']}"] = os.path.join(target, f"{copy['name']}.rdb")
            problem = lay_down(backup, copy, place)
            if problem:
                problems.append(f"{copy['file']}: {problem}")
        return Restored(problems, len(copies), sum(copy["bytes"] for copy in copies), places)


def lay_down(backup: Backup, copy: t.Mapping[str, t.Any], place: str) -> str:
    """Copy the RDB file of *copy* to the new file *place*; returns what is wrong with it, by its hash."""
    expected = next(entry for entry in backup.metadata["files"] if entry["path"] == copy["file"])
    digest = hashlib.sha256()
    source = os.open(backup.path(copy["file"]), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    target = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(source, "rb") as original, os.fdopen(target, "wb") as new:
        for block in iter(lambda: original.read(_CHUNK), b""):
            digest.update(block)
            new.write(block)
    return "" if digest.hexdigest() == expected["sha256"] else "its SHA-256 is not the one that was recorded"


def _checked(path: str) -> dict[str, t.Any]:
    """What redis-check-rdb says of a file: ``keys`` is None where it could not be asked, and ``unchecked`` why."""
    try:
        found = rdb.check(path)
    except MissingToolError as missing:
        return {"keys": None, "problem": "", "unchecked": f"{missing.observed}; {missing.advice}"}
    known = not found.problem and not found.refused
    return {"keys": found.keys if known else None, "problem": found.problem, "unchecked": found.refused}


def _look(backup: Backup, copy: t.Mapping[str, t.Any]) -> tuple[str, str]:
    """What is wrong with a file, and why that could not be told. One that was sound, and has its hash, still is."""
    path = backup.path(copy["file"])
    with contextlib.suppress(OSError):  # one that is missing is told with the other files
        try:
            rdb.refuse_unless_of(path, copy["replication_id"], copy["offset"])
        except MaintenanceError as error:
            return f"it shows {error.observed} instead of {error.expected}", ""
        if copy["keys"] is None:
            now = _checked(path)
            return now["problem"], now["unchecked"]
    return "", ""


def _unsound(path: str, problem: str) -> MaintenanceError:
    return MaintenanceError(
        "check the copy of a Redis server",
        where=os.path.basename(path),
        expected="a file that redis-check-rdb reads without a fault",
        observed=problem,
        advice="See the server's log and the memory of both hosts. Nothing was kept of this backup.",
    )


def _report(copy: t.Mapping[str, t.Any], part: Part) -> None:
    name = copy["name"]
    keys = "" if copy["keys"] is None else f", {copy['keys']} keys"
    part.check(
        f"copy of Redis {name}",
        "unknown" if copy["unchecked"] else "passed",
        expected="a file that redis-check-rdb reads without a fault",
        observed=copy["unchecked"]
        or f"{human_bytes(copy['bytes'])}{keys} in {human_seconds(copy['seconds'])}, {copy['server']} "
        f"{copy['server_version']}, at {copy['offset']} of {copy['replication_id']}",
        advice="Until then only a restore test shows what is in the file.",
    )
    if copy["keys"] is not None:
        _report_keys(copy, part)
    part.check(
        f"checksum of Redis {name}",
        "passed" if copy["checksum"] else "warned",
        expected="files with a checksum of the server's own",
        observed="there is one" if copy["checksum"] else "rdbchecksum is switched off",
        advice="CONFIG SET rdbchecksum yes: without it nothing shows what is damaged before the file reaches us.",
    )
    if copy["no_marker"]:
        switched_off = copy["no_marker"] == instance.SWITCHED_OFF
        part.check(
            f"marker in Redis {name}",
            "passed" if switched_off else "warned",
            expected="a key that the restore test looks for",
            observed=f"none was written: {copy['no_marker']}",
            advice="Mend that, or switch the marker off for this server (marker_for: 0).",
        )
    part.metric(f"redis_bytes {name}", copy["bytes"], "bytes")


def _report_keys(copy: t.Mapping[str, t.Any], part: Part) -> None:
    least, most = (sum(bounds[side] for bounds in copy["bounds"].values()) for side in (0, 1))
    part.require(
        f"keys in the copy of Redis {copy['name']}",
        least <= copy["keys"] <= most,
        expected=f"as many as the server held: {least if least == most else f'{least} to {most}'}",
        observed=copy["keys"],
        advice="Look at the server's log; make another backup, and a restore test of it.",
        before=keyspace.total(copy["keyspace"]["before"]),
        after=keyspace.total(copy["keyspace"]["after"]),
    )
