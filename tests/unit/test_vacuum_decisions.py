"""What a table needs, in which order, and how an attempt is judged: decided without a server."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.horizon import Holder
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.watchdog import Watched
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import QueryError
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum import act, held
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.decide import (
    ANALYZE,
    CATALOGS,
    FREEZE,
    PARENTS,
    VACUUM,
    Settings,
    Step,
    decide,
    in_order,
    why_not,
    without_parts,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.pace import Pace, Throttle
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.table import (
    Table,
    limits_of,
    read_options,
    with_parts,
)

SERVER = {
    "autovacuum_vacuum_threshold": 50.0,
    "autovacuum_vacuum_scale_factor": 0.2,
    "autovacuum_vacuum_insert_threshold": 1000.0,
    "autovacuum_vacuum_insert_scale_factor": 0.2,
    "autovacuum_analyze_threshold": 50.0,
    "autovacuum_analyze_scale_factor": 0.1,
    "autovacuum_freeze_max_age": 200_000_000.0,
    "autovacuum_multixact_freeze_max_age": 400_000_000.0,
    "vacuum_failsafe_age": 1_600_000_000.0,
    "vacuum_multixact_failsafe_age": 1_600_000_000.0,
}


def table(name: str = "orders", **facts: Any) -> Table:
    """A table of 1000 clean pages and 100,000 rows, unless *facts* say otherwise."""
    usual: dict[str, Any] = {
        "database": "shop", "schema": "public", "name": name, "oid": sum(map(ord, name)), "kind": "table",
        "is_catalog": False, "is_shared": False, "is_temporary": False, "main": None, "has_children": False,
        "parents": (), "pages": 1000, "dirty_pages": 0, "unfrozen_pages": 1000, "confidence": "high",
        "rows": 100_000.0, "dead_rows": 0, "inserted_rows": 0, "modified_rows": 0, "frozen_share": 0.0,
        "xid_age": 1000, "mxid_age": 0, "last_vacuum": None, "last_analyze": None, "last_autoanalyze": None,
        "missing_statistics": False, "may_maintain": True, "is_locked": False, "options": {},
    }  # fmt: skip
    return Table(**{**usual, **facts})


def needs(one: Table, **settings: Any) -> Step | None:
    return decide(one, limits_of(one, SERVER), Settings(**settings))


def actions(one: Table, **settings: Any) -> str:
    step = needs(one, **settings)
    return step.action if step else ""


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ""),
        # The map stands above the counters, in both directions.
        ({"dead_rows": 90_000}, ""),
        ({"dead_rows": 0, "dirty_pages": 200}, "vacuum"),
        ({"dirty_pages": 100}, ""),
        ({"dirty_pages": 101}, "vacuum"),
        ({"dirty_pages": 15, "pages": 20}, ""),
        ({"dirty_pages": 16, "pages": 20}, "vacuum"),
        # The formula of autovacuum: more than 50 + 20 % of 100,000.
        ({"dirty_pages": 5, "dead_rows": 20_050}, ""),
        ({"dirty_pages": 5, "dead_rows": 20_051}, "vacuum"),
        ({"dirty_pages": 5, "inserted_rows": 21_001}, "vacuum"),
        ({"dirty_pages": 5, "dead_rows": 11,
          "options": {"autovacuum_vacuum_threshold": "10", "autovacuum_vacuum_scale_factor": "0"}}, "vacuum"),
        ({"dirty_pages": 5, "inserted_rows": 10**9,
          "options": {"autovacuum_vacuum_insert_threshold": "-1"}}, ""),
        # Estimated pages prove nothing, so the counters are heard.
        ({"dead_rows": 90_000, "confidence": "low"}, "vacuum"),
        ({"dead_rows": 90_000, "confidence": "low", "pages": 0}, ""),
        ({"dead_rows": 90_000, "confidence": "low", "pages": 0, "is_locked": True}, "vacuum"),
        # Age, by transactions and multixacts; a table can only lower the limit.
        ({"xid_age": 100_000_000}, ""),
        ({"xid_age": 100_000_001}, "freeze"),
        ({"mxid_age": 200_000_001}, "freeze"),
        ({"xid_age": 60_000, "options": {"autovacuum_freeze_max_age": "100000"}}, "freeze"),
        ({"xid_age": 150_000_000, "options": {"autovacuum_freeze_max_age": "400000000"}}, "freeze"),
        # Statistics.
        ({"missing_statistics": True}, "analyze"),
        ({"missing_statistics": True, "pages": 0, "rows": 0.0}, ""),
        ({"missing_statistics": True, "rows": 0.0}, ""),
        ({"missing_statistics": True, "rows": 0.0, "dirty_pages": 2, "pages": 2}, "vacuum and analyze"),
        ({"modified_rows": 10_050}, ""),
        ({"modified_rows": 10_051}, "analyze"),
        ({"modified_rows": 10_051, "kind": "TOAST table"}, ""),
        ({"modified_rows": 10_051, "is_catalog": True, "name": "pg_statistic"}, ""),
        ({"dirty_pages": 500, "modified_rows": 20_000}, "vacuum and analyze"),
        ({"xid_age": 150_000_000, "missing_statistics": True}, "freeze and analyze"),
        # Partitioned tables have no pages; their parts do.
        ({"kind": "partitioned table", "pages": 0, "has_children": True, "missing_statistics": True,
          "pages_of_parts": 10}, "analyze"),
        ({"kind": "partitioned table", "pages": 0, "has_children": True, "missing_statistics": True}, ""),
        ({"kind": "partitioned table", "pages": 0, "has_children": True, "missing_statistics": True,
          "pages_of_parts": 10, "last_analyze": 5.0}, ""),
        ({"kind": "partitioned table", "pages": 0, "has_children": True, "modified_in_parts": 10_051}, "analyze"),
    ],
)  # fmt: skip
def test_what_a_table_needs(facts: dict[str, Any], expected: str) -> None:
    assert actions(table(**facts)) == expected


def test_the_greatest_threshold_of_18_caps_the_formula() -> None:
    big = table(rows=10**9, dirty_pages=5, dead_rows=150_000_000)
    assert needs(big) is None
    with_cap = {**SERVER, "autovacuum_vacuum_max_threshold": 100_000_000.0}
    assert decide(big, limits_of(big, with_cap), Settings()) is not None
    uncapped = big._replace(options={"autovacuum_vacuum_max_threshold": "-1"})
    assert decide(uncapped, limits_of(uncapped, with_cap), Settings()) is None


def test_what_is_frozen_already_does_not_count_for_inserts() -> None:
    assert limits_of(table(frozen_share=0.9), SERVER).inserted_rows == pytest.approx(3000)
    assert limits_of(table(), SERVER).inserted_rows == 21_000


def test_past_the_failsafe_age_the_indexes_are_left() -> None:
    step = needs(table(xid_age=1_600_000_001))
    assert step is not None
    assert step.failsafe
    assert "failsafe" in step.why[0]
    young = needs(table(xid_age=1_600_000_000))
    assert young is not None
    assert not young.failsafe


def test_the_failsafe_age_is_never_below_that_of_autovacuum() -> None:
    settings = {**SERVER, "vacuum_failsafe_age": 0.0}
    assert limits_of(table(), settings).failsafe_xid_age == 210_000_000


def test_without_analyze_nothing_is_analyzed() -> None:
    assert actions(table(missing_statistics=True), analyze=False) == ""
    assert actions(table(missing_statistics=True, dirty_pages=900), analyze=False) == "vacuum"


def test_the_order_is_age_first_then_what_is_dirtiest_and_catalogs_last() -> None:
    tables = [
        table("fresh_statistics", missing_statistics=True),
        table("pg_attribute", is_catalog=True, dirty_pages=1000),
        table("parent", kind="partitioned table", has_children=True, missing_statistics=True, pages_of_parts=1),
        table("dirty", dirty_pages=300),
        table("dirtier", dirty_pages=900),
        table("old", xid_age=120_000_000),
        table("older", xid_age=190_000_000),
    ]
    steps = in_order(step for one in tables if (step := needs(one)))
    assert [step.table.name for step in steps] == [
        "older", "old", "dirtier", "dirty", "fresh_statistics", "parent", "pg_attribute"
    ]  # fmt: skip
    assert [step.rank for step in steps] == [FREEZE, FREEZE, VACUUM, VACUUM, ANALYZE, PARENTS, CATALOGS]


def test_steps_of_one_database_stay_together_within_their_rank() -> None:
    tables = [
        table("a", database="one", dirty_pages=200), table("b", database="two", dirty_pages=900),
        table("c", database="one", dirty_pages=300), table("d", database="two", dirty_pages=150),
    ]  # fmt: skip
    steps = in_order(step for one in tables if (step := needs(one)))
    assert [(step.table.database, step.table.name) for step in steps] == [
        ("two", "b"), ("two", "d"), ("one", "c"), ("one", "a")
    ]  # fmt: skip


def test_before_18_partitions_are_analyzed_by_way_of_their_parent() -> None:
    parent = table("parent", kind="partitioned table", has_children=True, modified_in_parts=99_999, pages=0)
    part = table("part", parents=(parent.oid,), modified_rows=50_000)
    dirty_part = table("dirty_part", parents=(parent.oid,), modified_rows=50_000, dirty_pages=800)
    other = table("other", modified_rows=50_000)
    tables = [parent, part, dirty_part, other]
    steps = [step for one in tables if (step := needs(one))]
    assert without_parts(steps, tables, 180000) == steps
    kept = {step.table.name: step.action for step in without_parts(steps, tables, 150000)}
    assert kept == {"parent": "analyze", "dirty_part": "vacuum", "other": "analyze"}


def test_changes_of_all_parts_count_for_the_parent() -> None:
    top = table("top", kind="partitioned table", has_children=True, pages=0, last_analyze=10_000.0)
    middle = table("middle", kind="partitioned table", has_children=True, parents=(top.oid,), pages=0)
    quiet = table("quiet", parents=(middle.oid,), modified_rows=7, last_analyze=9_000.0)
    followed = table("followed", parents=(middle.oid,), modified_rows=3, last_analyze=10_060.0)
    found_due = table("found_due", parents=(top.oid,), last_analyze=10_060.0, last_autoanalyze=10_060.0, rows=500.0)
    found = {one.name: one for one in with_parts([top, middle, quiet, followed, found_due])}
    assert found["top"].modified_in_parts == 7 + 3 + 500
    assert found["top"].pages_of_parts == 3000
    assert found["quiet"] == quiet


def test_a_circle_of_parents_does_not_hang() -> None:
    one = table("one", parents=(table("two").oid,))
    two = table("two", parents=(one.oid,))
    assert len(with_parts([one, two])) == 2


def test_options_are_read_as_the_catalog_writes_them() -> None:
    assert read_options(["a=1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    assert read_options(None) == {}


def test_why_a_table_is_left_out_is_said() -> None:
    assert why_not(table()) == "every page is all-visible"
    assert why_not(table(pages=0)) == "empty"
    assert why_not(table(dirty_pages=3)).startswith("3 of 1000 pages")


def test_toast_is_known_by_the_table_it_belongs_to() -> None:
    toast = table("pg_toast_1", schema="pg_toast", main=("shop", "Letters"))
    assert (toast.qualified, toast.shown) == ("shop.Letters", "shop.Letters (TOAST)")


# How an attempt is judged.

DIRTY = table(dirty_pages=500, modified_rows=20_000)
STEP = needs(DIRTY)
assert STEP is not None


def watched(ended: str = "done", **facts: Any) -> Watched:
    usual = {"ended": ended, "reason": "somebody waited", "seconds": 1.0, "longest_wait": 0.0, "held_up": 0.0}
    return Watched(**{**usual, **facts})


CLEAN = DIRTY._replace(dirty_pages=0, last_vacuum=9.0, last_analyze=9.0)


@pytest.mark.parametrize(
    ("after", "ended", "expected"),
    [
        (CLEAN, "done", act.DONE),
        # Success as told by the server, and no effect: what an unprivileged VACUUM and a locked table look like.
        (DIRTY, "done", act.NO_EFFECT),
        (CLEAN._replace(last_analyze=None), "done", act.NO_EFFECT),
        (DIRTY._replace(last_analyze=9.0), "done", act.NO_EFFECT),
        # Cleaned, and made dirty again by users meanwhile.
        (CLEAN._replace(dirty_pages=600, dead_rows=5), "done", act.DONE),
        (CLEAN._replace(dirty_pages=600), "done", act.NO_EFFECT),
        (CLEAN._replace(dirty_pages=100), "done", act.DONE),
        (None, "done", act.GONE),
        (DIRTY, "blocking", act.IN_THE_WAY),
        (DIRTY, "autovacuum", act.IN_THE_WAY),
        (DIRTY, "timeout", act.OVER),
        # Cancelled half-way: cleaner, and not done.
        (DIRTY._replace(dirty_pages=100, last_analyze=9.0), "blocking", act.IN_THE_WAY),
        (DIRTY._replace(dirty_pages=100, last_analyze=9.0), "timeout", act.OVER),
        # It may have come to its end just before it was cancelled.
        (CLEAN, "blocking", act.DONE),
    ],
)
def test_only_a_measured_effect_counts(after: Table | None, ended: str, expected: str) -> None:
    assert STEP is not None
    assert act.judge(STEP, after, watched(ended))[0] == expected


def test_a_freeze_counts_by_age_alone() -> None:
    old = table(xid_age=150_000_000, dirty_pages=10)
    step = needs(old)
    assert step is not None
    assert act.judge(step, old._replace(dirty_pages=0, last_vacuum=9.0), watched())[0] == act.NO_EFFECT
    assert act.judge(step, old._replace(xid_age=50), watched())[0] == act.DONE


def test_the_servers_words_are_kept_when_it_refuses() -> None:
    class RefusalError(Exception):
        sqlstate = "55P03"

    class Place:
        info = type("info", (), {"dbname": "shop"})

    error = QueryError("VACUUM", RefusalError("canceling statement due to lock timeout"), "database shop")
    assert STEP is not None
    result, words = act.judge(STEP, DIRTY, watched("failed", error=error))
    assert result == act.LOCKED
    assert "lock timeout" in words


def test_without_the_right_it_is_denied_and_not_done() -> None:
    step = STEP
    assert step is not None
    weak = step._replace(table=DIRTY._replace(may_maintain=False))
    assert act.judge(weak, DIRTY, watched())[0] == act.DENIED


# What holds rows back.

HOLDER = Holder("session", "1", 140_000_000, 100.0, "", "", database="shop", xmin=700)


def test_freezing_below_the_horizon_is_in_vain() -> None:
    step = needs(table(xid_age=149_000_000))
    assert step is not None
    limits = limits_of(step.table, SERVER)
    assert "cannot fall below" in held.freeze_in_vain(step, limits, HOLDER)
    assert held.freeze_in_vain(step, limits, HOLDER._replace(xmin_age=100_000_000)) == ""
    by_multixact = step._replace(table=step.table._replace(mxid_age=390_000_000))
    assert held.freeze_in_vain(by_multixact, limits, HOLDER) == ""


def test_a_vacuum_since_the_holder_began_has_removed_all_there_was() -> None:
    vacuumed = table(last_vacuum=950.0)
    assert held.vacuumed_since(vacuumed, HOLDER, now=1000.0)
    assert not held.vacuumed_since(table(last_vacuum=850.0), HOLDER, now=1000.0)
    assert not held.vacuumed_since(table(), HOLDER, now=1000.0)
    assert not held.vacuumed_since(vacuumed, HOLDER._replace(seconds=None), now=1000.0)


def test_who_holds_a_table_back_depends_on_where_it_is() -> None:
    other = HOLDER._replace(name="2", database="other", xmin_age=10**9)
    logical = HOLDER._replace(name="3", kind="replication slot", database="", catalogs_only=True, xmin_age=10**9)
    holders = [logical, other, HOLDER]
    assert held.oldest_for(table(), holders) == HOLDER
    assert held.oldest_for(table(is_catalog=True), holders) == logical
    assert held.oldest_for(table(database="other"), holders) == other
    assert held.oldest_for(table(database="third"), holders) is None
    assert held.oldest_for(table(is_shared=True, is_catalog=True), [other, HOLDER]) == other


# How long it will take.


def test_predictions_follow_what_was_measured() -> None:
    step = STEP
    assert step is not None
    pace = Pace(Throttle())
    first = pace.predict(step, 0)
    assert pace.predict(step, 10**9) > first + 1
    for _number in range(30):
        pace.learn(step, 0, first * 3)
    assert pace.predict(step, 0) == pytest.approx(first * 3, rel=0.05)


def test_a_throttled_vacuum_is_predicted_to_take_its_sleep() -> None:
    step = STEP
    assert step is not None
    slow = Pace(Throttle(delay_ms=2, limit=200)).predict(step, 0) - Pace(Throttle()).predict(step, 0)
    assert slow == pytest.approx(500 * 22 / 200 * 0.002, rel=0.01)


@pytest.mark.parametrize(
    ("version", "step", "expected"),
    [
        (180000, STEP,
         'VACUUM (SKIP_LOCKED, TRUNCATE OFF, ANALYZE, SKIP_DATABASE_STATS, PROCESS_TOAST OFF) "public"."orders"'),
        (150000, STEP, 'VACUUM (SKIP_LOCKED, TRUNCATE OFF, ANALYZE, PROCESS_TOAST OFF) "public"."orders"'),
        (180000, needs(table(xid_age=1_700_000_000)),
         'VACUUM (SKIP_LOCKED, TRUNCATE OFF, FREEZE, INDEX_CLEANUP OFF, SKIP_DATABASE_STATS, PROCESS_TOAST OFF) '
         '"public"."orders"'),
        (180000, needs(table('a"b', missing_statistics=True)), 'ANALYZE (SKIP_LOCKED) "public"."a""b"'),
        (180000, needs(table(kind="partitioned table", has_children=True, modified_in_parts=99_999)),
         'ANALYZE (SKIP_LOCKED) ONLY "public"."orders"'),
        (170000, needs(table(kind="partitioned table", has_children=True, modified_in_parts=99_999)),
         'ANALYZE (SKIP_LOCKED) "public"."orders"'),
        (180000, needs(table("pg_toast_1", schema="pg_toast", main=("shop", "Letters"), dirty_pages=500)),
         'VACUUM (SKIP_LOCKED, TRUNCATE OFF, SKIP_DATABASE_STATS, PROCESS_MAIN OFF) "shop"."Letters"'),
        (150000, needs(table("pg_toast_1", schema="pg_toast", main=("shop", "Letters"), dirty_pages=500)),
         'VACUUM (SKIP_LOCKED, TRUNCATE OFF) "pg_toast"."pg_toast_1"'),
    ],
)  # fmt: skip
def test_the_statement_uses_what_the_version_has(version: int, step: Step, expected: str) -> None:
    assert act.statement_for(step, version).as_string(None) == expected


def test_an_owner_that_may_not_name_toast_tables_reaches_them_by_way_of_the_table() -> None:
    step = needs(table("pg_toast_1", schema="pg_toast", main=("shop", "Letters"), dirty_pages=500))
    assert step is not None
    statement = act.statement_for(step, 150000, may_name_toast=False).as_string(None)
    assert statement == 'VACUUM (SKIP_LOCKED, TRUNCATE OFF) "shop"."Letters"'


def test_new_pages_at_the_end_of_a_table_are_not_due_as_long_as_the_counters_can_be_believed() -> None:
    bulk = table(pages=200, dirty_pages=60, rows=20_000.0, last_vacuum=1.0, last_analyze=1.0)
    assert needs(bulk) is None
    assert needs(bulk._replace(last_vacuum=None)) is not None, "the counters were reset, or it was never vacuumed"
    assert needs(bulk._replace(dirty_pages=65)) is not None, "more than a file grows by in advance"
    assert needs(bulk._replace(dead_rows=1)) is not None
    assert needs(bulk._replace(inserted_rows=1)) is not None


def test_a_system_catalog_is_analyzed_once_it_has_changed_as_a_whole_not_after_a_few_rebuilt_indexes() -> None:
    catalog = table("pg_class", schema="pg_catalog", is_catalog=True, rows=400.0, modified_rows=200, last_analyze=1.0)
    assert needs(catalog) is None
    assert needs(catalog._replace(is_catalog=False)) is not None
    assert needs(catalog._replace(modified_rows=401)) is not None
