"""What the counts of pages and rows say of the bloat of an index."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat import btree, estimate, other_kinds
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.btree import Shape
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.model import (
    BloatSettings,
    Finding,
    IndexFacts,
    joined,
    nothing,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.reach import Reach, unmeasurable, way_for
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import (
    FIRST_SIGHT,
    REBUILT,
    Baseline,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.tables import judge as judge_table
from support.bloat_facts import facts

PAGE = 8192


def judged(leaf: int, internal: int, empty: int, deleted: int, density: float, fillfactor: int = 90) -> Finding:
    pages = 1 + leaf + internal + empty + deleted
    return btree.judge(Shape(leaf, internal, empty, deleted, density), fillfactor, pages * PAGE, PAGE)


def test_a_btree_that_is_as_full_as_its_fillfactor_has_no_bloat() -> None:
    assert judged(1000, 5, 0, 0, 0.9).bloat_ratio == 0
    assert judged(1000, 5, 0, 0, 0.97).bloat_ratio == 0
    assert judged(1000, 5, 0, 0, 0.7, fillfactor=70).bloat_ratio == 0


def test_sparse_pages_deleted_pages_and_both_are_bloat() -> None:
    assert judged(1000, 5, 0, 0, 0.3).bloat_ratio == pytest.approx(2 / 3, abs=0.001)
    assert judged(100, 5, 0, 900, 0.9).bloat_ratio == pytest.approx(0.9)
    both = judged(500, 5, 100, 400, 0.45)
    assert both.bloat_ratio == pytest.approx(0.75)
    assert both.predicted_bytes == (1 + 250 + 3) * PAGE


def test_an_index_of_a_page_or_none_has_no_bloat_however_empty_it_is() -> None:
    assert judged(1, 0, 0, 0, 0.001).bloat_ratio == 0
    assert judged(0, 0, 0, 0, 0.0).bloat_ratio == 0
    two = judged(2, 1, 0, 0, 0.05)
    assert (two.bloat_ratio, two.predicted_bytes) == (0.5, 2 * PAGE)


def test_an_emptied_index_is_all_bloat_but_for_what_a_new_one_has() -> None:
    emptied = judged(1, 1, 0, 998, 0.0)
    assert emptied.bloat_ratio == pytest.approx(998 / 999)
    assert emptied.predicted_bytes == 2 * PAGE
    assert judged(0, 0, 0, 10, 0.0).predicted_bytes == PAGE


def test_a_density_that_is_not_a_number_counts_as_none() -> None:
    row = {"avg_leaf_density": math.nan, "leaf_pages": 0, "internal_pages": 0, "empty_pages": 0, "deleted_pages": 3}
    assert btree.shape_of(row) == (0, 0, 0, 3, 0.0)


def test_equal_keys_of_a_unique_index_share_no_entry_once_it_is_rebuilt() -> None:
    # 96 000 NULLs in 150 pages, half of them empty; built anew they take 262 pages.
    shape = Shape(leaf=150, internal=1, empty=0, deleted=0, density=0.48)
    assert btree.judge(shape, 90, 152 * PAGE, PAGE).bloat_ratio == pytest.approx(0.47, abs=0.01)
    assert btree.judge(shape, 90, 152 * PAGE, PAGE, unmerged=96_000).bloat_ratio == 0.0
    some = btree.judge(shape, 90, 152 * PAGE, PAGE, unmerged=40_000)
    assert some.bloat_ratio == pytest.approx(1 - 110 / 150, abs=0.01)
    assert btree.judge(shape, 90, 152 * PAGE, PAGE, unmerged=-1).bloat_ratio == pytest.approx(0.47, abs=0.01), "unknown"


def gist_row(used: int, free: int, dead: int = 0) -> dict[str, int]:
    return {"tuple_len": used, "tuple_count": 0, "free_space": free, "dead_tuple_len": dead, "dead_tuple_count": 0}


def test_a_gist_is_compared_with_its_rebuild_or_the_fullest_seen_or_the_sparsest_there_is() -> None:
    index = facts(access_method="gist", size_bytes=1000 * PAGE)
    assert other_kinds.judge_gist(gist_row(43, 57), index, None).bloat_ratio == 0
    assert other_kinds.judge_gist(gist_row(21, 79), index, None).bloat_ratio == pytest.approx(0.5)
    for source in (REBUILT, FIRST_SIGHT):
        baseline = Baseline(None, 0.9, source)
        assert other_kinds.judge_gist(gist_row(30, 70), index, baseline).bloat_ratio == pytest.approx(2 / 3)
        assert other_kinds.judge_gist(gist_row(30, 40, dead=30), index, baseline).bloat_ratio == pytest.approx(2 / 3)
        assert other_kinds.judge_gist(gist_row(0, 100), index, baseline).predicted_bytes == PAGE
    sparse = Baseline(None, 0.21, FIRST_SIGHT)
    assert other_kinds.judge_gist(gist_row(21, 79), index, sparse).bloat_ratio == pytest.approx(0.5)


def test_a_gist_that_a_rebuild_did_not_make_denser_is_not_rebuilt_for_ever() -> None:
    index = facts(access_method="gist", size_bytes=1000 * PAGE)
    assert other_kinds.judge_gist(gist_row(35, 65), index, Baseline(None, 0.35, REBUILT)).bloat_ratio == 0


HASHES = [  # as pgstathashindex counted them after a build: entries, buckets, overflow pages
    (1_000, 4, 0),
    (20_000, 128, 0),
    (100_000, 512, 0),
    (200_000, 768, 52),
    (300_000, 1024, 0),
    (500_000, 1792, 256),
    (100_000, 512, 245),  # of 7 different keys
    (500_000, 1792, 1225),  # likewise
]


@pytest.mark.parametrize(("entries", "buckets", "overflow"), HASHES)
def test_a_new_hash_index_has_no_bloat(entries: int, buckets: int, overflow: int) -> None:
    row = {"bucket_pages": buckets, "overflow_pages": overflow, "unused_pages": 0, "live_items": entries}
    index = facts(access_method="hash", fillfactor=75, size_bytes=(buckets + overflow + 2) * PAGE)
    assert other_kinds.judge_hash(row, index).bloat_ratio == 0


def test_a_hash_index_that_lost_its_rows_has() -> None:
    row = {"bucket_pages": 768, "overflow_pages": 0, "unused_pages": 52, "live_items": 50_000}
    found = other_kinds.judge_hash(row, facts(access_method="hash", fillfactor=75, size_bytes=822 * PAGE))
    assert found.predicted_bytes == (256 + 2) * PAGE
    assert found.bloat_ratio == pytest.approx(1 - 256 / 820)


def test_a_gin_is_compared_with_its_compact_self() -> None:
    index = facts(access_method="gin", size_bytes=1000 * PAGE)
    compact = Baseline(100.0, None, REBUILT)
    found = other_kinds.judge_ratio(index, 40_960, compact, "medium")
    assert found.bloat_ratio == pytest.approx(0.5)
    assert (found.confidence, found.predicted_bytes) == ("medium", 500 * PAGE)
    seen = other_kinds.judge_ratio(index, 40_960, compact._replace(source=FIRST_SIGHT), "medium")
    assert (seen.bloat_ratio, "most compact that was seen" in seen.reason) == (found.bloat_ratio, True)
    assert other_kinds.judge_ratio(index, 999_999, compact, "medium").bloat_ratio == 0


def test_what_waits_in_a_gin_to_be_sorted_in_is_not_bloat() -> None:
    index = facts(access_method="gin", size_bytes=1000 * PAGE)
    found = other_kinds.judge_ratio(index, 40_960, Baseline(100.0, None, REBUILT), "medium", pending_bytes=500 * PAGE)
    assert (found.bloat_ratio, found.predicted_bytes) == (0, 1000 * PAGE)
    assert "wait to be sorted in" in found.reason


def test_nothing_is_claimed_at_first_sight_or_when_the_rows_were_never_counted() -> None:
    index = facts(access_method="gin", size_bytes=1000 * PAGE)
    for found in (
        other_kinds.judge_ratio(index, 40_960, None, "medium"),
        other_kinds.judge_ratio(index, -1, Baseline(100.0, None, REBUILT), "medium"),
    ):
        assert (found.bloat_ratio, found.confidence, found.predicted_bytes) == (None, "none", 1000 * PAGE)
        assert found.reason


def column(**different: Any) -> dict[str, Any]:
    return {"length": 8, "alignment": "d", "not_null": True, "width": 8, "nulls": 0.0, **different}


def test_entries_are_as_long_as_the_server_makes_them() -> None:
    assert estimate.key_bytes([column(length=4, alignment="i")]) == 20
    assert estimate.key_bytes([column()]) == 20
    assert estimate.key_bytes([column(length=4, alignment="i"), column()]) == 28
    assert estimate.key_bytes([column(length=-1, width=33)]) == 52


def test_the_estimate_is_made_for_unique_keys_alone() -> None:
    index = facts(is_unique=True, tuples=366_000.0, pages=2000, size_bytes=2000 * PAGE)
    found = estimate.judge(index, [column()])
    assert (found.method, found.confidence) == ("estimate", "low")
    assert found.bloat_ratio == pytest.approx(0.5, abs=0.005)
    refused = {
        "repeat": (replace(index, is_unique=False), column()),
        "statistics of expressions": (replace(index, has_expressions=True), column()),
        "parts of a table": (replace(index, has_predicate=True), column()),
        "older than its content": (replace(index, pages=1000), column()),
        "ANALYZE": (replace(index, tuples=-1.0), column()),
        "role may see": (index, column(length=-1, width=None)),
        "nulls": (index, column(not_null=False, nulls=0.5)),
        "compressed": (index, column(length=-1, width=500)),
    }
    for words, (other, key) in refused.items():
        found = estimate.judge(other, [key])
        assert (found.method, found.bloat_ratio) == ("none", None)
        assert words in found.reason


def test_columns_without_statistics_may_hold_nulls() -> None:
    index = facts(is_unique=True, tuples=1000.0, pages=10, size_bytes=10 * PAGE)
    assert estimate.judge(index, [column(not_null=False, nulls=None, width=None)]).method == "none"


EVERYTHING = Reach("ext", "ext", False, "")


def test_the_best_way_within_reach_is_taken() -> None:
    settings = BloatSettings(sample_above_bytes=100 * PAGE)
    small, large = facts(size_bytes=100 * PAGE), facts(size_bytes=101 * PAGE)
    assert way_for(small, EVERYTHING, settings) == "btree"
    assert way_for(large, EVERYTHING, settings) == "sampled 400"
    assert way_for(large, EVERYTHING._replace(pageinspect=None), settings) == "btree"
    assert way_for(large, EVERYTHING._replace(pgstattuple=None), settings) == "sampled 400"
    assert way_for(small, EVERYTHING._replace(pgstattuple=None), settings) == "unaided"
    assert way_for(replace(large, access_method="gist"), EVERYTHING, settings) == "gist"
    assert way_for(replace(large, access_method="gin"), Reach(None, None, False, ""), settings) == "gin"


@pytest.mark.parametrize(
    ("different", "is_standby", "words"),
    [
        ({"being_built": True, "is_valid": False}, False, "being built"),
        ({"is_valid": False}, False, "invalid"),
        ({"is_unlogged": True}, True, "standby"),
        ({"access_method": "brin"}, False, "BRIN"),
        ({"access_method": "spgist"}, False, "spgist"),
        ({"access_method": "bloom"}, False, "bloom"),
    ],
)
def test_what_cannot_be_measured_is_told_with_the_reason(
    different: dict[str, Any], is_standby: bool, words: str
) -> None:
    assert words in unmeasurable(facts(**different), is_standby)


def test_what_can_be_measured_is() -> None:
    assert [unmeasurable(facts(access_method=kind), False) for kind in ("btree", "gist", "gin", "hash")] == [""] * 4
    assert unmeasurable(facts(is_unlogged=True), False) == ""


def test_without_a_measurement_nothing_is_won() -> None:
    index = joined(facts(size_bytes=5 * PAGE), nothing(5 * PAGE, "why"))
    assert (index.bloat_ratio, index.wasted_bytes, index.predicted_bytes) == (None, 0, 5 * PAGE)


def test_a_prediction_is_never_larger_than_the_index_nor_below_nothing() -> None:
    index: IndexFacts = facts(size_bytes=5 * PAGE)
    assert joined(index, Finding(0.0, 9 * PAGE, None, "estimate", "low")).wasted_bytes == 0
    assert joined(index, Finding(1.0, -1, None, "estimate", "low")).wasted_bytes == 5 * PAGE


def approximated(**different: Any) -> dict[str, Any]:
    return {
        "table_len": 1000 * PAGE,
        "dead_tuple_len": 0,
        "approx_free_space": 0,
        "approx_tuple_count": 0,
        "approx_tuple_len": 0,
        "scanned_percent": 100,
        **different,
    }


def test_free_room_and_dead_rows_of_a_table_are_bloat_but_not_what_its_fillfactor_keeps() -> None:
    table = {"fillfactor": 100, "block_size": PAGE}
    half = approximated(dead_tuple_len=100 * PAGE, approx_free_space=400 * PAGE)
    assert judge_table(half, table).bloat_ratio == pytest.approx(0.5)
    assert judge_table(half, {**table, "fillfactor": 50}).bloat_ratio == 0
    assert judge_table(approximated(table_len=0), table).bloat_ratio == 0


def test_room_on_a_page_into_which_no_row_fits_is_not_bloat() -> None:
    wide = approximated(approx_tuple_count=1000, approx_tuple_len=1000 * 5000, approx_free_space=1000 * 3000)
    assert judge_table(wide, {"fillfactor": 100, "block_size": PAGE}).bloat_ratio == 0
