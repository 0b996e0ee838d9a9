"""Windows and freezes by local time, and when a cadence is due."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.schedule import Freeze, Window, next_due, obstacle

ZURICH = ZoneInfo("Europe/Zurich")
NIGHT = Window("sunday night", ("sun",), time(22), time(2), ZURICH)
EARLY = Window("sunday early", ("sun",), time(2), time(5), ZURICH)


@pytest.mark.parametrize(
    ("window", "local", "inside"),
    [
        (EARLY, "2026-11-22T02:00", True),
        (EARLY, "2026-11-22T04:59", True),
        (EARLY, "2026-11-22T05:00", False),
        (EARLY, "2026-11-23T03:00", False),
        (NIGHT, "2026-11-22T23:30", True),
        (NIGHT, "2026-11-23T01:59", True),
        (NIGHT, "2026-11-22T01:00", False),
        (NIGHT, "2026-11-23T02:00", False),
    ],
)
def test_a_window_opens_by_the_clock_of_its_time_zone_and_may_pass_midnight(
    window: Window, local: str, inside: bool
) -> None:
    assert window.contains(datetime.fromisoformat(local).replace(tzinfo=ZURICH).astimezone(UTC)) is inside


def test_a_freeze_wins_over_a_window_and_includes_its_last_day() -> None:
    freeze = Freeze("exams", date(2026, 11, 16), date(2026, 11, 22), ZURICH)
    inside = datetime(2026, 11, 22, 3, tzinfo=ZURICH)
    assert "exams" in obstacle(inside, [EARLY], [freeze])
    assert obstacle(inside + timedelta(days=7), [EARLY], [freeze]) == ""


def test_disruptive_work_without_any_window_is_refused() -> None:
    assert "no maintenance_windows" in obstacle(datetime.now(UTC), [], [])


def test_due_counts_from_the_last_good_result_or_from_the_plans_beginning() -> None:
    began, done = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 5, tzinfo=UTC)
    assert next_due("daily", done, began) == datetime(2026, 1, 6, tzinfo=UTC)
    assert next_due("weekly", None, began) == datetime(2026, 1, 8, tzinfo=UTC)
    assert next_due("on_demand", None, began) is None
