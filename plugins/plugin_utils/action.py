# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the actions that run on the control node have in common: the inventory's variables, the plan, the ledger."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ansible.inventory.manager import InventoryManager
from ansible.plugins.action import ActionBase
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError

from .open_ledger import open_ledger
from .plan import Plan, PlanProblems, build_plan

if TYPE_CHECKING:
    from .ledger import Ledger


PLAN_VARIABLES = ("maintenance_plan", "maintenance_windows", "maintenance_freezes")


class ControlAction(ActionBase):  # type: ignore[misc]
    """An action that never connects to a host. A subclass says what it does in ``control(arguments)``."""

    TRANSFERS_FILES = False
    _requires_connection = False
    ARGUMENTS: ClassVar[dict[str, dict[str, Any]]] = {}

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        self._variables = task_vars or {}
        _result, arguments = self.validate_argument_spec(argument_spec=self.ARGUMENTS)
        try:
            return self.control(arguments)
        except PlanProblems as error:
            first = f"The plan has {len(error.problems)} problem(s); nothing was touched:"
            return {"failed": True, "problems": error.problems, "msg": "\n- ".join([first, *error.problems])}
        except MaintenanceError as error:
            return {"failed": True, "problems": [str(error)], "msg": str(error)}

    def control(self, arguments: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def variable(self, name: str, default: Any = None) -> Any:
        """The inventory's or operator's variable *name*, templated."""
        return self._templar.template(self._variables[name]) if name in self._variables else default

    def plan(self) -> Plan:
        self._refuse_several_plans()
        return build_plan(
            self.variable("maintenance_plan", {}),
            self.variable("maintenance_windows", []),
            self.variable("maintenance_freezes", []),
            resolve=self._resolve,
        )

    def _refuse_several_plans(self) -> None:
        """A plan that one group states would hold or not, as the first host of the run, and so --limit, has it."""
        hosts = self._variables["groups"]["all"]
        hostvars = self._variables["hostvars"]
        first = hostvars.raw_get(hosts[0])
        problems = {}
        for host in hosts[1:]:
            own = hostvars.raw_get(host)
            for name in PLAN_VARIABLES:
                if own.get(name) != first.get(name) and name not in problems:
                    problems[name] = (
                        f"{name}: {host} has another one than {hosts[0]}; state it once, in group_vars/all, "
                        "and say by the hosts of its entries which activity is for whom"
                    )
        if problems:
            raise PlanProblems(list(problems.values()))

    def ledger(self) -> Ledger:
        return open_ledger(self.variable("maintenance_ledger", ""))

    def report_directory(self) -> Path:
        return Path(self.variable("maintenance_report_dir", ".wellkept/reports")).expanduser().absolute()

    def _resolve(self, pattern: Any) -> list[str]:
        """The hosts of the whole inventory, whatever --limit says, that match *pattern*."""
        if not hasattr(self, "_inventory"):
            self._inventory = InventoryManager(self._loader, parse=False)
            for group, hosts in self._variables["groups"].items():
                self._inventory.add_group(group)
                for host in hosts:
                    self._inventory.add_host(host, group=group)
        patterns = pattern if isinstance(pattern, list) else re.split(r"[,:](?![^\[]*\])", pattern)
        unknown = [name for name in patterns if not self._inventory.get_hosts(name.lstrip("!&")) and name[:1] in "&"]
        if unknown:
            raise ValueError(f"no host of the inventory matches {unknown[0]!r}")
        return [host.name for host in self._inventory.get_hosts(patterns)]
