# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Close a run: see that everything that was due is recorded, give the verdict, write the report."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.wellkept.maintenance.plugins.plugin_utils.action import ControlAction
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report.text import counted
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.run_report import (
    missing_results,
    verdict_of,
    write_report,
)


class ActionModule(ControlAction):
    ARGUMENTS: ClassVar = {"run_id": {"type": "str", "required": True}}

    def control(self, arguments: dict[str, Any]) -> dict[str, Any]:
        ledger = self.ledger()
        run = ledger.run(arguments["run_id"])
        documents = ledger.results_of(run["id"])
        missing = missing_results(run, documents)
        verdict = verdict_of(documents, missing)
        message = _message(run, documents, missing)
        ledger.end_run(run["id"], "closed", verdict, message)
        reports = write_report(ledger.run(run["id"]), self.plan(), ledger, self.report_directory())
        summary = {
            "verdict": verdict,
            "run": run["id"],
            "results": len(documents),
            "missing": missing,
            "message": message,
            "reports": reports,
        }
        return {
            "changed": False,
            "failed": verdict == "failed",
            "msg": message,
            "maintenance_summary": summary,
            # AWX keeps these as the job's artifacts.
            "ansible_stats": {"data": {"wellkept": summary}, "per_host": False, "aggregate": True},
        }


def _message(run: dict[str, Any], documents: list[dict[str, Any]], missing: list[dict[str, str]]) -> str:
    if not run["due"]:
        return f"Nothing was due in this {run['cadence']} run."
    if missing:
        lost = ", ".join(f"{one['activity']} on {one['host']}" for one in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        return f"{len(missing)} of what was due has no result in the ledger: {lost}{more}."
    counts = {
        outcome: sum(document["data"]["outcome"] == outcome for document in documents)
        for outcome in ("passed", "warned", "failed", "skipped")
    }
    words = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    return f"{counted(len(documents), 'result')}: {words}."
