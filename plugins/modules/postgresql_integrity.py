#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look for damage in a PostgreSQL cluster: in indexes and tables, and in what its catalogs promise."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_integrity
short_description: Look for damage in the indexes, tables and catalogs of a PostgreSQL cluster
version_added: "0.1.0"
description:
  - Lets the extension C(amcheck) look at every B-tree index and table, and at GIN indexes from PostgreSQL 18 on, in
    all databases. What is damaged has a check of its own that names database, object and the server's message; the
    others are looked at all the same.
  - Within O(time_budget) it takes first what was found damaged before, then what had its turn longest ago, and of that
    what most depends on. It remembers in O(state_dir) what was looked at when, so that everything has its turn; what is
    later than O(check_within) is warned of. What was found sound within O(interval), and was not rebuilt since, is not
    looked at again.
  - It also reports checksum failures, invalid indexes, constraints that were never validated or whose triggers are off,
    sequences near their end (or that of the column that takes their numbers), changed collation versions, published
    tables without replica identity, and, as remarks, duplicate and never-used indexes and tables without a primary key.
  - Nothing is changed but that C(amcheck) is installed where it is missing, with O(create_extensions).
  - No user waits for longer than O(max_block). Looking takes the weakest of locks, which only who alters or drops a
    table waits for, and it is given up before that wait becomes too long.
  - On a standby only what lies on its own disk is looked at, namely indexes, tables, checksums and collation versions.
    The catalogs are its primary's, and so is C(amcheck), which must be installed there.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.postgresql
options:
  databases:
    description: Shell-style patterns of the databases to look at. One that matches no database is an error.
    type: list
    elements: str
    default: ["*"]
  exclude_databases:
    description: Shell-style patterns of databases to leave out.
    type: list
    elements: str
    default: []
  tables:
    description:
      - Shell-style patterns of tables (V(schema.table)) to look at, with their indexes. System catalogs are always
        looked at.
    type: list
    elements: str
    default: ["*"]
  exclude_tables:
    description: Shell-style patterns of tables (V(schema.table)) that amcheck leaves out, with their indexes.
    type: list
    elements: str
    default: []
  create_extensions:
    description:
      - Install the extension C(amcheck) in databases that lack it, where the role may.
      - That is a change. Templates are left as they are.
    type: bool
    default: true
  time_budget:
    description: Longest time to spend with amcheck in one run; V(0) means as long as it takes.
    type: str
    default: 30m
  interval:
    description: What was found sound within this time, and was not rebuilt since, is not looked at again.
    type: str
    default: 6d
  check_within:
    description: Warn of what was not looked at for longer than this, since the time of the runs did not suffice.
    type: str
    default: 35d
  check_tables:
    description: Look at the rows of tables too, not only at indexes.
    type: bool
    default: true
  heap_all_indexed:
    description: Make sure that every row is in each B-tree index, which takes about ten times as long.
    type: bool
    default: false
  max_block:
    description: Give up looking at something before somebody waits on it for longer than this.
    type: str
    default: 1s
  warn_sequence_used_ratio:
    description: Warn when this share of a sequence, or of the column that takes its numbers, is used up.
    type: float
    default: 0.7
  fail_sequence_used_ratio:
    description: Fail when this share of a sequence, or of the column that takes its numbers, is used up.
    type: float
    default: 0.9
  warn_sequence_within:
    description: Warn when a sequence will be at its end within this time, at the pace that was seen for a week or more.
    type: str
    default: 90d
  unused_after:
    description: An index that no query has asked for in this time is remarked on, once it was watched for as long.
    type: str
    default: 30d
  unused_min_bytes:
    description: Smaller indexes are not remarked on when they are never used.
    type: str
    default: 10MiB
  accepted_indexes:
    description: Shell-style patterns of indexes (V(schema.index)) that may be duplicate or never used.
    type: list
    elements: str
    default: []
  accepted_tables:
    description: Shell-style patterns of tables (V(schema.table)) that may lack a primary key.
    type: list
    elements: str
    default: []
notes:
  - A role that is not a superuser needs EXECUTE on amcheck's functions in each database; the check says which GRANT.
  - What made a process of the server die is not looked at again until it was written anew.
seealso:
  - module: wellkept.maintenance.restore_test
  - name: amcheck
    description: The extension that looks.
    link: https://www.postgresql.org/docs/current/amcheck.html
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Look for damage, for half an hour at most
  wellkept.maintenance.postgresql_integrity:
    login_unix_socket: /run/postgresql

- name: Look as closely as can be, at one database, as long as it takes
  wellkept.maintenance.postgresql_integrity:
    login_unix_socket: /run/postgresql
    databases: [learning]
    heap_all_indexed: true
    time_budget: "0"
"""

RETURN = r"""
checks:
  description: What was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: B-tree index public.student_name in learning
      status: failed
      expected: consistent
      observed: item order invariant violated for index "student_name"
      advice: Find out what damages it
      evidence: {database: learning, object: public.student_name, table: public.student, messages: [], count: 1}
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    looked_at: {value: 214, unit: count}
    amcheck_seconds: {value: 12.8, unit: seconds}
changes:
  description: What is different now, which can be an extension that was installed.
  returned: always
  type: list
  elements: dict
  sample:
    - {kind: extension, name: amcheck in the database learning, before: not installed, after: version 1.5}
artifacts:
  description: Always empty.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import contextlib
import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.database import extensions, scope, session
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.budget import (
    read_budget,
    read_max_block,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity import (
    report_catalogs,
    report_things,
    rounds,
    turns,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.catalogs import read_checksum_failures
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.memory import Entry, Memory
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.survey import (
    PURPOSE,
    Server,
    Survey,
    read_server,
    survey,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.integrity.things import Thing
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import read_duration, read_size
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    **LOGIN_OPTIONS,
    **scope.SCOPE_OPTIONS,
    **scope.TABLE_OPTIONS,
    **extensions.EXTENSION_OPTIONS,
    "time_budget": {"type": "str", "default": "30m"},
    "interval": {"type": "str", "default": "6d"},
    "check_within": {"type": "str", "default": "35d"},
    "check_tables": {"type": "bool", "default": True},
    "heap_all_indexed": {"type": "bool", "default": False},
    "max_block": {"type": "str", "default": "1s"},
    "warn_sequence_used_ratio": {"type": "float", "default": 0.7},
    "fail_sequence_used_ratio": {"type": "float", "default": 0.9},
    "warn_sequence_within": {"type": "str", "default": "90d"},
    "unused_after": {"type": "str", "default": "30d"},
    "unused_min_bytes": {"type": "str", "default": "10MiB"},
    "accepted_indexes": {"type": "list", "elements": "str", "default": []},
    "accepted_tables": {"type": "list", "elements": "str", "default": []},
}
DURATIONS = ("time_budget", "interval", "check_within", "max_block", "warn_sequence_within", "unused_after")


def read_limits(params: t.Dict[str, t.Any]) -> report_catalogs.Limits:
    """The options that decide about what the catalogs say; raises MaintenanceError when one makes no sense."""
    for name in DURATIONS:
        read_duration(params, name)
    read_max_block(params)
    return report_catalogs.Limits(
        params["warn_sequence_used_ratio"],
        params["fail_sequence_used_ratio"],
        read_duration(params, "warn_sequence_within"),
        read_duration(params, "unused_after"),
        read_size(params, "unused_min_bytes"),
        params["accepted_indexes"],
        params["accepted_tables"],
    )


def make_ground(params: t.Dict[str, t.Any], server: Server, seen: Survey) -> rounds.Ground:
    """What is remembered of this cluster, and by which rules it is looked at."""
    remembered = Memory(os.path.join(params["state_dir"], "database_integrity"), server.cluster)
    rules = turns.Rules(read_duration(params, "interval"), params["heap_all_indexed"], float(int(time.time())))
    ground = rounds.Ground(params, seen.reaches, remembered, rules, read_duration(params, "max_block"))
    for thing in seen.things:
        if thing.key not in remembered.entries:
            remembered.entries[thing.key] = Entry(file=thing.file, seen=rules.now)
    return ground


def forget(ground: rounds.Ground, seen: Survey, databases: t.Sequence[scope.Database]) -> None:
    """Forget what is gone from the databases that could be read."""
    unread = {name for name, _why in seen.catalogs.unread}
    read = {str(database.oid) for database in databases if database.name not in unread}
    ground.remembered.forget_others({thing.key for thing in seen.things}, read)


def act(ground: rounds.Ground, queue: t.Sequence[Thing], check_mode: bool, part: Part) -> rounds.Round:
    """Let amcheck look at what is due; in check mode say what would be."""
    budget = read_budget(ground.params)
    if not check_mode:
        try:
            return rounds.go_round(ground, queue, budget)
        finally:
            ground.remembered.save()
    seconds = sum(turns.predicted_seconds(one, ground.remembered.of(one.key), ground.rules) for one in queue)
    report_things.announce(queue, seconds, budget.seconds, part)
    return rounds.Round([], [])


def work(module: AnsibleModule, part: Part) -> None:
    params, check_mode = module.params, module.check_mode
    limits = read_limits(params)
    with contextlib.closing(session.open_session(params, params["login_db"], purpose=PURPOSE)) as connection:
        session.claim(connection, PURPOSE)
        server = read_server(connection, params)
        chosen = scope.chosen(connection, params)
        seen = survey(params, chosen.databases, server, check_mode=check_mode, part=part)
        ground = make_ground(params, server, seen)
        forget(ground, seen, chosen.databases)
        things = rounds.within_reach(seen.things, seen.reaches, seen.announced)
        queue = turns.in_order(things, ground.remembered, ground.rules)
        report_server(server, chosen, part)
        report_things.report_reach(seen, {one.name for one in chosen.databases if one.is_template}, part)
        report_catalogs.report_unread(seen.catalogs, part)
        if not server.standby:
            report_catalogs.report_catalogs(seen.catalogs, ground.remembered, limits, part)
        done = act(ground, queue, check_mode, part)
        report_things.report_round(things, done, ground, part)
        report_things.report_coverage(things, done, ground, read_duration(params, "check_within"), part)
        report_catalogs.report_collations(seen.collations, part)
    # Asked at the end, when all was read, and on a new connection: damage may have cost the old one.
    with contextlib.closing(session.open_session(params, params["login_db"], purpose=PURPOSE)) as connection:
        report_catalogs.report_checksums(server.checksums, read_checksum_failures(connection), part)


def report_server(server: Server, chosen: scope.Scope, part: Part) -> None:
    """Which databases were looked at, and what is left to the primary."""
    of = "a standby, whose catalogs are its primary's" if server.standby else "this server"
    left_out = "".join(f"; not {name}: {reason}" for name, reason in chosen.skipped if name != "template0")
    part.check(
        "databases looked at",
        "passed",
        expected="to be known",
        observed=f"{len(chosen.databases)} of {of}{left_out}",
        evidence={"databases": [database.name for database in chosen.databases]},
    )


def main() -> None:
    carry_out("database_integrity", OPTIONS, work, stops="the look for damage")


if __name__ == "__main__":
    main()
