# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action of the same name, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_open
short_description: Open a maintenance run
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - Validates the plan and names everything that is wrong with it, checks the ledger, decides which activities are due
    on which hosts within C(--limit) and C(--tags), and records all of that before any host is touched.
  - Refuses when the ledger callback is not enabled, or when another run is at work on the same activity of a host.
  - Runs whose controller died are given their ending.
options:
  cadence:
    description: The cadence that this run carries out.
    type: str
    required: true
    choices: [continuous, daily, weekly, monthly, quarterly, yearly, on_demand]
  activities:
    description: Carry out these activities whatever their cadence; empty means those whose cadence this is.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - wellkept.maintenance.control
"""

EXAMPLES = r"""
- name: Open the daily run
  wellkept.maintenance.run_open:
    cadence: daily
  run_once: true
  register: maintenance_run_opened
"""

RETURN = r"""
maintenance_run:
  description: The run as the ledger has it.
  returned: success
  type: dict
  sample: {id: 01a1fd6c-0850-7d6d-9ade-71fdca8da0d6, cadence: daily, operator: ada, check_mode: false}
due:
  description: Activity to the hosts on which it is due.
  returned: success
  type: dict
  sample: {backup: [db1]}
hosts_due:
  description: The same by host, as groups named C(due_<activity>).
  returned: success
  type: list
  elements: dict
  sample: [{host: db1, groups: [due_backup]}]
interrupted:
  description: Earlier runs that died since the last one that reached its end, and what they left undone.
  returned: success
  type: list
  elements: dict
  sample:
    - run_id: 01a1fd6c-0850-7d6d-9ade-71fdca8da0d6
      started: "2026-11-20T02:00:00.000Z"
      operator: ada
      detail: its controller died before it was closed
      recorded: 4
      missing: [{host: db1, activity: backup}]
problems:
  description: Everything that is wrong with the plan or the ledger.
  returned: failure
  type: list
  elements: str
  sample: ["maintenance_plan.bakcup: unknown activity; did you mean backup?"]
"""
