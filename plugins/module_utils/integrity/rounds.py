# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One round through what is due: each index and table in its turn, for as long as there is time."""

from __future__ import annotations

import typing as t

from ..database import session
from ..database.budget import Budget
from ..database.watchdog import Pair
from ..errors import MaintenanceError
from . import looking, memory, turns
from .looking import Effort, Reach, Verdict
from .memory import Entry, Memory
from .things import GIN, Thing

PURPOSE = "integrity"
SAVE_EVERY = 30.0
TRIES = 2  # of what was in somebody's way, or behind somebody's lock


class Round(t.NamedTuple):
    """What came out of a round: verdicts in the order of their turns, and what its time did not suffice for."""

    verdicts: t.List[t.Tuple[Thing, Verdict]]
    left_over: t.List[Thing]


class Ground(t.NamedTuple):
    """What a round goes by: how to log in, what can be called where, what is remembered, and the rules."""

    params: t.Mapping[str, t.Any]
    reaches: t.Mapping[str, t.Optional[Reach]]
    remembered: Memory
    rules: turns.Rules
    max_block: float

    def schema(self, thing: Thing) -> str:
        """Where the function for *thing* is, which is within reach."""
        return (self.reaches[thing.database] or Reach({}, {}, [])).functions[thing.kind]


def within_reach(
    things: t.Iterable[Thing], reaches: t.Mapping[str, t.Optional[Reach]], announced: t.Container[str] = ()
) -> t.List[Thing]:
    """Those wanted that can be looked at, or could be if amcheck were installed where that is *announced*.

    What all databases share is among them only once.
    """
    found: t.Dict[str, Thing] = {}
    for thing in things:
        reach = reaches.get(thing.database)
        could = reach is None and thing.database in announced and thing.kind != GIN
        if thing.is_wanted and (could or (reach is not None and thing.kind in reach.functions)):
            found.setdefault(thing.key, thing)
    return list(found.values())


def go_round(ground: Ground, queue: t.Sequence[Thing], budget: Budget) -> Round:
    """Look at the things in *queue*, and remember each verdict; what is in somebody's way gets a second try.

    What is remembered is written now and then, so that being killed costs little.
    """
    found = Round([], [])
    saved = budget.spent()
    waiting = [(thing, 1) for thing in queue]
    with _Pairs(ground.params) as pairs:
        while waiting:
            thing, attempt = waiting.pop(0)
            if not _may_begin(ground, thing, budget, is_first=not found.verdicts):
                found.left_over.append(thing)
                continue
            verdict = pairs.trouble(thing) or _look_at(ground, thing, pairs.of(thing.database), budget)
            before = ground.remembered.of(thing.key)
            ground.remembered.entries[thing.key] = entry_after(thing, before, verdict, ground.rules)
            if verdict.state in (looking.LOCKED, looking.PUT_OFF) and attempt < TRIES:
                waiting.append((thing, attempt + 1))
                continue
            found.verdicts.append((thing, verdict))
            if budget.spent() - saved > SAVE_EVERY:
                ground.remembered.save()
                saved = budget.spent()
    return found


def _may_begin(ground: Ground, thing: Thing, budget: Budget, *, is_first: bool) -> bool:
    entry = ground.remembered.of(thing.key)
    return turns.may_begin(thing, entry, ground.rules, budget=budget.seconds, left=budget.left(), is_first=is_first)


def _look_at(ground: Ground, thing: Thing, pair: Pair, budget: Budget) -> Verdict:
    entry = ground.remembered.of(thing.key)
    effort = Effort(bool(ground.rules.level(thing)), budget.left(), ground.max_block)
    first_block = entry.next_block if entry.file == thing.file else 0
    return looking.look_at(pair, thing, ground.schema(thing), first_block, effort)


def entry_after(thing: Thing, before: Entry, verdict: Verdict, rules: turns.Rules) -> Entry:
    """What is remembered of *thing* after it was looked at."""
    entry = before._replace(file=thing.file, tried=rules.now, next_block=verdict.next_block)
    if before.file != thing.file:
        entry = entry._replace(checked=0.0, state="", level="", gave_up_after=0.0)
    if verdict.state in (looking.SOUND, looking.DAMAGED):
        return entry._replace(
            checked=rules.now,
            state=memory.SOUND if verdict.state == looking.SOUND else memory.DAMAGED,
            level=rules.level(thing),
            seconds=round(verdict.seconds, 4),
            size=verdict.size,
            gave_up_after=0.0,
            next_block=0,
        )
    if verdict.state == looking.CRASHED:
        return entry._replace(state=memory.CRASHED, next_block=0)
    if verdict.state == looking.TOO_LONG and not verdict.next_block:
        return entry._replace(gave_up_after=round(verdict.seconds, 1))
    return entry


class _Pairs:
    """The connections to one database at a time."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self._params = params
        self._database = ""
        self._pair: t.Optional[Pair] = None

    def of(self, database: str) -> Pair:
        if self._pair is None or self._database != database:
            self.close()
            self._database = database
            self._pair = Pair(lambda: session.open_session(self._params, database, purpose=PURPOSE))
        return self._pair

    def trouble(self, thing: Thing) -> t.Optional[Verdict]:
        """Why its database cannot be connected to, though the server can be: it was dropped meanwhile, say."""
        try:
            self.of(thing.database).work  # noqa: B018 (opened when it is first asked for)
        except MaintenanceError as error:
            session.open_session(self._params, self._params["login_db"], purpose=PURPOSE).close()
            return Verdict(looking.NOT_CHECKED, reason=error.observed)
        return None

    def close(self) -> None:
        if self._pair is not None:
            self._pair.close()
            self._pair = None

    def __enter__(self) -> _Pairs:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()
