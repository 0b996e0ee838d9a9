# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bloat of a large btree, from some of its pages: which to read, and what they say of the whole."""

from __future__ import annotations

import math
import random
import typing as t

from . import btree
from .btree import Shape

_CONFIDENCE_95 = 1.96


class Sample(t.NamedTuple):
    """What the sampled pages say: the shape of the whole index, and how wrong the bloat ratio may be."""

    shape: Shape
    margin: float


def chosen_blocks(blocks: int, count: int, seed: int) -> t.List[int]:
    """*count* of the blocks 1 to *blocks* - 1 in order: one at a random place in each of as many equal stretches.

    Block 0 holds no keys. The same *seed* chooses the same blocks, so that measuring twice says the same.
    """
    last = blocks - 1
    if last <= count:
        return list(range(1, blocks))
    # Not a secret, only a choice that no regular pattern in the index can coincide with.
    dice = random.Random(seed)  # noqa: S311
    edges = [1 + last * i // count for i in range(count + 1)]
    return [dice.randrange(edges[i], edges[i + 1]) for i in range(count)]


def fill_of(page: t.Mapping[str, t.Any]) -> t.Optional[float]:
    """The share of a *page* (a row of ``bt_page_stats``) that holds keys; None for an inner page, which holds none.

    Deleted and half-dead pages, and pages that were never written, are empty.
    """
    if page["page_size"] == 0:
        return 0.0
    if page["type"] in ("i", "r"):
        return None
    if page["type"] != "l":
        return 0.0
    space = page["page_size"] - btree.PAGE_OVERHEAD
    return max(0.0, min(1.0, 1 - int(page["free_size"]) / int(space)))


def evaluate(pages: t.Sequence[t.Mapping[str, t.Any]], blocks: int, fillfactor: int) -> Sample:
    """What *pages*, sampled evenly from an index of so many *blocks*, say of it as a whole."""
    fills = [fill_of(page) for page in pages]
    share = (blocks - 1) / max(1, len(pages))
    leaves = [fill for fill, page in zip(fills, pages) if fill is not None and _is_leaf(page)]  # noqa: B905
    outer = [fill for fill in fills if fill is not None]
    density = sum(leaves) / len(leaves) if leaves else 0.0
    inner = (len(fills) - len(outer)) * share
    shape = Shape(len(leaves) * share, inner, 0.0, (len(outer) - len(leaves)) * share, density)
    return Sample(shape, margin_of(outer, blocks - 1) * 100 / fillfactor)


def margin_of(fills: t.Sequence[float], population: int) -> float:
    """How far the mean of *fills* may be from that of the *population* they were drawn from, in 95 of 100 cases.

    They are in the order of their pages, one from each stretch, so what counts is how much neighbours differ: an index
    whose first half is empty is known as well as one that is full.
    """
    count = len(fills)
    if count < 2 or count >= population:
        return 0.0
    differences = sum((after - before) ** 2 for before, after in zip(fills, fills[1:]))  # noqa: B905, RUF007
    variance = differences / (2 * (count - 1))
    return _CONFIDENCE_95 * math.sqrt(variance / count * (1 - count / population))


def _is_leaf(page: t.Mapping[str, t.Any]) -> bool:
    return bool(page["page_size"]) and page["type"] == "l"
