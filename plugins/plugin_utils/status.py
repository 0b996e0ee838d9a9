# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the plan stands: for each activity and host the last result, when it is due next, and whether it is overdue."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import clock
from .plan import Entry, Plan
from .schedule import next_due

if TYPE_CHECKING:
    from .ledger import Ledger


def status_rows(plan: Plan, ledger: Ledger, now: datetime) -> list[dict[str, Any]]:
    """One row ``{activity, cadence, host, team, outcome, finished, run, next_due, overdue, note}`` for each of them."""
    latest, good = ledger.latest_results(), ledger.latest_results(good=True)
    began = ledger.first_run_started()
    plan_began = clock.from_text(began) if began else None
    rows = []
    for entry in plan.entries.values():
        for host in entry.hosts:
            key = (host, entry.activity)
            rows.append(_row(entry, host, latest.get(key), good.get(key), plan_began=plan_began, now=now))
    return rows


def _row(
    entry: Entry,
    host: str,
    last: dict[str, Any] | None,
    last_good: dict[str, Any] | None,
    *,
    plan_began: datetime | None,
    now: datetime,
) -> dict[str, Any]:
    proven = clock.from_text(last_good["data"]["finished"]) if last_good else None
    # Where nothing was ever recorded, everything is late; else what was never done counts from the first run.
    due = next_due(entry.cadence, proven, plan_began or datetime.fromtimestamp(0, now.tzinfo))
    overdue = due is not None and now > due + timedelta(seconds=entry.grace)
    return {
        "activity": entry.activity,
        "cadence": entry.cadence,
        "host": host,
        "team": entry.team,
        "outcome": last["data"]["outcome"] if last else "",
        "finished": last["data"]["finished"] if last else "",
        "last_good": last_good["data"]["finished"] if last_good else "",
        "run": last["data"]["run"]["id"] if last else "",
        "next_due": "" if due is None else clock.to_text(due if proven or plan_began else now),
        "overdue": overdue,
        "note": "" if last_good else "no good result yet",
    }


def status_text(rows: list[dict[str, Any]], not_applicable: dict[str, str], now: datetime) -> str:
    """*rows* as a table that a person reads in a terminal."""
    titles = ("activity", "cadence", "host", "last result", "when", "next due", "")
    cells = [
        titles,
        *(_cells(row) for row in sorted(rows, key=lambda row: (not row["overdue"], row["activity"], row["host"]))),
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines += [f"not carried out: {activity} ({why})" for activity, why in sorted(not_applicable.items())]
    overdue = sum(row["overdue"] for row in rows)
    failed = sum(row["outcome"] == "failed" for row in rows)
    lines.append(f"As of {clock.to_text(now)}: {overdue} overdue, {failed} failed, of {len(rows)}.")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    remark = "OVERDUE" if row["overdue"] else ""
    return (
        row["activity"],
        row["cadence"],
        row["host"],
        row["outcome"] or "never",
        _minute(row["finished"]),
        _minute(row["next_due"]) if row["next_due"] else "on demand",
        remark,
    )


def _minute(text: str) -> str:
    return text[:16].replace("T", " ") if text else "-"
