# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that every module which carries out an activity shares."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  state_dir:
    description:
      - Directory on the host in which activities keep their locks and what they have to remember between runs.
      - It is created, readable by its owner alone, when it does not exist.
      - The role P(wellkept.maintenance.activity#role) gives it to every activity.
    type: path
    default: /var/lib/wellkept
  run_id:
    description:
      - Identifier of the run that this execution belongs to.
      - Others who find the lock of this activity taken are told it.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change in check mode, when in diff mode.
    support: full
  idempotent:
    description: When run again with nothing due, nothing is changed.
    support: full
"""
