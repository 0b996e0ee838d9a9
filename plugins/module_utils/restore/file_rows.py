# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows and files: every file that a row names is among the restored files of the same point, with its content.

Rows come in portions, and which files were named is noted in the restored files themselves: there may be millions.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .. import postgresql
from ..backup.contents import shown
from ..backup.repository import Backup
from ..backup.stores.store import Restored, Store
from ..errors import MaintenanceError
from ..files import sha256_of
from ..quantities import human_bytes
from ..result import Part
from .scratch_cluster import ScratchCluster

_PORTION = 10_000
_NAMED = 5
# The time of a file that some row names; the files are ours, and go when they were looked at.
_SEEN = 1_000_000_000
_STATEMENT_TIMEOUT = "1h"


OPTION: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "name": {"type": "str", "required": True},
        "database": {"type": "str", "required": True},
        "query": {"type": "str", "required": True},
        "root": {"type": "path", "required": True},
    },
}


class Rule(t.NamedTuple):
    """Where rows name files: *query* gives path, SHA-256 and perhaps bytes of files below *root*."""

    name: str
    database: str
    query: str
    root: str


class _Found:
    """What comparing the rows of one rule with the files showed."""

    def __init__(self) -> None:
        self.rows = 0
        self.unhashed = 0
        self.problems = 0
        self.examples: list[str] = []
        self.unnamed = 0

    def problem(self, words: str) -> None:
        self.problems += 1
        if len(self.examples) < _NAMED:
            self.examples.append(words)


def check_files(
    stores: t.Sequence[Store],
    backup: Backup,
    rules: t.Sequence[t.Mapping[str, str]],
    cluster: ScratchCluster,
    part: Part,
) -> None:
    """Lay down what *stores* saved for *backup* beside the restored cluster, and compare it with rows by *rules*."""
    directory = os.path.join(cluster.directory, "files")
    os.mkdir(directory, 0o700)
    places: dict[str, str] = {}
    for store in stores:
        restored = restore_files(store, backup, directory, part)
        places.update(restored.places if restored else {})
    for rule in rules:
        _check_rule(Rule(**rule), cluster, places, part)


def restore_files(store: Store, backup: Backup, directory: str, part: Part) -> Restored | None:
    """Lay down what *store* saved for *backup*; None when it could not be."""
    name = f"application files of the backup, from {store.name}"
    try:
        restored = store.restore(backup, directory)
        problems = restored.problems
    except (MaintenanceError, OSError) as error:
        restored, problems = None, [str(error)]
    part.require(
        name,
        not problems,
        expected="every file as it was recorded, and no other",
        observed="; ".join(problems[:_NAMED])
        if problems or restored is None
        else f"{restored.files} files, {human_bytes(restored.bytes)}, as recorded",
        advice="Do not rely on this backup: make a new one, and find out what damages the repository.",
        problems=problems[:50],
    )
    if restored:
        part.metric("restored_files", restored.files, "count")
        part.metric("restored_files_bytes", restored.bytes, "bytes")
    return restored


def _check_rule(rule: Rule, cluster: ScratchCluster, places: t.Mapping[str, str], part: Part) -> None:
    name = f"rows and files: {rule.name}"
    expected = f"every file that a row names below {rule.root}, with its content"
    place = _place_of(rule.root, places)
    if not place:
        part.require(
            name,
            False,
            expected=expected,
            observed=f"no directory of this backup holds it; it holds {', '.join(sorted(places)) or 'none'}",
            advice="Add the directory to backup_files, or correct root.",
        )
        return
    found = _Found()
    try:
        for row in _rows(rule, cluster):
            _compare(row, place, rule.root, found)
    except MaintenanceError as error:
        part.require(name, False, expected=expected, observed=error.observed, advice="Correct the query.")
        return
    found.unnamed = _unnamed(place)
    for metric, count in (("file_rows_compared", found.rows), ("files_without_row", found.unnamed)):
        earlier = part.metrics.get(metric, {"value": 0})["value"]
        part.metric(metric, earlier + count, "count")
    more = found.problems - len(found.examples)
    wrong = "; ".join(found.examples) + (f"; and {more} more" if more > 0 else "")
    part.require(
        name,
        not found.problems and bool(found.rows),
        expected=expected,
        observed=f"of {found.rows} rows {found.problems} name what is not there: {wrong}"
        if found.problems
        else f"{found.rows} rows, all their files there"
        + (f", {found.unhashed} without a hash to compare" if found.unhashed else "")
        + f"; {found.unnamed} files that no row names",
        advice="The files and the rows are not of one moment, or were lost before the backup: look for the named files "
        "on the live host. A query that gives no row proves nothing.",
        examples=found.examples,
        files_without_row=found.unnamed,
    )


def _place_of(root: str, places: t.Mapping[str, str]) -> str:
    """Where *root* lies now, which is one of the restored directories or below one; empty when it is nowhere."""
    wanted = os.path.normpath(root)
    for source, place in places.items():
        if wanted == source or wanted.startswith(source.rstrip("/") + "/"):
            return os.path.normpath(os.path.join(place, os.path.relpath(wanted, source)))
    return ""


def _rows(rule: Rule, cluster: ScratchCluster) -> t.Iterator[list[t.Any]]:
    """The rows of the rule's query, in portions by a cursor of the server, in a transaction that cannot write."""
    with contextlib.closing(cluster.connect(rule.database)) as connection:
        postgresql.query(connection, f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
        postgresql.query(connection, "BEGIN READ ONLY")
        postgresql.query(connection, f"DECLARE wellkept_files NO SCROLL CURSOR FOR {rule.query.strip().rstrip(';')}")
        while True:
            portion = postgresql.query(connection, f"FETCH {_PORTION} FROM wellkept_files")
            for row in portion:
                yield list(row.values())
            if not portion:
                return


def _compare(row: t.Sequence[t.Any], place: str, root: str, found: _Found) -> None:
    if not row or row[0] is None:
        return
    found.rows += 1
    path = str(row[0])
    relative = os.path.normpath(os.path.relpath(path, root) if os.path.isabs(path) else path)
    digest = _hex(row[1]) if len(row) > 1 else ""
    size = row[2] if len(row) > 2 else None
    if relative.startswith("../") or relative in ("..", "."):
        found.problem(f"{path} leads out of {root}")
        return
    try:
        problem = _problem(place, relative, digest, size)
    except (FileNotFoundError, NotADirectoryError):
        problem = "is missing"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    found.unhashed += not digest
    if problem:
        found.problem(f"{shown(path)} {problem}")


def _problem(place: str, relative: str, digest: str, size: t.Any) -> str:
    """What is wrong with the file that a row names; it is marked as named."""
    file = os.path.join(os.path.realpath(place), relative)
    if os.path.realpath(os.path.dirname(file)) != os.path.dirname(file):
        return "lies behind a link"
    status = os.lstat(file)
    if not stat.S_ISREG(status.st_mode):
        return "is no plain file"
    if size is not None and status.st_size != int(size):
        return f"has {status.st_size} bytes instead of {size}"
    if digest and sha256_of(file) != digest:
        return "has another content"
    os.utime(file, (_SEEN, _SEEN))
    return ""


def _hex(value: t.Any) -> str:
    """A SHA-256 as hexadecimal digits, whether the column is text or bytea."""
    if value is None:
        return ""
    return str(value).strip().lower() if isinstance(value, str) else bytes(value).hex()


def _unnamed(place: str) -> int:
    """Files below *place* that no row named."""
    return sum(
        stat.S_ISREG(status.st_mode) and status.st_mtime != _SEEN
        for parent, _directories, names in os.walk(place)
        for status in (os.lstat(os.path.join(parent, name)) for name in names)
    )
