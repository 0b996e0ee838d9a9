# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Everything that is read before anything is looked at closely: what there is, in all databases."""

from __future__ import annotations

import contextlib
import time
import typing as t

from ..database import extensions, session
from ..database.scope import Database, TablePatterns
from ..errors import MaintenanceError
from ..postgresql import QueryError, query, value
from ..result import Part
from . import catalogs, indexes, looking, sequences, things
from .catalogs import Collation, Row
from .looking import Reach
from .report_catalogs import Catalogs
from .things import Thing

PURPOSE = "integrity"
TRIES = 5
# An object that vanishes while the catalogs are read, or that somebody alters just then.
_TRANSIENT = ("XX000", "55P03", "42P01", "42704", "40001", "57014")
_SETTINGS = "SELECT pg_catalog.set_config('lock_timeout', '500ms', false)"

Found = t.TypeVar("Found")


class Survey(t.NamedTuple):
    """What there is. ``reaches`` says what of amcheck can be called in each database; None: it is not installed."""

    things: t.List[Thing]
    reaches: t.Dict[str, t.Optional[Reach]]
    catalogs: Catalogs
    collations: t.List[Collation]
    announced: t.List[str]


class Server(t.NamedTuple):
    """Which server it is, and what it holds for all databases. ``cluster`` tells it from others on the same host."""

    cluster: str
    standby: bool
    checksums: bool
    failures: t.List[Row]
    standbys: int


def read_server(connection: t.Any, params: t.Mapping[str, t.Any]) -> Server:
    identifier = value(connection, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
    standby = bool(value(connection, "SELECT pg_catalog.pg_is_in_recovery()"))
    return Server(
        f"{identifier}-{params['login_port']}",
        standby,
        catalogs.checksums_enabled(connection),
        catalogs.read_checksum_failures(connection),
        0 if standby else catalogs.connected_standbys(connection),
    )


def survey(
    params: t.Mapping[str, t.Any], databases: t.Sequence[Database], server: Server, *, check_mode: bool, part: Part
) -> Survey:
    """Read the catalogs of all *databases*, and provide amcheck in them."""
    found = Survey([], {}, Catalogs([], [], [], [], [], {}, [], server.standbys, time.time()), [], [])
    patterns = TablePatterns(params)
    for database in databases:
        before = len(part.changes)
        try:
            with contextlib.closing(session.open_session(params, database.name, purpose=PURPOSE)) as connection:
                query(connection, _SETTINGS)
                patterns.look(connection)
                create = params["create_extensions"] and not server.standby
                extensions.provide(connection, "amcheck", create=create, part=part, check_mode=check_mode)
                found.reaches[database.name] = looking.reach(connection)
                _read(connection, database, params, server, found)
        except MaintenanceError as error:
            found.catalogs.unread.append((database.name, error.observed))
        if check_mode and len(part.changes) > before:
            found.announced.append(database.name)
    patterns.refuse_unmatched()
    return found


def _read(connection: t.Any, database: Database, params: t.Mapping[str, t.Any], server: Server, found: Survey) -> None:
    name, oid = database.name, database.oid
    found.things.extend(_steadily(lambda: things.list_things(connection, name, oid, params)))
    found.collations.extend(_steadily(lambda: catalogs.read_collations(connection, name)))
    if server.standby or database.is_template:
        return
    into = found.catalogs
    into.statistics_since[name] = catalogs.statistics_since(connection)
    into.sequences.extend(_steadily(lambda: sequences.read_sequences(connection, name, oid)))
    into.indexes.extend(_steadily(lambda: indexes.read_indexes(connection, name, oid)))
    into.promises.extend(_steadily(lambda: catalogs.read_constraints(connection, name)))
    for row in _steadily(lambda: catalogs.read_tables_without_key(connection)):
        into.without_key.append((name, row["table_name"], row["rows"]))
    for row in _steadily(lambda: catalogs.read_tables_without_identity(connection)):
        into.without_identity.append((name, row["table_name"], row["publication"]))


def _steadily(read: t.Callable[[], Found]) -> Found:
    """What *read* answers; it is asked again when something vanished under its hands."""
    for attempt in range(1, TRIES + 1):
        try:
            return read()
        except QueryError as error:
            if attempt == TRIES or error.sqlstate not in _TRANSIENT:
                raise
    raise AssertionError("the last attempt answers or raises")
