# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof of rebuilds: each index is what it was before, whole, and smaller; nothing of the work is left behind."""

from __future__ import annotations

import typing as t

from .. import postgresql
from ..bloat.measure import IndexBloat
from ..database.extensions import may_execute, schema_of
from ..database.watchdog import Pair, Watched
from ..quantities import human_bytes, human_seconds
from ..result import Part
from .catalog import Identity, identity_of, lost
from .decision import Task
from .settings import Settings

GIN_CHECK = 180000  # the version whose amcheck knows GIN

_MAX_HELD_UP = 10.0

_STATISTICS = """
SELECT (SELECT count(*) FROM pg_catalog.pg_stats s WHERE s.schemaname = %s AND s.tablename = %s) AS columns,
       (SELECT c.reltuples FROM pg_catalog.pg_class c WHERE c.oid = %s::oid) AS rows
"""


class Finding(t.NamedTuple):
    """What one look at one index showed: its status as of a check, and what was observed."""

    name: str
    status: str
    observed: str


class Topic(t.NamedTuple):
    """What is looked at in every rebuilt index."""

    name: str
    expected: str
    advice: str


KEPT = Topic(
    "identity of rebuilt indexes",
    "valid, with a new file, and otherwise as before: definition, owner, constraints, options",
    "Compare the index with its definition in the application, and correct it by ALTER INDEX or a rebuild by hand.",
)
SIZE = Topic(
    "size of rebuilt indexes",
    "smaller than before",
    "Nothing is to be done: what was measured after the rebuild counts as its true size from now on.",
)
STRUCTURE = Topic(
    "structure of rebuilt indexes",
    "amcheck finds no fault",
    "An index that is damaged right after its rebuild tells of broken memory or storage: look at the server's hardware "
    "and log, make a backup, then REINDEX again.",
)
STATISTICS = Topic(
    "statistics of rebuilt expression indexes",
    "statistics of the expressions, by ANALYZE of the table",
    "Run ANALYZE of its table.",
)
ALLOW = "Make it possible to look, or do without (amcheck: false); the activity database_integrity looks at it too."
TOPICS = (KEPT, SIZE, STRUCTURE, STATISTICS)


class Proof:
    """What was found, by topic; :meth:`report` makes checks of it."""

    def __init__(self) -> None:
        self.findings: dict[str, list[Finding]] = {topic.name: [] for topic in TOPICS}

    def add(self, topic: Topic, name: str, status: str, observed: str) -> None:
        self.findings[topic.name].append(Finding(name, status, observed))

    def report(self, part: Part) -> None:
        """One passed check for each topic, and a check of its own for everything that is not as it should be."""
        for topic in TOPICS:
            found = self.findings[topic.name]
            good = [each for each in found if each.status == "passed"]
            if good:
                part.check(
                    topic.name,
                    "passed",
                    expected=topic.expected,
                    observed=f"so of {len(good)}",
                    evidence={each.name: each.observed for each in good},
                )
            for each in found:
                if each.status != "passed":
                    name = f"{topic.name}: {each.name}"
                    advice = ALLOW if each.status == "unknown" else topic.advice
                    part.check(name, each.status, expected=topic.expected, observed=each.observed, advice=advice)


def prove(pair: Pair, task: Task, before: Identity, proof: Proof, settings: Settings) -> t.Optional[Identity]:
    """Look at the index of *task* after its rebuild; *before* is what it was. Returns what it is now."""
    after = identity_of(pair.work, task.target.schema, task.target.name)
    if after is None:
        proof.add(KEPT, task.name, "failed", "the index is gone")
        return None
    wrong = lost(before, after)
    if not (after["is_valid"] and after["is_ready"] and after["is_live"]):
        wrong.append("it is not valid")
    if after["file"] == before["file"]:
        wrong.append("it has the same file as before")
    status = "failed" if wrong else "passed"
    proof.add(KEPT, task.name, status, "; ".join(wrong) or "as before, in a new file")
    _look_at_structure(pair, task, after["oid"], proof, settings)
    if task.target.has_expressions:
        _refresh_statistics(pair, task, after["oid"], proof, settings)
    return after


def compare_size(task: Task, now: IndexBloat, proof: Proof) -> None:
    """Hold size and density of the rebuilt index against what they were."""
    before = task.target
    words = f"{human_bytes(before.size_bytes)} before, {human_bytes(now.size_bytes)} after"
    if before.density is not None and now.density is not None:
        words += f"; pages {before.density:.0%} full before, {now.density:.0%} after"
    proof.add(SIZE, task.name, "passed" if now.size_bytes < before.size_bytes else "warned", words)


def _look_at_structure(pair: Pair, task: Task, oid: int, proof: Proof, settings: Settings) -> None:
    if not settings.amcheck:
        return
    call, why_not = _amcheck_call(pair.work, task.target, oid, settings)
    if call is None:
        if why_not:
            proof.add(STRUCTURE, task.name, "unknown", why_not)
        return
    watched = _patiently(pair, call, settings)
    if watched.ended == "done":
        words = "no fault, every row of the table is in it" if settings.heap_all_indexed else "no fault"
        proof.add(STRUCTURE, task.name, "passed", f"{words}, in {human_seconds(watched.seconds)}")
    else:
        status = "failed" if watched.ended == "failed" else "unknown"
        proof.add(STRUCTURE, task.name, status, watched.reason)


def _amcheck_call(connection: t.Any, index: IndexBloat, oid: int, settings: Settings) -> tuple[t.Any, str]:
    """The statement that checks the index, or None and why it cannot be checked (no reason: nothing knows its kind)."""
    version = int(connection.info.server_version)
    if index.access_method == "gin" and version >= GIN_CHECK:
        signature, arguments = "gin_index_check(regclass)", "({}::oid::regclass)"
    elif index.access_method == "btree":
        signature = "bt_index_check(regclass,boolean)"
        arguments = f"({{}}::oid::regclass, {'true' if settings.heap_all_indexed else 'false'})"
    else:
        return None, ""
    schema = schema_of(connection, "amcheck")
    if schema is None:
        return None, "the extension amcheck is not installed in this database"
    if not may_execute(connection, schema, signature):
        return None, f"the role may not execute {signature} of amcheck (GRANT EXECUTE ON FUNCTION would allow it)"
    compose = postgresql.driver().sql
    function = postgresql.identifier(schema, signature.split("(", maxsplit=1)[0])
    return compose.SQL("SELECT {}" + arguments).format(function, compose.Literal(oid)), ""


def _refresh_statistics(pair: Pair, task: Task, oid: int, proof: Proof, settings: Settings) -> None:
    target = task.target
    table = postgresql.identifier(target.table_schema, target.table)
    watched = _patiently(pair, postgresql.driver().sql.SQL("ANALYZE {}").format(table), settings)
    if watched.ended != "done":
        proof.add(STATISTICS, task.name, "warned", f"ANALYZE: {watched.reason}")
        return
    row = postgresql.query(pair.work, _STATISTICS, [target.schema, target.name, target.table_oid])[0]
    there = row["columns"] > 0 or row["rows"] == 0
    proof.add(STATISTICS, task.name, "passed" if there else "warned", "there" if there else "none after ANALYZE")


def _patiently(pair: Pair, statement: t.Any, settings: Settings) -> Watched:
    """Run *statement* watched; once more when somebody had to be let through."""
    watched = pair.run(statement, max_block=settings.max_block, max_held_up=_MAX_HELD_UP)
    if watched.ended in ("blocking", "autovacuum", "unwatched"):
        watched = pair.run(statement, max_block=settings.max_block, max_held_up=_MAX_HELD_UP)
    return watched
