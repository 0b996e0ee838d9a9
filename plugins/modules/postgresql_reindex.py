#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rebuild the indexes that are worth it, without keeping anybody waiting, and prove the gain."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_reindex
short_description: Rebuild bloated PostgreSQL indexes without keeping anybody waiting, and prove the gain
version_added: "0.1.0"
description:
  - Measures the bloat of all indexes and rebuilds those that are bloated by O(min_bloat_ratio) and win O(min_gain),
    those first that win most bytes in a second. Healthy databases are not touched, and what has not changed since the
    last run is not measured again.
  - Rebuilds with C(REINDEX INDEX CONCURRENTLY) under the eyes of a second connection, which cancels the rebuild before
    anybody waits on it for longer than O(max_block), or when autovacuum wants the table. It comes back to what it had
    to put off, after growing pauses, for as long as O(retry_for) and O(time_budget) allow.
  - Before each index it looks at the free disk space, the lag of replicas, what replication slots still hold, and
    transactions that the rebuild would have to wait for.
  - Proves of each rebuilt index that it is valid, defined and owned as before, smaller, and whole (C(amcheck)).
  - Drops what interrupted rebuilds have left, its own or others', and nothing but that. An invalid index that is no
    leftover is reported.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.postgresql
options:
  databases:
    description: Shell-style patterns of the names of databases to work on.
    type: list
    elements: str
    default: ["*"]
  exclude_databases:
    description: Shell-style patterns of the names of databases to leave alone.
    type: list
    elements: str
    default: []
  tables:
    description: Shell-style patterns of the tables, as V(schema.table), whose indexes are looked at.
    type: list
    elements: str
    default: ["*"]
  exclude_tables:
    description: Shell-style patterns of the tables, as V(schema.table), whose indexes are left alone.
    type: list
    elements: str
    default: []
  exclude_indexes:
    description: Shell-style patterns of indexes, as V(schema.index), that are never rebuilt.
    type: list
    elements: str
    default: []
  create_extensions:
    description:
      - Install the extensions C(pgstattuple), C(pageinspect) and C(amcheck) in a database where they are needed and the
        role may. Without them bloat is estimated, with a lower confidence.
    type: bool
    default: true
  min_bloat_ratio:
    description: Share of an index that must be bloat, from 0 to 1, for it to be rebuilt.
    type: float
    default: 0.3
  min_gain:
    description:
      - Bytes that a rebuild must win. With the defaults no index of 10 MB or more stays bloated by 30 %.
    type: str
    default: 3MB
  min_confidence:
    description:
      - How sure the measurement must be. V(low) also rebuilds by estimates, which can be far off.
    type: str
    choices: [high, medium, low]
    default: medium
  unique_indexes:
    description:
      - Up to PostgreSQL 18, an C(INSERT ... ON CONFLICT) that relies on a unique index can fail with a duplicate key
        that is none while the index is rebuilt.
      - V(auto) rebuilds a unique index where that cannot happen (from PostgreSQL 19), or where it is known that no such
        statement goes to its table, from C(pg_stat_statements), the running statements and the functions of the
        database. Where that is unknown the index is left, and a check says so.
      - V(always) rebuilds them whatever is known, V(never) leaves them all.
    type: str
    choices: [auto, always, never]
    default: auto
  time_budget:
    description:
      - How long the run may take. An index whose rebuild is not expected to end in time is left for another run.
      - V(0) means that there is no limit.
    type: str
    default: 1h
  retry_for:
    description: How long to come back to an index that something stood in the way of, counted from the first try.
    type: str
    default: 5m
  max_block:
    description: How long others may wait on a rebuild before it is cancelled.
    type: str
    default: 1s
  max_replica_lag:
    description: No rebuild is begun while a standby lags by more than this.
    type: str
    default: 256MiB
  min_free_bytes:
    description: Free space that must remain on each file system that a rebuild writes to.
    type: str
    default: 256MiB
  amcheck:
    description: Let C(amcheck) look at the structure of each rebuilt index.
    type: bool
    default: true
  heap_all_indexed:
    description: Let it also make sure that every row is in the index, which takes about as long as the rebuild.
    type: bool
    default: false
notes:
  - It needs a direct connection, not one through a pooler in transaction mode.
  - A role needs to own the tables, or be a superuser; from PostgreSQL 17 on C(pg_maintain), or C(MAINTAIN) on a table,
    suffices. C(pg_read_all_stats) lets it see what others do, and C(pg_stat_scan_tables) measure.
  - Indexes of system catalogs and of exclusion constraints cannot be rebuilt while others use them, and are left.
  - On a standby it is skipped, and on PostgreSQL 14.0 to 14.3, which damage indexes that are rebuilt concurrently.
  - The metric C(wal_bytes) is what the server wrote during the rebuilds, by others too.
seealso:
  - module: wellkept.maintenance.restore_test
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Rebuild what is worth it
  wellkept.maintenance.postgresql_reindex:
    login_unix_socket: /run/postgresql

- name: Rebuild within a window of half an hour, in one database, and leave the large archive alone
  wellkept.maintenance.postgresql_reindex:
    login_unix_socket: /run/postgresql
    databases: [learning]
    exclude_tables: [archive.*]
    time_budget: 30m
    max_block: 500ms
"""

RETURN = r"""
checks:
  description: What was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: size of rebuilt indexes
      status: passed
      expected: smaller than before
      observed: so of 1
      advice: ""
      evidence:
        learning.public.student_name: "214.0 MiB before, 70.1 MiB after; pages 32 % full before, 90 % after"
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    bytes_won: {value: 150893568, unit: bytes}
    cancelled_rebuilds: {value: 0, unit: count}
    indexes_left_bloated: {value: 0, unit: count}
    longest_wait_seconds: {value: 0, unit: seconds}
    rebuild_seconds: {value: 10.6, unit: seconds}
    rebuilt_indexes: {value: 1, unit: count}
    wal_bytes: {value: 73924608, unit: bytes}
changes:
  description: What is different now, or would be in check mode.
  returned: always
  type: list
  elements: dict
  sample:
    - {kind: index, name: learning.public.student_name, before: 214.0 MiB, after: "70.1 MiB, rebuilt in 10.6 s"}
artifacts:
  description: Always empty.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import contextlib
import functools
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import Remembered, cluster_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.budget import Budget
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.rights import read_rights
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.scope import (
    Database,
    TablePatterns,
    chosen,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.session import (
    claim,
    open_session,
    refuse_standby,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.watchdog import Pair
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex import report
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.decision import Left, Task, in_order, within
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.leftovers import Invalid
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.memory import Memory
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.obstacles import Surroundings, find_site
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.proof import Proof
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.rebuild import (
    Crew,
    Sessions,
    Tally,
    clear_leftovers,
    rebuild_all,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.settings import (
    REINDEX_OPTIONS,
    Settings,
    read_settings,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.survey import survey
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.upserts import Statements
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {**LOGIN_OPTIONS, **REINDEX_OPTIONS}
PURPOSE = "reindex"
CLAIM_WITHIN = 3.0
UNSAFE = range(140000, 140004)


class Found(t.NamedTuple):
    """What was found in all databases."""

    tasks: t.List[Task]
    left: t.List[Left]
    leftovers: t.List[Invalid]
    invalid: t.List[Invalid]
    indexes: t.List[int]


def refuse_server(connection: t.Any) -> str:
    """Why nothing may be rebuilt on this server: the reason to skip; empty when it may."""
    if connection.info.server_version in UNSAFE:
        return (
            "PostgreSQL 14.0 to 14.3 damage indexes that are rebuilt while others write; update it to the newest "
            "release of 14, and then check the indexes that were rebuilt before"
        )
    return refuse_standby(connection)


def open_pair(params: t.Mapping[str, t.Any], database: str) -> Pair:
    return Pair(functools.partial(open_session, params, database, purpose=PURPOSE), claim_patiently)


def claim_patiently(connection: t.Any) -> None:
    """Claim the database; a run that was killed keeps its claim until the server has seen that it is gone."""
    until = time.monotonic() + CLAIM_WITHIN
    while True:
        try:
            claim(connection, PURPOSE)
        except MaintenanceError:
            if time.monotonic() > until:
                connection.close()
                raise
            time.sleep(0.1)
        else:
            return


def assemble(
    module: AnsibleModule, connection: t.Any, databases: t.Sequence[Database], settings: Settings, part: Part
) -> Crew:
    """All that the work needs, of the server of *connection*."""
    cluster = cluster_of(connection)
    state_dir = module.params["state_dir"]
    return Crew(
        Sessions(functools.partial(open_pair, module.params)),
        Statements(
            functools.partial(open_session, module.params, purpose=PURPOSE),
            list(dict.fromkeys([module.params["login_db"], *(database.name for database in databases)])),
        ),
        Surroundings(settings, read_rights(connection), find_site(connection)),
        Budget(settings.time_budget),
        Memory.load(state_dir, cluster),
        Remembered.load(state_dir, cluster),
        part,
        Proof(),
        Tally(),
    )


def measure(databases: t.Sequence[Database], patterns: TablePatterns, crew: Crew, check_mode: bool) -> Found:
    """Look at every database; one that cannot be worked on does not keep the others from it."""
    found = Found([], [], [], [], [])
    for database in databases:
        try:
            pair = crew.sessions.at(database.name)
            patterns.look(pair.work)
            seen = survey(database, pair, crew, check_mode)
        except MaintenanceError as error:
            refuse(database.name, error, crew.part)
            continue
        found.tasks.extend(seen.tasks)
        found.left.extend(seen.left)
        found.leftovers.extend(seen.leftovers)
        found.invalid.extend(seen.invalid)
        found.indexes.append(seen.looked_at)
    patterns.refuse_unmatched()
    return found


def act(tasks: t.Sequence[Task], found: Found, crew: Crew) -> t.List[Left]:
    """Rebuild, and look once more for leftovers where something was done; returns what was not rebuilt."""
    try:
        not_rebuilt = rebuild_all(tasks, crew)
    finally:
        crew.memory.save()
        crew.remembered.save()
    touched = sorted({task.target.database for task in tasks} | {index.database for index in found.leftovers})
    found.leftovers.clear()
    for database in touched:
        try:
            found.leftovers.extend(clear_leftovers(crew.sessions.at(database), crew))
        except MaintenanceError as error:
            refuse(database, error, crew.part)
    return not_rebuilt


def refuse(database: str, error: MaintenanceError, part: Part) -> None:
    """Record that *database* could not be worked on."""
    part.check(
        f"indexes of the database {database}",
        "failed",
        expected=error.expected,
        observed=f"{error.what}: {error.observed}",
        advice=error.advice,
    )


def work(module: AnsibleModule, part: Part) -> None:
    settings = read_settings(module.params)
    with contextlib.closing(open_session(module.params, module.params["login_db"], purpose=PURPOSE)) as connection:
        reason = refuse_server(connection)
        if reason:
            part.skip(reason)
            return
        scope = chosen(connection, module.params)
        crew = assemble(module, connection, scope.databases, settings, part)
    with contextlib.closing(crew.sessions):
        found = measure(scope.databases, TablePatterns(module.params), crew, module.check_mode)
        tasks = in_order(found.tasks)
        if module.check_mode:
            tasks, late = within(tasks, crew.budget.left())
            report.announce(tasks, part)
        else:
            late = act(tasks, found, crew)
    crew.remembered.save()
    show(found, tasks, [*found.left, *late], crew, module.check_mode)
    if scope.skipped:
        part.check(
            "databases that were not looked at",
            "passed",
            expected="a reason for each",
            observed="; ".join(f"{name}: {why}" for name, why in scope.skipped),
        )


def show(found: Found, tasks: t.Sequence[Task], left: t.Sequence[Left], crew: Crew, check_mode: bool) -> None:
    """Make checks and metrics of what was found and done."""
    part, settings = crew.part, crew.around.settings
    report.report_indexes(sum(found.indexes), tasks, left, settings, part)
    report.report_invalid(found.invalid, [] if check_mode else found.leftovers, crew.tally, part)
    crew.proof.report(part)
    report.report_work(crew.tally, settings, part)


def main() -> None:
    carry_out("database_reindex", OPTIONS, work, stops="the rebuild of indexes")


if __name__ == "__main__":
    main()
