# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module that makes backups about what is kept."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  keep_full:
    description: How many full backups to keep at least, with all that builds on them.
    type: int
    default: 3
  keep_within:
    description: Every backup younger than this is kept.
    type: str
    default: 30d
  keep_daily:
    description:
      - The newest backup of each of so many days is kept. Days are those of UTC; ones without a backup do not count.
      - What any one rule keeps stays. To let the calendar decide alone, set O(keep_full=1) and O(keep_within=0).
    type: int
    default: 0
  keep_weekly:
    description: The newest backup of each of so many weeks (from Monday) is kept.
    type: int
    default: 0
  keep_monthly:
    description: The newest backup of each of so many months is kept.
    type: int
    default: 0
"""
