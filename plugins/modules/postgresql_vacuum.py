#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Vacuum, freeze and analyze the tables that need it, so that nobody waits, and prove the effect."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_vacuum
short_description: Vacuum, freeze and analyze the PostgreSQL tables that need it, and prove the effect
version_added: "0.1.0"
description:
  - Measures every table of the chosen databases by its visibility map, the age of its transactions and multixacts, its
    statistics and the formula of autovacuum with the storage parameters of the table, and does only what is due.
    TOAST tables, materialized views, partitioned tables and system catalogs are among them.
  - What is old is frozen first, what is past the failsafe age without its indexes. Then come the tables with the most
    to clean, then missing and stale statistics, partitioned tables included, and the system catalogs last.
  - Sees what holds rows back (sessions, prepared transactions, replication slots, standbys), names it in a warned check
    C(blocked by …), and does not vacuum in vain.
  - Nobody waits for it. Locks of tables are never waited for, and a second connection cancels a vacuum when somebody
    has waited for it longer than O(max_block). It is tried again later within O(time_budget).
  - Measures each table again. A vacuum without an effect, such as one that the role had no right to (of which the
    server only warns), is not counted as done.
  - On tables that are clean nothing is done and nothing is written.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.postgresql
  - wellkept.maintenance.database
  - wellkept.maintenance.database.tables
  - wellkept.maintenance.database.extensions
  - wellkept.maintenance.database.budget
options:
  dirty_share:
    description:
      - A table is due when more than this share of its pages is not all-visible, whatever the counters say.
      - They are zero after a crash, while the visibility map still tells the truth.
    type: float
    default: 0.1
  min_dirty_pages:
    description: Tables with fewer pages than these that are not all-visible are left to the formula of autovacuum.
    type: int
    default: 16
  freeze_share:
    description:
      - A table is frozen when it, or its TOAST table, has reached this share of the age at which autovacuum would
        freeze it, by transactions or multixacts.
    type: float
    default: 0.5
  analyze:
    description: Gather statistics where they are missing or stale.
    type: bool
    default: true
  max_block:
    description: Longest time that anybody may have to wait for a vacuum before it is cancelled.
    type: str
    default: 1s
  vacuum_cost_delay_ms:
    description: Sleep this many milliseconds whenever the work has cost O(vacuum_cost_limit). 0 means full speed.
    type: float
    default: 0
  vacuum_cost_limit:
    description: Cost after which to sleep; a page that is read and made dirty costs about 22.
    type: int
    default: 200
notes:
  - Exact measurements need the extension pg_visibility, and the right to use it (a superuser, or a member of
    C(pg_stat_scan_tables)). Looking whether a vacuum would be in vain needs pageinspect, and a superuser.
  - The login role must be a superuser, a member of C(pg_maintain) (from version 17 on) or own the tables.
  - C(wal_bytes) is what the server wrote while tables were vacuumed; others may have had a part in it.
  - PostgreSQL 14 to 18.
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Vacuum and analyze what needs it, in all databases, for an hour at most
  wellkept.maintenance.postgresql_vacuum:
    login_unix_socket: /run/postgresql
    time_budget: 1h

- name: See what would be done in the shop, and why
  wellkept.maintenance.postgresql_vacuum:
    login_unix_socket: /run/postgresql
    databases: [shop]
    exclude_tables: ["audit.*"]
  check_mode: true

- name: Vacuum gently during the day
  wellkept.maintenance.postgresql_vacuum:
    login_unix_socket: /run/postgresql
    vacuum_cost_delay_ms: 2
    max_block: 200ms
"""

RETURN = r"""
checks:
  description: >-
    One check for each database, one for the age of the oldest transactions, and one for each thing that is wrong. In
    check mode the evidence holds the whole plan.
  returned: always
  type: list
  elements: dict
  sample:
    - name: vacuum of the database shop
      status: passed
      expected: every table that is due vacuumed or analyzed, with a measured effect
      observed: vacuum (2), freeze (1) done, 104 of 107 tables need nothing
      advice: ""
      evidence:
        tables: 107
        confidence: high
        done:
          - {table: public.orders, action: vacuum, dirty_pages: 4537, dirty_pages_after: 0, seconds: 0.71}
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    vacuumed_tables: {value: 2, unit: count}
    dirty_pages_before: {value: 4600, unit: count}
    dirty_pages_after: {value: 0, unit: count}
    wal_bytes: {value: 38231040, unit: bytes}
    longest_wait_seconds: {value: 0.0, unit: seconds}
    oldest_xid_age: {value: 5321004, unit: count}
changes:
  description: Each table that is different now, or in check mode would be, and each extension that was installed.
  returned: always
  type: list
  elements: dict
  sample:
    - kind: table
      name: public.orders in the database shop
      before: 4537 of 5000 pages not all-visible, age 1200
      after: "vacuum done: 0 of 5000 pages not all-visible, age 0"
artifacts:
  description: Always empty.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import contextlib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils import postgresql
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.database import session
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.budget import (
    BUDGET_OPTIONS,
    read_budget,
    read_max_block,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.extensions import EXTENSION_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.scope import SCOPE_OPTIONS, TABLE_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import refuse
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum import report
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.act import refuse_bad_throttle
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.decide import Settings
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.flow import Runner
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.pace import Pace, Throttle
from ansible_collections.wellkept.maintenance.plugins.module_utils.vacuum.plan import (
    PURPOSE,
    Server,
    Site,
    Surveyor,
    ask_server,
    survey_all,
)

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    **LOGIN_OPTIONS,
    **SCOPE_OPTIONS,
    **TABLE_OPTIONS,
    **EXTENSION_OPTIONS,
    **BUDGET_OPTIONS,
    "dirty_share": {"type": "float", "default": 0.1},
    "min_dirty_pages": {"type": "int", "default": 16},
    "freeze_share": {"type": "float", "default": 0.5},
    "analyze": {"type": "bool", "default": True},
    "max_block": {"type": "str", "default": "1s"},
    "vacuum_cost_delay_ms": {"type": "float", "default": 0},
    "vacuum_cost_limit": {"type": "int", "default": 200},
}

AGES = """
SELECT datname AS name, age(datfrozenxid) AS xid_age, mxid_age(datminmxid) AS mxid_age
FROM pg_catalog.pg_database ORDER BY 2 DESC
"""


class Wishes(t.NamedTuple):
    """The options, read and found to make sense."""

    settings: Settings
    throttle: Throttle
    max_block: float


def read_wishes(params: t.Mapping[str, t.Any]) -> Wishes:
    for name in ("dirty_share", "freeze_share"):
        if not 0 < params[name] <= 1:
            refuse(name, expected="a share above 0, up to 1", observed=params[name])
    throttle = Throttle(params["vacuum_cost_delay_ms"], params["vacuum_cost_limit"])
    refuse_bad_throttle(throttle)
    settings = Settings(params["dirty_share"], params["min_dirty_pages"], params["freeze_share"], params["analyze"])
    return Wishes(settings, throttle, read_max_block(params))


def measure_and_decide(surveyor: Surveyor, part: Part) -> t.List[Site]:
    """Every chosen database, measured, with what is to be done in it."""
    return survey_all(surveyor, part)


def act_and_measure_again(runner: Runner, sites: t.List[Site], server: Server, part: Part) -> None:
    """Carry it out; what was done is recorded also when something stands in the way of the rest."""
    try:
        runner.run(sites)
    finally:
        report.record_work(sites, server, runner.work, part)


def work(module: AnsibleModule, part: Part) -> None:
    params = module.params
    budget = read_budget(params)
    wishes = read_wishes(params)
    with contextlib.closing(session.open_session(params, params["login_db"], purpose=PURPOSE)) as connection:
        reason = session.refuse_standby(connection)
        if reason:
            part.skip(reason)
            return
        server = ask_server(connection, params)
        surveyor = Surveyor(server, connection, params, wishes.settings, part, check_mode=module.check_mode)
        pace = Pace(wishes.throttle, server.block_size)
        sites = measure_and_decide(surveyor, part)
        runner = Runner(server, surveyor, budget, pace, wishes.max_block)
        if module.check_mode:
            report.record_plan(sites, server, pace, part)
        else:
            act_and_measure_again(runner, sites, server, part)
        ages = postgresql.query(connection, AGES)
        report.record_ages(ages, server, part)
        report.record_metrics(sites, runner.work, ages, part)


def main() -> None:
    carry_out("database_vacuum", OPTIONS, work, stops="the vacuum")


if __name__ == "__main__":
    main()
