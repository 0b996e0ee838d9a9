# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What we know: the hashes of files here, so that none is read each day, and what a destination was given.

Both are kept in the state directory and can be lost: then files are read again here and there, which costs time alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
import typing as t
import zlib

from ..backup.repository import parse_metadata, serialise_metadata
from ..files import sha256_of, write_atomically
from .sources import Item

# A file that was changed so shortly before it was read could be changed again without looking different.
_GRANULARITY = 2.0
_SAVE_EVERY = 20.0


class LocalHashes:
    """SHA-256 of the files of the sources, each read once as long as it looks the same."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._known: t.Dict[str, t.List[t.Any]] = load(path).get("files", {})
        self._seen: t.Dict[str, t.List[t.Any]] = {}
        self.read_bytes = 0

    def of(self, item: Item) -> str:
        """The hash of *item*; "" when it is gone, or is being changed."""
        if item.name in self._seen:
            return str(self._seen[item.name][5])
        entry = self._known.get(item.name)
        if entry is None or entry[:5] != _looks(item.status):
            try:
                now = time.time()
                digest = sha256_of(item.path)
                if _looks(os.lstat(item.path)) != _looks(item.status):
                    return ""
            except FileNotFoundError:
                return ""
            self.read_bytes += item.status.st_size
            entry = [*_looks(item.status), digest, now - item.status.st_ctime >= _GRANULARITY]
        self._seen[item.name] = entry
        return str(entry[5])

    def save(self) -> None:
        """Keep what was seen in this run and is sure to look different when it changes."""
        save(self._path, {"files": {name: entry for name, entry in self._seen.items() if entry[6]}})


class Record(t.NamedTuple):
    """A file that a destination has: what it consists of, when it was last verified there (0: never since it was
    sent), and whether a manifest there names it."""

    size: int
    sha256: str
    verified_at: float = 0.0
    listed: bool = False


class Records:
    """What a destination has."""

    def __init__(self, path: str) -> None:
        self._path = path
        document = load(path)
        self.known = bool(document)
        self.files: t.Dict[str, Record] = {name: Record(*entry) for name, entry in document.get("files", {}).items()}
        # Of each source and cluster the newest backup that was proven, with all that it builds on.
        self.proven: t.Dict[str, t.List[str]] = document.get("proven", {})
        # What a run was about to send, and how it was to name its manifests: what is left of it if it was killed.
        self.pending: t.List[str] = document.get("pending", [])
        self.pending_manifests: str = document.get("pending_manifests", "")
        self._saved = time.monotonic()

    def save(self, *, now: bool = True) -> None:
        """Keep it; unless it must be *now*, only when that was not done for some time."""
        if not now and time.monotonic() - self._saved < _SAVE_EVERY:
            return
        names = ("files", "proven", "pending", "pending_manifests")
        save(self._path, {name: getattr(self, name) for name in names})
        self._saved = time.monotonic()


def counts_no_more(name: str, read_at: float, now: float, within: float) -> bool:
    """Whether a reading of *name* at *read_at* is to be repeated: each at a moment of its own in the period."""
    if not 0 <= now - read_at < within:
        return True
    phase = zlib.crc32(name.encode("utf-8", "surrogateescape")) / 2**32 * within
    return (now + phase) // within != (read_at + phase) // within


def load(path: str) -> t.Dict[str, t.Any]:
    """What :func:`save` wrote; {} when it is missing or not as it was written."""
    try:
        with open(path, "rb") as stream:
            return parse_metadata(stream.read())
    except (OSError, ValueError):
        return {}


def save(path: str, document: t.Dict[str, t.Any]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_atomically(path, serialise_metadata({"format": 1, **document}))


def _looks(status: os.stat_result) -> t.List[int]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


@contextlib.contextmanager
def scratch_directory(state_dir: str, purpose: str) -> t.Iterator[str]:
    """A private directory for the block, in the state directory; what killed runs for the same *purpose* left goes.

    To be used under the lock of the activity alone.
    """
    parent = os.path.join(state_dir, "mirror")
    os.makedirs(parent, mode=0o700, exist_ok=True)
    for name in os.listdir(parent):
        if name.startswith(f"{purpose}-"):
            shutil.rmtree(os.path.join(parent, name), ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=parent) as directory:
        yield directory
