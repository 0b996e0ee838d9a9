# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the action of the same name, which runs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_report
short_description: Write the report of a recorded run
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - Writes the report of a run that is in the ledger as HTML, Markdown, JSON, JUnit XML and Prometheus textfile.
options:
  run:
    description: Identifier of the run; V(latest) means the last one that was closed.
    type: str
    default: latest
extends_documentation_fragment:
  - wellkept.maintenance.control
"""

EXAMPLES = r"""
- name: Write the report of the last run again
  wellkept.maintenance.run_report:
  run_once: true
"""

RETURN = r"""
reports:
  description: Format to path.
  returned: success
  type: dict
  sample: {html: .wellkept/reports/latest/report.html}
"""
