#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Check the health of a host: every probe in one module execution."""

from __future__ import annotations

DOCUMENTATION = r"""
module: health_check
short_description: Check the health of a host, its services, databases, disks and logs
version_added: "0.1.0"
description:
  - Makes all probes of a host in one execution, side by side where they wait for something. Every probe is a check,
    with limits beyond which it warns or fails.
  - Without options it looks at the file systems, the memory, the load and, where it can be measured, the clock.
  - A probe that cannot be carried out is a check of its own, C(unknown) or C(failed); the others go on.
  - Nothing is changed on the host. Only how far the logs were read is remembered in O(state_dir), not in check mode.
  - The limits are exceeded by values B(above) them; limits for what is left (days, memory) by values B(below) them.
author: The Wellkept team (@wellkept)
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.health_services
  - wellkept.maintenance.health_postgresql
  - wellkept.maintenance.health_host
options:
  timeout:
    description: All probes together end within this time; what has not finished by then is C(unknown).
    type: str
    default: 60s
"""

EXAMPLES = r"""
- name: Check the health of an application server
  wellkept.maintenance.health_check:
    http:
      - name: shop
        url: https://shop.example.org/health
        body: '"status": "ok"'
        fail_seconds: 2
    tcp:
      - {name: redis, port: 6379}
    units: [nginx, shop]
    postgresql:
      - {name: main, login_user: monitor, login_unix_socket: /run/postgresql}
    logs:
      - path: /var/log/shop/*.log
        pattern: '\b(ERROR|CRITICAL)\b'
        fail_count: 100

- name: Check nothing but the disks, with room for a large import
  wellkept.maintenance.health_check:
    filesystems:
      paths: [/var/lib/postgresql]
      min_free_bytes: 50GiB
"""

RETURN = r"""
checks:
  description: One for each thing that was looked at.
  returned: always
  type: list
  elements: dict
  sample:
    - name: disk use of /var
      status: passed
      expected: at most 80% used (fails above 95%)
      observed: 41.2% used, 11.5 GiB of 19.6 GiB free
      advice: See what takes the space (`du -xh --max-depth=2`), clean up, or enlarge it.
      evidence: {}
metrics:
  description: What was measured, by name and object.
  returned: always
  type: dict
  sample:
    disk_used_ratio /var: {value: 0.412, unit: ratio}
    http_seconds shop: {value: 0.031, unit: seconds}
changes:
  description: Always empty, because a health check changes nothing.
  returned: always
  type: list
  elements: dict
  sample: []
artifacts:
  description: Always empty.
  returned: always
  type: list
  elements: dict
  sample: []
module_seconds:
  description: How long the module took, without the start of Python.
  returned: always
  type: float
  sample: 0.18
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes import logs
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes.options import (
    KINDS,
    OPTIONS,
    refuse_equal_names,
    seconds_allowed,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes.running import Running
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part


def check_health(module: AnsibleModule, part: Part) -> None:
    """Make all probes within the time, and remember how far the logs were read."""
    options = module.params
    deadline = time.monotonic() + seconds_allowed(options)
    refuse_equal_names(options)
    reading = logs.Logs(options["logs"], options["state_dir"], deadline)  # forks: before any thread
    probes = [probe for kind, make in KINDS.items() for probe in make(options[kind])]
    running = Running([*reading.probes(), *probes])
    running.wait(deadline)
    running.collect(part)
    if not module.check_mode:
        reading.remember(part)


def main() -> None:
    carry_out("health_check", OPTIONS, check_health)


if __name__ == "__main__":
    main()
