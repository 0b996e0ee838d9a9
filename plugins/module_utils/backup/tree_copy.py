# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A copy of a directory, made by several workers at a time: one alone leaves most of a fast disk idle."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..errors import MaintenanceError
from .programs import workers

_CHUNK = 1 << 20
# Files that a worker takes at a time, so that small ones cost no more than their copying.
_BATCH = 64
# The kernel cannot copy by itself between these two files: we do it.
_NOT_BY_THE_KERNEL = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


class _File(t.NamedTuple):
    """A file to be copied."""

    source: str
    target: str
    status: os.stat_result


def copy_tree(source: str, target: str, what: str, jobs: int = 0) -> None:
    """Copy what is in *source* to the directory *target*, which must be empty: with modes, times and, as root, owners.

    Where the file system can, files share their blocks until one of them is written to.
    """
    files: list[_File] = []
    directories: list[tuple[os.stat_result, str]] = []
    try:
        _make_directories(source, target, files, directories)
        pool = ThreadPoolExecutor(workers(jobs))
        try:
            for _copied in pool.map(_copy_files, _batches(files)):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
        for status, copy in reversed(directories):
            _like_directory(status, copy)
    except OSError as error:
        raise MaintenanceError(
            what,
            where=error.filename or target,
            expected="room and rights for all of it",
            observed=os.strerror(error.errno or 0),
            advice="Free space there, or restore to a larger file system; the backup is untouched.",
        ) from None


def _make_directories(
    source: str, target: str, files: list[_File], directories: list[tuple[os.stat_result, str]]
) -> None:
    """Make the directories and links of *source* in *target*, and list the rest."""
    os.makedirs(target, mode=0o700, exist_ok=True)
    directories.append((os.lstat(source), target))
    with os.scandir(source) as entries:
        for entry in entries:
            copy = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                _make_directories(entry.path, copy, files, directories)
            elif entry.is_symlink():
                os.symlink(os.readlink(entry.path), copy)
            else:
                files.append(_File(entry.path, copy, entry.stat(follow_symlinks=False)))


def _batches(files: list[_File]) -> list[list[_File]]:
    """*files* in parts for the workers: large ones first and alone, so that none is left when all others have ended."""
    files.sort(key=lambda file: -file.status.st_size)
    large = sum(file.status.st_size > _CHUNK for file in files)
    small = range(large, len(files), _BATCH)
    return [[file] for file in files[:large]] + [files[first : first + _BATCH] for first in small]


def _copy_files(files: list[_File]) -> None:
    for file in files:
        _copy_file(*file)


def _copy_file(source: str, target: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), source)
    original = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            _copy_bytes(original, copy, status.st_size)
            _like(status, copy)
        except OSError as error:
            raise OSError(error.errno, error.strerror, target) from None
        finally:
            os.close(copy)
    finally:
        os.close(original)


def _copy_bytes(source: int, target: int, size: int) -> None:
    """Let the kernel copy *size* bytes, or do it ourselves where it cannot between these two file systems."""
    copied = 0
    try:
        while copied < size:
            count = os.copy_file_range(source, target, size - copied)
            if not count:
                break
            copied += count
    except OSError as error:
        if copied or error.errno not in _NOT_BY_THE_KERNEL:
            raise
        with open(source, "rb", closefd=False) as original, open(target, "wb", closefd=False) as copy:
            shutil.copyfileobj(original, copy, _CHUNK)


def _like(status: os.stat_result, target: int) -> None:
    """Give the open *target* the owner, the mode and the times that *status* tells."""
    if os.geteuid() == 0 and (status.st_uid or status.st_gid):
        os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _like_directory(status: os.stat_result, target: str) -> None:
    """The same for a directory, once it holds what it shall."""
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _like(status, descriptor)
    finally:
        os.close(descriptor)
