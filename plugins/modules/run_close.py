# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action of the same name, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_close
short_description: Close a maintenance run
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - Sees that everything that was due has a result in the ledger, gives the verdict, records the end, and writes the
    report in all its formats.
  - Fails when a result failed or is missing.
options:
  run_id:
    description: The run.
    type: str
    required: true
extends_documentation_fragment:
  - wellkept.maintenance.control
"""

EXAMPLES = r"""
- name: Give the verdict and write the report
  wellkept.maintenance.run_close:
    run_id: "{{ maintenance_run_opened.maintenance_run.id }}"
  run_once: true
"""

RETURN = r"""
maintenance_summary:
  description: Verdict, number of results, what is missing, and the paths of the reports; AWX keeps it as an artifact.
  returned: always
  type: dict
  sample: {verdict: passed, results: 6, missing: [], message: "6 results: 6 passed."}
"""
