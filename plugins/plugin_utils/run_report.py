# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gathers what a report of one run shows, from the ledger and the plan."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError

from . import clock
from .plan import Plan
from .results import overall_verdict
from .status import status_rows

if TYPE_CHECKING:
    from .ledger import Ledger

TREND_POINTS = 60


def missing_results(run: dict[str, Any], documents: list[dict[str, Any]]) -> list[dict[str, str]]:
    """``{host, activity}`` of everything that was due in *run* and has no result: a record was lost, or never made."""
    recorded = {(document["data"]["host"], document["data"]["activity"]) for document in documents}
    return [
        {"host": host, "activity": activity}
        for activity, hosts in run["due"].items()
        for host in hosts
        if (host, activity) not in recorded
    ]


def verdict_of(documents: list[dict[str, Any]], missing: list[dict[str, str]]) -> str:
    return "failed" if missing else overall_verdict([document["data"]["outcome"] for document in documents])


def gather_report(run: dict[str, Any], plan: Plan, ledger: Ledger, now: datetime) -> dict[str, Any]:
    """Everything that plugin_utils/report renders; *run* as Ledger.run returns it."""
    documents = ledger.results_of(run["id"])
    return {
        "run": run,
        "results": documents,
        "missing": missing_results(run, documents),
        "interrupted": interrupted_before(run, ledger),
        "status": status_rows(plan, ledger, now),
        "trends": [trend for document in documents for trend in _trends(document["data"], ledger)],
        "not_applicable": [{"activity": activity, "reason": why} for activity, why in plan.not_applicable.items()],
    }


def interrupted_before(run: dict[str, Any], ledger: Ledger) -> list[dict[str, Any]]:
    """Runs that died since the last one, before *run*, that reached its end, and what they left undone."""
    since = run.get("previous_run_started", "")
    return [_interrupted(one, ledger) for one in ledger.interrupted_since(since) if one["started"] < run["started"]]


def _interrupted(run: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    documents = ledger.results_of(run["id"])
    return {
        "run_id": run["id"],
        "started": run["started"],
        "operator": run["operator"],
        "detail": run["detail"],
        "recorded": len(documents),
        "missing": missing_results(run, documents),
    }


def _trends(data: dict[str, Any], ledger: Ledger) -> list[dict[str, Any]]:
    if not data["metrics"]:
        return []
    past = [document["data"] for document in ledger.history(data["host"], data["activity"], TREND_POINTS)]
    trends = []
    for name, metric in data["metrics"].items():
        points = [[one["finished"], one["metrics"][name]["value"]] for one in past if name in one["metrics"]]
        if points:
            trends.append(
                {
                    "host": data["host"],
                    "activity": data["activity"],
                    "metric": name,
                    "unit": metric["unit"],
                    "points": points,
                }
            )
    return trends


def write_report(run: dict[str, Any], plan: Plan, ledger: Ledger, directory: Path) -> dict[str, str]:
    """Write all formats of the report of *run* below *directory*; returns format → path. ``latest`` links to them."""
    from .report import write  # draws pictures: not worth loading before it is needed

    name = f"{run['started'][:19].replace(':', '')}Z-{run['cadence']}-{run['id'][-6:]}"
    try:
        written = write(gather_report(run, plan, ledger, clock.now()), directory / name, directory / ".cache")
        pending = directory / f".latest-{name}"
        pending.unlink(missing_ok=True)
        pending.symlink_to(name)
        pending.replace(directory / "latest")
    except OSError as error:
        raise MaintenanceError(
            "write the report",
            where=str(error.filename or directory),
            expected="a directory that can be written",
            observed=error.strerror or str(error),
            advice="Correct maintenance_report_dir or its permissions, then run playbooks/report.yml.",
        ) from None
    return {kind: str(path) for kind, path in written.items()}
