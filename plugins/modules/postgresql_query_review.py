#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say which statements a PostgreSQL server spends its time on, and which have become slower."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_query_review
short_description: Say which statements a PostgreSQL server spends its time on, and which have become slower
version_added: "0.1.0"
description:
  - Reads the counters of C(pg_stat_statements) and says which statements took most time since the last review. With the
    result of that review as O(previous), it compares like with like, namely what was counted in between, and warns of
    each statement whose mean time became clearly worse.
  - Names large tables that are read from end to end, foreign keys without an index, and measures connections, sessions
    that are idle in a transaction, cache hits, rollbacks, deadlocks and temporary files.
  - It reports, and changes nothing but that it installs the extension C(pg_stat_statements) in O(login_db) where that
    is allowed. Where the server has not loaded the library, the counters are unknown, and the advice says what to set.
  - No value out of a statement is ever shown. Statements are shown as the server normalised them, with any string or
    number left in them masked; of those that it does not normalise, like C(ALTER ROLE), only the command is shown.
  - A standby is reviewed like any other server. Its counters are its own.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.postgresql
options:
  databases:
    description: Shell-style patterns of the databases to review. One that matches no database is an error.
    type: list
    elements: str
    default: ["*"]
  exclude_databases:
    description: Shell-style patterns of databases to leave out.
    type: list
    elements: str
    default: []
  tables:
    description: Shell-style patterns of tables (V(schema.table)) to look at for missing indexes.
    type: list
    elements: str
    default: ["*"]
  exclude_tables:
    description:
      - Shell-style patterns of tables (V(schema.table)) not to look at, such as those that are meant to be read from
        end to end.
    type: list
    elements: str
    default: []
  create_extensions:
    description:
      - Install the extension C(pg_stat_statements) in O(login_db) when no database has it and the role may.
      - That is a change.
    type: bool
    default: true
  previous:
    description:
      - C(data) of the last result of this activity on this host, as the lookup
        P(wellkept.maintenance.last_result#lookup) gives it. Empty means that there is nothing to compare with.
    type: dict
    default: {}
  top:
    description: How many statements are shown, and remembered for the next review.
    type: int
    default: 20
  min_calls:
    description: A statement that was called less often since the last review is not compared.
    type: int
    default: 20
  regression_factor:
    description: A statement is slower when its mean time is at least this many times what it was, and
      O(regression_min_seconds) more.
    type: float
    default: 2.0
  regression_min_seconds:
    description: Mean times that differ by less than this are the same.
    type: float
    default: 0.005
  accepted_statements:
    description: Query identifiers (C(queryid)) of statements that may be as slow as they are.
    type: list
    elements: str
    default: []
  min_table_rows:
    description: A table with fewer rows needs no index.
    type: int
    default: 10000
  min_sequential_scans:
    description: A table that was read from end to end less often since the last review needs no index.
    type: int
    default: 50
  warn_connections_used_ratio:
    description: Warn when more than this share of the connections is in use.
    type: float
    default: 0.8
  fail_connections_used_ratio:
    description: Fail when more than this share of the connections is in use.
    type: float
    default: 0.95
  warn_idle_in_transaction_seconds:
    description: Warn when a session has been idle in a transaction for longer.
    type: float
    default: 300
  warn_cache_hit_ratio:
    description: Warn when less than this share of the blocks was found in the cache, once 100000 were not.
    type: float
    default: 0.9
  warn_rollback_ratio:
    description: Warn when more than this share of the transactions was rolled back, once there were 1000.
    type: float
    default: 0.1
  warn_deadlocks_per_day:
    description: Warn of more deadlocks a day than this.
    type: float
    default: 1
  warn_temp_bytes_per_day:
    description: Warn when more than this is written to temporary files a day.
    type: str
    default: 20GiB
notes:
  - A role that is not a superuser needs C(pg_monitor), or C(pg_read_all_stats).
  - A statement that became slower is told of in each review until it is as fast again, or accepted.
seealso:
  - module: wellkept.maintenance.postgresql_integrity
  - name: pg_stat_statements
    description: The extension that counts.
    link: https://www.postgresql.org/docs/current/pgstatstatements.html
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Review the server, and compare with the last review
  wellkept.maintenance.postgresql_query_review:
    login_unix_socket: /run/postgresql
    previous: "{{ lookup('wellkept.maintenance.last_result', 'query_review') }}"

- name: Review one database, whose nightly export may be slow
  wellkept.maintenance.postgresql_query_review:
    login_unix_socket: /run/postgresql
    databases: [learning]
    accepted_statements: ["-6883023751393440299"]
"""

RETURN = r"""
checks:
  description: What was verified. The evidence of C(statements by total time) holds the statements.
  returned: always
  type: list
  elements: dict
  sample:
    - name: speed of statement 7032498236478 in learning
      status: warned
      expected: a mean below 6.21 ms
      observed: "1.21 ms → 25.3 ms in 3,120 calls: SELECT * FROM enrolment WHERE course = $1"
      advice: See its plan (EXPLAIN)
      evidence: {database: learning, queryid: "7032498236478", before_seconds: 0.00121, now_seconds: 0.0253}
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    slower_statements: {value: 1, unit: count}
    cache_hit_ratio: {value: 0.9931, unit: ratio}
changes:
  description: What is different now, which can be an extension that was installed.
  returned: always
  type: list
  elements: dict
  sample:
    - {kind: extension, name: pg_stat_statements in the database postgres, before: not installed, after: version 1.12}
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
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.database import extensions, scope, session
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import read_at_least, read_size
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import (
    LOGIN_OPTIONS,
    QueryError,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review import (
    activity,
    comparison,
    report_server,
    report_statements,
    statements,
    tables,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

EXTENSION = "pg_stat_statements"
PURPOSE = "query review"
OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    **LOGIN_OPTIONS,
    **scope.SCOPE_OPTIONS,
    **scope.TABLE_OPTIONS,
    **extensions.EXTENSION_OPTIONS,
    "previous": {"type": "dict", "default": {}},
    "top": {"type": "int", "default": 20},
    "min_calls": {"type": "int", "default": 20},
    "regression_factor": {"type": "float", "default": 2.0},
    "regression_min_seconds": {"type": "float", "default": 0.005},
    "accepted_statements": {"type": "list", "elements": "str", "default": []},
    "min_table_rows": {"type": "int", "default": 10000},
    "min_sequential_scans": {"type": "int", "default": 50},
    "warn_connections_used_ratio": {"type": "float", "default": 0.8},
    "fail_connections_used_ratio": {"type": "float", "default": 0.95},
    "warn_idle_in_transaction_seconds": {"type": "float", "default": 300},
    "warn_cache_hit_ratio": {"type": "float", "default": 0.9},
    "warn_rollback_ratio": {"type": "float", "default": 0.1},
    "warn_deadlocks_per_day": {"type": "float", "default": 1},
    "warn_temp_bytes_per_day": {"type": "str", "default": "20GiB"},
}


class Seen(t.NamedTuple):
    """All that was measured."""

    basis: activity.Basis
    databases: t.Dict[str, t.Dict[str, t.Any]]
    sessions: activity.Sessions
    statistics: t.Optional[statements.Statistics]
    obstacle: t.Optional[statements.Obstacle]
    scanned: t.List[tables.Scanned]
    foreign_keys: t.List[tables.ForeignKey]
    names: t.List[str]
    skipped: t.List[t.Tuple[str, str]]
    schema: str
    database: str  # that has the extension


class Judged(t.NamedTuple):
    """What follows from it."""

    intervals: t.List[comparison.Interval]
    kept: t.List[comparison.Interval]
    cutoff: float
    rules: comparison.Rules
    compares: bool
    activity: activity.Activity


def measure(module: AnsibleModule, part: Part) -> t.Tuple[Seen, t.Optional[comparison.Memory]]:
    """Ask the server for its counters, and each database for what may lack an index."""
    params = module.params
    with connected(params, params["login_db"]) as connection:
        chosen = scope.chosen(connection, params)
        basis = activity.read_basis(connection)
        memory = comparison.read_memory(params["previous"], basis.server)
        databases = activity.read_databases(connection, params)
        sessions = activity.read_sessions(connection)
        obstacle = statements.obstacle_of_server(connection)
    names = names_of(chosen)
    statistics, place = None, ("", "")
    if obstacle is None:
        statistics, obstacle, place = read_statistics(module, names, part)
    scanned, foreign_keys = survey(params, chosen, memory, databases)
    seen = Seen(
        basis,
        databases,
        sessions,
        statistics,
        obstacle,
        scanned,
        foreign_keys,
        names,
        chosen.skipped,
        schema=place[1],
        database=place[0],
    )
    return seen, memory


Place = t.Tuple[str, str]  # database and schema of the extension


def read_statistics(
    module: AnsibleModule, names: t.Sequence[str], part: Part
) -> t.Tuple[t.Optional[statements.Statistics], t.Optional[statements.Obstacle], Place]:
    """The counters, read in whichever database has the extension, which is installed in login_db if need be."""
    params = module.params
    for name in dict.fromkeys([params["login_db"], *names]):
        with contextlib.suppress(MaintenanceError), connected(params, name) as connection:
            schema = extensions.schema_of(connection, EXTENSION)
            if schema is not None:
                return (*_read(connection, schema, params), (name, schema))
    with connected(params, params["login_db"]) as connection:
        wanted = params["create_extensions"]
        provided = extensions.provide(connection, EXTENSION, create=wanted, part=part, check_mode=module.check_mode)
        if provided is not None:
            return (*_read(connection, provided, params), (params["login_db"], provided))
    observed = "the extension would be installed" if part.changes else "no database has the extension"
    obstacle = statements.Obstacle(observed, f"CREATE EXTENSION {EXTENSION}; in the database {params['login_db']}.")
    return None, obstacle, ("", "")


def connected(params: t.Dict[str, t.Any], name: str) -> t.ContextManager[t.Any]:
    return contextlib.closing(session.open_session(params, name, purpose=PURPOSE))


def _read(
    connection: t.Any, schema: str, params: t.Dict[str, t.Any]
) -> t.Tuple[t.Optional[statements.Statistics], t.Optional[statements.Obstacle]]:
    try:
        return statements.read_statistics(connection, schema, params), None
    except QueryError as error:
        return None, statements.obstacle_of_refusal(error)


def survey(
    params: t.Dict[str, t.Any],
    chosen: scope.Scope,
    memory: t.Optional[comparison.Memory],
    databases: t.Dict[str, t.Dict[str, t.Any]],
) -> t.Tuple[t.List[tables.Scanned], t.List[tables.ForeignKey]]:
    """What may lack an index, in all databases but templates; one that is gone meanwhile counts as skipped."""
    scanned: t.List[tables.Scanned] = []
    foreign_keys: t.List[tables.ForeignKey] = []
    patterns = scope.TablePatterns(params)
    for name in names_of(chosen):
        before = memory.tables if memory and activity.counts_on(name, databases, memory.databases) else None
        try:
            with connected(params, name) as connection:
                patterns.look(connection)
                scanned += tables.read_scanned(connection, name, params, before)
                foreign_keys += tables.read_foreign_keys(connection, name, params)
        except MaintenanceError as error:
            chosen.skipped.append((name, error.observed))
    patterns.refuse_unmatched()
    return scanned, foreign_keys


def names_of(chosen: scope.Scope) -> t.List[str]:
    return [database.name for database in chosen.databases if not database.is_template]


def decide(seen: Seen, memory: t.Optional[comparison.Memory], params: t.Dict[str, t.Any]) -> Judged:
    """What was counted since the last review, and what of it the next one needs."""
    rules = comparison.Rules(
        params["regression_factor"],
        params["regression_min_seconds"],
        params["min_calls"],
        tuple(params["accepted_statements"]),
    )
    found = seen.statistics
    continuous = comparison.same_counters(memory, found.reset if found else None)
    intervals = [comparison.interval_of(one, memory, continuous) for one in (found.statements if found else [])]
    kept, cutoff = comparison.worth_remembering(intervals, params["top"])
    before = memory.databases if memory else {}
    between = activity.activity_between(seen.databases, before, seen.basis, memory.measured if memory else None)
    return Judged(intervals, kept, cutoff, rules, bool(memory and memory.statements), between)


def memory_for_next(seen: Seen, judged: Judged) -> t.Dict[str, t.Any]:
    """What the next review compares with; it comes back to it by way of the ledger."""
    return {
        "version": comparison.MEMORY_VERSION,
        "measured": round(seen.basis.now, 3),
        "server": seen.basis.server,
        "reset": seen.statistics.reset if seen.statistics else None,
        "evicted": seen.statistics.evicted if seen.statistics else None,
        "cutoff": round(judged.cutoff, 6),
        "statements": comparison.remembered_statements(judged.kept, judged.rules),
        "databases": seen.databases,
        "tables": [{"database": one.database, "table": one.table, "scans": one.scans} for one in seen.scanned],
    }


def read_texts(seen: Seen, judged: Judged, params: t.Dict[str, t.Any]) -> t.Dict[t.Tuple[str, str], str]:
    """What may be shown of the statements that are told of."""
    if not seen.schema:
        return {}
    slower = [one for one in judged.intervals if comparison.is_slower(one, judged.rules)]
    wanted = {one.statement.key: one.statement for one in [*judged.kept, *slower]}
    with connected(params, seen.database) as connection:
        return statements.read_texts(connection, seen.schema, list(wanted.values()))


def report(seen: Seen, judged: Judged, params: t.Dict[str, t.Any], part: Part) -> None:
    """What was found, as checks and metrics; all of it is for people to act on."""
    remembered = memory_for_next(seen, judged)
    report_server.report_scope(seen.basis, seen.names, seen.skipped, part)
    if seen.statistics is None and seen.obstacle is not None:
        report_statements.report_obstacle(seen.obstacle, remembered, part)
    elif seen.statistics is not None:
        texts = read_texts(seen, judged, params)
        period = report_server.period_of(judged.activity) if judged.compares else "since the counters began"
        report_statements.report_statistics(seen.statistics, remembered, part)
        report_statements.report_top(judged.intervals, params["top"], texts, period, part)
        if judged.compares:
            report_statements.report_speed(judged.intervals, judged.rules, texts, part)
    report_server.report_scanned(seen.scanned, params, part)
    report_server.report_foreign_keys(seen.foreign_keys, params, part)
    report_server.report_sessions(seen.sessions, params, part)
    report_server.report_activity(judged.activity, params, part)


def work(module: AnsibleModule, part: Part) -> None:
    """Only reads, so that check mode differs in nothing but the extension."""
    params = module.params
    refuse_bad_options(params)
    seen, memory = measure(module, part)
    report(seen, decide(seen, memory, params), params, part)


def refuse_bad_options(params: t.Dict[str, t.Any]) -> None:
    read_size(params, "warn_temp_bytes_per_day")
    for name in ("top", "min_calls", "min_sequential_scans"):
        read_at_least(params, name, 1)


def main() -> None:
    carry_out("query_review", OPTIONS, work)


if __name__ == "__main__":
    main()
