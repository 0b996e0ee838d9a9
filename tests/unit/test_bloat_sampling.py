"""Which pages of a large btree are read, and whether the bound of error that is stated holds."""

from __future__ import annotations

import random

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.sampling import (
    chosen_blocks,
    evaluate,
    fill_of,
    margin_of,
)


def page(kind: str = "l", free: int = 0, size: int = 8192) -> dict[str, object]:
    return {"type": kind, "page_size": size, "free_size": free}


@pytest.mark.parametrize("blocks", [2, 3, 100, 400, 401, 402, 8193, 1_000_003])
def test_pages_are_read_in_order_once_each_and_never_the_first(blocks: int) -> None:
    chosen = chosen_blocks(blocks, 400, seed=7)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(400, blocks - 1)
    assert chosen[0] >= 1
    assert chosen[-1] < blocks


def test_the_same_index_is_sampled_at_the_same_pages_and_another_at_others() -> None:
    assert chosen_blocks(9000, 400, seed=7) == chosen_blocks(9000, 400, seed=7)
    assert chosen_blocks(9000, 400, seed=7) != chosen_blocks(9000, 400, seed=8)


def test_every_page_has_the_same_chance() -> None:
    counts = [0] * 50
    for seed in range(4000):
        for block in chosen_blocks(50, 10, seed):
            counts[block] += 1
    assert counts[0] == 0
    assert min(counts[1:]) > 0.6 * 4000 * 10 / 49
    assert max(counts[1:]) < 1.6 * 4000 * 10 / 49


def test_deleted_half_dead_and_never_written_pages_are_empty_and_inner_ones_do_not_count() -> None:
    assert fill_of(page("l", free=0)) == 1.0
    assert fill_of(page("l", free=8152)) == 0.0
    assert fill_of(page("l", free=4076)) == pytest.approx(0.5)
    assert [fill_of(page(kind, free=100)) for kind in "deD"] == [0.0, 0.0, 0.0]
    assert [fill_of(page(kind)) for kind in "ri"] == [None, None]
    assert fill_of(page("i", size=0)) == 0.0


def test_a_sample_stands_for_the_whole_index() -> None:
    pages = [page("l", 815), page("l", 815), page("d"), page("i")] * 100
    sample = evaluate(pages, blocks=4001, fillfactor=90)
    assert (sample.shape.leaf, sample.shape.deleted, sample.shape.internal) == (2000, 1000, 1000)
    assert sample.shape.density == pytest.approx(0.9, abs=0.001)


def test_without_a_leaf_there_is_nothing_to_divide_by() -> None:
    assert evaluate([page("d")] * 3, blocks=4, fillfactor=90).shape == (0, 0, 0, 3, 0)
    assert evaluate([], blocks=1, fillfactor=90).shape.leaf == 0


def test_a_complete_reading_has_no_error() -> None:
    assert margin_of([0.1, 0.9, 0.5], population=3) == 0
    assert margin_of([0.4], population=1000) == 0


LAYOUTS = {
    "everywhere the same": lambda dice, _share: 0.9 + dice.random() / 100,
    "by chance": lambda dice, _share: dice.random() * 0.9,
    "each page full or empty": lambda dice, _share: dice.choice([0.0, 0.9]),
    "few pages empty": lambda dice, _share: 0.0 if dice.random() < 0.1 else 0.9,
    "first half empty": lambda _dice, share: 0.9 if share > 0.5 else 0.0,
    "fuller and fuller": lambda _dice, share: 0.9 * share,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_stated_bound_holds_in_at_least_nine_of_ten_cases_and_is_below_five_points(layout: str) -> None:
    dice, count = random.Random(1), 9000
    fills = [LAYOUTS[layout](dice, block / count) for block in range(count)]
    truth = sum(fills[1:]) / (count - 1)
    right, widest = 0, 0.0
    for seed in range(300):
        sampled = [fills[block] for block in chosen_blocks(count, 400, seed)]
        margin = margin_of(sampled, count - 1)
        right += abs(sum(sampled) / len(sampled) - truth) <= margin
        widest = max(widest, margin)
    assert right >= 270
    assert widest < 0.05
