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

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.database import extensions, scope
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import read_at_least, read_size
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review.judging import decide
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review.measuring import measure
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review.report import report
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

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


def work(module: AnsibleModule, part: Part) -> None:
    """Only reads, so that check mode differs in nothing but the extension."""
    params = module.params
    refuse_bad_options(params)
    seen, memory = measure(params, part, check_mode=module.check_mode)
    report(seen, decide(seen, memory, params), params, part)


def refuse_bad_options(params: t.Dict[str, t.Any]) -> None:
    read_size(params, "warn_temp_bytes_per_day")
    for name in ("top", "min_calls", "min_sequential_scans"):
        read_at_least(params, name, 1)


def main() -> None:
    carry_out("query_review", OPTIONS, work)


if __name__ == "__main__":
    main()
