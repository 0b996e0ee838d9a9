# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run shows: its plan, what was rebuilt and what was left, and the figures."""

from __future__ import annotations

import typing as t

from ..database.rights import quoted
from ..quantities import human_bytes, human_seconds
from ..result import Part
from .decision import Left, Task, as_evidence, describe_task
from .leftovers import Invalid
from .rebuild import Tally
from .settings import Settings

# How much longer than max_block a wait may last: until it is seen, and until the server has ended the rebuild.
GRACE = 0.5


def announce(tasks: t.Sequence[Task], part: Part) -> None:
    """Say what would be rebuilt."""
    for task in tasks:
        size = f"{human_bytes(task.target.size_bytes)} by {task.target.method} ({task.target.confidence} confidence)"
        part.change("index", task.name, size, f"would be rebuilt: {describe_task(task)}")


def report_indexes(
    looked_at: int, tasks: t.Sequence[Task], left: t.Sequence[Left], settings: Settings, part: Part
) -> None:
    """One check of all indexes, with the plan as evidence, and one for each that should have been rebuilt."""
    limit = f"{settings.min_bloat_ratio:.0%} bloat and {human_bytes(settings.min_gain)} to win"
    held_up = [each for each in left if each.wanted]
    names = {each.name for each in left}
    done = [task for task in tasks if task.name not in names]
    part.check(
        "bloated indexes",
        "passed",
        expected=f"each index measured; those above {limit} rebuilt, or left for a reason",
        observed=f"{looked_at} looked at, {len(done)} to rebuild, {len(left)} left",
        evidence={"rebuild": [as_evidence(each) for each in done], "left": [as_evidence(each) for each in left]},
    )
    _report_unmeasured([each for each in left if each.unmeasured], part)
    for each in held_up:
        known = each.bloat_ratio is not None
        bloat = f"{each.bloat_ratio:.0%} bloat, about {human_bytes(each.gain)} to win" if known else "unknown bloat"
        if each.unsound:
            part.check(
                f"soundness of {each.name}",
                "failed",
                expected="a table that its index can be built from",
                observed=each.reason,
                advice="The table or the index is damaged: make a backup, then find and correct the rows by hand.",
            )
            continue
        part.check(
            f"bloat of {each.name}",
            "warned" if known else "unknown",
            expected=f"less than {limit}, or a rebuild",
            observed=f"{bloat}; left as it is: {each.reason}",
            advice="Remove what stands in the way; the next run tries again.",
        )
    part.metric("indexes_left_bloated", sum(1 for each in left if each.bloat_ratio is not None), "count")


def _report_unmeasured(unmeasured: t.Sequence[Left], part: Part) -> None:
    """The indexes of which too little is known for want of an extension or a right."""
    if not unmeasured:
        return
    names = ", ".join(each.name for each in unmeasured[:3])
    more = f" and {len(unmeasured) - 3} more" if len(unmeasured) > 3 else ""
    coming = [
        one["name"] for one in part.changes if one["kind"] == "extension" and one["after"] == "would be installed"
    ]
    installs = f"; this run would install {', '.join(coming)}, and then measure them" if coming else ""
    part.check(
        "indexes that could be measured better",
        "unknown",
        expected="the bloat of each index measured, not estimated",
        observed=f"{len(unmeasured)} were not: {names}{more}{installs}",
        advice=f"Allow it: {'; '.join(sorted({each.target.reason for each in unmeasured})[:2])}.",
    )


def report_invalid(invalid: t.Sequence[Invalid], leftovers: t.Sequence[Invalid], tally: Tally, part: Part) -> None:
    """Leftovers that remain, and invalid indexes that nobody but their maker may drop."""
    dropped = sum(1 for change in part.changes if change["kind"] == "leftover index")
    kept = "; ".join(f"{each.full_name} ({tally.kept.get(each.full_name, 'not tried')})" for each in leftovers)
    part.require(
        "leftovers of interrupted rebuilds",
        not leftovers,
        expected="none, or their removal",
        observed=f"still there: {kept}" if kept else f"{dropped} dropped" if dropped else "none",
        advice="The next run tries again; see to it that what stands in the way has ended by then.",
    )
    for each in invalid:
        part.check(
            f"invalid index {each.full_name}",
            "warned",
            expected="an index that is valid, or none",
            observed=f"invalid, {human_bytes(each.size_bytes)}: a build that did not end, and no leftover of a rebuild",
            advice=f"Build it anew (REINDEX INDEX CONCURRENTLY {quoted(each.schema)}.{quoted(each.name)}) or drop it: "
            "every write keeps it up to date, and no query uses it.",
        )


def report_work(tally: Tally, settings: Settings, part: Part) -> None:
    """The figures of the rebuilds, the longest wait that they caused, and what could not be looked at before them."""
    part.metric("rebuilt_indexes", len(tally.rebuilt), "count")
    part.metric("cancelled_rebuilds", tally.cancelled, "count")
    part.metric("bytes_won", tally.bytes_won, "bytes")
    part.metric("rebuild_seconds", round(tally.seconds, 3), "seconds")
    part.metric("wal_bytes", tally.wal_bytes, "bytes")
    part.metric("longest_wait_seconds", round(tally.longest_wait, 3), "seconds")
    if not tally.rebuilt and not tally.cancelled:
        return
    limit = settings.max_block + GRACE
    where = f", on {tally.longest_waiter}" if tally.longest_waiter else ""
    part.check(
        "longest wait that rebuilds caused",
        "passed" if tally.longest_wait <= limit else "warned",
        expected=f"at most {human_seconds(limit)}",
        observed=f"{human_seconds(tally.longest_wait)}{where}" if tally.longest_wait else "nobody waited",
        advice="See what kept the server from ending the rebuild at once: its load, or a slow network to it.",
    )
    if tally.unknown:
        part.check(
            "surroundings of rebuilds",
            "unknown",
            expected="room, replicas and transactions looked at before each rebuild",
            observed=f"could not be seen: {'; '.join(sorted(tally.unknown))}",
            advice="Run it on the database server, as a role that may see it; or accept it and watch the rebuilds.",
        )
