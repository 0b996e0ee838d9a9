# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backup must consist of, what is there, and the difference: names, kinds and sizes, without reading a byte.

What must be there is said by ``backup.json`` (every file that is not covered otherwise, with its SHA-256), by
``files.json`` (copied application files) and by ``base/backup_manifest`` (the base, with PostgreSQL's own checksums);
the latter two have their SHA-256 in ``backup.json``, which holds its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import typing as t

from .repository import LOCK, METADATA, Backup
from .wal.positions import segments_between

FILES_MANIFEST = "files.json"
BASE_MANIFEST = "base/backup_manifest"


class Expected(t.NamedTuple):
    """A file as it was written; without a ``sha256`` when the manifest of the base has a checksum of its own for it."""

    bytes: int
    sha256: str


class Problem(t.NamedTuple):
    """What is wrong, in words, and with which file of the backup ("" when it is none alone)."""

    path: str
    words: str


class Look(t.NamedTuple):
    """What must be there and what is, by paths relative to the backup."""

    backup: Backup
    expected: dict[str, Expected]
    found: dict[str, os.stat_result]
    directories: set[str]
    # The manifest of the base, or {} when it cannot be believed.
    manifest: dict[str, t.Any]
    # What was found wrong with the manifests themselves.
    problems: list[Problem]

    def path(self, path: str) -> str:
        return os.path.join(self.backup.directory, path)


def look_at(backup: Backup) -> Look:
    """Read the manifests of *backup*, which have to be as they were written, and list what is there."""
    entries = {e["path"]: Expected(e["bytes"], e["sha256"]) for e in backup.metadata["files"]}
    look = Look(backup, entries, {}, set(), {}, [])
    _walk(look, "")
    if FILES_MANIFEST in entries:
        sources = _manifest(look, FILES_MANIFEST) or []
        for number, source in enumerate(sources):
            for entry in source["entries"]:
                if entry["kind"] == "file":
                    entries[f"files/{number}/{entry['path']}"] = Expected(entry["bytes"], entry["sha256"])
    if backup.holds_base:
        look.manifest.update(_manifest(look, BASE_MANIFEST) or {})
    # What is in archives is covered by their hashes.
    unpacked = [] if backup.metadata.get("packed") else look.manifest.get("Files", [])
    for entry in unpacked:
        entries.setdefault(f"base/{manifest_path(entry)}", Expected(entry["Size"], ""))
    return look


def manifest_path(entry: t.Mapping[str, t.Any]) -> str:
    """The path of an entry of PostgreSQL's manifest; one that is no UTF-8 is in it as hexadecimal digits."""
    return str(entry["Path"]) if "Path" in entry else os.fsdecode(bytes.fromhex(entry["Encoded-Path"]))


def _manifest(look: Look, path: str) -> t.Any:
    """The JSON in *path* if it is as it was written; else None, and the problem is recorded."""
    try:
        descriptor = os.open(look.path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            raw = stream.read()
    except OSError as error:
        look.problems.append(Problem(path, f"{path}: {error.strerror}"))
        return None
    entry = look.expected.get(path)
    if entry is None or hashlib.sha256(raw).hexdigest() != entry.sha256:
        words = f"{path} has another content than was written (its SHA-256 differs)"
        look.problems.append(Problem(path, words))
        return None
    return json.loads(raw)


def _walk(look: Look, below: str) -> None:
    try:
        with os.scandir(look.path(below)) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    look.directories.add(path)
                    _walk(look, path)
                else:
                    look.found[path] = entry.stat(follow_symlinks=False)
    except OSError as error:
        look.problems.append(Problem("", f"the directory {shown(below) or '.'}: {error.strerror}"))


# -- the differences, each found by a function of its own: see STEPS --


def missing_files(look: Look) -> list[Problem]:
    return [Problem(path, f"{shown(path)} is missing") for path in sorted(look.expected) if path not in look.found]


def exchanged_files(look: Look) -> list[Problem]:
    """Links, pipes and the like in place of files."""
    return [
        Problem(path, f"{shown(path)} is no plain file any more")
        for path, status in sorted(look.found.items())
        if path in look.expected and not stat.S_ISREG(status.st_mode)
    ]


def cut_or_grown_files(look: Look) -> list[Problem]:
    return [
        Problem(path, f"{shown(path)} has {status.st_size} bytes instead of {look.expected[path].bytes}")
        for path, status in sorted(look.found.items())
        if path in look.expected and stat.S_ISREG(status.st_mode) and status.st_size != look.expected[path].bytes
    ]


def locked_files(look: Look) -> list[Problem]:
    """Files and directories that their owner may not read: a restore by any user but root would fail."""
    problems = [
        Problem(path, f"{shown(path)} cannot be read by its owner (mode {stat.S_IMODE(status.st_mode):04o})")
        for path, status in sorted(look.found.items())
        if path in look.expected and stat.S_ISREG(status.st_mode) and not status.st_mode & stat.S_IRUSR
    ]
    for path in sorted(look.directories):
        mode = stat.S_IMODE(os.lstat(look.path(path)).st_mode)
        if mode & 0o500 != 0o500:
            problems.append(Problem(path, f"the directory {shown(path)} is closed to its owner (mode {mode:04o})"))
    return problems


def foreign_files(look: Look) -> list[Problem]:
    """Files that nothing accounts for; of the base only when its manifest can be believed."""
    known = {METADATA, LOCK}
    return [
        Problem(path, f"{shown(path)} does not belong to the backup")
        for path in sorted(look.found)
        if path not in look.expected and path not in known and (look.manifest or not path.startswith("base/"))
    ]


def missing_directories(look: Look) -> list[Problem]:
    """Directories that hold nothing, and so are in no manifest, but that a server needs."""
    return [
        Problem(path, f"the directory {shown(path)} is missing")
        for path in look.backup.metadata["empty_directories"]
        if path not in look.directories
    ]


def missing_wal(look: Look) -> list[Problem]:
    """Segments between the start of the backup and its restore point that it never had, or that have another size."""
    if not look.backup.holds_base:
        return []
    metadata = look.backup.metadata
    size = metadata["settings"]["wal_segment_size"]
    start, end = metadata["start_lsn"], metadata["restore_point"]["lsn"]
    problems = []
    for name in segments_between(metadata["timeline"], start, end, size):
        entry = look.expected.get(f"wal/{name}")
        if entry is None:
            problems.append(Problem("", f"WAL segment {name} is missing"))
        elif entry.bytes != size:
            problems.append(Problem("", f"WAL segment {name} has {entry.bytes} bytes instead of {size}"))
    return problems


def empty_dumps(look: Look) -> list[Problem]:
    """Dumps that hold nothing although they are as they were written, and databases without a dump."""
    problems = []
    for database, facts in sorted(look.backup.metadata["databases"].items()):
        entry = look.expected.get(facts["file"])
        if entry is None:
            problems.append(Problem("", f"the backup has no dump of the database {database}"))
        elif entry.bytes == 0:
            problems.append(Problem(facts["file"], f"the dump of the database {database} is empty"))
    return problems


STEPS: tuple[t.Callable[[Look], list[Problem]], ...] = (
    missing_files,
    exchanged_files,
    cut_or_grown_files,
    locked_files,
    foreign_files,
    missing_directories,
    missing_wal,
    empty_dumps,
)


def differences(look: Look) -> list[Problem]:
    """All that can be told without reading: what is wrong with the manifests first."""
    said = {problem.path for problem in look.problems if problem.path}
    problems = list(look.problems)
    for step in STEPS:
        problems += [problem for problem in step(look) if problem.path not in said]
    return problems


def shown(path: str) -> str:
    """*path* as text that every reader of JSON accepts."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
