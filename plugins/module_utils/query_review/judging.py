# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What follows from what was measured, and what of it the next review needs."""

from __future__ import annotations

import typing as t

from . import activity, comparison
from .measuring import Seen


class Judged(t.NamedTuple):
    """What follows from it."""

    intervals: t.List[comparison.Interval]
    kept: t.List[comparison.Interval]
    cutoff: float
    rules: comparison.Rules
    compares: bool
    activity: activity.Activity


def decide(seen: Seen, memory: t.Optional[comparison.Memory], params: t.Dict[str, t.Any]) -> Judged:
    """What was counted since the last review, and what of it the next one needs."""
    rules = comparison.Rules(
        params["regression_factor"],
        params["regression_min_seconds"],
        params["min_calls"],
        tuple(params["accepted_statements"]),
    )
    found = seen.statistics
    continuous = comparison.same_counters(memory, found.reset if found else None)
    intervals = [comparison.interval_of(one, memory, continuous) for one in (found.statements if found else [])]
    kept, cutoff = comparison.worth_remembering(intervals, params["top"])
    before = memory.databases if memory else {}
    between = activity.activity_between(seen.databases, before, seen.basis, memory.measured if memory else None)
    return Judged(intervals, kept, cutoff, rules, bool(memory and memory.statements), between)


def memory_for_next(seen: Seen, judged: Judged) -> t.Dict[str, t.Any]:
    """What the next review compares with; it comes back to it by way of the ledger."""
    return {
        "version": comparison.MEMORY_VERSION,
        "measured": round(seen.basis.now, 3),
        "server": seen.basis.server,
        "reset": seen.statistics.reset if seen.statistics else None,
        "evicted": seen.statistics.evicted if seen.statistics else None,
        "cutoff": round(judged.cutoff, 6),
        "statements": comparison.remembered_statements(judged.kept, judged.rules),
        "databases": seen.databases,
        "tables": [{"database": one.database, "table": one.table, "scans": one.scans} for one in seen.scanned],
    }
