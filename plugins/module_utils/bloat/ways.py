# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The ways of measuring an index: each reads from the server what it needs and lets a pure function judge it."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..postgresql import QueryError
from . import btree, estimate, other_kinds, sampling
from .model import BloatSettings, Finding, IndexFacts
from .reach import Reach
from .remembered import FIRST_SIGHT, Remembered, rows_of
from .session import limited

_DENIED = "42501"
_UNDEFINED_FUNCTION = "42883"
_OUT_OF_TIME = "57014"


class Context(t.NamedTuple):
    """What all indexes of a database are measured with."""

    connection: t.Any
    settings: BloatSettings
    reach: Reach
    remembered: Remembered


def measure_by(way: str, context: Context, facts: IndexFacts) -> Finding:
    """What *way* says. Where its functions are refused, or take too long, what can be said without them, and why."""
    kind = way.split(" ", 1)[0]
    try:
        if kind in NOT_KEPT:
            return _WAYS[kind](context, facts)
        with limited(context.connection, "statement_timeout", context.settings.timeout_ms):
            return _WAYS[kind](context, facts)
    except QueryError as error:
        if kind == "sampled" and error.sqlstate == _UNDEFINED_FUNCTION and context.reach.pgstattuple:
            return by_pgstatindex(context, facts)  # a pageinspect from before PostgreSQL 14, never updated
        if error.sqlstate not in (_DENIED, _UNDEFINED_FUNCTION, _OUT_OF_TIME):
            raise
        seconds = context.settings.timeout_ms / 1000
        why = f"measuring took longer than {seconds:g} s" if error.sqlstate == _OUT_OF_TIME else error.observed
        return unaided(context, facts, why)


def by_pgstatindex(context: Context, facts: IndexFacts) -> Finding:
    row = _call(context, facts, "pgstatindex")
    return _judge_btree(btree.shape_of(row), facts, row["index_size"])


def by_sampling(context: Context, facts: IndexFacts) -> Finding:
    blocks = facts.size_bytes // facts.block_size
    chosen = sampling.chosen_blocks(blocks, context.settings.sample_pages, seed=facts.oid)
    compose = postgresql.driver().sql.SQL
    # The arguments are of the exact types: others may have put a function of this name into the schema.
    statement = compose(
        "SELECT s.type::text AS type, s.page_size, s.free_size FROM unnest(%s::bigint[]) b, "
        "LATERAL {}(format('%%I.%%I', %s::text, %s::text), b) s"
    ).format(postgresql.identifier(str(context.reach.pageinspect), "bt_page_stats"))
    pages = postgresql.query(context.connection, statement, [chosen, facts.schema, facts.name])
    sample = sampling.evaluate(pages, blocks, facts.fillfactor)
    found = _judge_btree(sample.shape, facts, facts.size_bytes)
    reason = f"{len(pages)} of {blocks - 1} pages; right within {sample.margin * 100:.1f} points in 95 of 100 cases"
    return found._replace(method="sampled", margin=sample.margin, reason=reason)


def _judge_btree(shape: btree.Shape, facts: IndexFacts, size_bytes: int) -> Finding:
    unmerged = facts.tuples if facts.is_unique else 0
    return btree.judge(shape, facts.fillfactor, size_bytes, facts.block_size, unmerged=unmerged)


def by_pgstattuple(context: Context, facts: IndexFacts) -> Finding:
    found = other_kinds.judge_gist(_call(context, facts, "pgstattuple"), facts, context.remembered.baseline(facts))
    context.remembered.learn(facts, found.density, FIRST_SIGHT)
    return found


def by_pgstathashindex(context: Context, facts: IndexFacts) -> Finding:
    return other_kinds.judge_hash(_call(context, facts, "pgstathashindex"), facts)


def by_baseline(context: Context, facts: IndexFacts) -> Finding:
    """A GIN: its own counts say nothing of how full its pages are, so compare it with its compact self."""
    pending = 0
    if context.reach.pgstattuple:
        pending = _call(context, facts, "pgstatginindex")["pending_pages"] * facts.block_size
    return _compared(context, facts, "low" if facts.has_predicate else "medium", pending)


def unaided(context: Context, facts: IndexFacts, why: str = "") -> Finding:
    """Without the functions of pgstattuple: the estimate where it holds, else the comparison with its compact self."""
    why = why or context.reach.advice
    found = estimate.judge(facts, estimate.columns_of(context.connection, facts))
    if found.method == "none":
        found = _compared(context, facts, "low")
    return found._replace(reason="; ".join(words for words in (found.reason, why) if words))


def _compared(context: Context, facts: IndexFacts, confidence: str, pending_bytes: int = 0) -> Finding:
    remembered = context.remembered
    baseline = remembered.baseline(facts)
    if not pending_bytes:
        remembered.learn(facts, source=FIRST_SIGHT)
    return other_kinds.judge_ratio(facts, rows_of(facts), baseline, confidence, pending_bytes)


def _call(context: Context, facts: IndexFacts, function: str) -> t.Dict[str, t.Any]:
    """The row that a *function* of pgstattuple returns for the index."""
    compose = postgresql.driver().sql.SQL
    name = postgresql.identifier(str(context.reach.pgstattuple), function)
    statement = compose("SELECT * FROM {}(%s::oid::regclass)").format(name)
    return postgresql.query(context.connection, statement, [facts.oid])[0]


_WAYS: t.Dict[str, t.Callable[[Context, IndexFacts], Finding]] = {
    "btree": by_pgstatindex,
    "sampled": by_sampling,
    "gist": by_pgstattuple,
    "hash": by_pgstathashindex,
    "gin": by_baseline,
    "unaided": unaided,
}

# What these say depends on more than the index itself, and costs nothing to ask again.
NOT_KEPT = ("gin", "unaided")
