# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore the copies of Redis servers into scratch servers, one after the other, and look what is in them."""

from __future__ import annotations

import os
import time
import typing as t

from ..backup.repository import Backup
from ..backup.stores.redis_copies import RedisCopies, lay_down
from ..errors import MaintenanceError, MissingToolError
from ..quantities import human_bytes, human_seconds
from ..redis import rdb
from ..result import Part
from . import redis_content
from .scratch_directory import overlap, scratch_directory
from .scratch_redis import ScratchRedis

# What a server takes beside what was used before, and for what it reads to look at.
_MEMORY = 1.25
_MARGIN_BYTES = 64 << 20

Copy = t.Mapping[str, t.Any]

OPTION: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "name": {"type": "str", "required": True},
        "server": {"type": "str", "required": True},
        "database": {"type": "int", "default": 0},
        "command": {"type": "list", "elements": "str", "required": True},
        "expected": {"type": "str"},
        "min": {"type": "str"},
        "max": {"type": "str"},
    },
}


class Plan(t.NamedTuple):
    """What to restore, where, and what to ask of it."""

    backup: Backup
    base: str
    timeout: float
    assertions: t.Sequence[Copy] = ()
    # What the last test of this backup has found: see :func:`prove`.
    before: t.Mapping[str, t.Any] = {}
    holder: t.Mapping[str, t.Any] = {}


class Proven(t.NamedTuple):
    """What a test of all copies gave: the seconds until all had loaded, and what a later test is to find again."""

    seconds: float
    digests: dict[str, t.Any]
    # What of :func:`wanted` was not looked at, because a server could not be restored here.
    missed: list[str]


def prove(plan: Plan, part: Part) -> Proven:
    """Restore each copy that the backup holds and record what was found in *part*."""
    copies = _copies(plan.backup)
    _check_names(plan, copies, part)
    seconds = 0.0
    digests = {}
    for copy in copies:
        if _may_restore(plan, copy, part):
            loaded, digest = _prove_one(plan, copy, part)
            seconds += loaded
            if digest:
                digests[copy["name"]] = digest._asdict()
    looked_at = {f"Redis {name}" for name in digests}
    missed = [name for name in wanted(plan.backup, plan.assertions) if name.rpartition(" in ")[2] not in looked_at]
    return Proven(seconds, digests, missed)


NOTHING = Proven(0.0, {}, [])


def wanted(backup: Backup, asserted: t.Sequence[Copy]) -> list[str]:
    """What a test looks at, in the words of the proof."""
    names = [f"Redis {copy['name']}" for copy in _copies(backup)]
    return names + [f"assertion {one['name']} in Redis {one['server']}" for one in asserted]


def _copies(backup: Backup) -> t.Sequence[Copy]:
    return t.cast(t.Sequence[Copy], (RedisCopies({}).facts_of(backup) or {"servers": []})["servers"])


def _check_names(plan: Plan, copies: t.Sequence[Copy], part: Part) -> None:
    """An assertion about a server that is not in the backup would never be asked."""
    names = [copy["name"] for copy in copies]
    lost = sorted({one["server"] for one in plan.assertions if one["server"] not in names})
    if lost:
        part.require(
            "Redis servers in the backup",
            False,
            expected="every server that something is asserted of",
            observed=f"{', '.join(lost)} missing" + (f", there are {', '.join(names)}" if names else ""),
            advice="List the server in the option redis of the activity backup, or correct the assertion.",
        )


def _may_restore(plan: Plan, copy: Copy, part: Part) -> bool:
    """There is a program, room, and no live server in the way."""
    name = copy["name"]
    try:
        rdb.find_server()
    except MissingToolError as missing:
        part.check(
            f"restore of Redis {name}",
            "unknown",
            expected="the copy loaded into a scratch server",
            observed=f"redis-server: {missing.observed}",
            advice=missing.advice,
        )
        return False
    live = copy["directory"]
    how = overlap(plan.base, live) if live else ""
    if how in ("is", "lies inside"):
        raise MaintenanceError(
            "use the scratch directory",
            where=plan.base,
            expected="one outside of the directories of live servers",
            observed=f"it {how} the directory {live} of Redis {name}",
            advice="Set scratch_dir to another directory; it is created when it does not exist.",
        )
    return _has_room(plan, copy, part)


def _has_room(plan: Plan, copy: Copy, part: Part) -> bool:
    status = os.statvfs(plan.base)
    disk, needed_disk = status.f_bavail * status.f_frsize, copy["bytes"] + _MARGIN_BYTES
    memory, needed = available_memory(), needed_memory(copy)
    return part.require(
        f"room for the restore of Redis {copy['name']}",
        memory >= needed and disk >= needed_disk,
        expected=f"{human_bytes(needed)} of memory, and {human_bytes(needed_disk)} in {plan.base}",
        observed=f"{human_bytes(memory)} of memory available, {human_bytes(disk)} free on disk",
        advice="Test restores on a host with more memory, or at a time when more of it is free.",
    )


def needed_memory(copy: Copy) -> int:
    return int(copy["used_memory"] * _MEMORY) + _MARGIN_BYTES


def available_memory() -> int:
    """Bytes that we may still use: of the host, and of the control groups that we are in."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        fields = dict(line.split(":", 1) for line in stream)
    return min([int(fields["MemAvailable"].split()[0]) * 1024, *_left_in_groups()])


def _left_in_groups() -> t.Iterator[int]:
    """What is left below each limit, from our control group (version 2) up; files that are kept in memory can go."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as stream:
        own = next((line.strip()[3:] for line in stream if line.startswith("0::")), "")
    parts = own.strip("/").split("/") if own.strip("/") else []
    for depth in range(len(parts) + 1):
        group = os.path.join("/sys/fs/cgroup", *parts[:depth])
        try:
            limit, used = (_read(group, name) for name in ("memory.max", "memory.current"))
            files = dict(line.split() for line in _read(group, "memory.stat").splitlines()).get("inactive_file", "0")
            if limit.isdigit():
                yield max(0, int(limit) - int(used) + int(files))
        except (OSError, ValueError):
            continue


def _read(group: str, name: str) -> str:
    with open(os.path.join(group, name), encoding="ascii") as stream:
        return stream.read().strip()


def _prove_one(plan: Plan, copy: Copy, part: Part) -> tuple[float, redis_content.Digest | None]:
    with scratch_directory(plan.base, dict(plan.holder)) as directory:
        server = ScratchRedis(directory)
        try:
            seconds = _load(plan, copy, server, part)
            return seconds, _look(plan, copy, server, part) if seconds else None
        except MaintenanceError as error:
            part.require(
                f"restore of Redis {copy['name']}",
                False,
                expected="a scratch server that can be looked into",
                observed=f"{error.what}: {error.observed}",
                advice=error.advice,
            )
            return 0.0, None
        finally:
            server.stop()


def _load(plan: Plan, copy: Copy, server: ScratchRedis, part: Part) -> float:
    """Lay the file down and start the server on it; the seconds that this took, or 0 when it did not."""
    name = copy["name"]
    began = time.monotonic()
    try:
        problem = lay_down(plan.backup, copy, server.file)
    except OSError as error:
        problem = f"{error.filename or copy['file']}: {error.strerror}"
    fetched = time.monotonic()
    if not problem:
        server.configure(databases=_databases(copy), memory=needed_memory(copy))
        try:
            server.start(plan.timeout)
        except MaintenanceError as error:
            problem = f"{error.observed}. {error.advice}"
    seconds = time.monotonic() - began
    part.metric(f"redis_fetch_seconds {name}", round(fetched - began, 3), "seconds")
    part.metric(f"redis_load_seconds {name}", round(seconds - (fetched - began), 3), "seconds")
    # A program that is too old for the file says nothing of the file.
    part.check(
        f"restore of Redis {name}",
        "passed" if not problem else "unknown" if rdb.TOO_NEW.search(problem) else "failed",
        expected=f"a scratch server that has loaded the file of {copy['server']} {copy['server_version']}",
        observed=problem or f"{human_bytes(copy['bytes'])} in {human_seconds(seconds)}",
        advice="Make a new backup, and find out what damages the repository, when the file is damaged.",
    )
    return 0.0 if problem else seconds


def _databases(copy: Copy) -> int:
    """How many databases the scratch server needs at least."""
    used = [int(number) + 1 for number in copy["bounds"]]
    return max(16, *used, int(copy["databases"] or 0))


def _look(plan: Plan, copy: Copy, server: ScratchRedis, part: Part) -> redis_content.Digest | None:
    name = copy["name"]
    with server.connect(plan.timeout) as connection:
        digest = redis_content.look(connection, name, copy, part)
        redis_content.check_digest(name, digest, plan.before.get(name), part)
        asked = [one for one in plan.assertions if one["server"] == name]
        redis_content.check_assertions(connection, name, asked, part)
    return digest
