# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide for all hosts of a batch at once on which of them an activity may start."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from ansible_collections.wellkept.maintenance.plugins.plugin_utils import clock
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.action import ControlAction
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.gates import Circumstances, decide
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger


class ActionModule(ControlAction):
    ARGUMENTS: ClassVar = {"activity": {"type": "str", "required": True}, "run_id": {"type": "str", "required": True}}

    def control(self, arguments: dict[str, Any]) -> dict[str, Any]:
        ledger = self.ledger()
        plan = self.plan()
        run_id = arguments["run_id"]
        documents = ledger.results_of(run_id)
        circumstances = Circumstances(
            now=clock.now(),
            plan=plan,
            check_mode=bool(self._task.check_mode),
            approved_by=str(self.variable("approved_by", "")),
            this_run={(one["data"]["host"], one["data"]["activity"]): one for one in documents},
            evidence=ledger.latest_results(good=True),
            unreachable=_unreachable(ledger, run_id),
        )
        decisions = decide(plan.entries[arguments["activity"]], self.variable("ansible_play_batch"), circumstances)
        return {
            "changed": False,
            "decisions": [asdict(decision) for decision in decisions],
            "proceed": [decision.host for decision in decisions if decision.proceed],
        }


def _unreachable(ledger: Ledger, run_id: str) -> dict[str, str]:
    """The hosts that could not be reached in this run, and since when."""
    return {part["host"]: part["received"] for part in ledger.parts_of(run_id) if part["document"].get("unreachable")}
