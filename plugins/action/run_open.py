# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open a run: validate the plan, check the ledger, decide what is due, and record that before a host is touched."""

from __future__ import annotations

import getpass
import os
import platform
from typing import TYPE_CHECKING, Any, ClassVar

from ansible import context
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.plugin_utils import clock, controller, presence
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.action import ControlAction
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.identifiers import new_id
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.plan import Plan, PlanProblems, known_activities
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.plan_flaws import nearest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.run_report import interrupted_before
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.schedule import PERIODS

if TYPE_CHECKING:
    from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger

_TAGS_OF_ANSIBLE = {"all", "tagged", "untagged", "always", "never"}
_TAGS_OF_MOLECULE = {"molecule-notest", "notest", "molecule-idempotence-notest"}  # skipped in all that Molecule runs


class ActionModule(ControlAction):
    ARGUMENTS: ClassVar = {
        "cadence": {"type": "str", "required": True, "choices": list(PERIODS)},
        "activities": {"type": "list", "elements": "str", "default": []},
    }

    def control(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if not presence.is_announced():
            raise _ledger_callback_missing()
        plan, ledger = self.plan(), self.ledger()
        ledger.settle_dead_runs()
        due = self._due(plan, arguments)
        run = self._describe(arguments["cadence"], plan, due, ledger)
        ledger.open_run(run, admit=lambda others: _refuse_overlap(run, others))
        return {
            "changed": False,
            "maintenance_run": run,
            "due": due,
            "interrupted": interrupted_before(run, ledger),
            "hosts_due": [
                {"host": host, "groups": [f"due_{activity}" for activity in due if host in due[activity]]}
                for host in sorted({host for hosts in due.values() for host in hosts})
            ],
        }

    def _due(self, plan: Plan, arguments: dict[str, Any]) -> dict[str, list[str]]:
        """The activities of this run that the tags select, and their hosts within --limit."""
        named = arguments["activities"]
        scheduled = (
            {name: list(plan.entries[name].hosts) for name in named if name in plan.entries}
            if named
            else plan.scheduled(arguments["cadence"])
        )
        selected = _selected_by_tags(scheduled, self.variable("ansible_run_tags"), self.variable("ansible_skip_tags"))
        within_limit = set(self.variable("ansible_play_hosts_all"))
        hosts_due = {name: [host for host in scheduled[name] if host in within_limit] for name in selected}
        return {name: hosts for name, hosts in hosts_due.items() if hosts}

    def _describe(self, cadence: str, plan: Plan, due: dict[str, list[str]], ledger: Ledger) -> dict[str, Any]:
        previous = ledger.latest_run()
        return {
            "id": new_id(),
            "started": clock.to_text(clock.now()),
            "cadence": cadence,
            "playbook": " ".join(context.CLIARGS.get("args", ())),
            "operator": str(self.variable("maintenance_operator") or self.variable("awx_user_name") or _operator()),
            "controller": controller.identify(os.getppid()),
            "source": f"//{platform.node()}/wellkept",
            "check_mode": bool(self._task.check_mode),
            "approved_by": str(self.variable("approved_by", "")),
            "change": str(self.variable("change", "")),
            "ledger": ledger.shown_url,
            "due": due,
            "teams": {name: plan.entries[name].team for name in due},
            "previous_run_started": previous["started"] if previous else "",
        }


def _selected_by_tags(activities: dict[str, list[str]], run_tags: list[str], skip_tags: list[str]) -> list[str]:
    """The activities that --tags and --skip-tags leave; raises PlanProblems for tags that select nothing there is."""
    known = known_activities()
    others = _TAGS_OF_ANSIBLE | _TAGS_OF_MOLECULE
    unknown = [tag for tag in [*run_tags, *skip_tags] if tag not in known and tag not in others]
    if unknown:
        raise PlanProblems([_unknown_tag(tag, list(known)) for tag in unknown])
    every = {"all", "tagged"} & set(run_tags)
    none = {"all", "tagged"} & set(skip_tags)
    return [name for name in activities if (every or name in run_tags) and not none and name not in skip_tags]


def _unknown_tag(tag: str, known: list[str]) -> str:
    return f"--tags {tag}: no activity has this name{nearest(tag, known)}"


def _refuse_overlap(run: dict[str, Any], others: list[dict[str, Any]]) -> None:
    """Refuse when a run that goes on works on the same activity of the same host; rehearsals disturb nobody."""
    for other in others:
        same = [
            f"{activity} on {host}"
            for activity, hosts in run["due"].items()
            for host in hosts
            if host in other["due"].get(activity, [])
        ]
        if same and not run["check_mode"] and not other["check_mode"]:
            where = other["controller"]
            raise MaintenanceError(
                "open the run",
                expected=f"nobody else at work on {', '.join(same[:3])}" + (" and more" if len(same) > 3 else ""),
                observed=f"the {other['cadence']} run {other['id']} of {other['operator']} (process {where['pid']} on "
                f"{where['host']}) has been at work on it since {other['started']}",
                advice="Wait until it has ended, or end that process if it hangs: the next run then settles it.",
            )


def _ledger_callback_missing() -> MaintenanceError:
    return MaintenanceError(
        "open the run",
        expected="the callback wellkept.maintenance.ledger at work: without it nothing would be recorded",
        observed="it is not enabled",
        advice="Add `callbacks_enabled = wellkept.maintenance.ledger` to [defaults] of ansible.cfg, or set "
        "ANSIBLE_CALLBACKS_ENABLED=wellkept.maintenance.ledger.",
    )


def _operator() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
