# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is to do in each database: leftovers to drop, indexes to rebuild, and what is left and why."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..bloat.measure import measure_indexes
from ..database.extensions import provide
from ..database.scope import Database
from ..database.watchdog import Pair
from ..quantities import human_bytes
from .catalog import traits_of
from .decision import Left, Task, Traits, judge
from .leftovers import Invalid, invalid_indexes, is_leftover
from .rebuild import Crew, clear_leftovers

# One cheap question tells what a database without bloat need not be asked. Sizes are as of the last VACUUM or build,
# which is close enough to decide what is worth preparing.
_OUTLINE = """
SELECT count(*) FILTER (WHERE c.oid >= 16384) AS indexes, bool_or(NOT x.indisvalid) AS has_invalid,
       coalesce(max(c.relpages) FILTER (WHERE c.oid >= 16384), 0) * current_setting('block_size')::bigint AS largest,
       coalesce(max(c.relpages) FILTER (WHERE c.oid < 16384), 0) * current_setting('block_size')::bigint AS built_in
FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class c ON c.oid = x.indexrelid WHERE c.relkind = 'i'
"""


class Survey(t.NamedTuple):
    """What was found in one database."""

    tasks: t.List[Task]
    left: t.List[Left]
    leftovers: t.List[Invalid]  # those that are still there
    invalid: t.List[Invalid]  # indexes that are not valid, and no leftovers
    looked_at: int


def survey(database: Database, pair: Pair, crew: Crew, check_mode: bool) -> Survey:
    """Clean up in *database*, measure its indexes and decide; in check mode nothing is touched."""
    settings = crew.around.settings
    outline = postgresql.query(pair.work, _OUTLINE)[0]
    invalid = invalid_indexes(pair.work, settings) if outline["has_invalid"] else []
    leftovers = [index for index in invalid if is_leftover(index)]
    others = [index for index in invalid if index not in leftovers and index.busy is None]
    if check_mode:
        for index in leftovers:
            crew.part.change("leftover index", index.full_name, human_bytes(index.size_bytes), "would be dropped")
    elif leftovers:
        leftovers = clear_leftovers(pair, crew)
    catalogs = outline["built_in"] >= settings.min_gain
    if database.size_bytes < settings.min_gain or not (outline["indexes"] or catalogs):
        return Survey([], [], leftovers, others, 0)
    _provide_extensions(pair.work, outline["largest"], crew, check_mode)
    indexes = measure_indexes(pair.work, settings.bloat()._replace(catalogs=catalogs), crew.remembered)
    wanted = [index for index in indexes if judge(index, Traits(), settings, crew.memory) is not None]
    traits = traits_of(pair.work, wanted, crew.around, crew.statements)
    judged = [judge(index, traits.get(index.oid, Traits()), settings, crew.memory) for index in wanted]
    tasks = [each for each in judged if isinstance(each, Task)]
    if tasks and settings.amcheck:
        provide(pair.work, "amcheck", create=settings.create_extensions, part=crew.part, check_mode=check_mode)
    left = [each for each in judged if isinstance(each, Left)]
    return Survey(tasks, left, leftovers, others, len(indexes))


def _provide_extensions(connection: t.Any, largest: int, crew: Crew, check_mode: bool) -> None:
    """See to what measuring needs, where an index is large enough to matter; of large ones pages are sampled."""
    settings = crew.around.settings
    wanted = [("pgstattuple", settings.min_gain), ("pageinspect", settings.bloat().sample_above_bytes)]
    for name, size in wanted:
        if largest >= size and (name != "pageinspect" or crew.around.rights.is_superuser):
            provide(connection, name, create=settings.create_extensions, part=crew.part, check_mode=check_mode)
