# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the report of a run that is recorded in the ledger."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.action import ControlAction
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.run_report import write_report


class ActionModule(ControlAction):
    ARGUMENTS: ClassVar = {"run": {"type": "str", "default": "latest"}}

    def control(self, arguments: dict[str, Any]) -> dict[str, Any]:
        ledger, wanted = self.ledger(), arguments["run"]
        run = ledger.latest_run() if wanted == "latest" else ledger.run(wanted)
        if run is None:
            raise MaintenanceError(
                "write a report",
                where=ledger.shown_url,
                expected="a run that was closed" if wanted == "latest" else f"the run {wanted}",
                observed="no such run in the ledger",
                advice="Carry out a run first, or give the whole ID of one, as its report says it, with -e run=ID.",
            )
        reports = write_report(run, self.plan(), ledger, self.report_directory())
        return {"changed": True, "reports": reports, "maintenance_text": f"Report: {reports['html']}"}
