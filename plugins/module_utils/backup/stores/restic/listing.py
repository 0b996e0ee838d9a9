# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our own list of what restic saves, with a SHA-256 of every file: a restore is held against it, not against restic.

The list is made before restic reads and once more after it; what is the same in both, restic read as it is listed. A
file that did not change since an earlier list is not read again.
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ...files import Copied, Entry, Target, copy_to
from ..application_files import Manifest

# A file that was changed so shortly before it was read could be changed again without looking different.
_GRANULARITY_SECONDS = 2.0
# The kernel's clock for the times of files goes on in steps of at most this.
_TICK_SECONDS = 0.01

Looks = t.Tuple[int, int, int, int]


class _Hashing(Target):
    """Takes what is read of a directory, and keeps nothing but how its files looked."""

    def __init__(self, before: t.Mapping[str, Entry], trusted_until: float) -> None:
        super().__init__("")
        self.looks: dict[str, Looks] = {}
        self._before = before
        self._trusted_until = trusted_until

    def make_directory(self, path: str) -> None:
        pass

    @contextlib.contextmanager
    def file(self, path: str) -> t.Iterator[t.Callable[[bytes], t.Any]]:
        yield len

    def forget(self, path: str) -> None:
        self.looks.pop(path, None)

    def known(self, path: str, status: os.stat_result) -> tuple[int, str] | None:
        self.looks[path] = _looks(status)
        entry = self._before.get(path)
        if (
            entry
            and not entry.get("changing")
            and entry["kind"] == "file"
            and _looks_of(entry) == self.looks[path]
            and status.st_ctime < self._trusted_until
        ):
            return entry["bytes"], entry["sha256"]
        if abs(time.time() - status.st_ctime) < _TICK_SECONDS:
            time.sleep(_TICK_SECONDS)  # a change from now on is to look different
        return None


class Listed(t.NamedTuple):
    """The list of some directories: their entries, and what could not be listed as it should be."""

    manifest: Manifest
    copies: list[Copied]

    def paths(self, source: str) -> set[str]:
        """The paths of all entries of *source*."""
        return {entry["path"] for one in self.manifest if one["source"] == source for entry in one["entries"]}

    def differences(self, other: Listed) -> dict[str, set[str]]:
        """By source, the paths that are not the same in both lists."""
        found = {}
        listed = {source["source"]: source for source in other.manifest}
        for mine in self.manifest:
            before, after = _by_path(mine), _by_path(listed[mine["source"]])
            found[mine["source"]] = {
                path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
            }
        return found


def list_directories(directories: t.Sequence[str], earlier: Manifest = ()) -> Listed:  # type: ignore[assignment]
    """The list of *directories*; what looks as it does in an *earlier* list is not read again."""
    known = {source["source"]: source for source in earlier}
    manifest: Manifest = []
    copies = []
    for directory in directories:
        before = known.get(directory, {"entries": [], "taken": 0.0})
        taken = time.time()
        target = _Hashing(_by_path(before), float(before["taken"]) - _GRANULARITY_SECONDS)
        copied = copy_to(directory, target)
        copies.append(copied)
        entries = [_with_looks(entry, target.looks.get(entry["path"])) for entry in copied.entries]
        entries += [{"kind": "special", "path": path} for path in copied.special]
        # What is mounted there is not saved, but its empty directory is.
        entries += [{"kind": "special", "path": path} for path in copied.other_file_systems]
        manifest.append({"source": directory, "taken": taken, "entries": entries})
    return Listed(manifest, copies)


def mark_changing(manifest: Manifest, changing: t.Mapping[str, t.Collection[str]]) -> None:
    """Note in *manifest* that what restic read under the paths *changing* may be something else than what is listed."""
    for source in manifest:
        paths = changing.get(source["source"], ())
        for entry in source["entries"]:
            if entry["path"] in paths:
                entry["changing"] = True
        listed = {entry["path"] for entry in source["entries"]}
        source["entries"] += [
            {"kind": "special", "path": path, "changing": True} for path in sorted(paths) if path not in listed
        ]


def _by_path(source: t.Mapping[str, t.Any]) -> dict[str, Entry]:
    return {entry["path"]: entry for entry in source["entries"]}


def _with_looks(entry: Entry, looks: Looks | None) -> Entry:
    if looks is None or entry["kind"] != "file":
        return entry
    return {**entry, "inode": looks[0], "ctime_ns": looks[3]}


def _looks(status: os.stat_result) -> Looks:
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _looks_of(entry: Entry) -> Looks | None:
    if "ctime_ns" not in entry:
        return None
    return entry["inode"], entry["bytes"], entry["mtime_ns"], entry["ctime_ns"]
