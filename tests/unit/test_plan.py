"""A plan is the collection's defaults with what the inventory changes, or a list of all that is wrong with it."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.plan import (
    Plan,
    PlanProblems,
    build_plan,
    known_activities,
)

DEFAULTS: dict[str, dict[str, Any]] = {
    "backup": {"cadence": "daily", "hosts": "databases"},
    "restore_test": {"cadence": "weekly", "hosts": "databases", "requires": {"backup": "2d"}},
    "patching": {"cadence": "monthly", "hosts": "all", "team": "Security", "disruptive": True},
}
GROUPS = {"all": ["app1", "db1"], "databases": ["db1"], "web": ["app1"]}


def resolve(pattern: Any) -> list[str]:
    return GROUPS.get(pattern, [])


def build(plan: Any = None, windows: Any = (), freezes: Any = ()) -> Plan:
    return build_plan(plan or {}, list(windows), list(freezes), resolve=resolve, defaults=DEFAULTS)


def problems_of(**plan: Any) -> list[str]:
    with pytest.raises(PlanProblems) as caught:
        build(**plan)
    return caught.value.problems


def test_defaults_hold_where_the_inventory_says_nothing() -> None:
    plan = build()
    assert plan.entries["backup"].hosts == ("db1",)
    assert plan.entries["patching"].team == "Security"
    assert plan.entries["restore_test"].requires == {"backup": 2 * 86400}


def test_one_line_moves_an_activity_to_another_cadence() -> None:
    plan = build({"backup": {"cadence": "weekly"}})
    assert plan.scheduled("weekly") == {"backup": ["db1"], "restore_test": ["db1"]}
    assert plan.entries["backup"].hosts == ("db1",)


def test_the_shipped_defaults_are_a_good_plan() -> None:
    def everything(_pattern: Any) -> list[str]:
        return ["h1"]

    plan = build_plan({}, [], [], resolve=everything)
    assert set(plan.entries) == set(known_activities()) >= {"health_check", "backup", "restore_test"}


def test_an_activity_that_is_switched_off_or_has_no_host_by_default_is_said_not_to_apply() -> None:
    plan = build_plan({"patching": {"enabled": False}}, [], [], resolve=lambda pattern: [], defaults=DEFAULTS)
    assert plan.not_applicable["patching"] == "switched off in the plan"
    assert "databases" in plan.not_applicable["backup"]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"bakcup": {}}, "maintenance_plan.bakcup: unknown activity; did you mean backup?"),
        ({"backup": {"cadence": "dayly"}}, "backup.cadence: unknown cadence 'dayly'; did you mean daily?"),
        ({"backup": {"grace": "soon"}}, "maintenance_plan.backup.grace: 'soon' is not a duration"),
        ({"backup": {"hosts": "nowhere"}}, "no host of the inventory matches 'nowhere'"),
        ({"backup": {"requires": {"restore_test": "1d"}}}, "in a circle: backup → restore_test → backup"),
        ({"backup": {"requires": {"health": "1d"}}}, "maintenance_plan.backup.requires.health: unknown activity"),
        ({"backup": {"requires": {"patching": "a day"}}}, "'a day' is not a duration"),
        ({"backup": {"colour": "blue"}}, "maintenance_plan.backup: unknown key 'colour'; known are approval, cadence"),
        ({"backup": {"cadense": "daily"}}, "unknown key 'cadense'; did you mean cadence?"),
        ({"backup": {"cadence": ["daily"]}}, "['daily'] is none of continuous, daily"),
        ({"backup": {"disruptive": "perhaps"}}, "maintenance_plan.backup.disruptive: 'perhaps' is not true or false"),
        ({"backup": None}, "maintenance_plan.backup: None is not a mapping (name: value)"),
        ({"patching": {"enabled": False}, "backup": {"requires": {"patching": "1d"}}}, "evidence can never be had"),
        ("daily", "maintenance_plan: 'daily' is not a mapping (name: value)"),
    ],
)  # fmt: skip
def test_each_kind_of_bad_entry_is_named_in_words(entry: Any, words: str) -> None:
    assert any(words in problem for problem in problems_of(plan=entry))


def test_all_problems_are_named_at_once() -> None:
    """Whatever their kind: nobody has to correct a plan five times to see what is wrong with it."""
    found = problems_of(
        plan={
            "bakcup": {},
            "backup": {"cadence": "dayly", "grace": "6 parsecs", "requires": {"restore_test": "1d", "health": "1d"}},
            "patching": {"disruptive": "yes please", "hosts": "nowhere", "colour": "red"},
            "restore_test": {"requires": {"backup": "1d"}, "hosts": 7},
        },
        windows=[
            {"name": "w", "weekday": "sunday", "start": "25:00", "end": 750, "timezone": "Europe/Zurihc"},
            {"name": "v", "weekday": "sun", "start": "02:00", "end": "02:00", "timezone": "Mars"},
            "always",
        ],
        freezes=[{"from": "soon"}, {"name": "f", "from": "2027-02-05", "to": "2027-01-18"}],
    )
    assert [problem.partition(": ")[0] for problem in found] == [
        "maintenance_plan.bakcup",
        "maintenance_plan.backup.cadence",
        "maintenance_freezes.0",
        "maintenance_freezes.0",
        "maintenance_plan.patching",
        "maintenance_plan.patching.disruptive",
        "maintenance_plan.restore_test.hosts",
        "maintenance_windows.0.end",
        "maintenance_windows.0.start",
        "maintenance_windows.0.weekday",
        "maintenance_windows.2",
        "maintenance_windows.0.timezone",
        "maintenance_plan.backup.grace",
        "maintenance_plan.patching.hosts",
        "maintenance_plan.backup.requires.health",
        "maintenance_plan",
        "maintenance_windows[v].timezone",
        "maintenance_windows[v]",
        "maintenance_freezes[f]",
    ], "\n".join(found)


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ({"start": "02:00", "end": "05:00", "timezone": "Europe/Zurihc"}, "unknown time zone 'Europe/Zurihc'"),
        (
            {"start": 750, "end": "05:00"},
            """start: 750 is not as it should be: hours and minutes like "02:30", in quotes""",
        ),
        ({"weekday": "sunday", "start": "01:00", "end": "05:00"}, "mon, tue, wed, thu, fri, sat or sun, or a list"),
        ({"start": "02:00", "end": "02:00"}, "it never opens"),
    ],
)
def test_bad_windows_are_named(window: dict[str, Any], words: str) -> None:
    assert any(words in problem for problem in problems_of(windows=[{"name": "w", "weekday": "sun", **window}]))


def test_freezes_take_yaml_dates_and_refuse_those_that_end_before_they_begin() -> None:
    first, last = datetime.date(2027, 1, 18), datetime.date(2027, 2, 5)
    plan = build(freezes=[{"name": "exams", "from": first, "to": last}])
    assert plan.freezes[0].last == last
    assert "before it begins" in problems_of(freezes=[{"name": "exams", "from": last, "to": first}])[0]
    assert "exams" in problems_of(freezes=[{"name": "exams", "from": "soon", "to": "later"}])[0]
