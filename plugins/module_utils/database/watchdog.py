# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Long statements that nobody has to wait for: a second connection watches, and the statement is cancelled in time.

Three threads share the work: one runs the statement, one looks who waits on it, and the main thread, which signals
reach at once, decides. When the looks stop coming the statement is cancelled too: it never runs unwatched.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
import typing as t

from .. import postgresql
from ..errors import MaintenanceError
from ..postgresql import QueryError
from ..quantities import human_seconds
from .lock_waits import LOOK_EVERY, Look, Watcher, describe
from .session import bearable_wait

# How long no look may succeed before the statement counts as unwatched; the longest bearable wait, if that is longer.
BLIND_FOR = 1.0
_CANCEL_AGAIN_AFTER = 0.5
_GIVE_UP_CANCELLING_AFTER = 60.0
_GIVE_UP_WHEN_STOPPED_AFTER = 10.0
_SETTLE_WITHIN = 5.0
_TICK = 0.02

_ACTIVE = 1  # as libpq counts the states of a connection

QUERY_CANCELED = "57014"
DEADLOCK_DETECTED = "40P01"


class Watched(t.NamedTuple):
    """How a watched statement ended.

    ``ended`` is ``done``; ``blocking`` (somebody had waited on it too long), ``autovacuum`` (it made way for one),
    ``waiting`` (it had waited too long itself), ``timeout``, ``unwatched`` or ``cancelled`` (by somebody else), all of
    which a later try may overcome; or
    ``failed``, with the server's own words in ``error``. ``reason`` says it in words. ``longest_wait`` is the longest
    that anybody waited on it, in seconds; ``held_up`` how long the statement itself waited for others. ``watch_lost``:
    the connection that watched must not be used again. ``rows`` is what the statement answered when it was done.
    """

    ended: str
    reason: str
    seconds: float
    longest_wait: float
    held_up: float
    error: t.Optional[QueryError] = None
    watch_lost: bool = False
    rows: t.Sequence[t.Mapping[str, t.Any]] = ()


def run_watched(
    work: t.Any,
    watch: t.Any,
    statement: t.Any,
    *,
    max_block: float,
    timeout: float = 0.0,
    max_held_up: float = math.inf,
    look_every: float = LOOK_EVERY,
) -> Watched:
    """Run *statement* on the connection *work* while *watch* looks that nobody waits on it for longer than *max_block*.

    *timeout* of 0 (or infinite) means none. It is also cancelled when it waits for others for longer than it has
    worked, and than *max_held_up*. Both connections are in autocommit mode and go to the same server. Raises
    MaintenanceError when *watch* cannot look at all: then nothing was begun. Being stopped (see ``stopping.py``)
    cancels the statement and waits until the server has ended it.
    """
    limit = f"{max(1, int(timeout * 1000))}ms" if 0 < timeout < float("inf") else "0"
    postgresql.query(work, "SELECT pg_catalog.set_config('statement_timeout', %s, false)", [limit])
    bearable = bearable_wait(work, max_block)
    watcher = Watcher(watch, work.info.backend_pid, look_every)
    watcher.look()
    job = _Job(work, statement)
    began = time.monotonic()
    stopped = ("", "")
    standstill = _Standstill(began)
    try:
        watcher.start()
        job.start()
        while not job.done.wait(_TICK):
            now = time.monotonic()
            look = watcher.last
            stopped = why_stop(look, watcher.problem, now - standstill.since(look, now), bearable)
            if not stopped[0]:
                stopped = why_wait_no_longer(look, watcher.held_up, now - began, max_held_up)
            if stopped[0]:
                break
        _cancel_until_done(job)
    except BaseException:
        # What stops us comes first; a server that does not answer then must not hide it.
        with contextlib.suppress(MaintenanceError):
            _cancel_until_done(job, _GIVE_UP_WHEN_STOPPED_AFTER)
        watcher.stop(time.monotonic(), within=BLIND_FOR)
        raise
    ended = time.monotonic()
    usable = watcher.stop(ended, within=BLIND_FOR)
    seconds = ended - began
    kind, reason = _how_it_ended(job, stopped, seconds, timeout)
    error = job.error if kind == "failed" else None
    return Watched(kind, reason, seconds, watcher.longest_wait, watcher.held_up, error, not usable, job.rows)


def why_stop(look: Look, problem: str, now: float, max_block: float) -> tuple[str, str]:
    """Why the statement is to be cancelled after *look*, as (kind, words); two empty texts when it may run on.

    *problem* is what went wrong with the connection that looks, if anything.
    """
    if problem:
        return "unwatched", f"the connection that watched it was lost: {problem}"
    blind = now - look.at
    if blind > max(BLIND_FOR, max_block):
        return "unwatched", f"the connection that watched it did not answer for {human_seconds(blind)}"
    for other in (*look.waiting, *look.holding):
        if other.backend == "autovacuum worker":
            waits = other in look.waiting
            return (
                "autovacuum",
                f"made way for autovacuum (process {other.pid}), which {'waited' if waits else 'was'} "
                f"{'for' if waits else 'at work on'} the table",
            )
    waiting = {other.pid for other in look.waiting} | look.behind
    for other in look.holding:
        # ALTER TABLE, say, has a snapshot while it waits for the table that we have, and we wait for old snapshots.
        if other.pid in waiting:
            return "blocking", f"{describe(other)} waited on it, and it on that process: a deadlock"
    longest = max(look.waiting, key=lambda other: other.seconds, default=None)
    if longest is not None and longest.seconds > max_block:
        return "blocking", f"{describe(longest)} had waited {human_seconds(longest.seconds)} on it"
    return "", ""


def why_wait_no_longer(look: Look, held_up: float, seconds: float, max_held_up: float) -> tuple[str, str]:
    """Why a statement is to be cancelled that was *held_up* by others in its *seconds*; else two empty texts.

    It may wait for as long as it has worked, lest long work is lost to a short wait, and for *max_held_up* in any case.
    """
    if look.holding and held_up > max(max_held_up, seconds - held_up):
        return "waiting", f"it had waited {human_seconds(held_up)} for {describe(look.holding[0])}"
    return "", ""


def _how_it_ended(job: _Job, stopped: tuple[str, str], seconds: float, timeout: float) -> tuple[str, str]:
    if job.error is None:
        # It may have come to its end just before it was to be cancelled.
        return "done", ""
    if job.error.sqlstate == DEADLOCK_DETECTED:
        return "blocking", "the server ended it because of a deadlock with others"
    if job.error.sqlstate != QUERY_CANCELED:
        return "failed", job.error.observed
    if stopped[0]:
        return stopped
    if 0 < timeout <= seconds + 0.1:
        return "timeout", f"the time that was left for it, {human_seconds(timeout)}, was over"
    return "cancelled", "somebody cancelled it"


def _cancel_until_done(job: _Job, give_up_after: float = _GIVE_UP_CANCELLING_AFTER) -> None:
    """Cancel *job* unless it has ended, and wait until it has; a cancellation can come too early and be lost."""
    if not job.begun:
        return
    since = time.monotonic()
    while not job.done.is_set():
        job.cancel()
        job.done.wait(_CANCEL_AGAIN_AFTER)
        if time.monotonic() - since > give_up_after and not job.done.is_set():
            raise MaintenanceError(
                "cancel a statement of ours",
                where=f"process {job.pid} of the server",
                expected="the server to end it",
                observed=f"it did not within {human_seconds(give_up_after)}",
                advice=f"See what it does, and end it: SELECT pg_terminate_backend({job.pid}).",
            )
    job.settle()


class _Job:
    """One statement in a thread of its own."""

    def __init__(self, connection: t.Any, statement: t.Any) -> None:
        self.connection = connection
        self.statement = statement
        self.pid: int = connection.info.backend_pid
        self.done = threading.Event()
        self.error: t.Optional[QueryError] = None
        self.rows: t.Sequence[t.Mapping[str, t.Any]] = ()
        self.begun = False
        self._asking: t.Optional[threading.Thread] = None

    def start(self) -> None:
        self.begun = True
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self.rows = postgresql.query(self.connection, self.statement)
        except QueryError as error:
            self.error = error
        finally:
            self.done.set()

    def cancel(self) -> None:
        # In a thread, for asking a server that cannot be reached takes until the network gives up.
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask_to_cancel, daemon=True)
            self._asking.start()

    def settle(self) -> None:
        """Make sure that no cancellation is still on its way: it would hit the next statement."""
        if self._asking is not None:
            self._asking.join(_SETTLE_WITHIN)
            if self._asking.is_alive():
                self.connection.close()

    def _ask_to_cancel(self) -> None:
        with contextlib.suppress(postgresql.driver().Error):
            self.connection.cancel()


class _Standstill:
    """How long this process has stood still since a look: paused with its machine, it had not gone blind."""

    def __init__(self, now: float) -> None:
        self._look: t.Optional[Look] = None
        self._seconds = 0.0
        self._before = now

    def since(self, look: Look, now: float) -> float:
        """Called at every tick; what is beyond the time that a tick may take is standstill."""
        if look is not self._look:
            self._look, self._seconds = look, 0.0
        self._seconds += max(0.0, now - self._before - _TICK - LOOK_EVERY)
        self._before = now
        return self._seconds


class Pair:
    """A connection that works and one that watches it; either is opened anew when it was lost.

    *open_one* opens a connection; *prepare* is called with each new one that works (to claim the database, say).
    """

    def __init__(self, open_one: t.Callable[[], t.Any], prepare: t.Optional[t.Callable[[t.Any], None]] = None) -> None:
        self._open = open_one
        self._prepare = prepare
        self._work: t.Any = None
        self._watch: t.Any = None

    @property
    def work(self) -> t.Any:
        if self._work is None or self._work.closed:
            opened = self._open()
            try:
                if self._prepare is not None:
                    self._prepare(opened)
            except BaseException:
                opened.close()
                raise
            self._work = opened
        return self._work

    @property
    def watch(self) -> t.Any:
        if self._watch is None or self._watch.closed:
            self._watch = self._open()
        return self._watch

    def run(
        self, statement: t.Any, *, max_block: float, timeout: float = 0.0, max_held_up: float = math.inf
    ) -> Watched:
        """See :func:`run_watched`."""
        work, watch = self.work, self.watch
        try:
            watched = run_watched(work, watch, statement, max_block=max_block, timeout=timeout, max_held_up=max_held_up)
        except BaseException:
            # A statement that could not be ended still has its connection, and a look may have the other.
            if work.info.transaction_status == _ACTIVE:
                self._work = None
            self._watch = None
            raise
        if watched.watch_lost:
            # Not closed here: a thread may still wait for its answer, and closes it by forgetting it.
            self._watch = None
        return watched

    def close(self) -> None:
        for connection in (self._work, self._watch):
            if connection is not None:
                with contextlib.suppress(postgresql.driver().Error):
                    connection.close()
        self._work = self._watch = None

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_reason: object) -> None:
        self.close()
