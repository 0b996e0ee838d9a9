# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a removal really gave back to the file system, which is not always what the removed files took up."""

from __future__ import annotations

import os
import time

from ..open_files import open_files
from ..quantities import human_bytes
from ..result import Part

# Others write meanwhile: up to this much is no contradiction.
TOLERATED_BYTES = 64 << 20
TOLERATED_RATIO = 0.1
# Some file systems give blocks back a moment later.
_PATIENCE_SECONDS = 2.0


def free_bytes(descriptor: int) -> int:
    """Free space of the file system that the open file *descriptor* lies on."""
    status = os.fstatvfs(descriptor)
    return status.f_bfree * status.f_frsize


def tolerated(expected: int) -> int:
    """By how much free space may fall short of *expected* without a reason for doubt."""
    return max(TOLERATED_BYTES, int(expected * TOLERATED_RATIO))


def account(
    part: Part,
    name: str,
    descriptor: int,
    *,
    removed_below: str,
    free_before: int,
    freed_by_sum: int,
    hard_links: int = 0,
) -> int:
    """Check that what was removed (*freed_by_sum*) was given back; returns by how much free space grew.

    Others write to the same file system meanwhile, so less free space alone proves nothing. Removed files that a
    process still holds open do: their former paths begin with *removed_below*. *hard_links* is how many of the removed
    names belonged to files that live on under other names.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    grown = free_bytes(descriptor) - free_before
    while freed_by_sum - grown > tolerated(freed_by_sum) and time.monotonic() < deadline:
        time.sleep(0.1)
        grown = free_bytes(descriptor) - free_before
    falls_short = freed_by_sum - grown > tolerated(freed_by_sum)
    held = _held_open(removed_below) if falls_short else []
    part.check(
        name,
        "warned" if held else "passed",
        expected=f"{human_bytes(freed_by_sum)} given back, the sum of the removed files",
        observed=_observed(grown, falls_short, held),
        advice="Restart the processes that hold them, or make them reopen their files." if held else "",
        evidence={
            "freed_by_sum_bytes": freed_by_sum,
            "freed_by_statvfs_bytes": grown,
            "hard_links": hard_links,
            "held_open": held[:20],
        },
    )
    return grown


def _held_open(removed_below: str) -> list[str]:
    """The removed files that processes still have open."""
    return [
        f"{file.path} by {file.comm} (pid {file.pid}), {human_bytes(file.size)}"
        for file in open_files()
        if file.deleted and file.path.startswith(removed_below)
    ]


def _observed(grown: int, falls_short: bool, held: list[str]) -> str:
    words = f"{human_bytes(abs(grown))} {'less' if grown < 0 else 'more'} free by statvfs"
    if held:
        return f"{words}; still open: {', '.join(held[:3])}" + (f" and {len(held) - 3} more" if len(held) > 3 else "")
    return f"{words}; none of the removed files is open, so others wrote meanwhile" if falls_short else words
