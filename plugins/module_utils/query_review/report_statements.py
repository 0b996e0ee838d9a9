# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a review says of statements: the ones that take most time, and the ones that have become slower."""

from __future__ import annotations

import typing as t

from ..quantities import human_seconds
from ..result import Part
from .comparison import Interval, Rules, is_slower
from .statements import Obstacle, Statistics

Texts = t.Mapping[t.Tuple[str, str], str]


def milliseconds(seconds: float) -> str:
    """``0.00123`` → ``1.23 ms``: statements are compared where human_seconds() sees no difference."""
    if seconds >= 1:
        return human_seconds(seconds)
    return f"{seconds * 1000:.{0 if seconds >= 0.1 else 1 if seconds >= 0.01 else 2}f} ms"


def shortened(statement: str, length: int = 60) -> str:
    return statement if len(statement) <= length else f"{statement[: length - 1].rstrip()}…"


def report_obstacle(obstacle: Obstacle, memory: t.Dict[str, t.Any], part: Part) -> None:
    part.check(
        "statement statistics",
        "unknown",
        expected="the counters of pg_stat_statements",
        observed=obstacle.observed,
        advice=obstacle.advice,
        evidence={"for_next_review": memory},
    )


def report_statistics(statistics: Statistics, memory: t.Dict[str, t.Any], part: Part) -> None:
    """That there are counters; so many statements that the rarer ones are thrown out are told of, without alarm."""
    lost = f", {statistics.evicted:,} times the rarest were thrown out to make room" if statistics.evicted else ""
    part.check(
        "statement statistics",
        "passed",
        expected="the counters of pg_stat_statements",
        observed=f"{len(statistics.statements):,} statements{lost}",
        evidence={"for_next_review": memory},
    )


def report_top(intervals: t.Sequence[Interval], top: int, texts: Texts, period: str, part: Part) -> None:
    """The statements that took most time, as a remark: there are always some."""
    total = sum(one.seconds for one in intervals)
    first = sorted(intervals, key=lambda one: -one.seconds)[:top]
    shown = [describe(one, total, texts) for one in first if one.calls]
    part.metric("statement_seconds", round(total, 3), "seconds")
    part.metric("statement_calls", sum(one.calls for one in intervals), "count")
    head = "; ".join(
        f"{one['share']:.0%} {shortened(one['statement'])} ({one['calls']:,} x {milliseconds(one['mean_seconds'])})"
        for one in shown[:3]
    )
    part.check(
        "statements by total time",
        "passed",
        expected="to be known",
        observed=f"{human_seconds(total)} {period}" + (f"; most of it: {head}" if head else ""),
        evidence={"statements": shown},
    )


def describe(one: Interval, total: float, texts: Texts) -> t.Dict[str, t.Any]:
    """What is recorded of one statement. Rows, cache hits and temporary blocks are of its whole life."""
    statement = one.statement
    blocks = statement.blocks_hit + statement.blocks_read
    return {
        "database": statement.database,
        "queryid": statement.queryid,
        "statement": texts.get(statement.key, ""),
        "share": round(one.seconds / total, 4) if total else 0.0,
        "seconds": round(one.seconds, 6),
        "calls": one.calls,
        "mean_seconds": round(one.mean, 7),
        "rows_per_call": round(statement.rows / max(statement.calls, 1), 2),
        "cache_hit_ratio": round(statement.blocks_hit / blocks, 4) if blocks else None,
        "temp_blocks": statement.temp_blocks,
    }


def report_speed(intervals: t.Sequence[Interval], rules: Rules, texts: Texts, part: Part) -> None:
    """Each statement that became slower, and how many were compared."""
    compared = [one for one in intervals if one.baseline is not None and one.calls >= rules.min_calls]
    slower = sorted((one for one in compared if is_slower(one, rules)), key=lambda one: -one.seconds)
    part.metric("slower_statements", len(slower), "count")
    part.check(
        "speed of statements",
        "passed",
        expected=f"{rules.factor:g} times as slow as before (and {milliseconds(rules.min_seconds)} slower) only with a "
        "check of its own",
        observed=f"{len(slower)} slower, of {len(compared)} that can be compared with the last review",
    )
    for one in slower:
        report_slower(one, rules, texts, part)


def report_slower(one: Interval, rules: Rules, texts: Texts, part: Part) -> None:
    database, queryid = one.statement.key
    baseline = one.baseline or 0.0
    part.check(
        f"speed of statement {queryid} in {database}",
        "warned",
        expected=f"a mean below {milliseconds(max(baseline * rules.factor, baseline + rules.min_seconds))}",
        observed=f"{milliseconds(baseline)} → {milliseconds(one.mean)} in {one.calls:,} calls: "
        f"{texts.get(one.statement.key, '')}",
        advice="See its plan (EXPLAIN): an index that was dropped, old statistics (ANALYZE), or more data. It is told"
        f" of until it is faster again or {queryid} is in accepted_statements.",
        evidence={"database": database, "queryid": queryid, "before_seconds": round(baseline, 7),
                  "now_seconds": round(one.mean, 7), "calls": one.calls},
    )  # fmt: skip
