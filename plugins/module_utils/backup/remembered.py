# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was read of a backup, when, and how it looked then: so that it need not be read again each day.

A file that has the device, inode, size and times of change that it had when it was read was not written to since, by
anybody. A disk that forgets changes none of these: therefore each file is read again once in a stated period, at a
moment of its own in that period, so that each day reads its share.

Kept in ``verified/<label>.json`` beside the backups, and believed only for the backup whose hash it names. To lose it
costs time, never truth.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import threading
import time
import typing as t
import zlib

from ..files import write_atomically
from ..lock import exclusive, is_free
from .repository import LOCK, Backup, Repository

_FORMAT = 1
_VERIFIED = "verified"
_VIEW = ".view-"
# What stores remember of what they hold elsewhere; each cares for its own.
_STORE = "store-"

# A file that was changed so shortly before it was read could be changed again without looking different.
_GRANULARITY = 2.0
# What was not put in place after this time never will be.
_WRITING = 3600.0


class Look(t.Protocol):
    """What tells whether a file was changed; of a plain file, what the system says of it."""

    @property
    def st_dev(self) -> int: ...
    @property
    def st_ino(self) -> int: ...
    @property
    def st_size(self) -> int: ...
    @property
    def st_mtime_ns(self) -> int: ...
    @property
    def st_ctime_ns(self) -> int: ...
    @property
    def st_ctime(self) -> float: ...


class Budget:
    """How long, and how much, may be read; 0 is no limit. What was begun is read to its end."""

    def __init__(self, seconds: float = 0, size: int = 0) -> None:
        self._ends = time.monotonic() + seconds if seconds else None
        self._left: int | None = size or None
        self._lock = threading.Lock()

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._ends is not None or self._left is not None

    def take(self, size: int) -> bool:
        """Whether another *size* bytes may be read."""
        with self._lock:
            if self._ends is not None and time.monotonic() >= self._ends:
                return False
            if self._left is None:
                return True
            if self._left <= 0:
                return False
            self._left -= size
            return True


class Readings:
    """What is remembered of one backup."""

    def __init__(self, memory: Remembered, backup: Backup) -> None:
        self._memory = memory
        self._label = backup.label
        self._identity = str(backup.metadata["sha256"])
        self._path = os.path.join(memory.directory, f"{backup.label}.json")
        content = _load(self._path, self._identity)
        self._files: dict[str, list[float]] = content.get("files", {})
        self._noted = bool(content.get("noted"))
        self._changed = False
        if memory.repository.noted_damage(backup.label) and not self._noted:
            self._files = {}  # somebody else found it damaged, who read more than the times of change

    def is_due(self, path: str, status: Look) -> bool:
        """Whether *path*, which looks like *status* now, is to be read."""
        entry = self._files.get(path)
        return entry is None or entry[:5] != _looks(status) or self._memory.is_over(f"{self._label}/{path}", entry[5])

    def read_at(self, path: str) -> float:
        """When *path* was read last; 0 for never."""
        entry = self._files.get(path)
        return entry[5] if entry else 0.0

    def since(self) -> float:
        """When the file was read that was read longest ago, of those that are remembered."""
        return min((entry[5] for entry in self._files.values()), default=0.0)

    def keep(self, path: str, before: Look) -> None:
        """Remember that *path* was as it was written; it looked like *before* when we had begun."""
        if self._memory.now - before.st_ctime >= _GRANULARITY:
            self._files[path] = [*_looks(before), round(self._memory.now, 3)]
            self._changed = True

    def forget(self, path: str) -> None:
        self._changed = self._files.pop(path, None) is not None or self._changed

    def keep_only(self, paths: t.Container[str]) -> None:
        for path in [path for path in self._files if path not in paths]:
            self.forget(path)

    def save(self, *, damaged: bool) -> None:
        """Write it, whole or not at all; a disk that is full is told of by the memory, and stops nothing."""
        if not self._changed and damaged == self._noted:
            return
        self._noted = damaged
        try:
            _write(self._path, self._identity, {"noted": damaged, "files": self._files})
            self._changed = False
        except OSError as error:
            self._memory.problem = f"{self._path}: {error.strerror or error}"


class Remembered:
    """What was read of the backups of one repository, and how long that counts."""

    def __init__(
        self,
        repository: Repository,
        *,
        within: float,
        rotating: bool = False,
        budget: Budget | None = None,
        now: float | None = None,
    ) -> None:
        """A reading counts for *within* seconds; *rotating*, at most, for each file until a moment of its own.

        *now* is when we began, in seconds since the epoch.
        """
        self.repository = repository
        self.directory = os.path.join(repository.directory, _VERIFIED)
        self.budget = budget or Budget()
        self.now = time.time() if now is None else now
        self.problem = ""
        self.within = within
        self._rotating = rotating

    def of(self, backup: Backup) -> Readings:
        return Readings(self, backup)

    def is_over(self, name: str, read_at: float) -> bool:
        """Whether a reading of *name* at *read_at* counts no more; one from the future never counts."""
        age = self.now - read_at
        if not 0 <= age < self.within:
            return True
        if not self._rotating:
            return False
        phase = zlib.crc32(name.encode("utf-8", "surrogateescape")) / 2**32 * self.within
        return (self.now + phase) // self.within != (read_at + phase) // self.within

    def clean(self, labels: t.Container[str]) -> None:
        """Forget backups that are not among *labels* any more, and remove what killed runs left."""
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.directory):
                path = os.path.join(self.directory, name)
                if name.startswith(_VIEW):
                    if is_free(os.path.join(path, LOCK)):
                        shutil.rmtree(path, ignore_errors=True)
                elif name.startswith(_STORE):
                    continue
                elif name.partition(".")[0] not in labels and not self._is_being_written(name):
                    with contextlib.suppress(OSError):
                        os.unlink(path)

    def _is_being_written(self, name: str) -> bool:
        """Whether *name* may be what somebody else is about to put in place."""
        try:
            return name.startswith(".") and self.now - os.lstat(os.path.join(self.directory, name)).st_mtime < _WRITING
        except OSError:
            return True

    @contextlib.contextmanager
    def view(self) -> t.Iterator[str]:
        """A private directory for the block; should we die, its lock frees itself and :meth:`clean` removes it."""
        directory = os.path.join(self.directory, _VIEW + secrets.token_hex(4))
        os.makedirs(directory, mode=0o700)
        try:
            with exclusive(os.path.join(directory, LOCK), {}, directory):
                yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


class Parts:
    """What was read of something that a program can only read in parts, as restic does, and what else is to be kept.

    *identity* is what it is of; ``facts`` is what the store that reads it remembers beside the readings.
    """

    def __init__(self, repository: Repository, store: str, identity: str) -> None:
        self._path = os.path.join(repository.directory, _VERIFIED, f"{_STORE}{store}-{identity[:16]}.json")
        self._identity = identity
        content = _load(self._path, identity)
        self.read_at: dict[str, float] = content.get("parts", {})
        self.facts: dict[str, t.Any] = content.get("facts", {})

    def save(self) -> None:
        """Write it, whole or not at all; raises OSError."""
        _write(self._path, self._identity, {"parts": self.read_at, "facts": self.facts})


def _write(path: str, identity: str, content: t.Mapping[str, t.Any]) -> None:
    body = json.dumps({"format": _FORMAT, "backup_sha256": identity, **content}, separators=(",", ":"))
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    write_atomically(path, f"{digest}\n{body}\n".encode())


def _load(path: str, identity: str) -> dict[str, t.Any]:
    """The document in *path* if it is as it was written, and about the backup of this *identity*; else {}."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            digest, _newline, body = stream.read().partition(b"\n")
        if hashlib.sha256(body.rstrip(b"\n")).hexdigest().encode() != digest:
            return {}
        document = json.loads(body)
    except (OSError, ValueError):
        return {}
    fits = document.get("format") == _FORMAT and document.get("backup_sha256") == identity
    return document if fits else {}


def _looks(status: Look) -> list[float]:
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
