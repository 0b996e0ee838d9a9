# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that the modules which maintain databases share."""

from __future__ import annotations


class ModuleDocFragment:
    # Which databases.
    DOCUMENTATION = r"""
options:
  databases:
    description:
      - Databases to work on, as shell-style patterns on their names; case counts.
      - A pattern that matches no database is an error. Databases that allow no connections are named as skipped.
    type: list
    elements: str
    default: ["*"]
  exclude_databases:
    description: Databases to leave alone, as patterns like those of O(databases).
    type: list
    elements: str
    default: []
notes:
  - Connect to the server itself, not by way of a pooler that hands out sessions by transaction.
  - On a standby nothing is done, since it is maintained by way of its primary.
"""

    # Which tables in them.
    TABLES = r"""
options:
  tables:
    description:
      - Tables to work on, as shell-style patterns on C(schema.table), without quotes; case counts.
    type: list
    elements: str
    default: ["*"]
  exclude_tables:
    description: Tables to leave alone, as patterns like those of O(tables).
    type: list
    elements: str
    default: []
"""

    # Whether extensions may be installed.
    EXTENSIONS = r"""
options:
  create_extensions:
    description:
      - Install the extensions that exact measurements need, where the role may and the database is no template.
      - Where they cannot be had, the module falls back to estimates, and says so.
    type: bool
    default: true
"""

    # How long it may take.
    BUDGET = r"""
options:
  time_budget:
    description:
      - Time that the run may take, like V(45m). The most urgent work comes first; what did not fit is named.
      - V(0s) means that there is no limit.
    type: str
    default: 0s
"""
