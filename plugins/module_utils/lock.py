# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One activity at a time on a host: a file lock that the kernel drops when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import typing as t
from datetime import datetime, timezone

from .errors import MaintenanceError


@contextlib.contextmanager
def exclusive(path: str, holder: dict[str, t.Any], what: str) -> t.Iterator[None]:
    """Hold the lock file *path* while the block runs; *holder* is what others are told about us.

    Raises MaintenanceError that names the holder and since when, if somebody else has it. A link at *path* is refused.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held_by_another(path, descriptor, what) from None
        _write(descriptor, {**holder, "pid": os.getpid(), "since": _now()})
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def shared(path: str, holder: dict[str, t.Any]) -> t.Iterator[None]:
    """Hold the lock file *path* together with others who do the same; nobody can have it alone meanwhile.

    The last of them removes the file. A link at *path* is refused.
    """
    descriptor = _open_shared(path)
    try:
        _write(descriptor, {**holder, "pid": os.getpid(), "since": _now()})
        yield
    finally:
        with contextlib.suppress(OSError):  # another one holds it still, and removes it
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
        os.close(descriptor)


def _open_shared(path: str) -> int:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                return descriptor
        os.close(descriptor)  # it was removed while we waited


def is_free(path: str) -> bool:
    """Whether nobody holds the lock file *path*: so a leftover beside it belongs to a process that died."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _held_by_another(path: str, descriptor: int, what: str) -> MaintenanceError:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        holder = {}
    facts = ", ".join(f"{key} {value}" for key, value in holder.items() if value) or "an unknown process"
    return MaintenanceError(
        f"take the lock for {what}",
        where=path,
        expected="nobody else at work on it",
        observed=f"held by {facts}",
        advice="Wait until that run has ended, or end that process if it hangs; the lock then frees itself.",
    )


def _write(descriptor: int, holder: dict[str, t.Any]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
