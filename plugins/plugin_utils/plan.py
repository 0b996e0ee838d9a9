# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The maintenance plan: the collection's defaults, what the inventory changes in them, and everything wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import parse_duration

from .plan_flaws import Flaw, flaws_of, nearest, without
from .schedule import PERIODS, Freeze, Window

ROLES = Path(__file__).resolve().parents[2] / "roles"

# Resolves an inventory pattern to host names; raises ValueError in words when the pattern is no pattern.
Resolve = Callable[[Any], list[str]]


class PlanProblems(Exception):  # noqa: N818 - it holds several, and reads so where it is raised
    """Everything that is wrong with a plan, one line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Entry:
    """One activity of the plan; durations are seconds."""

    activity: str
    cadence: str
    hosts: tuple[str, ...]
    team: str
    grace: float
    disruptive: bool
    requires: dict[str, float]
    approval_required: bool


@dataclass(frozen=True)
class Plan:
    entries: dict[str, Entry]
    windows: tuple[Window, ...]
    freezes: tuple[Freeze, ...]
    not_applicable: dict[str, str]  # activity → why no host has it

    def scheduled(self, cadence: str) -> dict[str, list[str]]:
        """The activities of *cadence*, and the hosts that each is for."""
        return {name: list(entry.hosts) for name, entry in self.entries.items() if entry.cadence == cadence}


def known_activities(roles: Path = ROLES) -> dict[str, dict[str, Any]]:
    """The default plan entry of every activity: a role with ``meta/plan.yml`` is one."""
    return {
        path.parent.parent.name: yaml.safe_load(path.read_text()) or {}
        for path in sorted(roles.glob("*/meta/plan.yml"))
    }


def build_plan(
    stated: Any, windows: Any, freezes: Any, *, resolve: Resolve, defaults: dict[str, dict[str, Any]] | None = None
) -> Plan:
    """The plan that follows from the inventory's three variables; raises PlanProblems that names everything wrong."""
    known = known_activities() if defaults is None else defaults
    document = _plain({"maintenance_plan": stated, "maintenance_windows": windows, "maintenance_freezes": freezes})
    flaws = flaws_of(document)
    problems = _said_once(_unknown_names(document, known), flaws)
    _judge_zones_of_flawed(document, flaws, problems)
    document = _sound_part(document, flaws)
    entries: dict[str, Entry] = {}
    not_applicable: dict[str, str] = {}
    for activity, default in known.items():
        own = document["maintenance_plan"].get(activity)
        merged = {"team": "Operations", "grace": "6h", "requires": {}, **default, **(own or {})}
        hosts, why = _hosts_of(activity, merged, resolve, problems)
        if hosts:
            entries[activity] = _entry(activity, merged, hosts, problems)
        elif own is None or not merged.get("enabled", True):
            not_applicable[activity] = why
        elif why:
            problems.append(
                f"maintenance_plan.{activity}.hosts: {why}; name hosts or groups that exist, or set enabled: false"
            )
    problems += _requires_problems(entries, known)
    built_windows = [_window(window, problems) for window in document["maintenance_windows"]]
    built_freezes = [_freeze(freeze, problems) for freeze in document["maintenance_freezes"]]
    if problems:
        raise PlanProblems(problems)
    return Plan(
        entries,
        tuple(window for window in built_windows if window),
        tuple(freeze for freeze in built_freezes if freeze),
        not_applicable,
    )


def _plain(value: Any) -> Any:
    """*value* as JSON would have it: Ansible's tagged types and YAML's dates become plain ones."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def _unknown_names(document: dict[str, Any], known: dict[str, Any]) -> list[str]:
    """Unknown activities and cadences, with the nearest name that exists."""
    stated = document["maintenance_plan"]
    if not isinstance(stated, dict):
        return []
    problems = []
    for activity, entry in stated.items():
        if activity not in known:
            problems.append(f"maintenance_plan.{activity}: unknown activity{nearest(activity, known)}")
        cadence = entry.get("cadence") if isinstance(entry, dict) else None
        if isinstance(cadence, str) and cadence not in PERIODS:
            problems.append(
                f"maintenance_plan.{activity}.cadence: unknown cadence {cadence!r}{nearest(cadence, PERIODS)}"
            )
    return problems


def _said_once(unknown: list[str], flaws: list[Flaw]) -> list[str]:
    """All problems, without what the schema says again about a place that has been named in better words."""
    places = {problem.partition(":")[0] for problem in unknown}
    return [*unknown, *(str(flaw) for flaw in flaws if str(flaw).partition(":")[0] not in places)]


def _sound_part(document: dict[str, Any], flaws: list[Flaw]) -> dict[str, Any]:
    """What is left of *document* to be judged further; it is never carried out."""
    rest = without(document, flaws)
    for flaw in flaws:
        match flaw.path:
            case ("maintenance_plan", activity, "hosts", *_):
                rest["maintenance_plan"][activity]["hosts"] = "all"  # nothing can be said about them
    return rest


def _judge_zones_of_flawed(document: dict[str, Any], flaws: list[Flaw], problems: list[str]) -> None:
    """Windows and freezes that are wrong in other ways are judged no further, but for their time zone."""
    for variable, number in dict.fromkeys(flaw.path[:2] for flaw in flaws if len(flaw.path) > 1):
        one = document[str(variable)][number]
        if variable != "maintenance_plan" and isinstance(one, dict) and isinstance(one.get("timezone"), str):
            _zone(one["timezone"], f"{variable}.{number}.timezone", problems)


def _hosts_of(activity: str, merged: dict[str, Any], resolve: Resolve, problems: list[str]) -> tuple[list[str], str]:
    """The hosts that *activity* is for; where there are none, why."""
    if not merged.get("enabled", True):
        return [], "switched off in the plan"
    try:
        hosts = resolve(merged["hosts"])
    except ValueError as error:
        problems.append(f"maintenance_plan.{activity}.hosts: {error}")
        return [], ""
    return hosts, "" if hosts else f"no host of the inventory matches {merged['hosts']!r}"


def _entry(activity: str, merged: dict[str, Any], hosts: list[str], problems: list[str]) -> Entry:
    place = f"maintenance_plan.{activity}"
    requires = merged["requires"] or {}
    return Entry(
        activity=activity,
        cadence=merged["cadence"],
        hosts=tuple(hosts),
        team=merged["team"],
        grace=_seconds(merged["grace"], f"{place}.grace", problems),
        disruptive=bool(merged.get("disruptive", False)),
        requires={name: _seconds(age, f"{place}.requires.{name}", problems) for name, age in requires.items()},
        approval_required=merged.get("approval", "none") == "required",
    )


def _seconds(text: Any, place: str, problems: list[str]) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        problems.append(f"{place}: {error}")
        return 0.0


def _requires_problems(entries: dict[str, Entry], known: dict[str, Any]) -> list[str]:
    problems = []
    for entry in entries.values():
        for name in entry.requires:
            place = f"maintenance_plan.{entry.activity}.requires.{name}"
            if name not in known:
                problems.append(f"{place}: unknown activity{nearest(name, known)}")
            elif name not in entries:
                problems.append(f"{place}: {name} is carried out on no host, so its evidence can never be had")
    cycle = _cycle({name: list(entry.requires) for name, entry in entries.items()})
    if cycle:
        problems.append(f"maintenance_plan: requires goes round in a circle: {' → '.join(cycle)}")
    return problems


def _cycle(graph: dict[str, list[str]]) -> list[str]:
    """The names along one cycle of *graph*, the first repeated at the end; empty when there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for following in graph.get(name, []):
            found = visit(following, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def _zone(name: str, place: str, problems: list[str]) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        problems.append(f"{place}: unknown time zone {name!r}; write it like Europe/Zurich or UTC")
        return None


def _window(window: dict[str, Any], problems: list[str]) -> Window | None:
    place = f"maintenance_windows[{window['name']}]"
    zone = _zone(window.get("timezone", "UTC"), f"{place}.timezone", problems)
    days = window["weekday"] if isinstance(window["weekday"], list) else [window["weekday"]]
    start, end = time.fromisoformat(window["start"]), time.fromisoformat(window["end"])
    if start == end:
        problems.append(f"{place}: it starts and ends at {window['start']}, so it never opens")
        return None
    return Window(window["name"], tuple(days), start, end, zone) if zone else None


def _freeze(freeze: dict[str, Any], problems: list[str]) -> Freeze | None:
    place = f"maintenance_freezes[{freeze['name']}]"
    zone = _zone(freeze.get("timezone", "UTC"), f"{place}.timezone", problems)
    try:
        first, last = date.fromisoformat(freeze["from"]), date.fromisoformat(freeze["to"])
    except ValueError as error:
        problems.append(f"{place}: {error}; write dates like 2027-01-18")
        return None
    if last < first:
        problems.append(f"{place}: it ends on {last}, before it begins on {first}")
        return None
    return Freeze(freeze["name"], first, last, zone) if zone else None
