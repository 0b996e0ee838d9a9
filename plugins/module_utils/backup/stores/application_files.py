# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Application directories from their manifest: laid down from copies, and held against it, whoever laid them down.

A manifest is a list of ``{"source": "/srv/uploads", "entries": [...]}``, with entries as ``files.copy_tree`` makes
them. An entry can say ``changing`` when somebody was at work on it as it was saved, and a kind that is neither
``file``, ``directory`` nor ``link``: neither is compared. Everything lies below a directory of ours at
the path of its source: ``<directory>/srv/uploads``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import typing as t

from ...errors import MaintenanceError
from ...quantities import human_bytes
from ...result import Part
from ..contents import shown
from ..files import Copied, Entry
from ..repository import Backup
from .store import Restored

_CHUNK = 1 << 20
# Names in a check; more of them help nobody.
_NAMED = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: should the name stand for a pipe by now, opening it must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}

Manifest = t.List[t.Dict[str, t.Any]]


def refuse_to_hold(directories: t.Sequence[str], repository: str) -> None:
    """Raise MaintenanceError when the *repository* is inside of one of the *directories* to be backed up to it."""
    root = os.path.realpath(repository)
    for directory in directories:
        if os.path.commonpath([os.path.realpath(directory), root]) == os.path.realpath(directory):
            raise MaintenanceError(
                "back up application directories",
                where=directory,
                expected="directories that do not hold the repository itself",
                observed=f"the repository is in {repository}",
                advice="List the directories beside the repository, or move the repository.",
            )


def report_files(copied: Copied, part: Part) -> None:
    """Whether all of one source could be saved, and as it was at one moment."""
    doubts = {
        "unreadable": copied.unreadable,
        "changing while they were copied": copied.changing,
        "neither file, directory nor link": copied.special,
        "on another file system": copied.other_file_systems,
    }
    found = {words: paths for words, paths in doubts.items() if paths}
    remarks = "; ".join(f"{len(paths)} {words}: {_some(paths)}" for words, paths in found.items())
    part.check(
        f"files of {copied.source}",
        "failed" if copied.unreadable else "warned" if found else "passed",
        expected="every file copied and hashed",
        observed=f"{copied.files} files, {human_bytes(copied.bytes)}" + (f"; {remarks}" if remarks else ""),
        advice="Let the user that makes backups read all files; list directories on other file systems by themselves.",
    )


def lacking(copies: t.Iterable[Copied]) -> str:
    """What could not be read, in words; what is not there cannot be missed by comparing a restored copy with a list."""
    found = [f"{len(one.unreadable)} of {one.source}: {_some(one.unreadable)}" for one in copies if one.unreadable]
    return f"unreadable were {'; '.join(found)}" if found else ""


def _some(paths: t.Sequence[str]) -> str:
    return ", ".join(shown(path) for path in paths[:_NAMED]) + (" …" if len(paths) > _NAMED else "")


def read_manifest(backup: Backup, name: str) -> Manifest:
    """The manifest *name* in *backup*; raises MaintenanceError when it is not as it was written."""
    expected = next((entry for entry in backup.metadata["files"] if entry["path"] == name), None)
    try:
        with os.fdopen(os.open(backup.path(name), _FILE), "rb") as stream:
            raw = stream.read()
        observed = "another content" if expected else "no hash of it in backup.json"
    except OSError as error:
        raw, observed = b"", error.strerror or str(error)
    if expected is None or hashlib.sha256(raw).hexdigest() != expected["sha256"]:
        raise MaintenanceError(
            "read the list of application files",
            where=backup.path(name),
            expected="the file as it was written",
            observed=observed,
            advice="Do not rely on this backup; make a new one, and find out what damages the repository.",
        )
    manifest: Manifest = json.loads(raw)
    return manifest


def place_of(source: str, directory: str) -> str:
    """Where *source* lies below *directory*."""
    return os.path.join(directory, os.path.normpath(source).lstrip("/"))


def lay_down(copies: str, source: t.Mapping[str, t.Any], directory: str) -> None:
    """Lay one source of a manifest down below *directory* from its *copies*; links last, so that none is followed."""
    place, entries = place_of(source["source"], directory), source["entries"]
    os.makedirs(place, mode=0o700, exist_ok=True)
    for entry in entries:
        path = os.path.join(place, _inside(entry["path"]))
        if entry["kind"] == "directory":
            os.makedirs(path, mode=0o700, exist_ok=True)
        elif entry["kind"] == "file":
            with open(os.path.join(copies, entry["path"]), "rb") as original, open(path, "xb") as copy:
                shutil.copyfileobj(original, copy, _CHUNK)
            _dress(path, entry)
    for entry in entries:
        if entry["kind"] == "link":
            path = os.path.join(place, _inside(entry["path"]))
            os.symlink(entry["link"], path)
            _dress(path, entry)
    for entry in reversed(entries):  # deepest first: what is put into a directory changes its time
        if entry["kind"] == "directory":
            _dress(os.path.join(place, entry["path"]), entry)


def _inside(path: str) -> str:
    if os.path.isabs(path) or ".." in path.split("/"):
        raise MaintenanceError(
            "lay down application files",
            where=shown(path),
            expected="paths below their directory",
            observed="one that leads out of it",
            advice="Somebody changed the backup: do not rely on it.",
        )
    return path


def _dress(path: str, entry: Entry) -> None:
    """Owner, rights and times as they were; the owner as far as we may."""
    with contextlib.suppress(PermissionError):
        os.chown(path, entry["uid"], entry["gid"], follow_symlinks=False)
    if entry["kind"] != "link":
        os.chmod(path, entry["mode"])
    os.utime(path, ns=(entry["mtime_ns"], entry["mtime_ns"]), follow_symlinks=False)


def compare(manifest: Manifest, directory: str) -> Restored:
    """Hold what lies below *directory* against *manifest*: every entry by kind, rights and content, and no other."""
    problems: list[str] = []
    files = size = 0
    for source in manifest:
        place = place_of(source["source"], directory)
        left = {entry["path"]: entry for entry in source["entries"]}
        try:
            root = os.open(place, _DIRECTORY)
        except OSError as error:
            problems.append(f"{source['source']} was not laid down: {error.strerror}")
            continue
        try:
            problems += [f"{source['source']}: {words}" for words in _compare_directory(root, ".", left, whole=True)]
        finally:
            os.close(root)
        missing = [path for path, entry in left.items() if entry["kind"] in _KINDS.values() and not _may_differ(entry)]
        problems += [f"{source['source']}: {shown(path)} is missing" for path in sorted(missing)]
        plain = [entry for entry in source["entries"] if entry["kind"] == "file"]
        files += len(plain)
        size += sum(entry["bytes"] for entry in plain)
    places = {source["source"]: place_of(source["source"], directory) for source in manifest}
    return Restored(problems, files, size, places)


def _compare_directory(descriptor: int, below: str, left: dict[str, Entry], *, whole: bool) -> t.Iterator[str]:
    """What is wrong in the open directory; what was there is taken out of *left*.

    Not *whole* is what somebody was at work in when it was saved: there may be more than is listed.
    """
    entry = left.pop(below, None)
    if entry or whole:
        yield from _compare_status(os.fstat(descriptor), below, entry)
    whole = not _may_differ(entry) if entry else whole
    for name in sorted(os.listdir(descriptor)):
        path = os.path.normpath(os.path.join(below, name))
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, _DIRECTORY, dir_fd=descriptor)
            try:
                yield from _compare_directory(inner, path, left, whole=whole)
            finally:
                os.close(inner)
            continue
        entry = left.pop(path, None)
        if entry is None and not whole:
            continue
        problems = list(_compare_status(status, path, entry))
        yield from problems
        if entry and not problems:
            yield from _compare_content(descriptor, name, path, entry)


def _may_differ(entry: Entry) -> bool:
    return bool(entry.get("changing"))


def _compare_status(status: os.stat_result, path: str, entry: Entry | None) -> t.Iterator[str]:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special")
    if entry is None:
        yield f"{shown(path)} is not in the backup's list"
    elif entry["kind"] not in _KINDS.values() or _may_differ(entry):
        return
    elif entry["kind"] != kind:
        yield f"{shown(path)} is a {kind} instead of a {entry['kind']}"
    elif kind != "link" and stat.S_IMODE(status.st_mode) != entry["mode"]:
        yield f"{shown(path)} has the mode {stat.S_IMODE(status.st_mode):04o} instead of {entry['mode']:04o}"
    elif os.geteuid() == 0 and (status.st_uid, status.st_gid) != (entry["uid"], entry["gid"]):
        owner = f"{status.st_uid}:{status.st_gid}"
        yield f"{shown(path)} belongs to {owner} instead of {entry['uid']}:{entry['gid']}"


def _compare_content(directory: int, name: str, path: str, entry: Entry) -> t.Iterator[str]:
    if _may_differ(entry):
        return
    if entry["kind"] == "link":
        link = os.readlink(name, dir_fd=directory)
        if link != entry["link"]:
            yield f"{shown(path)} leads to {shown(link)} instead of {shown(entry['link'])}"
    elif entry["kind"] == "file":
        digest = hashlib.sha256()
        with os.fdopen(os.open(name, _FILE, dir_fd=directory), "rb") as stream:
            for block in iter(lambda: stream.read(_CHUNK), b""):
                digest.update(block)
        if digest.hexdigest() != entry["sha256"]:
            yield f"{shown(path)} has another content than was recorded (its SHA-256 differs)"
