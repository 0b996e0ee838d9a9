# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How many keys a server holds in each of its databases, and how many it can have held a moment before."""

from __future__ import annotations

import re
import typing as t

# A key that comes or goes takes more than this in the stream of changes: ``$1\r\na\r\n`` is the shortest.
_BYTES_OF_A_KEY = 7

# For each database, by its number: how many keys, and how many of them expire at some time.
Keyspace = t.Dict[str, t.Dict[str, int]]
# For each database: the fewest and the most keys.
Bounds = t.Dict[str, t.List[int]]


def parse(info: t.Mapping[str, str]) -> Keyspace:
    """The databases in the answer to INFO; empty ones are not there."""
    found = {}
    for name, value in info.items():
        if re.fullmatch(r"db\d+", name):
            counts = dict(entry.split("=", 1) for entry in value.split(",") if "=" in entry)
            found[name[2:]] = {"keys": int(counts["keys"]), "expires": int(counts["expires"])}
    return found


def bounds(before: Keyspace, after: Keyspace, changed_bytes: int) -> Bounds:
    """Between how many and how many keys each database held at a point between *before* and *after*.

    *changed_bytes* is what the stream of changes grew by from the point to *after*: nothing while nobody writes, and
    then the bounds are one number.
    """
    slack = max(0, changed_bytes) // _BYTES_OF_A_KEY
    found = {}
    for database in sorted({*before, *after}, key=int):
        counts = [side[database]["keys"] if database in side else 0 for side in (before, after)]
        found[database] = [max(0, min(counts) - slack), max(counts) + slack]
    return found


def total(keyspace: Keyspace) -> int:
    return sum(counts["keys"] for counts in keyspace.values())


def beyond(found: Keyspace, allowed: Bounds, expired: int) -> list[str]:
    """Which databases have fewer or more keys than is *allowed*; *expired* keys were gone before they were counted."""
    problems = []
    missing = 0
    for database in sorted({*found, *allowed}, key=int):
        keys = found[database]["keys"] if database in found else 0
        least, most = allowed.get(database, [0, 0])
        missing += max(0, least - keys)
        if keys > most or keys < least - expired:
            between = f"{least}" if least == most else f"{least} to {most}"
            problems.append(f"database {database} has {keys} keys instead of {between}")
    if not problems and missing > expired:
        problems.append(f"{missing} keys are missing, and only {expired} have expired")
    return problems
