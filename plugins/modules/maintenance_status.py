# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action of the same name, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: maintenance_status
short_description: Say how the maintenance plan stands
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - Lists for each activity and host its cadence, the last result, when it is due next and whether it is overdue.
options:
  strict:
    description: Fail when anything is overdue or failed.
    type: bool
    default: false
extends_documentation_fragment:
  - wellkept.maintenance.control
"""

EXAMPLES = r"""
- name: Fail when something is overdue
  wellkept.maintenance.maintenance_status:
    strict: true
  run_once: true
"""

RETURN = r"""
status:
  description: One entry for each activity and host.
  returned: always
  type: list
  elements: dict
  sample: [{activity: backup, host: db1, cadence: daily, outcome: passed, overdue: false}]
maintenance_text:
  description: The same as a table for people.
  returned: always
  type: str
  sample: "backup  daily  db1  passed"
"""
