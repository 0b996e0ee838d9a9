# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When maintenance is due and when it may run: cadences, windows, freezes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

# The longest time between two executions that still keeps the cadence. None: never due by itself.
PERIODS: dict[str, timedelta | None] = {
    "continuous": timedelta(minutes=5),
    "daily": timedelta(days=1),
    "weekly": timedelta(days=7),
    "monthly": timedelta(days=31),
    "quarterly": timedelta(days=92),
    "yearly": timedelta(days=366),
    "on_demand": None,
}


@dataclass(frozen=True)
class Window:
    """A time of the week in which disruptive work may start; one that ends before it starts goes over midnight."""

    name: str
    weekdays: tuple[str, ...]
    start: time
    end: time
    zone: ZoneInfo

    def contains(self, moment: datetime) -> bool:
        local = moment.astimezone(self.zone)
        clock, today = local.time(), WEEKDAYS[local.weekday()]
        if self.start <= self.end:
            return today in self.weekdays and self.start <= clock < self.end
        yesterday = WEEKDAYS[local.weekday() - 1]
        return (today in self.weekdays and clock >= self.start) or (yesterday in self.weekdays and clock < self.end)

    def describe(self) -> str:
        days = ", ".join(self.weekdays)
        return f"{self.name} ({days} {self.start:%H:%M} to {self.end:%H:%M} {self.zone.key})"


@dataclass(frozen=True)
class Freeze:
    """Days, both included, on which nothing disruptive may start."""

    name: str
    first: date
    last: date
    zone: ZoneInfo

    def contains(self, moment: datetime) -> bool:
        return self.first <= moment.astimezone(self.zone).date() <= self.last

    def describe(self) -> str:
        return f"{self.name} ({self.first} to {self.last})"


def obstacle(moment: datetime, windows: Sequence[Window], freezes: Sequence[Freeze]) -> str:
    """Why disruptive work may not start at *moment*, in words; empty when it may."""
    for freeze in freezes:
        if freeze.contains(moment):
            return f"the freeze {freeze.describe()} is in force"
    if not windows:
        return "it is disruptive and the inventory defines no maintenance_windows"
    if any(window.contains(moment) for window in windows):
        return ""
    return "now is outside of every maintenance window: " + "; ".join(window.describe() for window in windows)


def next_due(cadence: str, last_good: datetime | None, plan_began: datetime) -> datetime | None:
    """When an activity is due next: a period after its last good result, else after *plan_began*; None for never."""
    period = PERIODS[cadence]
    return None if period is None else (last_good or plan_began) + period
