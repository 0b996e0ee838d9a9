# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: last_result
short_description: What an activity showed on a host the last time that it was carried out
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - Reads the newest result of an activity on a host that counts as evidence (passed or warned, outside check mode) from
    the ledger, so that an activity can compare what it finds with what it found before.
  - It only reads. The ledger is the one that the run writes to, C(WELLKEPT_LEDGER) in the environment, else
    C(maintenance_ledger).
options:
  _terms:
    description: Names of activities.
    type: list
    elements: str
    required: true
  host:
    description: The host; without it the host that the task is carried out for.
    type: str
requirements:
  - sqlalchemy and jsonschema on the control node
seealso:
  - module: wellkept.maintenance.postgresql_query_review
"""

EXAMPLES = r"""
- name: Compare with the last review
  wellkept.maintenance.postgresql_query_review:
    login_unix_socket: /run/postgresql
    previous: "{{ lookup('wellkept.maintenance.last_result', 'query_review') }}"

- name: Say when the newest backup of another host was made
  ansible.builtin.debug:
    msg: "{{ lookup('wellkept.maintenance.last_result', 'backup', host='db2').finished | default('never') }}"
"""

RETURN = r"""
_raw:
  description:
    - For each activity the C(data) of its last good result, as C(schemas/result.v1.json) describes it.
    - An empty dictionary where there is none.
  type: list
  elements: dict
  sample:
    - activity: query_review
      host: db1
      finished: "2026-11-21T09:31:00Z"
      outcome: passed
      checks: []
      metrics: {}
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.open_ledger import open_ledger


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=options)
        host = self.get_option("host") or (variables or {}).get("inventory_hostname")
        if not host:
            raise AnsibleLookupError("last_result: there is no host here to look for; name one with host=")
        try:
            ledger = open_ledger(str(self._templar.template((variables or {}).get("maintenance_ledger", ""))))
            found = [ledger.last_good_result(str(host), str(activity)) for activity in terms]
        except MaintenanceError as error:
            raise AnsibleLookupError(f"last_result: {error}") from None
        return [document["data"] if document else {} for document in found]
