# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether there is room in the repository of pgBackRest, where it is on this host."""

from __future__ import annotations

import os
import re
import typing as t

from ...options import read_size
from ...postgresql import value
from ...quantities import human_bytes
from ...result import Part
from .configuration import Setup
from .sets import Sets

_DATABASES = "SELECT coalesce(sum(pg_catalog.pg_database_size(oid)), 0)::bigint FROM pg_catalog.pg_database"
_PATH = re.compile(r"^\s*repo1-path\s*=\s*(.*?)\s*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"^\s*repo1-(?:host|type)\s*=(?!\s*(?:posix|cifs)\s*$)", re.MULTILINE)
_DEFAULT = "/var/lib/pgbackrest"
# A full backup may be larger than the one before; the first one is hardly larger than half, as it is compressed.
_GROWTH, _COMPRESSED = 1.25, 0.5


def path_of(configuration: str) -> str:
    """The directory of the repository by the text *configuration*; empty where it is not on this host."""
    if _ELSEWHERE.search(configuration):
        return ""
    found = _PATH.search(configuration)
    return found.group(1) if found else _DEFAULT


def report_room(params: t.Mapping[str, t.Any], sets: Sets, setup: Setup, connection: t.Any, part: Part) -> None:
    """Warn where no full backup would find room any more, fail where none is left to archive WAL."""
    path = path_of(setup.effective)
    if not path:
        return
    kept = read_size(params, "min_free_bytes")
    needed, free = _full_backup(sets, setup, connection, params), _free(path)
    part.metric("pgbackrest_free_bytes", free, "bytes")
    enough = "passed" if free >= needed + kept else "warned"
    part.check(
        f"space in {path}",
        "failed" if free < kept else enough,
        expected=f"{human_bytes(needed)} for a full backup, and {human_bytes(kept)} left free",
        observed=f"{human_bytes(free)} free",
        advice="Give pgBackRest's repository more space, keep fewer backups, or lower min_free_bytes. A repository "
        "that is full takes no WAL, which then fills the disk of the server.",
        evidence={"needed_bytes": needed, "free_bytes": free},
    )


def _full_backup(sets: Sets, setup: Setup, connection: t.Any, params: t.Mapping[str, t.Any]) -> int:
    fulls = [] if setup.missing else [entry for entry in sets.every() if entry["type"] == "full"]
    if fulls:
        return int(fulls[-1]["info"]["repository"]["delta"] * _GROWTH)
    ratio = 1 if params["compression"] == "none" else _COMPRESSED
    return int(value(connection, _DATABASES) * ratio)


def _free(path: str) -> int:
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
