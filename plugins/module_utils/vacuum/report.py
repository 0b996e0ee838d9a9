# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run shows: checks, metrics, changes. One check for each database, and one for each thing that is wrong."""

from __future__ import annotations

import typing as t

from ..database.horizon import Holder, describe
from ..database.rights import missing_right_advice, quoted
from ..database.scope import CLOSED
from ..quantities import human_seconds
from ..result import Part
from .act import DENIED, DONE, FAILED, GONE, IN_THE_WAY, LOCKED, NO_EFFECT, OVER, Outcome
from .decide import Step
from .flow import Work
from .held import Held, oldest_for
from .pace import Pace
from .plan import Server, Site
from .table import Table

MOST_LISTED = 300
MOST_HOLDERS = 20


def state_of(table: Table) -> str:
    """``45 of 50 pages not all-visible, age 1200``"""
    if table.kind == "partitioned table":
        modified = max(table.modified_rows, table.modified_in_parts)
        return "statistics missing" if table.missing_statistics else f"{modified} rows modified since it was analyzed"
    return f"{table.dirty_pages} of {table.pages} pages not all-visible, age {table.xid_age}"


def change_of(outcome: Outcome) -> str:
    after = f": {state_of(outcome.after)}" if outcome.after else ""
    return f"{outcome.step.action} done{after}"


def record_plan(sites: t.Sequence[Site], server: Server, pace: Pace, part: Part) -> None:
    """What would be done, for a run in check mode: every table with its measures, and why the others are left out."""
    for site in sites:
        planned = [
            {**evidence_of(step), "predicted_seconds": pace.predict(step, site.index_bytes.get(step.table.oid, 0))}
            for step in site.steps
        ]
        part.check(
            f"vacuum of the database {site.name}",
            "passed",
            expected="a plan",
            observed=plan_in_words(site),
            evidence={**seen(site), "plan": planned[:MOST_LISTED], "skipped": shown_skipped(site)},
        )
        changes = [
            (full_name(step), state_of(step.table), f"would be done: {step.action}")
            for step in site.steps
            if not step.table.is_catalog
        ]
        _record_changes(site.name, changes, part)
        catalogs = [step.table for step in site.steps if step.table.is_catalog]
        _record_catalogs(site.name, catalogs, "would be vacuumed or analyzed", part)
    _record_troubles(sites, server, Work([], [], {}), part)


def record_work(sites: t.Sequence[Site], server: Server, work: Work, part: Part) -> None:
    """What was done, and what was not although it is due."""
    for site in sites:
        mine = [outcome for outcome in work.outcomes if outcome.step.table.database == site.name]
        done = [outcome for outcome in mine if outcome.result in (DONE, GONE)]
        tidied = sum(outcome.step.is_tidying for outcome in done)
        done = [outcome for outcome in done if not outcome.step.is_tidying]
        mine = [outcome for outcome in mine if not outcome.step.is_tidying]
        changes = [
            (full_name(outcome.step), state_of(outcome.step.table), change_of(outcome))
            for outcome in done
            if outcome.result == DONE and not outcome.step.table.is_catalog
        ]
        _record_changes(site.name, changes, part)
        catalogs = [outcome for outcome in done if outcome.step.table.is_catalog]
        left = sum(outcome.after.dirty_pages for outcome in catalogs if outcome.after)
        cleaned = [outcome.step.table for outcome in catalogs if outcome.result == DONE]
        _record_catalogs(site.name, cleaned, f"vacuumed or analyzed: {left} pages not all-visible", part)
        if tidied:
            name = f"{tidied} system catalogs in the database {site.name}"
            part.change("system catalogs", name, "made dirty by this run", "vacuumed")
        part.check(
            f"vacuum of the database {site.name}",
            "passed" if len(done) == len(mine) else "warned",
            expected="every table that is due vacuumed or analyzed, with a measured effect",
            observed=work_in_words(site, mine, done),
            advice="" if len(done) == len(mine) else "See the checks of the tables that are named.",
            evidence={
                **seen(site),
                "done": [outcome_evidence(one) for one in done if not one.step.table.is_catalog][:MOST_LISTED],
                "catalogs_done": len(catalogs),
            },
        )
        for outcome in mine:
            if outcome.result not in (DONE, GONE):
                _record_failure(outcome, server, part)
                if outcome.after is not None and outcome.after.dirty_pages < outcome.step.table.dirty_pages:
                    before, after = state_of(outcome.step.table), state_of(outcome.after)
                    part.change("table", full_name(outcome.step), before, f"{outcome.step.action} begun: {after}")
    _record_troubles(sites, server, work, part)
    _record_postponed(work, part)


def _record_changes(database: str, changes: t.Sequence[tuple[str, str, str]], part: Part) -> None:
    """Each table by its name, before and after, up to MOST_LISTED in all; the rest of each database as one."""
    room = max(0, MOST_LISTED - len(part.changes))
    for name, before, after in changes[:room]:
        part.change("table", name, before, after)
    rest = len(changes) - room
    if rest > 0:
        name = f"{rest} {'more ' if room else ''}tables in the database {database}"
        part.change("tables", name, "due", "the check of this database counts what was done, or would be")


def _record_catalogs(database: str, tables: t.Sequence[Table], after: str, part: Part) -> None:
    """The system catalogs as one: there are as many in each database, and none is anybody's own."""
    if tables:
        dirty, pages = sum(table.dirty_pages for table in tables), sum(table.pages for table in tables)
        name = f"{len(tables)} system catalogs in the database {database}"
        part.change("system catalogs", name, f"{dirty} of {pages} pages not all-visible", after)


def record_metrics(sites: t.Sequence[Site], work: Work, ages: t.Sequence[t.Mapping[str, t.Any]], part: Part) -> None:
    done = [outcome for outcome in work.outcomes if outcome.result == DONE and not outcome.step.is_tidying]
    counts = {
        "vacuumed_tables": sum(outcome.step.vacuum and not outcome.step.freeze for outcome in done),
        "frozen_tables": sum(outcome.step.freeze for outcome in done),
        "analyzed_tables": sum(outcome.step.analyze for outcome in done),
        "tidied_catalogs": sum(outcome.step.is_tidying for outcome in work.outcomes),
        "clean_tables": sum(len(site.skipped) for site in sites),
        "held_tables": sum(len(site.held) for site in sites),
        "postponed_tables": sum(not step.is_tidying for step, _seconds in work.postponed),
    }
    for name, count in counts.items():
        part.metric(name, count, "count")
    after = {outcome.step.table.oid: outcome.after for outcome in done if outcome.after}
    tables = [table for site in sites for table in site.tables]
    part.metric("dirty_pages_before", sum(table.dirty_pages for table in tables), "count")
    part.metric("dirty_pages_after", sum(after.get(table.oid, table).dirty_pages for table in tables), "count")
    part.metric("wal_bytes", sum(outcome.wal_bytes for outcome in work.outcomes), "bytes")
    part.metric("vacuum_seconds", round(sum(outcome.seconds for outcome in work.outcomes), 3), "seconds")
    waits = [outcome.longest_wait for outcome in work.outcomes]
    part.metric("longest_wait_seconds", round(max(waits, default=0.0), 3), "seconds")
    part.metric("oldest_xid_age", max((row["xid_age"] for row in ages), default=0), "count")
    part.metric("oldest_mxid_age", max((row["mxid_age"] for row in ages), default=0), "count")


def record_ages(ages: t.Sequence[t.Mapping[str, t.Any]], server: Server, part: Part) -> None:
    """How near the server is to refusing new transactions; *ages* are those of all its databases."""
    if not ages:
        return
    worst = max(ages, key=lambda row: max(row["xid_age"], row["mxid_age"]))
    limit = server.settings["autovacuum_freeze_max_age"]
    mxid_limit = server.settings["autovacuum_multixact_freeze_max_age"]
    failsafe = server.settings["vacuum_failsafe_age"]
    old = [row for row in ages if row["xid_age"] > limit * 1.05 or row["mxid_age"] > mxid_limit * 1.05]
    status = "warned" if old else "passed"
    if any(max(row["xid_age"], row["mxid_age"]) > failsafe for row in ages):
        status = "failed"
    part.check(
        "age of the oldest transactions",
        status,
        expected=f"below {limit:.0f} transactions and {mxid_limit:.0f} multixacts in every database",
        observed=f"{worst['xid_age']} transactions and {worst['mxid_age']} multixacts in {worst['name']}",
        advice="See what holds them back; the server refuses new transactions at 2 billion.",
        evidence={
            "databases": [dict(row) for row in ages[:MOST_LISTED]],
            "held_back_by": [describe(holder) for holder in server.holders[:MOST_HOLDERS]],
            "all_sessions_seen": server.rights.sees_all_sessions,
        },
    )


def evidence_of(step: Step) -> dict[str, t.Any]:
    table = step.table
    return {
        "table": table.shown,
        "kind": table.kind,
        "action": step.action,
        "why": list(step.why),
        "pages": table.pages,
        "dirty_pages": table.dirty_pages,
        "dead_rows": table.dead_rows,
        "xid_age": table.xid_age,
        "mxid_age": table.mxid_age,
        "confidence": table.confidence,
    }


def outcome_evidence(outcome: Outcome) -> dict[str, t.Any]:
    after = outcome.after
    return {
        **evidence_of(outcome.step),
        "result": outcome.words,
        "seconds": round(outcome.seconds, 3),
        "wal_bytes": outcome.wal_bytes,
        "longest_wait_seconds": round(outcome.longest_wait, 3),
        "dirty_pages_after": after.dirty_pages if after else None,
        "xid_age_after": after.xid_age if after else None,
        "mxid_age_after": after.mxid_age if after else None,
    }


def seen(site: Site) -> dict[str, t.Any]:
    """How many tables were looked at, and how exactly."""
    exact = sum(table.confidence == "high" for table in site.tables)
    reasons: t.Dict[str, int] = {}
    for _table, why in site.skipped:
        words = "some pages are not all-visible, too few to be due" if why[:1].isdigit() else why
        reasons[words] = reasons.get(words, 0) + 1
    return {
        "tables": len(site.tables),
        "confidence": "high" if exact == len(site.tables) else "low",
        "measured_by_visibility_map": exact,
        "nothing_to_do": reasons,
    }


def shown_skipped(site: Site) -> list[dict[str, str]]:
    return [{"table": table, "why": why} for table, why in site.skipped[:MOST_LISTED]]


def full_name(step: Step) -> str:
    return f"{step.table.shown} in the database {step.table.database}"


def plan_in_words(site: Site) -> str:
    words = count_actions(site.steps)
    return f"{words or 'nothing'} to do, {_rest(site)}"


def work_in_words(site: Site, mine: t.Sequence[Outcome], done: t.Sequence[Outcome]) -> str:
    words = count_actions([outcome.step for outcome in done])
    wrong = [outcome.step.table.shown for outcome in mine if outcome not in done]
    undone = f", not done: {listed(wrong)}" if wrong else ""
    return f"{words or 'nothing to do'}{' done' if words else ''}{undone}, {_rest(site)}"


def count_actions(steps: t.Sequence[Step]) -> str:
    """``vacuum (3), freeze and analyze (1)``"""
    counts: t.Dict[str, int] = {}
    for step in steps:
        counts[step.action] = counts.get(step.action, 0) + 1
    return ", ".join(f"{action} ({count})" for action, count in counts.items())


def listed(names: t.Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _rest(site: Site) -> str:
    held = f", {len(site.held)} held back" if site.held else ""
    denied = f", {len(site.denied)} without the right" if site.denied else ""
    confidence = "" if seen(site)["confidence"] == "high" else "; partly estimated, without pg_visibility"
    return f"{len(site.skipped)} of {len(site.tables)} tables need nothing{held}{denied}{confidence}"


def _record_failure(outcome: Outcome, server: Server, part: Part) -> None:
    step = outcome.step
    advice = {
        LOCKED: "It is tried again by the next run; see what holds the lock if this stays so.",
        IN_THE_WAY: "It is tried again by the next run; run it when fewer people use the table.",
        OVER: "Give it a longer time_budget; what it had cleaned by then stays clean.",
        DENIED: missing_right_advice(server.version, quoted_name(step.table), server.rights.role),
        NO_EFFECT: "See the server's log for a warning: it may lack a right, or somebody locked the table.",
        FAILED: "See the server's log for what kept the vacuum from its effect.",
    }[outcome.result]
    part.check(
        f"{step.action} of {full_name(step)}",
        "failed" if outcome.result in (NO_EFFECT, FAILED, DENIED) else "warned",
        expected=f"a measured effect on {state_of(step.table)}",
        observed=outcome.words,
        advice=advice,
        evidence=outcome_evidence(outcome),
    )


def _record_troubles(sites: t.Sequence[Site], server: Server, work: Work, part: Part) -> None:
    _record_blocked(sites, work, server, part)
    for site in sites:
        if site.denied:
            _record_denied(site, server, part)
    for name, error in work.refused.items():
        part.check(
            f"claim the database {name}",
            "failed",
            expected=error.expected,
            observed=error.observed,
            advice=error.advice,
        )
    for name, reason in server.unreachable:
        if CLOSED not in reason:
            part.check(
                f"reach the database {name}",
                "warned",
                expected="a connection",
                observed=reason,
                advice="Allow it, or name the database in exclude_databases.",
            )
    closed = [f"{name}: {reason}" for name, reason in server.unreachable if CLOSED in reason]
    if closed:
        part.check(
            "databases that were not looked at", "passed", expected="a reason for each", observed="; ".join(closed)
        )


def _record_blocked(sites: t.Sequence[Site], work: Work, server: Server, part: Part) -> None:
    """One check for each holder, with all that it holds back: what was not begun, and what was not won."""
    found: t.Dict[Holder, t.List[Held]] = {}
    for held in [*(held for site in sites for held in site.held), *still_held(work, server)]:
        found.setdefault(held.holder, []).append(held)
    for holder, all_held in found.items():
        names = [full_name(held.step) for held in all_held]
        part.check(
            f"blocked by {holder.kind} {holder.name}",
            "warned",
            expected="nothing that keeps dead rows from being removed",
            observed=f"{describe(holder)}: a vacuum is in vain for {listed(names)}",
            advice=holder.advice,
            evidence={
                "tables": [{**evidence_of(held.step), "how_known": held.evidence} for held in all_held[:MOST_LISTED]]
            },
        )


def still_held(work: Work, server: Server) -> list[Held]:
    """Tables that were vacuumed and are dirty for the most part still, since something holds their rows."""
    found = []
    for outcome in work.outcomes:
        after, step = outcome.after, outcome.step
        if outcome.result != DONE or after is None or not step.vacuum or after.confidence != "high":
            continue
        holder = None if step.is_tidying else oldest_for(after, server.holders)
        if holder is None:
            continue
        if step.freeze and after.xid_age > step.table.xid_age / 2:
            words = f"its age is {after.xid_age} after it was frozen, and cannot fall below {holder.xmin_age}"
            found.append(Held(step, holder, words))
        elif after.dirty_pages > step.table.dirty_pages / 2 and after.dirty_pages > 1:
            words = f"{after.dirty_pages} of {after.pages} pages are not all-visible after the vacuum, either"
            found.append(Held(step, holder, words))
    return found


def _record_denied(site: Site, server: Server, part: Part) -> None:
    names = [quoted_name(step.table) for step in site.denied]
    nothing_done = len(site.denied) > 0 and not site.steps
    part.check(
        f"rights in the database {site.name}",
        "failed" if nothing_done else "warned",
        expected=f"that {server.rights.role} may vacuum every table that is due",
        observed=f"it may not vacuum {listed(names)}",
        advice=missing_right_advice(server.version, names[0] if len(names) == 1 else "", server.rights.role),
        evidence={"tables": [evidence_of(step) for step in site.denied[:MOST_LISTED]]},
    )


def quoted_name(table: Table) -> str:
    schema, name = table.main or (table.schema, table.name)
    return f"{quoted(schema)}.{quoted(name)}"


def _record_postponed(work: Work, part: Part) -> None:
    tried = [outcome.step for outcome in work.outcomes]
    left = [(step, seconds) for step, seconds in work.postponed if not any(step is one for one in tried)]
    left = [(step, seconds) for step, seconds in left if not step.is_tidying]
    if not left:
        return
    urgent = [full_name(step) for step, _seconds in left if step.is_urgent]
    names = [f"{full_name(step)} ({step.action}, about {human_seconds(seconds)})" for step, seconds in left]
    part.check(
        "time budget",
        "warned" if urgent else "passed",
        expected="all urgent work within time_budget",
        observed=f"not begun: {listed(names)}" + (f"; urgent: {listed(urgent)}" if urgent else ""),
        advice="Give it a longer time_budget, or run it more often.",
        evidence={
            "postponed": [{**evidence_of(step), "predicted_seconds": seconds} for step, seconds in left[:MOST_LISTED]]
        },
    )
