# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bloat of GiST, hash and GIN indexes, from what pgstattuple counts in them and from how compact they once were."""

from __future__ import annotations

import math
import typing as t

from ..quantities import human_bytes
from .model import Finding, IndexFacts, nothing
from .remembered import REBUILT, Baseline

# How full a rebuild leaves the leaf pages of a GiST at least. It depends on the keys, their order and the release: 44 %
# (ranges in ascending order), 59 % (boxes), 66 % (points), 86 % (texts to search), up to 100 % (numbers, from 18 on).
GIST_LEAST_DENSITY = 0.42

_ITEM_POINTER = 4
_HASH_ENTRY = 20  # a header of 8 bytes, a hash of 4, aligned to 16, and its pointer
_HASH_PAGE_OVERHEAD = 40
_NEARLY = 0.9  # an average bucket that full has fellows that overflow


def judge_gist(row: t.Mapping[str, t.Any], facts: IndexFacts, baseline: t.Optional[Baseline]) -> Finding:
    """What a row of ``pgstattuple`` says of a GiST; *baseline* tells how full its pages were after a rebuild."""
    used = row["tuple_len"] + _ITEM_POINTER * row["tuple_count"]
    room = used + row["free_space"] + row["dead_tuple_len"] + _ITEM_POINTER * row["dead_tuple_count"]
    if facts.size_bytes <= facts.block_size or not room:
        return Finding(0.0, facts.size_bytes, None, "pgstattuple", "medium")
    density = used / room
    expected = GIST_LEAST_DENSITY
    reason = f"at least this: a rebuild fills its pages to {expected:.0%} or more"
    if baseline is not None and baseline.density:
        if baseline.source == REBUILT:
            expected, reason = baseline.density, "compared with how full it was after its rebuild"
        elif baseline.density > expected:
            expected, reason = baseline.density, "compared with the fullest that was seen of it"
    ratio = max(0.0, 1 - density / expected)
    predicted = max(facts.block_size, math.ceil(facts.size_bytes * (1 - ratio)))
    return Finding(ratio, predicted, density, "pgstattuple", "medium", reason)


def judge_hash(row: t.Mapping[str, t.Any], facts: IndexFacts) -> Finding:
    """What a row of ``pgstathashindex`` says: a rebuild makes as many buckets as the entries need."""
    pages = row["bucket_pages"] + row["overflow_pages"] + row["unused_pages"]
    entries = row["live_items"]
    fill = facts.block_size * facts.fillfactor // 100 // _HASH_ENTRY
    buckets = _next_hash_size(math.ceil(entries / fill))
    full = (facts.block_size - _HASH_PAGE_OVERHEAD) // _HASH_ENTRY
    # Equal keys share a bucket however many there are, so the overflow pages of today are needed again.
    repeated = min(row["overflow_pages"], math.ceil(entries / full))
    overflow = max(repeated, _overflow_of_unsplit(entries, buckets, full))
    needed = buckets + overflow
    ratio = max(0.0, 1 - needed / pages) if pages else 0.0
    predicted = facts.size_bytes - max(0, pages - needed) * facts.block_size
    density = entries / (full * pages) if pages else None
    return Finding(ratio, predicted, density, "pgstathashindex", "medium", "a hash index grows in steps of a quarter")


def _overflow_of_unsplit(entries: int, buckets: int, full: int) -> int:
    """How many buckets need an overflow page since they hold twice as much: those that the last step did not split."""
    doubled = 1 << (buckets - 1).bit_length()
    unsplit, load = doubled - buckets, entries / (doubled // 2)
    return unsplit if load > _NEARLY * full else 0


def _next_hash_size(buckets: int) -> int:
    """How many buckets a hash index has that needs *buckets*: powers of 2, from 512 on with three steps between."""
    size = 2
    while size < buckets:
        size *= 2
    if size <= 512:
        return size
    quarter = size // 8
    return next(steps * quarter for steps in range(5, 9) if steps * quarter >= buckets)


def judge_ratio(
    facts: IndexFacts, rows: float, baseline: t.Optional[Baseline], confidence: str, pending_bytes: int = 0
) -> Finding:
    """The bloat by the bytes for each of its *rows*, compared with the same figure when the index was compact.

    The pages of a GIN tell less: it never removes keys of which no row is left, so they are full of what is not needed.
    """
    if rows < 0:
        return nothing(facts.size_bytes, "how many rows it has is not known: ANALYZE its table", "baseline")
    if baseline is None or baseline.bytes_per_tuple is None:
        return nothing(facts.size_bytes, "seen for the first time: later runs compare it with now", "baseline")
    least = 2 * facts.block_size
    predicted = max(least, math.ceil(baseline.bytes_per_tuple * rows))
    settled = max(0, facts.size_bytes - pending_bytes)
    ratio = max(0.0, 1 - predicted / settled) if settled else 0.0
    since = "its rebuild" if baseline.source == REBUILT else "the most compact that was seen of it"
    reason = f"compared with {baseline.bytes_per_tuple:.1f} bytes a row, {since}"
    if pending_bytes:
        reason += f"; {human_bytes(pending_bytes)} of it wait to be sorted in by VACUUM"
    wasted = settled - predicted if ratio else 0
    return Finding(ratio, facts.size_bytes - wasted, None, "baseline", confidence, reason)
