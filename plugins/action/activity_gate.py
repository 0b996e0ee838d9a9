# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide for all hosts of a batch at once on which of them an activity may start."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from ansible_collections.wellkept.maintenance.plugins.plugin_utils import clock
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.action import ControlAction
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.gates import Circumstances, Decision, decide

if TYPE_CHECKING:
    from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger


class ActionModule(ControlAction):
    ARGUMENTS: ClassVar = {"activity": {"type": "str", "required": True}, "run_id": {"type": "str", "required": True}}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Never fails: a task for all hosts that fails takes their other activities from them too."""
        try:
            answer: dict[str, Any] = super().run(tmp, task_vars)
        except Exception as error:
            answer = {"failed": True, "msg": f"the gates could not be asked: {type(error).__name__}: {error}"}
        if not answer.get("failed"):
            return answer
        hosts = self.variable("ansible_play_batch")
        refused = [asdict(Decision(host, False, "failed", answer["msg"])) for host in hosts]
        return {"changed": False, "decisions": refused, "proceed": []}

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
