# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say how the plan stands, from the plan and the ledger."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.wellkept.maintenance.plugins.plugin_utils import clock
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.action import ControlAction
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.status import status_rows, status_text


class ActionModule(ControlAction):
    ARGUMENTS: ClassVar = {"strict": {"type": "bool", "default": False}}

    def control(self, arguments: dict[str, Any]) -> dict[str, Any]:
        plan, ledger, now = self.plan(), self.ledger(), clock.now()
        within_limit = set(self.variable("ansible_play_hosts_all"))
        rows = [row for row in status_rows(plan, ledger, now) if row["host"] in within_limit]
        bad = [row for row in rows if row["overdue"] or row["outcome"] == "failed"]
        names = ", ".join(f"{row['activity']} on {row['host']}" for row in bad)
        return {
            "changed": False,
            "failed": arguments["strict"] and bool(bad),
            "msg": f"Overdue or failed: {names}" if bad else "Nothing is overdue or failed.",
            "status": rows,
            "maintenance_text": status_text(rows, plan.not_applicable, now),
        }
