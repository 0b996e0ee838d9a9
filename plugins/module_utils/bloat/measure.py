# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much of each index is bloat.

The best way within reach is taken for each index, and what has not changed since an earlier run is not measured again.
Measuring reads; it never waits long for a lock, nor holds one for long.
"""

from __future__ import annotations

import typing as t

from ..errors import MaintenanceError
from ..postgresql import QueryError
from . import ways
from .listing import LOCKED, list_indexes
from .model import BloatSettings, Finding, IndexBloat, IndexFacts, joined, nothing
from .reach import reach_of, unmeasurable, way_for
from .remembered import Remembered
from .session import holder_of, limited

__all__ = ["BloatSettings", "IndexBloat", "measure_index", "measure_indexes"]


def measure_indexes(connection: t.Any, settings: BloatSettings, remembered: Remembered) -> t.List[IndexBloat]:
    """The indexes that *settings* choose in the database of *connection*, each with its bloat.

    What is *remembered* of an unchanged index is not measured again; what was measured is added there, to be saved by
    the caller. Indexes that are dropped meanwhile are left out.
    """
    with limited(connection, "lock_timeout", settings.lock_timeout_ms):
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
    with limited(connection, "lock_timeout", settings.lock_timeout_ms):
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
        return joined(facts, _held(context, facts))
    return _tried(way, context, facts, locked)


def _tried(way: str, context: ways.Context, facts: IndexFacts, locked: t.Set[int]) -> t.Optional[IndexBloat]:
    """Measure, once more when the index changed under way; None when it is gone."""
    for _attempt in range(2):
        found, final = _once(way, context, facts, locked)
        if final:
            break
        again = next(iter(list_indexes(context.connection, context.settings, facts.oid)), None)
        if again is None:
            return None
        facts = again
    return joined(facts, found)


def _once(way: str, context: ways.Context, facts: IndexFacts, locked: t.Set[int]) -> t.Tuple[Finding, bool]:
    """What *way* says, and whether that is final; an index that cannot be read does not fail the others."""
    try:
        found = ways.measure_by(way, context, facts)
    except QueryError as error:
        if error.sqlstate == LOCKED:
            locked.add(facts.table_oid)
            return _held(context, facts), True
        return nothing(facts.size_bytes, f"it could not be read: {error.observed}"), False
    if facts.locked:
        # By now the lock is gone, but the size is not known yet.
        return _held(context, facts), False
    if way not in ways.NOT_KEPT:
        context.remembered.keep(facts, way, found)
    return found, True


def _held(context: ways.Context, facts: IndexFacts) -> Finding:
    return nothing(facts.size_bytes, holder_of(context.connection, [facts.oid, facts.table_oid]))
