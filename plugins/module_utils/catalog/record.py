# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The listing of a cluster at the point of its backup, in a file of the backup.

The catalogs are read twice: by the snapshot of the point, which is from just before it, and once more after it. Only
what is the same in both is taken to have been so at the point; the rest was changed at that very moment, and is named
as such. What came and went between both is in neither.
Sequences do not heed snapshots: at the point they stood where they stood before it, or further.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from concurrent.futures import ThreadPoolExecutor

from .. import postgresql
from ..files import read_json, sha256_of, write_json
from . import listing
from .listing import Listing

FILE = "catalog.json"


class Reader(t.Protocol):
    """One database at the consistent point: a connection that reads by its snapshot, and what was seen before it."""

    database: str
    reader: t.Any
    sequences: t.Dict[str, t.Optional[int]]


def write(path: str, params: t.Mapping[str, t.Any], readers: t.Sequence[Reader]) -> dict[str, t.Any]:
    """Write the listing of the cluster behind the login options *params* to *path*; returns ``{sha256, bytes}``."""
    cluster: Listing = {}
    databases: dict[str, dict[str, t.Any]] = {}
    changing: list[str] = []
    for reader in readers:
        with contextlib.closing(postgresql.connect(params, reader.database)) as later:
            found, unsure = certain(*_both(listing.of_database, reader.reader, later))
            changing += [f"{name} in {reader.database}" for name in unsure]
            databases[reader.database] = {"objects": found, "sequences": reader.sequences}
            if reader is readers[0]:
                cluster, unsure = certain(*_both(listing.of_cluster, reader.reader, later))
                changing += unsure
    write_json(path, {"cluster": cluster, "databases": databases, "changing": changing})
    return {"sha256": sha256_of(path), "bytes": os.path.getsize(path)}


def _both(listed: t.Callable[[t.Any], Listing], reader: t.Any, later: t.Any) -> tuple[Listing, Listing]:
    """What is *listed* through both connections, at the same time: the point is behind us."""
    with ThreadPoolExecutor(1) as pool:
        after = pool.submit(listed, later)
        return listed(reader), after.result()


def certain(before: Listing, after: Listing) -> tuple[Listing, list[str]]:
    """What is the same in both listings, and the names of the rest."""
    same = {name: facts for name, facts in before.items() if after.get(name) == facts}
    return same, sorted(name for name in {*before, *after} if name not in same)


def read(path: str) -> dict[str, t.Any] | None:
    """What :func:`write` wrote; None for a backup that was made without."""
    found: dict[str, t.Any] | None = read_json(path)
    return found
