# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a removal really gave back to the file system, which is not always what the removed files took up."""

from __future__ import annotations

import os
import time

from .quantities import human_bytes
from .result import Part

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


def account(part: Part, name: str, descriptor: int, *, free_before: int, freed_by_sum: int, hard_links: int = 0) -> int:
    """Check that free space grew by what was removed (*freed_by_sum*); returns by how much it grew.

    *hard_links* is how many of the removed names belonged to files that live on under other names.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    grown = free_bytes(descriptor) - free_before
    while freed_by_sum - grown > tolerated(freed_by_sum) and time.monotonic() < deadline:
        time.sleep(0.1)
        grown = free_bytes(descriptor) - free_before
    explained = freed_by_sum - grown <= tolerated(freed_by_sum)
    part.check(
        name,
        "passed" if explained else "warned",
        expected=f"about {human_bytes(freed_by_sum)} more free space, the sum of the removed files",
        observed=f"{human_bytes(abs(grown))} {'less, for others wrote' if grown < 0 else 'more'}, by statvfs",
        advice="" if explained else _why_less(hard_links),
        evidence={"freed_by_sum_bytes": freed_by_sum, "freed_by_statvfs_bytes": grown, "hard_links": hard_links},
    )
    return grown


def _why_less(hard_links: int) -> str:
    links = f" {hard_links} of the removed names were hard links to files that live on." if hard_links else ""
    return (
        "A process opened a file just before it went (lsof +L1 lists those), others wrote at the same time, or a "
        f"snapshot holds the blocks.{links}"
    )
