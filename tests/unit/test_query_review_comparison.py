"""Like is compared with like: what was counted since the last review, or since the counters began."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review import activity, tables
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review.comparison import (
    MEMORY_VERSION,
    Interval,
    Memory,
    Remembered,
    Rules,
    interval_of,
    is_slower,
    next_baseline,
    read_memory,
    remembered_statements,
    same_counters,
    worth_remembering,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review.report_statements import milliseconds
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review.statements import (
    Statement,
    loading_advice,
)

RULES = Rules(factor=2.0, min_seconds=0.005, min_calls=20)
MEMORY = Memory(1000.0, "7", 5.0, 2.0, {("shop", "1"): Remembered(100, 1.0, 0.01)}, {}, {})


def statement(calls: int, seconds: float, since: float | None = None, queryid: str = "1") -> Statement:
    return Statement("shop", queryid, calls, seconds, since=since)


@pytest.mark.parametrize(
    ("now", "continuous", "calls", "seconds"),
    [
        (statement(150, 3.0), True, 50, 2.0),
        (statement(150, 3.0), False, 150, 3.0),
        (statement(30, 0.3), True, 30, 0.3),
        (statement(150, 0.5), True, 150, 0.5),
        (statement(150, 3.0, since=2000.0), True, 150, 3.0),
        (statement(150, 3.0, since=500.0), True, 50, 2.0),
    ],
    ids=["difference", "all was reset", "began anew", "thrown out and back", "younger", "older"],
)
def test_what_happened_since_the_last_review(now: Statement, continuous: bool, calls: int, seconds: float) -> None:
    interval = interval_of(now, MEMORY, continuous)
    assert (interval.calls, interval.seconds, interval.baseline) == (calls, seconds, 0.01)


def test_of_a_statement_that_was_not_remembered_only_what_is_certain_counts() -> None:
    interval = interval_of(statement(100, 8.0, queryid="2"), MEMORY, continuous=True)
    assert (interval.calls, interval.seconds, interval.baseline) == (75, 6.0, None)
    assert interval_of(statement(100, 1.0, queryid="2"), MEMORY, continuous=True).calls == 0
    assert interval_of(statement(100, 1.0, since=2000.0, queryid="2"), MEMORY, continuous=True).calls == 100
    assert interval_of(statement(100, 1.0, queryid="2"), None, continuous=False).calls == 100


@pytest.mark.parametrize(
    ("calls", "mean", "baseline", "slower"),
    [
        (50, 0.03, 0.01, True),
        (50, 0.019, 0.01, False),
        (50, 0.004, 0.001, False),
        (19, 0.03, 0.01, False),
        (50, 0.03, None, False),
    ],
    ids=["slower", "not twice", "too little", "too seldom", "never seen"],
)
def test_what_counts_as_slower(calls: int, mean: float, baseline: float | None, slower: bool) -> None:
    one = Interval(statement(1000, 99.0), calls, calls * mean, baseline)
    assert is_slower(one, RULES) is slower
    assert not is_slower(one, RULES._replace(accepted=("1",)))


def test_a_slower_statement_is_held_to_what_it_was_until_it_is_accepted() -> None:
    one = Interval(statement(1000, 99.0), 50, 50 * 0.03, 0.01)
    assert next_baseline(one, RULES) == 0.01
    assert next_baseline(one, RULES._replace(accepted=("1",))) == pytest.approx(0.03)
    assert next_baseline(one._replace(calls=5), RULES) == 0.01


def test_what_is_remembered_survives_the_ledger() -> None:
    intervals = [Interval(statement(n, float(n), queryid=str(n)), n, float(100 - n), None) for n in range(1, 100)]
    kept, cutoff = worth_remembering(intervals, 20)
    assert len(kept) == 40
    assert cutoff == 79.0, "the most of those that took least, ever and lately"
    memory: dict[str, Any] = {
        "version": MEMORY_VERSION, "measured": 1000.0, "server": "7", "reset": None, "cutoff": cutoff,
        "statements": remembered_statements(kept, RULES), "databases": {}, "tables": [],
    }  # fmt: skip
    result = {"checks": [{"name": "x"}, {"name": "y", "evidence": {"for_next_review": memory}}]}
    read = read_memory(json.loads(json.dumps(result)), "7")
    assert read is not None
    assert read.statements["shop", "99"] == Remembered(99, 99.0, pytest.approx(1 / 99))
    assert same_counters(read, None)
    assert not same_counters(read, 17.0)
    assert read_memory(result, "8") is None


@pytest.mark.parametrize(
    "previous", [{}, None, [], {"checks": None}, {"checks": [None]}, {"checks": [{"evidence": 7}]}]
)
def test_a_result_that_holds_nothing_of_use_is_as_good_as_none(previous: Any) -> None:
    assert read_memory(previous, "7") is None


def test_libraries_that_are_loaded_already_stay_in_the_advice() -> None:
    assert "= 'auto_explain', 'pg_stat_statements';" in loading_advice("auto_explain")
    assert loading_advice(None).startswith("Add pg_stat_statements to")


def counters(**more: float) -> dict[str, Any]:
    return {"reset": None, **dict.fromkeys(activity.COUNTERS, 0), **more}


def test_databases_are_compared_where_their_counters_ran_on_and_never_mixed() -> None:
    basis = activity.Basis(2000.0, "7", False, 100.0)
    now = {"a": counters(commits=50, rollbacks=50, deadlocks=3), "b": counters(commits=120, reset=1500.0)}
    before = {"a": counters(commits=40, rollbacks=20), "b": counters(commits=99)}
    since = activity.activity_between(now, before, basis, 1000.0)
    assert (since.continued, since.seconds, since.rollback_ratio) == (True, 1000.0, 0.75)
    assert since.counters["deadlocks"] == 3
    assert since.counters["commits"] == 10, "those of b, which was reset, are of another time"
    first = activity.activity_between(now, {}, basis, None)
    assert (first.continued, first.seconds, first.counters["commits"]) == (False, 500.0, 170)


def test_a_scan_that_stops_early_needs_no_index() -> None:
    scanned = tables.Scanned("shop", "public.t", 100_000, 500, 500, 90_000, 0)
    assert tables.lacks_index(scanned, 50)
    assert not tables.lacks_index(scanned._replace(rows_per_scan=10), 50)
    assert not tables.lacks_index(scanned._replace(recent=3), 50)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.00123, "1.23 ms"), (0.0456, "45.6 ms"), (0.456, "456 ms"), (2.0, "2.0 s")]
)
def test_short_times_are_told_so_that_a_difference_is_seen(seconds: float, shown: str) -> None:
    assert milliseconds(seconds) == shown
