# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be mirrored: the complete backups of a repository, a WAL archive, or any other tree of files.

A source consists of units. A backup is one: it exists in the mirror when its last file is there. Files that stand
alone, as those of a WAL archive do, are one unit together.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import typing as t
from datetime import datetime, timezone

from ..backup.contents import differences, look_at
from ..backup.repository import LABEL, METADATA, Backup, Repository
from ..backup.wal import wal_helper
from ..errors import MaintenanceError
from .names import to_mirror

CORE, WAL, TREE = "core", "wal", "tree"
# The engine whose backups say what each of their files must be.
ENGINE = "core"

# Other programs' repositories: what is no part of them, what is written anew under its name, and what goes last.
_KINDS: t.Dict[str, t.Dict[str, t.Tuple[str, ...]]] = {
    TREE: {},
    "restic": {"exclude": ("locks/*",), "last": ("index/*", "snapshots/*")},
    "pgbackrest": {
        "exclude": ("*.pgbackrest.tmp", "*.lock"),
        "mutable": ("*/backup.info*", "*/archive.info*", "*/backup.history/*"),
        "last": ("*/backup.manifest*", "*/archive.info*", "*/backup.info*"),
    },
}
KINDS = (CORE, WAL, *_KINDS)
_WAL_PATH = re.compile(r"\d+/[0-9A-F]{8}/[^/]+")


class Source(t.NamedTuple):
    """A directory tree here, and what is known of it."""

    name: str
    path: str
    kind: str
    exclude: t.Tuple[str, ...] = ()
    mutable: t.Tuple[str, ...] = ()


class Item(t.NamedTuple):
    """A file of a source: its name in the mirror, its path here, and how it looks."""

    name: str
    path: str
    status: os.stat_result
    # What its own manifest says it consists of; empty where none does.
    sha256: str = ""
    mutable: bool = False
    # What goes later than all with a smaller number.
    turn: int = 0


class Unit(t.NamedTuple):
    """Files that belong together; ``backup`` and ``repository`` where they are one."""

    name: str
    items: t.List[Item]
    directories: t.List[str]
    backup: t.Optional[Backup] = None
    repository: t.Optional[Repository] = None


class Found(t.NamedTuple):
    """What there is of a source. ``held`` begins the names of what is here, but not mirrored now: it stays there."""

    source: Source
    units: t.List[Unit]
    problems: t.List[str]
    held: t.List[str]
    newest_proven: t.Dict[str, t.List[str]]


def look(source: Source) -> Found:
    """List the source, the most important first; raises MaintenanceError when it is not there."""
    if not os.path.isdir(source.path):
        raise MaintenanceError(
            f"mirror the source {source.name}",
            where=source.path,
            expected="a directory",
            observed="there is none; nothing was changed in the mirror",
            advice="Correct the path of the source, or see where it has gone.",
        )
    found = Found(source, [], [], [], {})
    if source.kind == CORE:
        for name in sorted(os.listdir(source.path)):
            if not name.startswith(".") and os.path.isdir(os.path.join(source.path, name)):
                _look_at_cluster(Repository(source.path, name), found)
    else:
        found.units.append(_loose(source, found))
    return found


def _look_at_cluster(repository: Repository, found: Found) -> None:
    source, cluster = found.source, repository.cluster
    for damaged in repository.damaged():
        found.problems.append(f"{cluster}/{damaged.label}: its {METADATA}: {damaged.problem}")
        found.held.append(to_mirror(f"{source.name}/{cluster}/{damaged.label}/"))
    backups = repository.backups()
    for backup in by_importance(backups):
        unit, problem = _unit_of(backup, repository, source)
        if problem:
            found.problems.append(f"{cluster}/{backup.label}: {problem}")
            found.held.append(to_mirror(f"{source.name}/{cluster}/{backup.label}/"))
        else:
            found.units.append(unit)
    proven = [backup for backup in backups if repository.proof(backup)]
    if proven:
        found.newest_proven[cluster] = proven[-1].chain


def by_importance(backups: t.Sequence[Backup]) -> t.List[Backup]:
    """The newest chain first, in its order; then the others, chains in their order too."""
    if not backups:
        return []
    newest = backups[-1].chain
    return [b for b in backups if b.label in newest] + [b for b in backups if b.label not in newest]


def _unit_of(backup: Backup, repository: Repository, source: Source) -> t.Tuple[Unit, str]:
    """The files of *backup*, and what is wrong with them as far as names and sizes tell, or a reading has told."""
    if backup.metadata["engine"] != ENGINE:
        return _unit_as_it_is(backup, repository, source)
    contents = look_at(backup)
    problems = [problem.words for problem in [*contents.problems, *differences(contents)]]
    noted = repository.noted_damage(backup.label)
    prefix = f"{source.name}/{repository.cluster}/{backup.label}"
    items = [
        Item(to_mirror(f"{prefix}/{path}"), backup.path(path), status, contents.expected[path].sha256)
        for path, status in sorted(contents.found.items())
        if path in contents.expected
    ]
    status = os.lstat(backup.path(METADATA))
    items.append(Item(to_mirror(f"{prefix}/{METADATA}"), backup.path(METADATA), status, turn=1))
    directories = [to_mirror(f"{prefix}/{path}") for path in sorted(contents.directories)]
    unit = Unit(to_mirror(prefix), items, directories, backup, repository)
    return unit, (noted or (problems[0] if problems else ""))


def _unit_as_it_is(backup: Backup, repository: Repository, source: Source) -> t.Tuple[Unit, str]:
    """The files of a backup by another engine, whose own verification knows what they must be."""
    prefix = f"{source.name}/{repository.cluster}/{backup.label}"
    unit = Unit(to_mirror(prefix), [], [], backup, repository)
    for path, status in _walk(backup.directory, ""):
        name = to_mirror(f"{prefix}/{path}")
        if stat.S_ISDIR(status.st_mode):
            unit.directories.append(name)
        elif stat.S_ISREG(status.st_mode):
            unit.items.append(Item(name, backup.path(path), status, turn=int(path == METADATA)))
    return unit, repository.noted_damage(backup.label)


def _loose(source: Source, found: Found) -> Unit:
    kind = _KINDS.get(source.kind, {})
    exclude = (*kind.get("exclude", ()), *source.exclude)
    mutable = (*kind.get("mutable", ()), *source.mutable)
    unit = Unit(source.name, [], [])
    for path, status in _walk(source.path, ""):
        name = to_mirror(f"{source.name}/{path}")
        if stat.S_ISDIR(status.st_mode):
            unit.directories.append(name)
        elif stat.S_ISREG(status.st_mode) and _is_wanted(source.kind, path, exclude):
            turn = max((n for n, pattern in enumerate(kind.get("last", ()), 1) if _fits(path, [pattern])), default=0)
            where = os.path.join(source.path, path)
            unit.items.append(Item(name, where, status, mutable=_fits(path, mutable), turn=turn))
    return unit


def _is_wanted(kind: str, path: str, exclude: t.Sequence[str]) -> bool:
    if kind == WAL:
        stem = re.sub(r"\.(gz|lz4|zst)$", "", path.rpartition("/")[2])
        return bool(_WAL_PATH.fullmatch(path)) and wal_helper.is_archived_name(stem)
    return not _fits(path, exclude)


def _fits(path: str, patterns: t.Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def _walk(root: str, below: str) -> t.Iterator[t.Tuple[str, os.stat_result]]:
    with os.scandir(os.path.join(root, below)) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = os.path.join(below, entry.name)
            try:
                status = entry.stat(follow_symlinks=False)
                yield path, status
                if stat.S_ISDIR(status.st_mode):
                    yield from _walk(root, path)
            except FileNotFoundError:
                continue  # it was removed meanwhile


def backup_of(name: str) -> t.Tuple[str, str]:
    """Cluster and label of the backup that the file *name* of a mirrored repository belongs to; else two times ""."""
    parts = name.split("/")
    return (parts[1], parts[2]) if len(parts) > 3 and LABEL.fullmatch(parts[2]) else ("", "")


def moment_of(label: str) -> float:
    """When the backup *label* was begun, in seconds since the epoch."""
    return datetime.strptime(label[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()
