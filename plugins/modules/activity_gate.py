# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action of the same name, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: activity_gate
short_description: Decide on which hosts an activity may start
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - Looks at the approval, the freezes and windows, the evidence that the plan requires, and the hosts that could not be
    reached before in the same run; the first gate that is shut decides.
  - The ledger callback records a result for every host that may not proceed.
options:
  activity:
    description: The activity.
    type: str
    required: true
  run_id:
    description: The run that it belongs to.
    type: str
    required: true
extends_documentation_fragment:
  - wellkept.maintenance.control
"""

EXAMPLES = r"""
- name: Decide for all hosts at once which may start
  wellkept.maintenance.activity_gate:
    activity: backup
    run_id: "{{ maintenance_run_opened.maintenance_run.id }}"
  run_once: true
  register: activity_gate
"""

RETURN = r"""
decisions:
  description: One decision for each host of the batch.
  returned: success
  type: list
  elements: dict
  sample: [{host: db1, proceed: false, outcome: skipped, reason: "the freeze exams is in force"}]
proceed:
  description: The hosts on which it may start.
  returned: success
  type: list
  elements: str
  sample: [db2]
"""
