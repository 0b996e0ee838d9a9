#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Say how much of the tables and indexes of a PostgreSQL cluster is bloat."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_bloat_info
short_description: Say how much of the tables and indexes of a PostgreSQL cluster is bloat
version_added: "0.1.0"
description:
  - Measures tables and indexes, and says of each what a rebuild would win, how that was measured, how sure it is, and
    why where it is not known.
  - A btree is measured by C(pgstatindex), a large one by a sample of its pages when the role is a superuser and the
    extension C(pageinspect) is installed. GiST and hash indexes are measured by C(pgstattuple), tables by
    C(pgstattuple_approx). A GIN index is compared with how compact it once was.
  - Without the extension C(pgstattuple), or the right to use it, an estimate is made where one is worth anything, with
    V(low) as its confidence. The reason then says what to install or to grant; C(pg_stat_scan_tables) suffices.
  - Rows that C(VACUUM) has not removed yet count as content of an index. Vacuum first to see all that can be won.
  - It reads only, with no lock but C(ACCESS SHARE), and may run beside anything, on a standby too.
extends_documentation_fragment:
  - wellkept.maintenance.postgresql
  - wellkept.maintenance.database.tables
options:
  databases:
    description:
      - Databases to measure, as shell-style patterns on their names; case counts.
      - A pattern that matches no database is an error. Databases that allow no connections are named as skipped.
    type: list
    elements: str
    default: ["*"]
  exclude_databases:
    description: Databases to leave out, as patterns like those of O(databases).
    type: list
    elements: str
    default: []
  catalogs:
    description: Measure the tables and indexes of the system catalogs, too.
    type: bool
    default: false
  measure_tables:
    description: Measure tables, and not only indexes. Of a table that was not vacuumed for long, much has to be read.
    type: bool
    default: true
  min_size:
    description: What is smaller is listed, but not measured.
    type: str
    default: 1MiB
  limit:
    description:
      - Return at most this many tables, and this many indexes, of each database, those with most to win first.
      - V(0) means all of them. The totals count all in any case.
    type: int
    default: 100
  sample_above:
    description: A btree that is larger is sampled, where the role is a superuser and C(pageinspect) is installed.
    type: str
    default: 64MiB
  sample_pages:
    description: How many of its pages are read then.
    type: int
    default: 400
  lock_timeout:
    description: Longest time to wait for a lock on one table or index. What stays locked is named, not measured.
    type: str
    default: 0.5s
  measure_timeout:
    description:
      - Longest time that one measurement may take, and so may make an C(ALTER TABLE) wait.
      - What takes longer is estimated where that is worth anything.
    type: str
    default: 10s
  create_extensions:
    description:
      - Install C(pgstattuple) and C(pageinspect) where the role may and the database is no template. That is a change.
    type: bool
    default: false
  state_dir:
    description:
      - Directory on the host in which measurements are kept, so that what has not changed is not measured again.
      - It is used only if it exists. It is a cache, and of no other consequence.
    type: path
    default: /var/lib/wellkept
attributes:
  check_mode:
    description: Can run in check mode and return changed status prediction without modifying the target.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would change in check mode, when in diff mode.
    support: none
seealso:
  - name: pgstattuple
    description: The functions that measure.
    link: https://www.postgresql.org/docs/current/pgstattuple.html
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: See what could be won, and where
  wellkept.maintenance.postgresql_bloat_info:
    login_unix_socket: /run/postgresql
  register: bloat

- name: Name the indexes that are half empty
  ansible.builtin.debug:
    msg: >-
      {{ bloat.databases | map(attribute='indexes') | flatten
         | selectattr('bloat_ratio', 'number') | selectattr('bloat_ratio', '>', 0.5) | map(attribute='name') }}

- name: Look at one schema of one database, indexes alone
  wellkept.maintenance.postgresql_bloat_info:
    databases: [shop]
    tables: ["sales.*"]
    measure_tables: false
    min_size: 10MiB
"""

RETURN = r"""
databases:
  description: What was measured in each database.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the database.
      type: str
      sample: shop
    size_bytes:
      description: Size of the database.
      type: int
      sample: 734003200
    indexes:
      description: Its indexes, those with most to win first.
      type: list
      elements: dict
      contains:
        schema:
          description: Schema of the index.
          type: str
          sample: public
        name:
          description: Name of the index.
          type: str
          sample: order_customer_idx
        table_schema:
          description: Schema of its table.
          type: str
          sample: public
        table:
          description: Its table.
          type: str
          sample: order
        access_method:
          description: Its kind.
          type: str
          sample: btree
        size_bytes:
          description: Its size.
          type: int
          sample: 104857600
        bloat_ratio:
          description: The share of its space for keys that a rebuild would give back, 0 to 1; null where not known.
          type: float
          sample: 0.67
        wasted_bytes:
          description: What a rebuild would win.
          type: int
          sample: 70254592
        predicted_bytes:
          description: Its size after a rebuild.
          type: int
          sample: 34603008
        method:
          description:
            - How it was measured, one of V(pgstatindex), V(sampled), V(pgstattuple), V(pgstathashindex), V(baseline),
              V(estimate), V(small) and V(none).
          type: str
          sample: sampled
        confidence:
          description: How sure that is, one of V(high), V(medium), V(low) and V(none).
          type: str
          sample: high
        margin:
          description: For V(sampled), the ratio is right within this in 95 of 100 cases.
          type: float
          sample: 0.012
        reason:
          description: Where the figures come from, or why there are none.
          type: str
          sample: 400 of 12799 pages; right within 1.2 points in 95 of 100 cases
    tables:
      description: Its tables, materialized views and TOAST, without their indexes; keys as those of C(indexes).
      type: list
      elements: dict
      sample: [{schema: public, name: order, kind: table, size_bytes: 524288000, bloat_ratio: 0.31}]
    left_out:
      description: How many tables and indexes there are besides, because of O(limit).
      type: dict
      sample: {indexes: 0, tables: 12}
    totals:
      description: Sizes of all of them together, and what there is to win.
      type: dict
      sample: {index_bytes: 209715200, wasted_index_bytes: 70254592, table_bytes: 524288000, wasted_table_bytes: 0}
skipped_databases:
  description: Databases that were chosen and cannot be measured, each with the reason.
  returned: success
  type: list
  elements: dict
  sample: [{name: template0, reason: it allows no connections}]
changes:
  description: Extensions that were installed, or would be.
  returned: success
  type: list
  elements: dict
  sample: []
remarks:
  description: What an operator should know besides, such as measurements that could not be kept.
  returned: success
  type: list
  elements: str
  sample: []
"""

import contextlib
import dataclasses
import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.measure import (
    BloatSettings,
    IndexBloat,
    measure_indexes,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.remembered import Remembered, cluster_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.bloat.tables import TableBloat, measure_tables
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.extensions import provide
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.scope import (
    SCOPE_OPTIONS,
    TABLE_OPTIONS,
    Database,
    chosen,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.session import open_session
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError, MissingToolError
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import (
    read_at_least,
    read_duration,
    read_size,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    **LOGIN_OPTIONS,
    **SCOPE_OPTIONS,
    **TABLE_OPTIONS,
    "catalogs": {"type": "bool", "default": False},
    "measure_tables": {"type": "bool", "default": True},
    "min_size": {"type": "str", "default": "1MiB"},
    "limit": {"type": "int", "default": 100},
    "sample_above": {"type": "str", "default": "64MiB"},
    "sample_pages": {"type": "int", "default": 400},
    "lock_timeout": {"type": "str", "default": "0.5s"},
    "measure_timeout": {"type": "str", "default": "10s"},
    "create_extensions": {"type": "bool", "default": False},
    "state_dir": {"type": "path", "default": "/var/lib/wellkept"},
}
PURPOSE = "bloat info"
EXTENSIONS = ("pgstattuple", "pageinspect")

Found = t.TypeVar("Found", IndexBloat, TableBloat)


def read_settings(params: t.Mapping[str, t.Any]) -> BloatSettings:
    """How closely the options ask to look; raises MaintenanceError for a size or a duration that is none."""
    return BloatSettings(
        min_size_bytes=read_size(params, "min_size"),
        sample_above_bytes=read_size(params, "sample_above"),
        sample_pages=read_at_least(params, "sample_pages", 2),
        lock_timeout_ms=max(1, round(read_duration(params, "lock_timeout") * 1000)),
        timeout_ms=max(1, round(read_duration(params, "measure_timeout") * 1000)),
        catalogs=params["catalogs"],
        tables=tuple(params["tables"]),
        exclude_tables=tuple(params["exclude_tables"]),
    )


def worst_first(found: t.Sequence[Found], limit: int) -> t.List[Found]:
    """The *limit* (0: all) of *found* with most to win, those of the same gain by their size and name."""
    ordered = sorted(found, key=lambda one: (-one.wasted_bytes, -one.size_bytes, one.schema, one.name))
    return ordered[:limit] if limit else ordered


def shown(indexes: t.Sequence[IndexBloat], tables: t.Sequence[TableBloat], limit: int) -> t.Dict[str, t.Any]:
    """What was found in one database, as it is returned."""
    first_indexes, first_tables = worst_first(indexes, limit), worst_first(tables, limit)
    return {
        "indexes": [dataclasses.asdict(index) for index in first_indexes],
        "tables": [table._asdict() for table in first_tables],
        "left_out": {
            "indexes": len(indexes) - len(first_indexes),
            "tables": len(tables) - len(first_tables),
        },
        "totals": {
            "index_bytes": sum(one.size_bytes for one in indexes),
            "wasted_index_bytes": sum(one.wasted_bytes for one in indexes),
            "table_bytes": sum(one.size_bytes for one in tables),
            "wasted_table_bytes": sum(one.wasted_bytes for one in tables),
        },
    }


def measure(
    module: AnsibleModule, database: Database, settings: BloatSettings, remembered: Remembered, part: Part
) -> t.Dict[str, t.Any]:
    """What is found in one database."""
    params = module.params
    with contextlib.closing(open_session(params, database.name, purpose=PURPOSE)) as connection:
        for name in EXTENSIONS:
            provide(connection, name, create=params["create_extensions"], part=part, check_mode=module.check_mode)
        indexes = measure_indexes(connection, settings, remembered)
        tables = measure_tables(connection, settings) if params["measure_tables"] else []
    return {"name": database.name, "size_bytes": database.size_bytes, **shown(indexes, tables, params["limit"])}


def remembered_in(connection: t.Any, state_dir: str) -> Remembered:
    """What was measured before, if *state_dir* exists; else nothing, which is not kept either."""
    return Remembered.load(state_dir, cluster_of(connection)) if os.path.isdir(state_dir) else Remembered()


def keep(remembered: Remembered) -> t.List[str]:
    """Keep the measurements for the next run, and return the remarks on that."""
    remarks = [remembered.remark] if remembered.remark else []
    try:
        remembered.save()
    except OSError as error:
        remarks.append(f"the measurements are not kept for the next run: {error}")
    return remarks


def work(module: AnsibleModule, part: Part) -> t.Dict[str, t.Any]:
    settings = read_settings(module.params)
    read_at_least(module.params, "limit", 0)
    with contextlib.closing(open_session(module.params, module.params["login_db"], purpose=PURPOSE)) as connection:
        scope = chosen(connection, module.params)
        remembered = remembered_in(connection, module.params["state_dir"])
    databases: t.List[t.Dict[str, t.Any]] = []
    skipped = list(scope.skipped)
    for database in scope.databases:
        # Once for all databases, for they share these.
        shared = settings.catalogs and not databases
        try:
            found = measure(module, database, settings._replace(shared_catalogs=shared), remembered, part)
        except MaintenanceError as error:
            skipped.append((database.name, f"{error.what}: {error.observed}"))
        else:
            databases.append(found)
    if not databases and scope.databases:
        raise MaintenanceError(
            "measure bloat",
            expected="at least one database that can be measured",
            observed="; ".join(f"{name}: {reason}" for name, reason in skipped),
            advice="Correct the login options, or let the role connect.",
        )
    remarks = [remembered.remark] if module.check_mode and remembered.remark else []
    return {
        "databases": databases,
        "skipped_databases": [{"name": name, "reason": reason} for name, reason in skipped],
        "changes": part.changes,
        "remarks": remarks if module.check_mode else keep(remembered),
    }


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    part = Part()
    try:
        answer = work(module, part)
    except MissingToolError as error:
        module.exit_json(skipped=True, msg=f"{error.observed} ({error.expected}): {error.advice}")
    except MaintenanceError as error:
        module.fail_json(msg=str(error), changes=part.changes, changed=part.changed)
    else:
        module.exit_json(changed=part.changed, **answer)


if __name__ == "__main__":
    main()
