# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A program for the host of a repository: it puts proofs beside the backups that another host has restored.

``returned_proofs`` sends it there. It reads its orders as JSON from the standard input, and answers in JSON. Nothing is
reached by way of a link below the repository; a proof is there whole, synced and private to the repository's owner, or
not at all; of several at work one waits for the other, and what a killed one left the next removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
import sys
import time
import typing as t

PUT, KNOWN, GONE = "put", "known", "gone"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: should the name stand for a pipe, opening it must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# There is one at a time, while the lock is held.
_TEMPORARY = ".returned"
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_SECONDS_TO_LOCK = 60.0

Document = t.Dict[str, t.Any]


class CannotError(Exception):
    """Told to whoever sent us: why nothing can be put there."""


def main() -> None:
    order = json.load(sys.stdin)
    try:
        answer: Document = {"outcomes": take(order["repository"], order["cluster"], order["put"], order["withdrawn"])}
    except CannotError as error:
        answer = {"refused": str(error)}
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        answer = {"refused": "%s: %s" % (error.filename or "proofs", error.strerror)}
    json.dump(answer, sys.stdout)


def take(
    repository: str, cluster: str, put: t.Mapping[str, Document], withdrawn: t.Mapping[str, Document]
) -> dict[str, str]:
    """Put the documents in *put*, by the names of their files, and remove those *withdrawn* that are still the same.

    Returns what became of each of the first: put, known already, or about a backup that is gone.
    """
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(_opened(repository))
        backups = stack.enter_context(_opened(cluster, root))
        owner = _owner_of(backups, cluster)
        with contextlib.suppress(FileExistsError):
            os.mkdir("proofs", 0o700, dir_fd=backups)
            if os.geteuid() == 0:
                os.chown("proofs", owner.st_uid, owner.st_gid, dir_fd=backups, follow_symlinks=False)
        proofs = stack.enter_context(_opened("proofs", backups))
        _owner_of(proofs, "proofs")
        _lock(proofs)
        _remove(proofs, _TEMPORARY)
        outcomes = {name: _put(backups, proofs, name, document, owner) for name, document in put.items()}
        for name, document in withdrawn.items():
            if _read(proofs, _plain(name)) == document:
                _remove(proofs, name)
        os.fsync(proofs)
    return outcomes


@contextlib.contextmanager
def _opened(path: str, within: int | None = None) -> t.Iterator[int]:
    descriptor = os.open(path if within is None else _plain(path), _DIRECTORY, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _plain(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise CannotError("%r is no name of a file" % name)
    return name


def _owner_of(directory: int, name: str) -> os.stat_result:
    """The status of an open directory, which must be one that its owner alone, or root, writes to."""
    status = os.fstat(directory)
    if os.geteuid() not in (0, status.st_uid):
        raise CannotError("%s belongs to uid %d, and we are %d" % (name, status.st_uid, os.geteuid()))
    if status.st_mode & 0o022:
        raise CannotError("others can write to %s (mode %04o)" % (name, stat.S_IMODE(status.st_mode)))
    return status


def _lock(directory: int) -> None:
    deadline = time.monotonic() + _SECONDS_TO_LOCK
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise CannotError("another host is putting its proofs there, and does not end") from None
            time.sleep(0.05)


def _put(backups: int, proofs: int, name: str, document: Document, owner: os.stat_result) -> str:
    if not _is_there(backups, document):
        return GONE
    known = _read(proofs, _plain(name))
    if known is not None and _is_as_good(known, document):
        return KNOWN
    _write(proofs, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n", owner)
    os.rename(_TEMPORARY, name, src_dir_fd=proofs, dst_dir_fd=proofs)
    if not _is_there(backups, document):  # it was just being expired, and its proofs may have gone before
        _remove(proofs, name)
        return GONE
    return PUT


def _is_there(backups: int, document: Document) -> bool:
    """Whether exactly the backup is there that the *document* is about."""
    try:
        with _opened(document["label"], backups) as backup:
            found = _read(backup, "backup.json")
    except OSError as error:
        if error.errno in _READ_ONLY:
            raise
        return False
    return found is not None and bool(found.get("sha256") == document["backup_sha256"])


def _is_as_good(known: Document, document: Document) -> bool:
    """Whether what is there says the same of the same backup, and is as new."""
    if "problems" in document:
        return "problems" in known
    same = bool(known.get("backup_sha256") == document["backup_sha256"])
    return same and str(known.get("proven_at", "")) >= str(document["proven_at"])


def _read(directory: int, name: str) -> Document | None:
    """The JSON object in the file *name*; None for anything else."""
    try:
        descriptor = os.open(name, _FILE, dir_fd=directory)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return None
        raise
    with os.fdopen(descriptor, "rb") as stream:
        try:
            found = json.loads(stream.read()) if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else None
        except ValueError:
            return None
    return found if isinstance(found, dict) else None


def _write(directory: int, content: bytes, owner: os.stat_result) -> None:
    with os.fdopen(os.open(_TEMPORARY, _NEW, 0o600, dir_fd=directory), "wb") as stream:
        stream.write(content)
        stream.flush()
        if os.geteuid() == 0:
            os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
        os.fsync(stream.fileno())


def _remove(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


if __name__ == "__main__":
    main()
