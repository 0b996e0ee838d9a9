#!/usr/bin/python3
"""Vacuum and reindex as a role that owns nothing: with pg_maintain where the server has it, else with no right at all.

Prints a JSON document: what the modules said, and what the server shows before and afterwards.
"""

from __future__ import annotations

import json
import tempfile

import victim
from victim import sql

ROLE = "keeper"


def make_role(may_maintain):
    if sql(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'", "postgres"):
        sql(f"DROP ROLE {ROLE}", "postgres")
    sql(f"CREATE ROLE {ROLE} LOGIN IN ROLE pg_read_all_stats, pg_stat_scan_tables", "postgres")
    if may_maintain:
        sql(f"GRANT pg_maintain TO {ROLE}", "postgres")


def state():
    """The bytes of the indexes, and whether all pages of the table are known to be visible to all."""
    return {
        "bytes": sum(victim.sizes().values()),
        "vacuumed": sql(
            "SELECT all_visible * current_setting('block_size')::int = pg_relation_size('victim')"
            " FROM pg_visibility_map_summary('victim')"
        )[0][0],
    }


def main():
    [(version,)] = sql("SELECT current_setting('server_version_num')::int", "postgres")
    victim.make()
    make_role(version >= 170000)
    sql("CREATE EXTENSION pg_visibility")
    sql(f"GRANT EXECUTE ON FUNCTION bt_index_check(regclass, boolean) TO {ROLE}")
    victim.bloat()
    sql("UPDATE victim SET word = word")
    before = state()
    said = {}
    with tempfile.TemporaryDirectory() as directory:
        for module in ("postgresql_reindex", "postgresql_vacuum"):
            shown = victim.answer(victim.start(directory, module, login_user=ROLE))
            said[module] = {name: shown.get(name) for name in ("failed", "changed", "msg", "checks")}
    print(json.dumps({"version": version, "before": before, "after": state(), "said": said}, default=str))
    victim.remove()
    sql(f"DROP ROLE {ROLE}", "postgres")


if __name__ == "__main__":
    main()
