# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is looked at in this run, and in which order: the pure part of the decision."""

from __future__ import annotations

import typing as t

from .memory import CRASHED, DAMAGED, Entry, Memory
from .things import INDEX, TABLE, Thing

# Bytes a second before anything was measured, from a server with a cold cache: too low rather than too high.
SPEED = 50e6
SPEED_OF_HEAP_ALL_INDEXED = 8e6


class Rules(t.NamedTuple):
    """*interval*: what was looked at since is left out; *heap_all_indexed*: how closely indexes are looked at."""

    interval: float
    heap_all_indexed: bool
    now: float

    def level(self, thing: Thing) -> str:
        return "heapallindexed" if self.heap_all_indexed and thing.kind == INDEX else ""


def is_due(thing: Thing, entry: Entry, rules: Rules) -> bool:
    """Whether *thing* is to be looked at: it never was, or not as closely, or too long ago, or was found damaged."""
    if entry.state in (DAMAGED, CRASHED) or entry.next_block or not entry.checked or entry.file != thing.file:
        return True
    if rules.level(thing) and entry.level != rules.level(thing):
        return True
    return not 0 <= rules.now - entry.checked < rules.interval


def in_order(things: t.Sequence[Thing], memory: Memory, rules: Rules) -> t.List[Thing]:
    """What is due, first what was found damaged, then what had its turn longest ago; the most important of those first.

    All that had its turn in one run did so at the same time. So what did not fit into a run comes first in the next
    one, whatever its importance, and everything has its turn.
    """
    due = [thing for thing in things if is_due(thing, memory.of(thing.key), rules)]

    def key(thing: Thing) -> t.Tuple[t.Any, ...]:
        entry = memory.of(thing.key)
        sick = entry.state in (DAMAGED, CRASHED)
        return (not sick, entry.tried, thing.rank, thing.database, thing.kind, thing.size_bytes, thing.name)

    return sorted(due, key=key)


def predicted_seconds(thing: Thing, entry: Entry, rules: Rules) -> float:
    """How long looking at *thing* takes: as long as the last time, for its size; a table is looked at in portions.

    What was given up takes at least twice as long as it was given.
    """
    if thing.kind == TABLE:
        return 0.0
    if entry.gave_up_after and entry.file == thing.file:
        return 2 * entry.gave_up_after
    if entry.seconds and entry.size and entry.level == rules.level(thing):
        return entry.seconds * max(thing.size_bytes, 1) / entry.size
    return thing.size_bytes / (SPEED_OF_HEAP_ALL_INDEXED if rules.level(thing) else SPEED)


def may_begin(thing: Thing, entry: Entry, rules: Rules, *, budget: float, left: float, is_first: bool) -> bool:
    """Whether to begin *thing*. What needs more than a whole run is tried once for each budget, first of all.

    What made the server's process die is left alone until it was written anew.
    """
    if left <= 0 or (entry.state == CRASHED and entry.file == thing.file):
        return False
    if entry.file == thing.file and budget and entry.gave_up_after >= 0.9 * budget:
        return False
    return is_first or predicted_seconds(thing, entry, rules) <= left


def overdue(things: t.Iterable[Thing], memory: Memory, now: float, within: float) -> t.List[Thing]:
    """Those that nobody has looked at for longer than *within*, counted from when they were first seen."""
    late = []
    for thing in things:
        entry = memory.of(thing.key)
        since = entry.checked if entry.checked and entry.file == thing.file else max(entry.seen, entry.checked)
        if now - (since or now) > within:
            late.append(thing)
    return late
