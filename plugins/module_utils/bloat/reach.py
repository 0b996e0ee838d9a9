# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the login role can measure with in a database, and what it would take to measure better."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..database.extensions import may_execute, schema_of
from ..database.rights import quoted
from .model import BloatSettings, IndexFacts

MEASURABLE = ("btree", "gist", "gin", "hash")


class Reach(t.NamedTuple):
    """The schemas of the extensions that can be used, and what to do about pgstattuple where it cannot."""

    pgstattuple: t.Optional[str]
    pageinspect: t.Optional[str]
    is_standby: bool
    advice: str


def reach_of(connection: t.Any) -> Reach:
    """What the role of *connection* can use in its database."""
    facts = postgresql.query(
        connection,
        "SELECT current_user AS role, current_setting('is_superuser') = 'on' AS is_superuser, "
        "current_database() AS database, pg_is_in_recovery() AS is_standby",
    )[0]
    advice = ""
    pgstattuple = schema_of(connection, "pgstattuple")
    if pgstattuple is None:
        advice = f"CREATE EXTENSION pgstattuple in the database {facts['database']}"
    elif not may_execute(connection, pgstattuple, "pgstatindex(regclass)"):
        advice = f"GRANT pg_stat_scan_tables TO {quoted(facts['role'])}"
        if not _may_use(connection, pgstattuple):
            advice += f" and GRANT USAGE ON SCHEMA {quoted(pgstattuple)} TO {quoted(facts['role'])}"
        pgstattuple = None
    # Its functions refuse everybody else, whatever is granted.
    pageinspect = schema_of(connection, "pageinspect") if facts["is_superuser"] else None
    return Reach(pgstattuple, pageinspect, facts["is_standby"], advice)


def way_for(facts: IndexFacts, reach: Reach, settings: BloatSettings) -> str:
    """The best way of measuring this index that is within reach: the name of a function in ways.py, and its detail."""
    if facts.access_method == "gin":
        return "gin"
    if facts.access_method == "btree" and reach.pageinspect and facts.size_bytes > settings.sample_above_bytes:
        return f"sampled {settings.sample_pages}"
    if reach.pgstattuple:
        return facts.access_method
    return "unaided"


def unmeasurable(facts: IndexFacts, is_standby: bool) -> str:
    """Why this index cannot be measured in any way; empty when it can."""
    if facts.being_built:
        return "it is being built"
    if not facts.is_valid:
        return "it is invalid: its build did not end, or was cancelled"
    if facts.is_unlogged and is_standby:
        return "an unlogged index has no content on a standby"
    if facts.access_method == "brin":
        return "a BRIN index holds summaries, not rows: there is nothing to win"
    if facts.access_method not in MEASURABLE:
        return f"there is no way to measure an index of the kind {facts.access_method}"
    return ""


def _may_use(connection: t.Any, schema: str) -> bool:
    return bool(postgresql.value(connection, "SELECT has_schema_privilege(%s, 'USAGE')", [schema]))
