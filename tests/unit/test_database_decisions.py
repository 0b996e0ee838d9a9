"""What the database activities share, where no server is needed: patterns, time, advice, and words for holders."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.budget import (
    Budget,
    read_budget,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.horizon import (
    Holder,
    describe,
    holding,
    read_holder,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.rights import (
    missing_right_advice,
    quoted,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.scope import (
    matches,
    refuse_unmatched,
    why_not,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError


@pytest.mark.parametrize(
    ("name", "include", "exclude", "expected"),
    [
        ("shop", ["*"], [], True),
        ("shop", ["*"], ["sh?p"], False),
        ("Shop", ["shop"], [], False),
        ("shop.order", ["shop.*"], ["*.audit"], True),
        ("shop.audit", ["shop.*"], ["*.audit"], False),
        ("a[b]", ["a[[]b]"], [], True),
        ("shop", [], [], False),
    ],
)
def test_patterns_choose_what_they_say(name: str, include: list[str], exclude: list[str], expected: bool) -> None:
    assert matches(name, include, exclude) is expected


def test_a_misspelt_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(MaintenanceError) as caught:
        refuse_unmatched("databases", ["shop", "shopp*"], ["shop", "postgres"], "db1:5432")
    assert "'shopp*'" in caught.value.expected
    assert "'shop'" not in caught.value.expected
    assert caught.value.observed == "only shop, postgres"


def test_a_long_list_of_names_is_cut_in_the_message() -> None:
    with pytest.raises(MaintenanceError, match="and 5 more"):
        refuse_unmatched("databases", ["x"], [f"db{number}" for number in range(25)], "db1")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, ""),
        ({"connection_limit": -2}, "DROP DATABASE was interrupted"),
        ({"allows_connections": False}, "allows no connections"),
        ({"connection_limit": 0}, "connection limit is 0"),
        ({"connection_limit": 0, "is_superuser": True}, ""),
        ({"may_connect": False}, "may not connect"),
    ],
)
def test_databases_that_cannot_be_reached_say_why(facts: dict[str, Any], words: str) -> None:
    usual = {"connection_limit": -1, "allows_connections": True, "may_connect": True, "is_superuser": False}
    assert (words in why_not({**usual, **facts})) if words else not why_not({**usual, **facts})


def test_a_budget_counts_down_and_begins_nothing_when_it_is_spent() -> None:
    now = [100.0]
    budget = Budget(60, clock=lambda: now[0])
    assert (budget.left(), budget.fits(60), budget.fits(61)) == (60, True, False)
    now[0] += 59
    assert (budget.spent(), budget.left(), budget.fits(2)) == (59, 1, False)
    now[0] += 5
    assert (budget.left(), budget.fits(0)) == (0, False)


def test_no_budget_has_no_end() -> None:
    budget = read_budget({"time_budget": "0s"})
    assert budget.left() == math.inf
    assert budget.fits(10**9)


def test_a_wrong_budget_names_its_option() -> None:
    with pytest.raises(MaintenanceError, match="time_budget") as caught:
        read_budget({"time_budget": "soon"})
    assert "'soon'" in caught.value.observed


def test_the_advice_names_the_grant_of_the_version() -> None:
    assert missing_right_advice(180000, 'shop."Order"', "Carer") == (
        'GRANT pg_maintain TO "Carer", or GRANT MAINTAIN ON shop."Order" TO "Carer" for this table alone.'
    )
    assert "pg_maintain" not in missing_right_advice(150000, "shop.order", "carer")
    assert "own shop.order" in missing_right_advice(150000, "shop.order", "carer")


def test_names_are_quoted_for_people_where_sql_wants_it() -> None:
    assert [quoted(name) for name in ("student", "Student", 'a"b', "1a")] == ["student", '"Student"', '"a""b"', '"1a"']


def holder_row(**facts: Any) -> dict[str, Any]:
    return {
        "kind": "session", "name": "4711", "database": "shop", "catalogs_only": False, "xmin_age": 12, "xmin": "700",
        "seconds": 75.0, "application": "psql", "role": "app", "state": "idle in transaction", "address": None, **facts,
    }  # fmt: skip


def test_a_holder_is_described_in_one_line() -> None:
    assert describe(read_holder(holder_row())) == (
        "session 4711 (psql, role app, idle in transaction, database shop), for 1 min 15 s, 12 transactions old"
    )


def test_advice_for_a_holder_can_be_pasted_whatever_its_name() -> None:
    assert "ROLLBACK PREPARED 'it''s'" in read_holder(holder_row(kind="prepared transaction", name="it's")).advice
    slot = read_holder(holder_row(kind="replication slot", name="s1", state="not in use"))
    assert "pg_drop_replication_slot('s1')" in slot.advice
    used = read_holder(holder_row(kind="replication slot", name="s1", state="in use by process 3"))
    assert "drop" not in used.advice


def test_holders_hold_back_only_where_they_reach() -> None:
    mine = Holder("session", "1", 5, 1.0, "", "", database="shop")
    other = Holder("session", "2", 9, 1.0, "", "", database="postgres")
    slot = Holder("replication slot", "s", 7, None, "", "")
    logical = Holder("replication slot", "l", 8, None, "", "", catalogs_only=True)
    everything = [other, logical, slot, mine]
    assert holding(everything, "shop") == [slot, mine]
    assert holding(everything, "shop", catalog=True) == [logical, slot, mine]
