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
options:
  timeout:
    description: All probes together end within this time; what has not finished by then is C(unknown).
    type: str
    default: 60s
  http:
    description: HTTP endpoints; proxies in the environment are not used.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the endpoint in checks and metrics.
        type: str
        required: true
      url:
        description: What is asked for by GET, C(http://…) or C(https://…), without a login in it.
        type: str
        required: true
      address:
        description:
          - Connect to this address instead of the host in O(http[].url), whose name is still the one that is asked
            for and that the certificate must have.
          - So each of several servers behind one name can be probed.
        type: str
        default: ""
      status:
        description: Status that is good, or several.
        type: list
        elements: int
        default: [200]
      body:
        description: Text that the first MiB of the body must hold.
        type: str
        default: ""
      body_pattern:
        description: Regular expression that must match in the first MiB of the body.
        type: str
        default: ""
      warn_seconds:
        description: Limit for the time from connecting to the end of the answer.
        type: float
        default: 1.0
      fail_seconds:
        description: Limit for the time from connecting to the end of the answer.
        type: float
        default: 5.0
      warn_certificate_days:
        description: Least number of days that the certificate must still be valid for.
        type: float
        default: 30.0
      fail_certificate_days:
        description: Least number of days that the certificate must still be valid for.
        type: float
        default: 7.0
      validate_certs:
        description: Whether the certificate must be trusted; its days are looked at in any case.
        type: bool
        default: true
      ca_file:
        description: File with the authorities to trust instead of the system's.
        type: path
        default: ""
      follow_redirects:
        description: Whether up to five redirects are followed, never from https to http.
        type: bool
        default: false
      headers:
        description: Further headers of the request; nothing secret, for which the options below are.
        type: dict
        default: {}
      login_user:
        description: Name for HTTP basic authentication.
        type: str
        default: ""
      login_password:
        description: Password for HTTP basic authentication.
        type: str
        default: ""
      bearer_token:
        description: Token for bearer authentication; wins over O(http[].login_user).
        type: str
        default: ""
      timeout:
        description: How long the whole answer may take.
        type: str
        default: 10s
  tcp:
    description: TCP ports that must take a connection.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the port in checks and metrics; host and port when empty.
        type: str
        default: ""
      host:
        description: Host to connect to.
        type: str
        default: 127.0.0.1
      port:
        description: Port to connect to.
        type: int
        required: true
      warn_seconds:
        description: Limit for the time to connect.
        type: float
        default: 0.5
      fail_seconds:
        description: Limit for the time to connect.
        type: float
        default: 3.0
      timeout:
        description: How long to try.
        type: str
        default: 5s
  processes:
    description: Processes that must run; by O(processes[].pattern), O(processes[].pid_file) or both.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the process in checks and metrics.
        type: str
        required: true
      pattern:
        description: Regular expression that is searched for in the command line with its arguments.
        type: str
        default: ""
      pid_file:
        description: File that holds the process id.
        type: path
        default: ""
      min_count:
        description: How many must run at least.
        type: int
        default: 1
  units:
    description:
      - Names of systemd units that must be active; without a suffix it is a service.
      - A one-shot unit is good too when it ran and succeeded.
      - C(unknown) where systemd does not run.
    type: list
    elements: str
    default: []
  postgresql:
    description:
      - PostgreSQL servers (12 and later). The role needs C(pg_monitor); what it may not see is C(unknown).
      - Needs psycopg 3 or psycopg2 on the host (C(apt-get install python3-psycopg2)).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the server in checks and metrics; host and port when empty.
        type: str
        default: ""
      login_host:
        description: Host of the server; empty for the local socket.
        type: str
        default: ""
      login_port:
        description: Port of the server.
        type: int
        default: 5432
      login_unix_socket:
        description: Directory of the server's socket, used when O(postgresql[].login_host) is empty or V(localhost).
        type: str
        default: ""
      login_user:
        description: Role to log in as.
        type: str
        default: postgres
      login_password:
        description: Password of that role.
        type: str
        default: ""
      login_db:
        description: Database to connect to.
        type: str
        default: postgres
      warn_seconds:
        description: Limit for the time to connect and answer.
        type: float
        default: 0.5
      fail_seconds:
        description: Limit for the time to connect and answer.
        type: float
        default: 3.0
      warn_connections_used_ratio:
        description: Limit for the share of the connections in use that are not reserved.
        type: float
        default: 0.8
      fail_connections_used_ratio:
        description: Limit for the share of the connections in use that are not reserved.
        type: float
        default: 0.95
      warn_transaction_seconds:
        description: Limit for the age of the oldest transaction, prepared ones included.
        type: float
        default: 3600.0
      fail_transaction_seconds:
        description: Limit for the age of the oldest transaction, prepared ones included.
        type: float
        default: 21600.0
      warn_idle_in_transaction_seconds:
        description: Limit for the time that a session is idle within a transaction.
        type: float
        default: 300.0
      fail_idle_in_transaction_seconds:
        description: Limit for the time that a session is idle within a transaction.
        type: float
        default: 3600.0
      warn_freeze_age_ratio:
        description: Limit for the oldest transaction or multixact id ÷ the age at which autovacuum freezes by force.
        type: float
        default: 1.2
      fail_freeze_age_ratio:
        description:
          - Limit for the oldest transaction or multixact id ÷ the age at which autovacuum freezes by force.
          - An age above 1,600,000,000 fails in any case.
        type: float
        default: 2.0
      warn_lag_bytes:
        description: Limit for the WAL that a standby has still to replay.
        type: str
        default: 64MiB
      fail_lag_bytes:
        description: Limit for the WAL that a standby has still to replay.
        type: str
        default: 1GiB
      warn_lag_seconds:
        description: Limit for the time that a standby is behind.
        type: float
        default: 60.0
      fail_lag_seconds:
        description: Limit for the time that a standby is behind.
        type: float
        default: 600.0
      min_standbys:
        description: How many standbys must be connected to a primary.
        type: int
        default: 0
      fail_archiving_seconds:
        description: How long archiving may have been failing; failing for a shorter time is a warning.
        type: float
        default: 900.0
      warn_archive_waiting_count:
        description: Limit for the number of WAL segments that wait to be archived.
        type: int
        default: 16
      fail_archive_waiting_count:
        description: Limit for the number of WAL segments that wait to be archived.
        type: int
        default: 128
  filesystems:
    description: Limits for file systems.
    type: dict
    default: {}
    suboptions:
      paths:
        description: Paths on the file systems to look at; when empty, every real file system that is mounted writable.
        type: list
        elements: path
        default: []
      exclude:
        description: Mount points, with wildcards, that are left out; V(*) leaves out all.
        type: list
        elements: str
        default: []
      warn_used_ratio:
        description: Limit for used space, as C(df) counts it.
        type: float
        default: 0.8
      fail_used_ratio:
        description: Limit for used space, as C(df) counts it.
        type: float
        default: 0.95
      warn_inodes_used_ratio:
        description: Limit for used inodes, where the file system counts them.
        type: float
        default: 0.8
      fail_inodes_used_ratio:
        description: Limit for used inodes, where the file system counts them.
        type: float
        default: 0.95
      min_free_bytes:
        description: Space that must be free whatever the ratio, such as V(2GiB).
        type: str
        default: "0"
  host:
    description: Limits for the host itself; in a container its own limit of memory counts where it is lower.
    type: dict
    default: {}
    suboptions:
      warn_memory_available_ratio:
        description: Least share of the memory that must be available.
        type: float
        default: 0.1
      fail_memory_available_ratio:
        description: Least share of the memory that must be available.
        type: float
        default: 0.03
      warn_swap_used_ratio:
        description: Limit for used swap.
        type: float
        default: 0.8
      fail_swap_used_ratio:
        description: Limit for used swap; V(1.0) never fails.
        type: float
        default: 1.0
      warn_load_per_core:
        description: Limit for the load over 5 minutes ÷ cores.
        type: float
        default: 2.0
      fail_load_per_core:
        description: Limit for the load over 5 minutes ÷ cores.
        type: float
        default: 8.0
      clock:
        description:
          - V(if_measurable) makes a check of the clock's offset where chrony or the kernel knows it, else none.
          - V(required) makes an offset that is not known an C(unknown) check.
          - V(never) does not look. A chrony that runs and has lost its sources is C(failed) with both others.
        type: str
        choices: [if_measurable, required, never]
        default: if_measurable
      warn_clock_offset_seconds:
        description: Limit for the clock's offset.
        type: float
        default: 0.1
      fail_clock_offset_seconds:
        description: Limit for the clock's offset.
        type: float
        default: 1.0
  logs:
    description:
      - Logs in which lines that match a pattern are counted, as far as they were added since the last run.
      - What was written before a rotation is read in the rotated file beside the log, compressed or not.
      - Lines that could not be read (rotated away, no rights) make the check C(unknown), unless it warns or fails.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the log in checks and metrics; the path when empty.
        type: str
        default: ""
      path:
        description: Path of the log, or a pattern for several; compressed files are left out.
        type: str
        required: true
      pattern:
        description: Regular expression that is searched for in each line; of letters it knows ASCII only.
        type: str
        required: true
      warn_count:
        description: Limit for the number of lines that match.
        type: int
        default: 0
      fail_count:
        description: Limit for the number of lines that match; without it the check never fails.
        type: int
      first_run_bytes:
        description: On the first run only so much at the end of each log is read.
        type: str
        default: 1MiB
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
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes import (
    filesystems,
    host,
    http,
    logs,
    postgresql_health,
    processes,
    tcp,
    units,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes.running import Probe, Running
from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import parse_duration
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part


def _many(options: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


def _limits(options: dict[str, t.Any]) -> dict[str, t.Any]:
    return {"type": "dict", "default": {}, "options": options, "apply_defaults": True}


OPTIONS: dict[str, dict[str, t.Any]] = {
    "timeout": {"type": "str", "default": "60s"},
    "http": _many(http.OPTIONS),
    "tcp": _many(tcp.OPTIONS),
    "processes": _many(processes.OPTIONS),
    "units": {"type": "list", "elements": "str", "default": []},
    "postgresql": _many(postgresql_health.OPTIONS),
    "filesystems": _limits(filesystems.OPTIONS),
    "host": _limits(host.OPTIONS),
    "logs": _many(logs.OPTIONS),
}

# The kinds of probes, each named like its option.
KINDS: dict[str, t.Callable[[t.Any], list[Probe]]] = {
    "http": http.probes,
    "tcp": tcp.probes,
    "processes": processes.probes,
    "units": units.probes,
    "postgresql": postgresql_health.probes,
    "filesystems": filesystems.probes,
    "host": host.probes,
}

# How an entry of an option with several entries is called in checks and metrics.
NAMES: dict[str, t.Callable[[dict[str, t.Any]], str]] = {
    "http": lambda entry: str(entry["name"]),
    "tcp": tcp.name_of,
    "processes": lambda entry: str(entry["name"]),
    "postgresql": postgresql_health.name_of,
    "logs": logs.name_of,
}


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


def seconds_allowed(options: dict[str, t.Any]) -> float:
    """The time for all probes; every duration in the options is read here, so that a wrong one is told at once."""
    durations = {"timeout": options["timeout"]}
    for kind in ("http", "tcp"):
        durations.update({f"{kind}[{NAMES[kind](entry)}].timeout": entry["timeout"] for entry in options[kind]})
    for name, text in durations.items():
        try:
            good = parse_duration(text) > 0
        except ValueError:
            good = False
        if not good:
            raise _wrong(name, "a duration like 10s or 1m", repr(text))
    return parse_duration(options["timeout"])


def refuse_equal_names(options: dict[str, t.Any]) -> None:
    """Checks, metrics and remembered positions go by name: two entries with the same one could not be told apart."""
    for kind, name_of in NAMES.items():
        names = [name_of(entry) for entry in options[kind]]
        for name in names:
            if names.count(name) > 1:
                raise _wrong(kind, "entries with different names", f"{names.count(name)} entries named {name}")


def _wrong(option: str, expected: str, observed: str) -> MaintenanceError:
    return MaintenanceError(
        "read the options of the health check",
        where=option,
        expected=expected,
        observed=observed,
        advice=f"Correct the option {option}.",
    )


def main() -> None:
    carry_out("health_check", OPTIONS, check_health)


if __name__ == "__main__":
    main()
