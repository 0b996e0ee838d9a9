# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What pg_stat_statements counted: by statement and database, of all roles together."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..database.scope import matches
from ..postgresql import QueryError, identifier, query, value
from .text import shown_statement

TEXT_LENGTH = 8000  # of a statement, as far as it is looked at

# A setting of the library exists only where the server has loaded it.
_LOADED = "SELECT count(*) = 1 FROM pg_catalog.pg_settings WHERE name = 'pg_stat_statements.max'"
_PRELOADED = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries'"
_SEES_ALL = "SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')"
_ROLE = "SELECT pg_catalog.quote_ident(current_user)"

_COUNTERS = """
SELECT d.datname AS database, s.queryid::text AS queryid, sum(s.calls)::bigint AS calls,
       (sum(s.total_exec_time) / 1000)::float8 AS seconds, sum(s.rows)::bigint AS rows,
       sum(s.shared_blks_hit)::bigint AS blocks_hit, sum(s.shared_blks_read)::bigint AS blocks_read,
       sum(s.temp_blks_read + s.temp_blks_written)::bigint AS temp_blocks, {since} AS since
FROM {statements}(false) AS s JOIN pg_catalog.pg_database d ON d.oid = s.dbid
WHERE s.queryid IS NOT NULL
GROUP BY 1, 2
"""
_TEXTS = """
SELECT d.datname AS database, s.queryid::text AS queryid, min(left(s.query, %s)) AS words
FROM {statements}(true) AS s JOIN pg_catalog.pg_database d ON d.oid = s.dbid
WHERE s.queryid = ANY (%s::bigint[])
GROUP BY 1, 2
"""
_INFO = "SELECT dealloc AS evicted, extract(epoch FROM stats_reset)::float8 AS reset FROM {info}()"
_HAS = "SELECT pg_catalog.to_regprocedure(pg_catalog.format('%%I.%%I', %s::text, %s::text) || '()') IS NOT NULL"


class Statement(t.NamedTuple):
    """The counters of one normalised statement in one database; ``since`` is when they began, where that is known."""

    database: str
    queryid: str
    calls: int
    seconds: float
    rows: int = 0
    blocks_hit: int = 0
    blocks_read: int = 0
    temp_blocks: int = 0
    since: t.Optional[float] = None

    @property
    def key(self) -> t.Tuple[str, str]:
        return self.database, self.queryid


class Statistics(t.NamedTuple):
    """All counters, since when they are kept together (POSIX time), and how many statements were thrown out."""

    statements: t.List[Statement]
    reset: t.Optional[float]
    evicted: t.Optional[int]


class Obstacle(t.NamedTuple):
    """Why there are no statistics of statements, and what to do about it."""

    observed: str
    advice: str


def obstacle_of_server(connection: t.Any) -> t.Optional[Obstacle]:
    """What keeps this role from the statistics of this server, whatever extensions its databases have."""
    if not value(connection, _LOADED):
        return Obstacle("the server has not loaded the library", loading_advice(value(connection, _PRELOADED)))
    if not value(connection, _SEES_ALL):
        role = value(connection, _ROLE)
        advice = f"GRANT pg_read_all_stats TO {role} (or pg_monitor)."
        return Obstacle(f"the role {role} may not see the statements of others", advice)
    return None


def loading_advice(preloaded: t.Optional[str]) -> str:
    """How to load the library beside what is *preloaded*; None when the role may not see what that is."""
    if preloaded is None:
        return "Add pg_stat_statements to shared_preload_libraries, and restart the server."
    names = [name.strip().strip('"') for name in preloaded.split(",") if name.strip()]
    # One literal each: a list in one literal would be taken for the name of a single library.
    libraries = ", ".join(f"'{name}'" for name in [*names, "pg_stat_statements"])
    return f"ALTER SYSTEM SET shared_preload_libraries = {libraries}; and restart the server."


def read_statistics(connection: t.Any, schema: str, params: t.Mapping[str, t.Any]) -> Statistics:
    """All counters of the databases that *params* choose; *schema* holds the extension in this database."""
    sql = postgresql.driver().sql.SQL
    view = identifier(schema, "pg_stat_statements")
    has_since = connection.info.server_version >= 170000
    since = sql("min(extract(epoch FROM s.stats_since))::float8" if has_since else "NULL::float8")
    rows = query(connection, sql(_COUNTERS).format(statements=view, since=since))
    chosen = [row for row in rows if matches(row["database"], params["databases"], params["exclude_databases"])]
    facts: t.Dict[str, t.Any] = {"reset": None, "evicted": None}
    if value(connection, _HAS, [schema, "pg_stat_statements_info"]):
        facts = query(connection, sql(_INFO).format(info=identifier(schema, "pg_stat_statements_info")))[0]
    return Statistics([Statement(**row) for row in chosen], facts["reset"], facts["evicted"])


def read_texts(connection: t.Any, schema: str, wanted: t.Sequence[Statement]) -> t.Dict[t.Tuple[str, str], str]:
    """What may be shown of the *wanted* statements, by their keys."""
    if not wanted:
        return {}
    statement = postgresql.driver().sql.SQL(_TEXTS).format(statements=identifier(schema, "pg_stat_statements"))
    rows = query(connection, statement, [TEXT_LENGTH, [int(one.queryid) for one in wanted]])
    return {(row["database"], row["queryid"]): shown_statement(row["words"] or "") for row in rows}


def obstacle_of_refusal(error: QueryError) -> Obstacle:
    """What to do when the server refused to show the counters."""
    if error.sqlstate in ("42703", "42883", "42P01"):
        return Obstacle(error.observed, "ALTER EXTENSION pg_stat_statements UPDATE: it is older than the server.")
    if error.sqlstate == "42501":
        return Obstacle(error.observed, "GRANT USAGE on the extension's schema and EXECUTE on pg_stat_statements.")
    return Obstacle(error.observed, error.advice)
