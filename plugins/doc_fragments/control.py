# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the actions of the control node share."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
notes:
  - Runs on the control node alone, once for all hosts, and connects to none of them.
  - Reads C(maintenance_plan), C(maintenance_windows), C(maintenance_freezes), C(maintenance_ledger) and
    C(maintenance_report_dir) from the inventory, where they belong to the group C(all).
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change in check mode, when in diff mode.
    support: none
"""
