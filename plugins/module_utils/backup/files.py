# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of an application's directories: hashed while they are copied, links recorded and never followed.

``remote_files`` sends this file to another host: it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
import typing as t

_CHUNK = 1 << 20
_TRIES = 3

Entry = t.Dict[str, t.Any]


class Copied(t.NamedTuple):
    """One copied directory: its entries, and what was not copied as it should be."""

    source: str
    device: int
    entries: list[Entry]
    special: list[str]
    other_file_systems: list[str]
    changing: list[str]
    unreadable: list[str]

    @property
    def bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.entries if entry["kind"] == "file")

    @property
    def files(self) -> int:
        return sum(entry["kind"] == "file" for entry in self.entries)


class Target:
    """The new directory that a copy is made in; paths are relative to it."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def wants(self, path: str) -> bool:
        """Whether the entry *path* of the source is to be copied."""
        del path
        return True

    def make_directory(self, path: str) -> None:
        os.mkdir(self._place(path), 0o700)

    @contextlib.contextmanager
    def file(self, path: str) -> t.Iterator[t.Callable[[bytes], t.Any]]:
        """Gives what writes a block to the file *path*, which begins anew."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._place(path), flags, 0o600), "wb") as stream:
            yield stream.write

    def known(self, path: str, status: os.stat_result) -> tuple[int, str] | None:
        """Size and SHA-256 of the file *path*, which looks like *status*, where it need not be read; else None."""
        return None

    def forget(self, path: str) -> None:
        """Take back the file *path*: what has no entry must have no copy."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._place(path))

    def _place(self, path: str) -> str:
        return os.path.join(self.directory, path) if path else self.directory


def copy_tree(source: str, target: str) -> Copied:
    """Copy the directory *source* to the new directory *target*, which gets plain files and directories alone."""
    return copy_to(source, Target(target))


def copy_to(source: str, target: Target) -> Copied:
    """Copy the directory *source* to *target*.

    Each entry says ``kind`` (file, directory, link), ``path`` (relative), ``mode``, ``uid``, ``gid``, ``mtime_ns``; a
    file also ``bytes`` and ``sha256``, a link its ``link``. Nothing outside *source* is ever opened: every step is
    taken from the directory that is already open, without following links. Raises OSError when *source* itself cannot
    be read.
    """
    root = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(root)
        copied = Copied(source, status.st_dev, [_entry("directory", ".", status)], [], [], [], [])
        target.make_directory("")
        _copy_directory(root, target, "", copied)
    finally:
        os.close(root)
    return copied


def tree_bytes(source: str) -> int:
    """Bytes of the files that :func:`copy_tree` would copy."""
    total = 0
    device = os.stat(source).st_dev
    for parent, directories, names in os.walk(source):
        directories[:] = [name for name in directories if _device(os.path.join(parent, name)) == device]
        for name in names:
            try:
                status = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:
                continue
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def _device(path: str) -> int:
    try:
        return os.lstat(path).st_dev
    except FileNotFoundError:
        return -1


def _copy_directory(source: int, target: Target, below: str, copied: Copied) -> None:
    for name in sorted(os.listdir(source)):
        path = os.path.join(below, name)
        if not target.wants(path):
            continue
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                if not _is_known(status, target, path, copied):
                    _copy_file(source, name, target, path, copied)
            elif stat.S_ISLNK(status.st_mode):
                copied.entries.append({**_entry("link", path, status), "link": os.readlink(name, dir_fd=source)})
            elif not stat.S_ISDIR(status.st_mode):
                copied.special.append(path)
            elif status.st_dev != copied.device:
                copied.other_file_systems.append(path)
            else:
                _descend(source, name, target, path, copied)
        except FileNotFoundError:
            continue  # it was removed meanwhile: as if it had never been there
        except PermissionError:
            copied.unreadable.append(path)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            copied.changing.append(path)  # something else stands under its name by now


def _descend(source: int, name: str, target: Target, path: str, copied: Copied) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=source)
    try:
        status = os.fstat(descriptor)
        target.make_directory(path)
        copied.entries.append(_entry("directory", path, status))
        _copy_directory(descriptor, target, path, copied)
    finally:
        os.close(descriptor)


def _is_known(status: os.stat_result, target: Target, path: str, copied: Copied) -> bool:
    """Whether *target* knows what the file holds without reading it; it is then among the entries."""
    known = target.known(path, status)
    if known:
        copied.entries.append({**_entry("file", path, status), "bytes": known[0], "sha256": known[1]})
    return bool(known)


def _copy_file(source: int, name: str, target: Target, path: str, copied: Copied) -> None:
    """Copy one file, again when it changed meanwhile; after the last try it is reported as changing."""
    try:
        for attempt in range(_TRIES):
            size, digest, status, unchanged = _copy_once(source, name, target, path)
            if unchanged:
                break
            time.sleep(0.02 * attempt)
        else:
            copied.changing.append(path)
    except OSError:
        target.forget(path)
        raise
    copied.entries.append({**_entry("file", path, status), "bytes": size, "sha256": digest})


def _copy_once(source: int, name: str, target: Target, path: str) -> tuple[int, str, os.stat_result, bool]:
    # Not blocking: should the name stand for a pipe by now, opening it must not wait for a writer.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=source), "rb", buffering=0) as stream:
        before = os.fstat(stream.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.ELOOP, "it is no file any more", name)
        size, digest = _copy_content(stream, target, path)
        after = os.fstat(stream.fileno())
    return size, digest, after, _same(before, after) and size == after.st_size


def _copy_content(stream: t.Any, target: Target, path: str) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    with target.file(path) as write:
        for block in iter(lambda: stream.read(_CHUNK), b""):
            digest.update(block)
            write(block)
            size += len(block)
    return size, digest.hexdigest()


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_size,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )


def _entry(kind: str, path: str, status: os.stat_result) -> Entry:
    return {
        "kind": kind,
        "path": path,
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
    }
