# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory of cached files: exchanged for an empty one in one step, then deleted out of sight."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import stat

from ..errors import MaintenanceError
from ..storage.safe_tree import Removed, remove_tree
from .holding import Contents, Held, contents_of

_PREFIX = ".wellkept-cleared-"
_LEFTOVER = re.compile(re.escape(_PREFIX) + r"(?P<cache>.+)-[0-9a-f]{16}", re.DOTALL)
_LONGEST_NAME = 200
_RENAME_EXCHANGE = 2
# What a kernel, a C library or a file system answers that cannot exchange two names.
_CANNOT_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def measure(held: Held) -> Contents:
    return contents_of(held, lambda found: True)


def left(held: Held, since: float) -> Contents:
    """What is left of the old tree: what its removal could not remove."""
    contents = Contents()
    for name in leftovers(held):
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held.parent)
        try:
            rest = contents_of(Held(held.parent, descriptor, f"{held.parent_path}/{name}"), lambda found: True)
        finally:
            os.close(descriptor)
        contents = Contents(contents.files + max(rest.files, 1), contents.bytes + rest.bytes, since)
    return contents


def clear(held: Held) -> Removed:
    """Put an empty directory of the same owner and mode in the cache's place, then delete the old one."""
    aside = _new_name(held)
    _refuse_mount_point(held)
    _make_like(held, aside)
    try:
        _exchange(held, aside)
    except BaseException:
        with contextlib.suppress(OSError):
            os.rmdir(aside, dir_fd=held.parent)
        raise
    _see_that_it_is_the_same(held, aside)
    return remove_tree(held.parent, aside, f"{held.parent_path}/{aside}")


def leftovers(held: Held) -> list[str]:
    """Old trees, or empty directories for the exchange, that a clearing of this cache left when it was killed."""
    return _leftovers_in(held.parent, held.name)


def put_back(parent: int, name: str) -> bool:
    """Where the exchange takes two steps and was killed between them: put the cache *name* back in its place."""
    for leftover in _leftovers_in(parent, name):
        with contextlib.suppress(OSError):
            os.rename(leftover, name, src_dir_fd=parent, dst_dir_fd=parent)
            return True
    return False


def _leftovers_in(parent: int, name: str) -> list[str]:
    try:
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    except PermissionError:
        return []  # Who may not list it may not rename in it on most hosts either.
    try:
        with os.scandir(listed) as listing:
            return [entry.name for entry in listing if _is_leftover(entry, name[:_LONGEST_NAME])]
    finally:
        os.close(listed)


def _is_leftover(entry: os.DirEntry[str], name: str) -> bool:
    match = _LEFTOVER.fullmatch(entry.name)
    return match is not None and match["cache"] == name and entry.is_dir(follow_symlinks=False)


def _new_name(held: Held) -> str:
    return f"{_PREFIX}{held.name[:_LONGEST_NAME]}-{secrets.token_hex(8)}"


def _refuse_mount_point(held: Held) -> None:
    if os.fstat(held.descriptor).st_dev != os.fstat(held.parent).st_dev:
        raise MaintenanceError(
            "exchange a cache directory",
            where=held.path,
            expected="a directory that can be renamed",
            observed="it is the root of a file system of its own",
            advice="Let the application keep its cache in a subdirectory, and name that as the path.",
        )


def _make_like(held: Held, name: str) -> None:
    """Make the empty directory *name* beside the cache, with the cache's owner and mode."""
    wanted = os.fstat(held.descriptor)
    try:
        os.mkdir(name, 0o700, dir_fd=held.parent)
    except OSError as error:
        error.filename = held.parent_path
        raise
    try:
        new = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=held.parent)
        try:
            made = os.fstat(new)
            if (made.st_uid, made.st_gid) != (wanted.st_uid, wanted.st_gid):
                os.fchown(new, wanted.st_uid, wanted.st_gid)
            os.fchmod(new, stat.S_IMODE(wanted.st_mode))
        finally:
            os.close(new)
    except PermissionError:
        os.rmdir(name, dir_fd=held.parent)
        raise MaintenanceError(
            "exchange a cache directory",
            where=held.path,
            expected=f"the right to make a directory of user {wanted.st_uid} and group {wanted.st_gid}",
            observed="permission denied",
            advice="Run with `become: true`, or as the user that owns the cache.",
        ) from None


def _exchange(held: Held, name: str) -> None:
    """Exchange the cache and the directory *name* at once; in two steps where the system cannot do better."""
    try:
        _rename_exchange(held.parent, name, held.name)
    except OSError as error:
        if error.errno not in _CANNOT_EXCHANGE:
            error.filename = held.path
            raise
        aside = _new_name(held)
        os.rename(held.name, aside, src_dir_fd=held.parent, dst_dir_fd=held.parent)
        os.rename(name, held.name, src_dir_fd=held.parent, dst_dir_fd=held.parent)
        os.rename(aside, name, src_dir_fd=held.parent, dst_dir_fd=held.parent)


def _rename_exchange(directory: int, one: str, other: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        renameat2 = libc.renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    if renameat2(directory, os.fsencode(one), directory, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _see_that_it_is_the_same(held: Held, aside: str) -> None:
    """What lies aside now must be the directory that the guard rails let pass."""
    expected, found = os.fstat(held.descriptor), os.stat(aside, dir_fd=held.parent, follow_symlinks=False)
    if (expected.st_dev, expected.st_ino) == (found.st_dev, found.st_ino):
        return
    _exchange(held, aside)
    raise MaintenanceError(
        "exchange a cache directory",
        where=held.path,
        expected="the directory that was measured",
        observed="somebody put another in its place meanwhile; it was put back and nothing deleted",
        advice="See what else works on this cache, and run again.",
    )
