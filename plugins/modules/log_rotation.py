#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: log_rotation
short_description: Rotate logs by logrotate and prove that they were rotated
version_added: "0.1.0"
description:
  - Writes a logrotate configuration of its own, with a state file of its own, and runs logrotate when something is due
    or the configuration changed. It neither reads nor changes the distribution's state, and needs no root where the
    logs belong to the user.
  - Neither logrotate's exit status nor its state file proves a rotation. So afterwards the logs themselves are looked
    at.
    A new file is in the old one's place, the old one is beside it and holds no less, compressed files can be read to
    their ends, postrotate steps ended well, and whoever wrote the old log writes the new one.
  - Logs that grow and that no configuration covers are found below O(audit_roots).
  - A damaged state file is moved aside and replaced by what can be recovered, so that logs which are due rotate in the
    same run.
options:
  policies:
    description: Which logs are rotated, when, and how their writers are told.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the policy in checks and metrics. Letters, digits, underscore, dot and hyphen.
        type: str
        required: true
      paths:
        description: Absolute paths of the logs. C(*), C(?) and C([…]) match as in a shell. Braces and backslashes are
          refused.
        type: list
        elements: str
        required: true
      max_bytes:
        description: A log that has reached this size is due, such as V(10MiB). It or O(policies[].frequency) is needed.
        type: str
      frequency:
        description: A log is due at this pace. Together with O(policies[].max_bytes), whichever comes first.
        type: str
        choices: [hourly, daily, weekly, monthly, yearly]
      keep:
        description: How many rotated files of each log are kept.
        type: int
        default: 7
      max_age:
        description: Rotated files older than this are removed at the next rotation, such as V(30d). Counted in whole
          days.
        type: str
        default: ""
      compress:
        description: Whether rotated files are compressed with gzip.
        type: bool
        default: true
      delay_compress:
        description: Whether the newest rotated file stays uncompressed until the next rotation.
        type: bool
        default: true
      create:
        description: Mode and ownership of the new log. Without it they are taken from the old one.
        type: dict
        suboptions:
          mode:
            description: Octal mode, such as V("0640").
            type: str
          owner:
            description: Name of the owner. Needs mode and group.
            type: str
          group:
            description: Name of the group.
            type: str
      copy_truncate:
        description: Copy the log and truncate it, for writers that cannot reopen it. Loses lines, so it is always a
          warning.
        type: bool
        default: false
      missing_ok:
        description: Whether it is in order that no log is there.
        type: bool
        default: false
      not_if_empty:
        description: Whether empty logs are left alone.
        type: bool
        default: true
      shared_scripts:
        description: Whether O(policies[].postrotate) runs once for all logs of the policy instead of once for each.
        type: bool
        default: true
      su:
        description: Rotate as this user. Needed by root for directories to which others may write.
        type: dict
        suboptions:
          user:
            description: Name of the user.
            type: str
            required: true
          group:
            description: Name of the group.
            type: str
            required: true
      postrotate:
        description: What makes the writers reopen their logs. The steps run in order and stop at the first that fails.
          Each is either a command or a signal with a pid file.
        type: list
        elements: dict
        default: []
        suboptions:
          command:
            description: A program and its arguments. No shell interprets them.
            type: list
            elements: str
          signal:
            description: Name of the signal to send, such as V(HUP).
            type: str
          pid_file:
            description: File whose first word is the process id. When it does not exist, there is nobody to tell.
            type: path
      extra_directives:
        description: Further directives of logrotate, one each, such as V(shred). Those that would defeat the proof
          are refused.
        type: list
        elements: str
        default: []
  audit_roots:
    description: Directories below which every log that grows must be covered by a policy or by the distribution's
      logrotate.
    type: list
    elements: path
    default: []
  audit_names:
    description: What counts as a log there, by its name.
    type: list
    elements: str
    default: ["*.log", "*_log", "*.err", "*.out", syslog, messages]
  ignore:
    description: Paths that the audit leaves out. C(*) matches across slashes.
    type: list
    elements: str
    default: []
  growing_within:
    description: A log that was written to within this time counts as growing, as does one that is larger than last
      time.
    type: str
    default: 1d
  reopen_within:
    description: How long a writer may take to reopen its log.
    type: str
    default: 5s
  config_dir:
    description: Private directory for the configuration and its traces. Empty for C(log_rotation) below O(state_dir).
    type: path
    default: ""
  state_file:
    description: The state file of logrotate. Empty for C(state) in O(config_dir).
    type: path
    default: ""
  system_config:
    description: The distribution's configuration, read to learn what it covers and never written. Empty for none.
    type: path
    default: /etc/logrotate.conf
  program:
    description: Path of logrotate. Empty to search for it.
    type: path
    default: ""
  timeout:
    description: How long logrotate may take.
    type: str
    default: 1h
extends_documentation_fragment:
  - wellkept.maintenance.activity
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Rotate an application's logs by size and let it reopen them
  wellkept.maintenance.log_rotation:
    policies:
      - name: application
        paths:
          - /srv/application/log/*.log
        max_bytes: 10MiB
        keep: 5
        postrotate:
          - signal: HUP
            pid_file: /run/application.pid
    audit_roots:
      - /srv/application/log

- name: Rotate daily, or earlier when a log is large, as the user who owns the directory
  wellkept.maintenance.log_rotation:
    policies:
      - name: web
        paths: [/srv/web/log/access.log, /srv/web/log/error.log]
        frequency: daily
        max_bytes: 200MiB
        keep: 14
        max_age: 30d
        create: {mode: "0640", owner: web, group: adm}
        su: {user: web, group: web}
        postrotate:
          - command: [systemctl, reload, web]
"""

RETURN = r"""
checks:
  description: What was verified, each with what was expected and what was observed.
  returned: always
  type: list
  elements: dict
  sample:
    - name: rotation of application
      status: passed
      expected: every log that is due rotated, and no byte of it lost
      observed: "1 rotated, 12.0 MiB: /srv/application/log/application.log"
      advice: ""
      evidence: {}
metrics:
  description: Bytes of live logs before and after, logs rotated, and the growth of each policy's logs where it is
    known.
  returned: always
  type: dict
  sample:
    log_bytes_before: {value: 12582912, unit: bytes}
    log_bytes_after: {value: 0, unit: bytes}
    rotated_files: {value: 1, unit: count}
    log_growth_bytes_per_day_application: {value: 4194304, unit: bytes}
changes:
  description: What is different now, or would be in check mode. The configuration, logs that were rotated, new
    schedules.
  returned: always
  type: list
  elements: dict
  sample:
    - kind: logs
      name: application
      before: "1 due, 12.0 MiB: /srv/application/log/application.log"
      after: 1 rotated, live logs hold 0 B
artifacts:
  description: Always empty, for rotated logs are the platform's own.
  returned: always
  type: list
  elements: dict
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate import options
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.acting import act, announce, verify
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.decision import decide
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.measuring import measure, record
from ansible_collections.wellkept.maintenance.plugins.module_utils.processes import find_program
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part


def work(module: AnsibleModule, part: Part) -> None:
    settings = options.settings_of(module.params)
    program = find_program(module.params["program"] or "logrotate")
    if program is None:
        part.skip("logrotate is missing: apt-get install logrotate")
        return
    seen = measure(settings, program)
    record(part, settings, seen)
    plan = decide(settings.policies, seen)
    if module.check_mode:
        announce(part, settings.place, seen, plan)
        return
    act(part, settings, program, seen, plan)
    verify(part, settings, seen, plan)


def main() -> None:
    carry_out("log_rotation", options.OPTIONS, work)


if __name__ == "__main__":
    main()
