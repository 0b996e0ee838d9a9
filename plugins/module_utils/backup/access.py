# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who can reach what in a repository, by the rights of its files and of the directories on the way to them."""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

# Group and others, as the bits by which they may search a directory.
_ANYBODY = 0o011
_MOST = 100


class Exposed(t.NamedTuple):
    """What others than the owner can read or write, with its mode or owner."""

    readable: list[str]
    writable: list[str]


def exposed(root: str, directory: str) -> Exposed:
    """What is exposed of *root*, and of its *directory*; the way to *root* is taken to be open to everybody."""
    found = Exposed([], [])
    status = os.lstat(root)
    _tell(root, status, status.st_uid, _ANYBODY, found)
    _look(directory, os.lstat(directory), status.st_uid, status.st_mode & _ANYBODY, found)
    return found


def _look(path: str, status: os.stat_result, owner: int, reach: int, found: Exposed) -> None:
    """Look at *path* and what is below it; *reach* says who has a way to it."""
    if not reach or len(found.readable) + len(found.writable) >= _MOST:
        return
    _tell(path, status, owner, reach, found)
    if not stat.S_ISDIR(status.st_mode):
        return
    with contextlib.suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                _look(entry.path, entry.stat(follow_symlinks=False), owner, reach & status.st_mode, found)


def _tell(path: str, status: os.stat_result, owner: int, reach: int, found: Exposed) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (owner, 0):
        found.writable.append(f"{path} (of uid {status.st_uid}, the repository is of {owner})")
    elif stat.S_ISLNK(status.st_mode):
        return  # what it leads to has rights of its own
    elif mode & reach << 1:
        found.writable.append(f"{path} (mode {mode:04o})")
    elif mode & reach << 2:
        found.readable.append(f"{path} (mode {mode:04o})")
