# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of each index is bloat.

The best way within reach is taken for each index, and what has not changed since an earlier run is not measured again.
Measuring reads; it never waits long for a lock, nor holds one for long.
"""

from __future__ import annotations

import contextlib
import typing as t

from .. import postgresql
from ..errors import MaintenanceError
from ..postgresql import QueryError
from . import ways
from .listing import LOCKED, VANISHED, list_indexes
from .model import BloatSettings, IndexBloat, IndexFacts, joined, nothing
from .reach import reach_of, unmeasurable, way_for
from .remembered import Remembered

__all__ = ["BloatSettings", "IndexBloat", "measure_index", "measure_indexes"]

_CHANGED = "22023"  # a page that is not there any more: the index was rebuilt meanwhile
_LOST = ("57P01", "57P02", "57P03", "08006", "08003")  # the server ended the session

_HOLDERS = """
SELECT l.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'unknown') AS application
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.relation IN (%s::oid, %s::oid) AND l.mode = 'AccessExclusiveLock'
  AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY l.granted DESC, l.pid LIMIT 1
"""


def measure_indexes(connection: t.Any, settings: BloatSettings, remembered: Remembered) -> t.List[IndexBloat]:
    """The indexes that *settings* choose in the database of *connection*, each with its bloat.

    What is *remembered* of an unchanged index is not measured again; what was measured is added there, to be saved by
    the caller. Indexes that are dropped meanwhile are left out.
    """
    with _waiting_briefly(connection, settings):
        context = ways.Context(connection, settings, reach_of(connection), remembered)
        listed = list_indexes(connection, settings)
        locked: t.Set[int] = set()
        found = [_measured(context, facts, locked) for facts in listed]
    if listed and _is_whole(settings):
        remembered.forget_others(listed[0].database, listed[0].database_oid, listed)
    return [index for index in found if index is not None]


def measure_index(
    connection: t.Any, oid: int, settings: BloatSettings, remembered: t.Optional[Remembered] = None
) -> IndexBloat:
    """The index with this *oid*, measured now whatever is remembered (which serves as baseline alone), to verify it.

    Raises MaintenanceError when there is no such index.
    """
    settings = settings._replace(min_size_bytes=0)
    with _waiting_briefly(connection, settings):
        context = ways.Context(connection, settings, reach_of(connection), remembered or Remembered())
        for facts in list_indexes(connection, settings, oid):
            index = _measured(context, facts, set(), fresh=True)
            if index is not None:
                return index
    raise MaintenanceError(
        "measure an index",
        where=f"database {connection.info.dbname}",
        expected=f"an index with the OID {oid}",
        observed="there is none",
        advice="It was dropped or rebuilt meanwhile; list the indexes anew.",
    )


def _is_whole(settings: BloatSettings) -> bool:
    return settings.catalogs and tuple(settings.tables) == ("*",) and not settings.exclude_tables


def _measured(
    context: ways.Context, facts: IndexFacts, locked: t.Set[int], fresh: bool = False
) -> t.Optional[IndexBloat]:
    """The index with its bloat; None when it is gone. *locked* collects the tables that are not worth waiting for."""
    why = unmeasurable(facts, context.reach.is_standby)
    if why:
        return joined(facts, nothing(facts.size_bytes, why))
    if facts.size_bytes < context.settings.min_size_bytes:
        return joined(facts, nothing(facts.size_bytes, "too small to matter", "small"))
    way = way_for(facts, context.reach, context.settings)
    known = None if fresh or facts.locked else context.remembered.finding(facts, way)
    if known is not None:
        return joined(facts, known)
    if facts.locked and facts.table_oid in locked:
        return joined(facts, nothing(facts.size_bytes, _locked_by(context.connection, facts)))
    return _tried(way, context, facts, locked)


def _tried(way: str, context: ways.Context, facts: IndexFacts, locked: t.Set[int]) -> t.Optional[IndexBloat]:
    """Measure, once more when the index changed under way; an index that cannot be read does not fail the others."""
    observed = ""
    for _attempt in range(2):
        try:
            found = ways.measure_by(way, context, facts)
        except QueryError as error:
            if error.sqlstate in _LOST or context.connection.closed:
                raise
            if error.sqlstate == LOCKED:
                locked.add(facts.table_oid)
                return joined(facts, nothing(facts.size_bytes, _locked_by(context.connection, facts)))
            observed = error.observed
            again = next(iter(list_indexes(context.connection, context.settings, facts.oid)), None)
            if again is None:
                return None
            facts = again
            if error.sqlstate not in (*VANISHED, _CHANGED):
                break
        else:
            if way not in ways.NOT_KEPT and not facts.locked:
                context.remembered.keep(facts, way, found)
            return joined(facts, found)
    return joined(facts, nothing(facts.size_bytes, f"it could not be read: {observed}"))


def _locked_by(connection: t.Any, facts: IndexFacts) -> str:
    rows = postgresql.query(connection, _HOLDERS, [facts.oid, facts.table_oid])
    if not rows:
        return "locked by a session that has just ended"
    return f"locked by process {rows[0]['pid']} of the server ({rows[0]['application']})"


@contextlib.contextmanager
def _waiting_briefly(connection: t.Any, settings: BloatSettings) -> t.Iterator[None]:
    """Let statements in the block neither wait long for a lock nor take long; restore the settings of the session."""
    ask = "SELECT current_setting('lock_timeout') AS lock_timeout, current_setting('statement_timeout') AS timeout"
    change = "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false)"
    before = postgresql.query(connection, ask)[0]
    postgresql.query(connection, change, [f"{settings.lock_timeout_ms}ms", f"{settings.timeout_ms}ms"])
    try:
        yield
    finally:
        if not connection.closed:
            postgresql.query(connection, change, [before["lock_timeout"], before["timeout"]])
