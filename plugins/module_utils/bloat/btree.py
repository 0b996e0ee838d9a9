# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bloat of a btree, from the counts of its pages."""

from __future__ import annotations

import math
import typing as t

from .model import Finding

# Of a page of 8 kB: its header and the special space of a btree, which hold no keys.
PAGE_OVERHEAD = 40
_SMALLEST_ENTRY = 20  # a line pointer, a header, and the shortest key (or the bitmap of a null)


class Shape(t.NamedTuple):
    """What a btree consists of: pages by their kind, and the share of its leaf pages that holds keys (0 to 1)."""

    leaf: float
    internal: float
    empty: float
    deleted: float
    density: float


def shape_of(row: t.Mapping[str, t.Any]) -> Shape:
    """The shape in a row of ``pgstatindex``; an index without a leaf page has a density of NaN there."""
    density = float(row["avg_leaf_density"])
    return Shape(
        row["leaf_pages"],
        row["internal_pages"],
        row["empty_pages"],
        row["deleted_pages"],
        0.0 if math.isnan(density) else density / 100,
    )


def rebuilt_leaf_pages(shape: Shape, fillfactor: int) -> int:
    """How many leaf pages a rebuild would fill with the same keys."""
    return max(1, math.ceil(shape.leaf * shape.density * 100 / fillfactor)) if shape.leaf else 0


def unmerged_leaf_pages(entries: float, fillfactor: int, block_size: int) -> int:
    """The fewest leaf pages that a rebuild can fill with so many *entries* when it merges no duplicates."""
    return math.ceil(max(0.0, entries) * _SMALLEST_ENTRY * 100 / ((block_size - PAGE_OVERHEAD) * fillfactor))


def judge(shape: Shape, fillfactor: int, size_bytes: int, block_size: int, *, unmerged: float = 0.0) -> Finding:
    """The bloat of a btree of this *shape*: the share of its pages for keys that a rebuild would not need.

    *unmerged*: how many entries there are, in an index whose rebuild merges no duplicates. That of a unique index does
    not, although inserting merges its nulls: it can become larger.

    Keys that VACUUM has not removed yet, and duplicates that were never merged, count as content: a rebuild may win
    more than is predicted here.
    """
    pages = shape.leaf + shape.empty + shape.deleted
    leaf = max(rebuilt_leaf_pages(shape, fillfactor), unmerged_leaf_pages(unmerged, fillfactor, block_size))
    if pages <= 1 or leaf >= pages:
        return Finding(0.0, size_bytes, shape.density if shape.leaf else None, "pgstatindex", "high")
    internal = math.ceil(shape.internal * min(1.0, leaf / shape.leaf)) if shape.leaf else 0
    # A btree of one page has its root for a leaf.
    internal = internal if leaf > 1 else 0
    predicted = (1 + leaf + internal) * block_size
    ratio = 1 - leaf / pages
    return Finding(ratio, predicted, shape.density if shape.leaf else None, "pgstatindex", "high")
