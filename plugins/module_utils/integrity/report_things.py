# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of the indexes and tables that amcheck looked at."""

from __future__ import annotations

import typing as t
from collections import Counter

from ..quantities import human_bytes, human_seconds
from ..result import Part
from . import looking, memory, turns
from .looking import Verdict
from .rounds import Ground, Round
from .survey import Survey
from .things import GIN, INDEX, KINDS, TABLE, Thing

PLURALS = {INDEX: "B-tree indexes", GIN: "GIN indexes", TABLE: "tables"}
MOST_SHOWN = 20

_ADVICE = {
    TABLE: "Copy the data directory before anything else, find out what damages it (the disk, the memory, the kernel's "
    "log), and restore the table from a backup that was proven.",
    INDEX: "Find out what damages it (the disk, the memory, a new collation version), then REINDEX INDEX CONCURRENTLY; "
    "of a unique index, look for duplicate rows first.",
}
_ADVICE[GIN] = _ADVICE[INDEX]


def report_round(things: t.Sequence[Thing], found: Round, ground: Ground, part: Part) -> None:
    """A check for each kind of thing, and one for each that is damaged."""
    verdicts = {thing.key: verdict for thing, verdict in found.verdicts}
    for kind in KINDS:
        mine = [thing for thing in things if thing.kind == kind]
        if mine:
            _report_kind(mine, verdicts, ground, part)
    part.metric("looked_at", len(verdicts), "count")
    part.metric("amcheck_seconds", round(sum(verdict.seconds for verdict in verdicts.values()), 3), "seconds")


def _report_kind(things: t.Sequence[Thing], verdicts: t.Mapping[str, Verdict], ground: Ground, part: Part) -> None:
    """What is known of *things*, which are of one kind: from this run and from those before."""
    kind = things[0].kind
    states = {thing.key: _known_state(thing, ground) for thing in things}
    sick = [thing for thing in things if states[thing.key] in (memory.DAMAGED, memory.CRASHED)]
    sound = [thing for thing in things if states[thing.key] == memory.SOUND]
    looked_at = [thing for thing in [*sound, *sick] if thing.key in verdicts]
    damaged = f"{len(sick):,} damaged, " if sick else ""
    part.metric(f"damaged_{PLURALS[kind].lower().replace('-', '').replace(' ', '_')}", len(sick), "count")
    part.check(
        PLURALS[kind],
        "passed",
        expected="consistent, or told of by a check of its own; looked at again after "
        f"{human_seconds(ground.rules.interval)}",
        observed=f"{len(sound):,} of {len(things):,} sound, {damaged}{len(looked_at):,} of them looked at now",
        evidence={
            "sound": Counter(thing.database for thing in sound),
            "damaged": [str(one) for one in sick[:MOST_SHOWN]],
        },
    )
    for thing in sick:
        _report_damage(thing, verdicts.get(thing.key), part)


def _known_state(thing: Thing, ground: Ground) -> str:
    entry = ground.remembered.of(thing.key)
    return entry.state if entry.file == thing.file else ""


def _report_damage(thing: Thing, verdict: t.Optional[Verdict], part: Part) -> None:
    if verdict is not None and verdict.state == looking.DAMAGED:
        more = f" (and {verdict.found - 1:,} more)" if verdict.found > 1 else ""
        observed, messages = f"{verdict.messages[0]}{more}", list(verdict.messages)
        count = verdict.found
    elif verdict is not None and verdict.state == looking.CRASHED:
        observed = "the server's process died while it looked at it; it is not looked at again until it is written anew"
        messages, count = list(verdict.messages), 1
    else:
        observed, messages, count = "found damaged by an earlier run, and not looked at now", [], 0
    part.check(
        f"{thing.kind} {thing}",
        "failed",
        expected="consistent",
        observed=observed,
        advice=_ADVICE[thing.kind],
        evidence={"database": thing.database, "object": thing.name, "table": thing.table, "messages": messages,
                  "count": count},
    )  # fmt: skip


def report_coverage(things: t.Sequence[Thing], found: Round, ground: Ground, within: float, part: Part) -> None:
    """Whether everything had its turn within the time that is stated, and what stood in the way."""
    late = turns.overdue(things, ground.remembered, ground.rules.now, within)
    never = [thing for thing in things if not ground.remembered.of(thing.key).checked]
    hindered = [(thing, verdict) for thing, verdict in found.verdicts if verdict.state in _HINDERED]
    words = [f"{len(things) - len(never):,} of {len(things):,} were looked at"]
    if found.left_over:
        size = human_bytes(sum(thing.size_bytes for thing in found.left_over))
        words.append(f"{len(found.left_over):,} ({size}) did not fit into this run")
    words += [f"{thing}: {_why(verdict)}" for thing, verdict in hindered[:3]]
    part.metric("not_looked_at_in_time", len(late), "count")
    if not things:
        return
    part.check(
        "everything is looked at in time",
        "warned" if late else "passed",
        expected=f"each index and table once in {human_seconds(within)}",
        observed="; ".join(words),
        advice="Give it more time (time_budget), or a longer period (check_within)."
        + (f" Too late: {_names(late)}." if late else ""),
        evidence={
            "late": [str(thing) for thing in late[:MOST_SHOWN]],
            "hindered": [{"object": str(thing), "why": _why(verdict)} for thing, verdict in hindered[:MOST_SHOWN]],
        },
    )
    if ground.remembered.remark:
        part.check(
            "memory of earlier runs",
            "warned",
            expected="to be readable",
            observed=ground.remembered.remark,
            advice="See what wrote to it.",
        )


def _why(verdict: Verdict) -> str:
    return f"{_HINDERED[verdict.state]}{': ' if verdict.reason else ''}{verdict.reason}"


def _names(things: t.Sequence[Thing]) -> str:
    more = f" and {len(things) - 5} more" if len(things) > 5 else ""
    return ", ".join(map(str, things[:5])) + more


_HINDERED = {
    looking.LOCKED: "somebody holds a lock on it",
    looking.PUT_OFF: "put off",
    looking.TOO_LONG: "needs more time than a run has",
    looking.NOT_CHECKED: "could not be looked at",
}


def report_reach(seen: Survey, templates: t.Container[str], part: Part) -> None:
    """Where amcheck is missing, or may not be called: nothing is known of what is there."""
    for database, reach in sorted(seen.reaches.items()):
        if reach is None and (database in templates or database in seen.announced):
            continue
        if reach is None:
            part.check(
                f"amcheck in {database}",
                "unknown",
                expected="the extension amcheck",
                observed="it is not installed",
                advice=f"As a superuser, in the database {database}: CREATE EXTENSION amcheck;",
            )
        elif reach.grants or INDEX in reach.lacking or TABLE in reach.lacking:
            kinds = [kind for kind in KINDS if kind in reach.lacking and (kind != GIN or reach.grants)]
            part.check(
                f"amcheck in {database}",
                "unknown",
                expected="its functions to be callable",
                observed="; ".join(f"{PLURALS[kind]}: {reach.lacking[kind]}" for kind in kinds),
                advice=" ".join(f"{grant};" for grant in reach.grants) or "ALTER EXTENSION amcheck UPDATE;",
            )


def announce(queue: t.Sequence[Thing], seconds: float, budget: float, part: Part) -> None:
    """What would be looked at, in check mode."""
    size = human_bytes(sum(thing.size_bytes for thing in queue))
    limit = f", of which this run would take {human_seconds(budget)}" if 0 < budget < seconds else ""
    part.check(
        "what would be looked at",
        "passed",
        expected="the plan",
        observed=f"{len(queue):,} indexes and tables ({size}); the indexes in about {human_seconds(seconds)}{limit}",
        evidence={"first": [f"{thing.kind} {thing}" for thing in queue[:MOST_SHOWN]]},
    )
