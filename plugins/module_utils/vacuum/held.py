# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a vacuum would be in vain because something holds the horizon back.

What a vacuum could win is looked for in the rows themselves: on a sample of the pages that are not all-visible, is
there a row that nobody can see any more, or a page whose rows everybody can see? If not, all of it is held.
"""

from __future__ import annotations

import time
import typing as t

from .. import postgresql
from ..database import extensions
from ..database.horizon import Holder, holding
from ..postgresql import QueryError
from ..result import Part
from .decide import Step
from .measure import LOCK_TIMEOUT, Sight
from .table import Limits, Table

SAMPLE_PAGES = 64
# Of a larger table, so many bits of the visibility map are looked at, spread evenly, to find those pages.
LOOKED_UP_PAGES = 20000
# A freeze that would make the table younger by less than this share of the permitted age is in vain.
LEAST_GAIN = 0.05

# Bits of t_infomask: 0x0100 and 0x0200 inserted by one that committed, or not (both: frozen); 0x0400 and 0x0800 deleted
# by one that committed, or not at all; 0x1000 xmax is a multixact; 0x0080, or 0x0040 alone of 0x1050, only locked.
# Transactions without such a hint are looked up in the commit log; those too old to be there have committed.
_SAMPLE = """
WITH dirty AS (
  SELECT b.blkno, row_number() OVER (ORDER BY b.blkno) AS number, count(*) OVER () AS pages
  FROM generate_series(0, %s::bigint - 1, %s::bigint) AS b (blkno),
       {map}(%s::bigint::oid::regclass, b.blkno) m
  WHERE NOT m.all_visible
), chosen AS (
  SELECT blkno FROM dirty WHERE number %% greatest(pages / %s, 1) = 0 LIMIT %s
), facts AS (
  SELECT b.blkno, i.lp_flags, i.t_infomask AS mask, i.t_xmin, i.t_xmax, (
           pg_snapshot_xmax(pg_current_snapshot())::text::numeric + 1000000) AS base
  FROM chosen b LEFT JOIN LATERAL {items}({raw}(%s::text, 'main', b.blkno)) i ON true
), states AS (
  SELECT blkno, lp_flags, t_xmin, t_xmax,
    lp_flags = 1 AND mask & 768 = 768 AS frozen,
    CASE WHEN lp_flags <> 1 OR mask & 256 <> 0 THEN 'committed'
         WHEN mask & 512 <> 0 THEN 'aborted'
         ELSE coalesce(pg_xact_status((base - mod(base - t_xmin::text::numeric, 4294967296))::text::xid8), 'committed')
    END AS inserted,
    CASE WHEN lp_flags <> 1 OR mask & 2048 <> 0 OR t_xmax::text = '0' OR mask & 128 <> 0 OR mask & 4176 = 64 THEN 'not'
         WHEN mask & 4096 <> 0 THEN 'unknown'
         WHEN mask & 1024 <> 0 THEN 'committed'
         ELSE coalesce(pg_xact_status((base - mod(base - t_xmax::text::numeric, 4294967296))::text::xid8), 'committed')
    END AS deleted
  FROM facts
), pages AS (
  SELECT blkno,
    bool_or(coalesce(lp_flags, 0) = 3 OR inserted = 'aborted'
            OR deleted = 'committed' AND age(t_xmax) > age(%s::text::xid)) AS removable,
    bool_and(coalesce(lp_flags, 0) <> 1 OR deleted IN ('not', 'aborted')
             AND (frozen OR inserted = 'committed' AND age(t_xmin) > age(%s::text::xid))) AS visible_to_all
  FROM states GROUP BY blkno
)
SELECT count(*) AS pages, count(*) FILTER (WHERE removable OR visible_to_all) AS to_win FROM pages
"""


class Held(t.NamedTuple):
    """A step that is in vain: what holds it back, and how that is known."""

    step: Step
    holder: Holder
    evidence: str


class Inspector(t.NamedTuple):
    """The schemas of the functions that look into pages; None where they cannot be had."""

    visibility: t.Optional[str]
    pages: t.Optional[str]


def inspector_for(connection: t.Any, sight: Sight, *, create: bool, part: Part, check_mode: bool) -> Inspector:
    """How rows can be looked into in the database of *connection*; installs pageinspect when *create* is set."""
    pages = None
    if sight.visibility_schema is not None:
        pages = extensions.provide(connection, "pageinspect", create=create, part=part, check_mode=check_mode)
    if pages is not None and not extensions.may_execute(connection, pages, "get_raw_page(text, text, bigint)"):
        pages = None
    return Inspector(sight.visibility_schema, pages)


def oldest_for(table: Table, holders: t.Sequence[Holder]) -> t.Optional[Holder]:
    """Which of *holders*, given oldest first, holds back the rows of *table* the longest; None when none does."""
    if table.is_shared:
        return holders[0] if holders else None
    return next(iter(holding(holders, table.database, catalog=table.is_catalog)), None)


def freeze_in_vain(step: Step, limits: Limits, holder: Holder) -> str:
    """Why to freeze the table of *step* wins next to nothing; empty when it does win something.

    Freezing makes a table as young as the horizon, and no younger.
    """
    gain = max((step.table.xid_age - holder.xmin_age) / max(limits.xid_age, 1), 0.0)
    by_multixact = step.table.mxid_age / max(limits.mxid_age, 1) > step.table.xid_age / max(limits.xid_age, 1)
    if by_multixact or gain >= LEAST_GAIN:
        return ""
    return f"its age {step.table.xid_age} cannot fall below the {holder.xmin_age} of the holder"


def vacuumed_since(table: Table, holder: Holder, now: float) -> str:
    """Why a vacuum is known to be in vain from the times alone; empty when it is not.

    A vacuum that ended after the holder had begun to hold has removed all that may be removed for as long as it holds.
    """
    if holder.seconds is None or table.last_vacuum is None or table.last_vacuum <= now - holder.seconds:
        return ""
    return "it was vacuumed since the holder began, so all that is left is held"


def sample(connection: t.Any, inspector: Inspector, table: Table, holder: Holder) -> t.Optional[tuple[int, int]]:
    """Of the pages of *table* that are not all-visible, how many were looked at, and at how many of them a vacuum could
    do anything; None when they cannot be looked at."""
    if inspector.visibility is None or inspector.pages is None or table.is_locked:
        return None
    compose = postgresql.driver().sql.SQL
    statement = compose(_SAMPLE).format(
        map=postgresql.identifier(inspector.visibility, "pg_visibility_map"),
        items=postgresql.identifier(inspector.pages, "heap_page_items"),
        raw=postgresql.identifier(inspector.pages, "get_raw_page"),
    )
    xmin = str(holder.xmin)
    every = max(1, table.pages // LOOKED_UP_PAGES)
    name = quoted_name(connection, table.oid)
    parameters = [table.pages, every, table.oid, SAMPLE_PAGES, SAMPLE_PAGES, name, xmin, xmin]
    try:
        postgresql.query(connection, "SELECT pg_catalog.set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
        row = postgresql.query(connection, statement, parameters)[0]
    except QueryError:
        return None  # locked, cut or dropped meanwhile: then the vacuum itself will tell
    return row["pages"], row["to_win"]


def quoted_name(connection: t.Any, oid: int) -> str:
    """The name of the relation *oid*, quoted and with its schema."""
    return str(postgresql.value(connection, "SELECT %s::bigint::oid::regclass::text", [oid]))


def in_vain(
    connection: t.Any,
    step: Step,
    limits: Limits,
    holders: t.Sequence[Holder],
    get_inspector: t.Callable[[], Inspector],
) -> t.Optional[Held]:
    """Who holds back all that the vacuum in *step* could win; None when it is worth while."""
    holder = oldest_for(step.table, holders) if step.vacuum else None
    if holder is None:
        return None
    too_young = freeze_in_vain(step, limits, holder) if step.freeze else ""
    if step.freeze and not too_young:
        return None
    why = vacuumed_since(step.table, holder, time.time())
    if why:
        return Held(step, holder, "; ".join(words for words in (too_young, why) if words))
    seen = sample(connection, get_inspector(), step.table, holder) if step.table.dirty_pages else (0, 0)
    if seen is None:
        return Held(step, holder, too_young) if too_young else None
    if seen[1] or not (seen[0] or too_young):
        return None
    return Held(step, holder, too_young or f"on none of {seen[0]} pages looked at is anything that it does not hold")
