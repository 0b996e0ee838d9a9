# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rebuilding indexes one by one: nobody waits on it for long, and nothing is left of a rebuild that was stopped."""

from __future__ import annotations

import contextlib
import time
import typing as t

from .. import postgresql
from ..bloat.measure import IndexBloat, measure_index
from ..bloat.remembered import Remembered
from ..database.budget import Budget
from ..database.watchdog import Pair, Watched
from ..errors import MaintenanceError
from ..quantities import human_bytes, human_seconds
from ..result import Part
from .catalog import Identity, identity_of
from .decision import Left, Task, left, too_long
from .leftovers import Invalid, drop_statement, invalid_indexes, is_leftover
from .memory import Memory
from .obstacles import Surroundings, lockers, look
from .proof import SIZE, Proof, compare_size, prove
from .upserts import Statements

# After a rebuild that had to make way: 1, 2, 4 … seconds, at most this many.
LONGEST_PAUSE = 60.0
# A transaction that began meanwhile may keep a rebuild waiting at its end, and all others behind it.
MAX_HELD_UP = 10.0
# What we leave behind is cleaned up even when the window is over, but nobody is waited for long.
_DROP_WITHIN = 30.0
_DROP_HELD_UP = 3.0
_DROP_PAUSES = (0.5, 1.0, 0.0)

# The rebuild made way for a reason that may be gone later. Who cancels it by hand does not want it back at once.
_TRY_AGAIN = ("blocking", "autovacuum", "waiting", "unwatched")
_TRY_AGAIN_AFTER = ("40P01", "57P02", "57P03", "")  # deadlock, the server crashed, it starts, the connection was lost
# Two rows with one key, or damaged pages: the rebuild has found that the table or the index is not sound.
_UNSOUND = ("23505", "XX001", "XX002")


class Tally:
    """What the rebuilds of this run came to."""

    def __init__(self) -> None:
        self.rebuilt: t.List[str] = []
        self.cancelled = 0
        self.bytes_won = 0
        self.seconds = 0.0
        self.wal_bytes = 0
        self.longest_wait = 0.0
        self.longest_waiter = ""
        self.unknown: t.Set[str] = set()
        self.kept: t.Dict[str, str] = {}  # leftovers that could not be dropped, and why

    def count(self, watched: Watched, name: str) -> None:
        self.seconds += watched.seconds
        if watched.longest_wait > self.longest_wait:
            self.longest_wait, self.longest_waiter = watched.longest_wait, name


class Sessions:
    """One pair of connections at a time, to the database that is worked on."""

    def __init__(self, open_pair: t.Callable[[str], Pair]) -> None:
        self._open = open_pair
        self._database = ""
        self._pair: t.Optional[Pair] = None

    def at(self, database: str) -> Pair:
        if self._pair is None or self._database != database:
            self.close()
            self._pair, self._database = self._open(database), database
        return self._pair

    def close(self) -> None:
        if self._pair is not None:
            self._pair.close()
        self._pair = None


class Crew(t.NamedTuple):
    """All that rebuilding needs and what it adds to."""

    sessions: Sessions
    statements: Statements
    around: Surroundings
    budget: Budget
    memory: Memory
    remembered: Remembered
    part: Part
    proof: Proof
    tally: Tally


class Turn:
    """A task that waits for its turn, and since when it could have been done."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.not_before = 0.0
        self.first_tried: t.Optional[float] = None
        self.tries = 0
        self.reason = ""
        self.unsound = False

    def put_off(self, reason: str, now: float, retry_for: float) -> bool:
        """Come back to it later, after a growing pause; returns whether there will be time for that."""
        if self.first_tried is None:
            self.first_tried = now
        self.reason = reason
        self.not_before = now + min(2.0**self.tries, LONGEST_PAUSE)
        self.tries += 1
        return self.not_before <= self.first_tried + retry_for


def rebuild_all(tasks: t.Sequence[Task], crew: Crew) -> list[Left]:
    """Rebuild the indexes of *tasks* in this order, coming back to what something stood in the way of.

    Returns those that were not rebuilt, with the reason.
    """
    waiting = [Turn(task) for task in tasks]
    not_done: list[Left] = []
    while waiting:
        now = time.monotonic()
        turn = next((turn for turn in waiting if turn.not_before <= now), None)
        if turn is None:
            time.sleep(max(0.01, min(turn.not_before for turn in waiting) - now))
            continue
        try:
            reason, again = _take_turn(turn, crew)
        except MaintenanceError as error:
            # The server may be starting anew.
            reason, again = f"{error.what}: {error.observed}", True
        if again and turn.put_off(reason, time.monotonic(), crew.around.settings.retry_for):
            continue
        waiting.remove(turn)
        if reason:
            not_done.append(left(turn.task, reason)._replace(unsound=turn.unsound))
    return not_done


def _take_turn(turn: Turn, crew: Crew) -> tuple[str, bool]:
    """Why the index was not rebuilt, empty when it was, and whether to try again."""
    if not crew.budget.fits(turn.task.seconds):
        reason = too_long(turn.task, crew.budget.left())
        return (f"{turn.reason}; then {reason}" if turn.reason else reason), False
    pair = crew.sessions.at(turn.task.target.database)
    before = identity_of(pair.work, turn.task.target.schema, turn.task.target.name)
    if before is None or before["oid"] != turn.task.target.oid or not before["is_valid"]:
        return "it was dropped, rebuilt or renamed since it was measured", False
    weather = look(pair.work, turn.task.target, turn.task.predicted_bytes, crew.around)
    crew.tally.unknown.update(weather.unknown)
    if weather.obstacles:
        return "; ".join(weather.obstacles), True
    watched = rebuild(pair, turn.task, crew)
    crew.tally.cancelled += watched.ended != "done"
    if watched.ended == "done" or _has_taken_its_place(pair, turn.task, before):
        _finish(pair, turn.task, before, watched, crew)
        return "", False
    sqlstate = watched.error.sqlstate if watched.error else None
    turn.unsound = sqlstate in _UNSOUND
    return f"its rebuild was stopped: {watched.reason}", watched.ended in _TRY_AGAIN or sqlstate in _TRY_AGAIN_AFTER


def _has_taken_its_place(pair: Pair, task: Task, before: Identity) -> bool:
    """Whether the new index was in the place of the old one already when the rebuild was stopped."""
    now = identity_of(pair.work, task.target.schema, task.target.name)
    return now is not None and now["oid"] != before["oid"] and now["is_valid"]


def rebuild(pair: Pair, task: Task, crew: Crew) -> Watched:
    """Rebuild the index of *task* within what is left of the window; whatever stops it, nothing is left behind."""
    statement = (
        postgresql.driver()
        .sql.SQL("REINDEX INDEX CONCURRENTLY {}")
        .format(postgresql.identifier(task.target.schema, task.target.name))
    )
    written = _wal_position(pair.work)
    settings = crew.around.settings
    try:
        watched = pair.run(statement, max_block=settings.max_block, timeout=crew.budget.left(), max_held_up=MAX_HELD_UP)
    except BaseException:
        with contextlib.suppress(MaintenanceError):
            clear_leftovers(pair, crew, task.target.table_oid)
        raise
    crew.tally.count(watched, task.name)
    if watched.ended != "done":
        with contextlib.suppress(MaintenanceError):
            # What cannot be dropped now is found by the last look of the run.
            clear_leftovers(pair, crew, task.target.table_oid)
    with contextlib.suppress(MaintenanceError):
        crew.tally.wal_bytes += _wal_position(pair.work) - written
    return watched


def clear_leftovers(pair: Pair, crew: Crew, table_oid: t.Optional[int] = None) -> list[Invalid]:
    """Drop what interrupted rebuilds left in the database, or on one table; returns what could not be dropped."""
    found = invalid_indexes(pair.work, crew.around.settings, table_oid)
    remaining = [index for index in found if is_leftover(index)]
    for pause in _DROP_PAUSES:
        remaining = [index for index in remaining if not _drop(pair, index, crew)]
        if not remaining:
            break
        time.sleep(pause)
    return remaining


def _drop(pair: Pair, index: Invalid, crew: Crew) -> bool:
    """Drop a leftover, unless somebody has its table locked; returns whether it is gone."""
    reason = next(lockers(pair.work, index.table_oid), "")
    if not reason:
        limit = crew.around.settings.max_block
        watched = pair.run(drop_statement(index), max_block=limit, timeout=_DROP_WITHIN, max_held_up=_DROP_HELD_UP)
        crew.tally.count(watched, index.full_name)
        reason = watched.reason
        if watched.ended == "done":
            crew.part.change("leftover index", index.full_name, human_bytes(index.size_bytes), "dropped")
            crew.tally.kept.pop(index.full_name, None)
            return True
    crew.tally.kept[index.full_name] = reason
    return False


def fresh_measurement(pair: Pair, task: Task, oid: int, crew: Crew) -> t.Optional[IndexBloat]:
    """The rebuilt index as it measures now; None, with a finding, when it cannot be measured."""
    try:
        return measure_index(pair.work, oid, crew.around.settings.bloat(), crew.remembered)
    except MaintenanceError as error:
        crew.proof.add(SIZE, task.name, "unknown", error.observed)
        return None


def _finish(pair: Pair, task: Task, before: Identity, watched: Watched, crew: Crew) -> None:
    """Prove the rebuild and count what it won."""
    crew.tally.rebuilt.append(task.name)
    after = prove(pair, task, before, crew.proof, crew.around.settings)
    now = None
    if after is not None:
        now = fresh_measurement(pair, task, after["oid"], crew)
    if now is not None:
        compare_size(task, now, crew.proof)
        _remember(task, now, watched.seconds - watched.held_up, crew)
        crew.tally.bytes_won += task.target.size_bytes - now.size_bytes
    size = human_bytes(now.size_bytes) if now is not None else "a new size"
    after_words = f"{size}, rebuilt in {human_seconds(watched.seconds)}"
    crew.part.change("index", task.name, human_bytes(task.target.size_bytes), after_words)


def _wal_position(connection: t.Any) -> int:
    return int(postgresql.value(connection, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"))


def _remember(task: Task, now: IndexBloat, seconds: float, crew: Crew) -> None:
    """Learn from the rebuild: its speed, and how compact the index is when new, be it less than was foreseen."""
    disappointing = task.target.size_bytes - now.size_bytes < task.gain / 2
    crew.memory.learn_speed(now.access_method, now.table_bytes, now.size_bytes, seconds)
    crew.memory.settle(now, disappointing)
    crew.remembered.learn(now)
