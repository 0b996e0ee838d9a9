# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is measured: the counters of the server, and in each database what may lack an index."""

from __future__ import annotations

import contextlib
import typing as t

from ..database import extensions, scope, session
from ..errors import MaintenanceError
from ..postgresql import QueryError
from ..result import Part
from . import activity, comparison, statements, tables

_EXTENSION = "pg_stat_statements"
_PURPOSE = "query review"
_Place = t.Tuple[str, str]  # database and schema of the extension


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


def measure(
    params: t.Dict[str, t.Any], part: Part, *, check_mode: bool
) -> t.Tuple[Seen, t.Optional[comparison.Memory]]:
    """Ask the server for its counters, and each database for what may lack an index."""
    with connected(params, params["login_db"]) as connection:
        chosen = scope.chosen(connection, params)
        basis = activity.read_basis(connection)
        memory = comparison.read_memory(params["previous"], basis.server)
        databases = activity.read_databases(connection, params)
        sessions = activity.read_sessions(connection)
        obstacle = statements.obstacle_of_server(connection)
    names = _names_of(chosen)
    statistics, place = None, ("", "")
    if obstacle is None:
        statistics, obstacle, place = _read_statistics(params, names, part, check_mode=check_mode)
    scanned, foreign_keys = _survey(params, chosen, memory, databases)
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


def _read_statistics(
    params: t.Dict[str, t.Any], names: t.Sequence[str], part: Part, *, check_mode: bool
) -> t.Tuple[t.Optional[statements.Statistics], t.Optional[statements.Obstacle], _Place]:
    """The counters, read in whichever database has the extension, which is installed in login_db if need be."""
    for name in dict.fromkeys([params["login_db"], *names]):
        with contextlib.suppress(MaintenanceError), connected(params, name) as connection:
            schema = extensions.schema_of(connection, _EXTENSION)
            if schema is not None:
                return (*_read(connection, schema, params), (name, schema))
    with connected(params, params["login_db"]) as connection:
        wanted = params["create_extensions"]
        provided = extensions.provide(connection, _EXTENSION, create=wanted, part=part, check_mode=check_mode)
        if provided is not None:
            return (*_read(connection, provided, params), (params["login_db"], provided))
    observed = "the extension would be installed" if part.changes else "no database has the extension"
    obstacle = statements.Obstacle(observed, f"CREATE EXTENSION {_EXTENSION}; in the database {params['login_db']}.")
    return None, obstacle, ("", "")


def connected(params: t.Dict[str, t.Any], name: str) -> t.ContextManager[t.Any]:
    return contextlib.closing(session.open_session(params, name, purpose=_PURPOSE))


def _read(
    connection: t.Any, schema: str, params: t.Dict[str, t.Any]
) -> t.Tuple[t.Optional[statements.Statistics], t.Optional[statements.Obstacle]]:
    try:
        return statements.read_statistics(connection, schema, params), None
    except QueryError as error:
        return None, statements.obstacle_of_refusal(error)


def _survey(
    params: t.Dict[str, t.Any],
    chosen: scope.Scope,
    memory: t.Optional[comparison.Memory],
    databases: t.Dict[str, t.Dict[str, t.Any]],
) -> t.Tuple[t.List[tables.Scanned], t.List[tables.ForeignKey]]:
    """What may lack an index, in all databases but templates; one that is gone meanwhile counts as skipped."""
    scanned: t.List[tables.Scanned] = []
    foreign_keys: t.List[tables.ForeignKey] = []
    patterns = scope.TablePatterns(params)
    for name in _names_of(chosen):
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


def _names_of(chosen: scope.Scope) -> t.List[str]:
    return [database.name for database in chosen.databases if not database.is_template]
