# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx's cache of a proxied or FastCGI application: its files are deleted where they are, while nginx serves.

nginx keeps an index of the directory in shared memory and takes a file that is gone for a miss; the directory
itself has to stay. Files are named by the MD5 of their key, in up to three levels of directories that are named by
the end of it: ``c/29/b7f54b2df7773722d382f4810d65029c`` for ``levels=1:2``.
"""

from __future__ import annotations

import re
import stat

from ..errors import MaintenanceError
from ..storage.safe_tree import Found, Removed, Samples, TreeWalk
from .holding import Contents, Held, contents_of

_LEVEL = re.compile(r"[0-9a-f]{1,2}")
_CACHED = re.compile(r"[0-9a-f]{32}")
# Being written; nginx renames it when it is complete.
_IN_TRANSIT = re.compile(r"[0-9a-f]{32}\.[0-9]{10}")
# The clock that stamps files ticks more coarsely than the one that we read.
_TICK = 0.05


def levels_of(relative_path: str) -> tuple[int, ...] | None:
    """The lengths of the directory names if *relative_path* is one of nginx's, like (1, 2); None if it is not."""
    *levels, name = relative_path.split("/")
    if not 1 <= len(levels) <= 3 or not (_CACHED.fullmatch(name) or _IN_TRANSIT.fullmatch(name)):
        return None
    end = 32
    for level in levels:
        if not _LEVEL.fullmatch(level) or name[end - len(level) : end] != level:
            return None
        end -= len(level)
    return tuple(len(level) for level in levels)


def measure(held: Held) -> Contents:
    """Sum up the cache after seeing that everything in it is where nginx would have put it."""
    contents = Contents()
    foreign = Samples()
    layouts = set()
    walk = TreeWalk(held.descriptor, held.path)
    for found in walk:
        relative = found.path[len(walk.path) + 1 :]
        if found.is_directory:
            if not all(_LEVEL.fullmatch(level) for level in relative.split("/")):
                foreign.add(found.path)
            continue
        levels = levels_of(relative)
        if levels is None or not stat.S_ISREG(found.status.st_mode):
            foreign.add(found.path)
            continue
        layouts.add(levels)
        contents = contents.with_file(found)
    if walk.kept_out or walk.problems:
        foreign.extend(walk.kept_out)
        foreign.extend(walk.problems)
    if foreign or len(layouts) > 1:
        raise _no_cache_of_nginx(held, foreign, layouts)
    return contents


def _no_cache_of_nginx(held: Held, foreign: Samples, layouts: set[tuple[int, ...]]) -> MaintenanceError:
    several = " and ".join("levels=" + ":".join(map(str, levels)) for levels in sorted(layouts))
    return MaintenanceError(
        "take a directory for a cache of nginx",
        where=held.path,
        expected="nothing but files named by the MD5 of their key, in directories named by the end of it",
        observed=f"other things in it: {foreign}" if foreign else f"files of several layouts: {several}",
        advice="Name the directory of proxy_cache_path, or use `kind: directory`. Nothing was deleted.",
    )


def clear(held: Held) -> Removed:
    """Delete the cached files one by one; each is looked at again, for nginx goes on writing."""
    removed = Removed()
    walk = TreeWalk(held.descriptor, held.path)
    for found in walk:
        if not _is_cached(found, walk.path):
            continue
        freed = found.bytes_freed()
        try:
            if found.remove():
                removed.files += 1
                removed.bytes += freed
        except OSError as error:
            removed.problems.add(found.path, error.strerror or str(error))
    removed.problems.extend(walk.problems)
    return removed


def _is_cached(found: Found, root: str) -> bool:
    plain = stat.S_ISREG(found.status.st_mode) and _CACHED.fullmatch(found.name) is not None
    return plain and levels_of(found.path[len(root) + 1 :]) is not None


def left(held: Held, since: float) -> Contents:
    """Files from before the clearing; what nginx has cached anew since then is none of them."""
    root = TreeWalk(held.descriptor, held.path).path
    return contents_of(held, lambda found: _is_cached(found, root) and found.status.st_mtime < since - _TICK)


def leftovers(held: Held) -> list[str]:
    return []
