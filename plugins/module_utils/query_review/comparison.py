# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comparing like with like: what was counted since the last review, and what has become slower."""

from __future__ import annotations

import typing as t

from .statements import Statement

MEMORY_VERSION = 1
CLOCK_TOLERANCE = 1.0


class Remembered(t.NamedTuple):
    """A statement at the last review; ``baseline`` is the mean time (seconds) that it was held to then."""

    calls: int
    seconds: float
    baseline: t.Optional[float]


class Memory(t.NamedTuple):
    """What the last review left: when it was, and what it counted.

    A statement that is not among those remembered had taken no more than ``cutoff`` seconds by then.
    """

    measured: float
    server: str
    reset: t.Optional[float]
    cutoff: float
    statements: t.Dict[t.Tuple[str, str], Remembered]
    databases: t.Dict[str, t.Dict[str, t.Any]]
    tables: t.Dict[t.Tuple[str, str], int]


class Interval(t.NamedTuple):
    """One statement since the last review, or since its counters began."""

    statement: Statement
    calls: int
    seconds: float
    baseline: t.Optional[float]

    @property
    def mean(self) -> float:
        return self.seconds / self.calls if self.calls else 0.0


class Rules(t.NamedTuple):
    """When a statement counts as slower; ``accepted`` are query identifiers that may be as slow as they are."""

    factor: float
    min_seconds: float
    min_calls: int
    accepted: t.Tuple[str, ...] = ()


def read_memory(previous: t.Any, server: str) -> t.Optional[Memory]:
    """What the result *previous* holds for the comparison; None when it is of another server or of no use."""
    try:
        for check in previous.get("checks", []):
            kept = check.get("evidence", {}).get("for_next_review")
            if kept and kept["version"] == MEMORY_VERSION and kept["server"] == server:
                return _memory_from(kept)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return None


def _memory_from(kept: t.Mapping[str, t.Any]) -> Memory:
    statements = {
        (str(one["database"]), str(one["queryid"])): Remembered(
            int(one["calls"]), float(one["seconds"]), None if one["baseline"] is None else float(one["baseline"])
        )
        for one in kept["statements"]
    }
    tables = {(str(one["database"]), str(one["table"])): int(one["scans"]) for one in kept["tables"]}
    reset = None if kept["reset"] is None else float(kept["reset"])
    measured, cutoff = float(kept["measured"]), float(kept["cutoff"])
    return Memory(measured, str(kept["server"]), reset, cutoff, statements, dict(kept["databases"]), tables)


def same_counters(memory: t.Optional[Memory], reset: t.Optional[float]) -> bool:
    """Whether the counters have run on since the last review."""
    return memory is not None and memory.reset == reset


def interval_of(now: Statement, memory: t.Optional[Memory], continuous: bool) -> Interval:
    """What *now* shows of the time since the last review; all of it when its counters began after that.

    Of a statement that was not worth remembering, it is what is certain: it had taken no more than the cutoff.
    """
    before = memory.statements.get(now.key) if memory else None
    baseline = before.baseline if before else None
    began_anew = memory is None or (now.since is not None and now.since > memory.measured + CLOCK_TOLERANCE)
    if memory is None or not continuous or began_anew:
        return Interval(now, now.calls, now.seconds, baseline)
    if before is None:
        seconds = max(now.seconds - memory.cutoff, 0.0)
        return Interval(now, round(now.calls * seconds / now.seconds) if now.seconds else 0, seconds, None)
    if now.calls < before.calls or now.seconds < before.seconds:
        return Interval(now, now.calls, now.seconds, baseline)
    return Interval(now, now.calls - before.calls, now.seconds - before.seconds, baseline)


def is_slower(one: Interval, rules: Rules) -> bool:
    """Whether the statement takes longer than it was held to, clearly, and often enough to be sure."""
    if one.baseline is None or one.calls < rules.min_calls or one.statement.queryid in rules.accepted:
        return False
    return one.mean >= one.baseline * rules.factor and one.mean - one.baseline >= rules.min_seconds


def next_baseline(one: Interval, rules: Rules) -> t.Optional[float]:
    """What the next review holds it to: what it took now, unless that was slower, or too seldom to be sure.

    So a statement that became slower is told of until it is as fast as before, or accepted.
    """
    if one.calls < rules.min_calls or is_slower(one, rules):
        return one.baseline
    return one.mean


def worth_remembering(intervals: t.Sequence[Interval], most: int) -> t.Tuple[t.List[Interval], float]:
    """Those that took most time, ever and since the last review, and those that are called most; and the cutoff.

    They are the ones whose slowing down would be felt. The cutoff is the time that none of the others has taken.
    """
    ever = sorted(intervals, key=lambda one: -one.statement.seconds)
    by_time = sorted(intervals, key=lambda one: -one.seconds)[:most]
    by_calls = sorted(intervals, key=lambda one: -one.calls)[:most]
    kept = {one.statement.key: one for one in [*ever[:most], *by_time, *by_calls]}
    cutoff = max((one.statement.seconds for one in ever if one.statement.key not in kept), default=0.0)
    return list(kept.values()), cutoff


def remembered_statements(intervals: t.Sequence[Interval], rules: Rules) -> t.List[t.Dict[str, t.Any]]:
    """*intervals* as the next review reads them."""
    return [
        {
            "database": one.statement.database,
            "queryid": one.statement.queryid,
            "calls": one.statement.calls,
            "seconds": round(one.statement.seconds, 6),
            "baseline": None if (held := next_baseline(one, rules)) is None else round(held, 9),
        }
        for one in intervals
    ]
