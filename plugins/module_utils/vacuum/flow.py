# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The run through all steps: within the time, under the watchdog, with a second try, and the system catalogs last."""

from __future__ import annotations

import typing as t

from ..database import session
from ..database.budget import Budget
from ..database.watchdog import Pair
from ..errors import MaintenanceError
from . import act
from .act import DENIED, DONE, LOCKED, OVER, TRY_AGAIN, Outcome
from .decide import CATALOGS, MADE_DIRTY, Step, in_order
from .measure import measure_tables
from .pace import Pace
from .plan import PURPOSE, Server, Site, Surveyor
from .table import Table

PAUSES = (1.0, 2.0)  # before the second and the third try at a table that was locked or in somebody's way


class Work(t.NamedTuple):
    """What was done; ``postponed`` did not fit in the time, each with its predicted seconds."""

    outcomes: t.List[Outcome]
    postponed: t.List[t.Tuple[Step, float]]
    refused: t.Dict[str, MaintenanceError]


class Runner:
    """Carries out the steps of all sites, in order of urgency."""

    def __init__(self, server: Server, surveyor: Surveyor, budget: Budget, pace: Pace, max_block: float) -> None:
        self.server = server
        self.surveyor = surveyor
        self.budget = budget
        self.pace = pace
        self.max_block = max_block
        self.work = Work([], [], {})
        self._places: t.Dict[int, int] = {}
        self._open: t.Optional[Desk] = None
        self._worked_in: t.Set[str] = set(surveyor.made_dirty)

    def run(self, sites: t.Sequence[Site]) -> Work:
        """Carry out everything; what was done stands in ``work`` also when this raises."""
        by_name = {site.name: site for site in sites}
        try:
            steps = in_order(step for site in sites for step in site.steps)
            later = self._try_all(steps, by_name)
            for seconds in PAUSES:
                if not later or self.budget.left() <= seconds:
                    break
                self._close()
                act.pause(seconds)
                later = self._try_all(later, by_name)
            for database in sorted(self._worked_in.intersection(by_name)):
                self._tidy(by_name[database])
        finally:
            self._close()
        return self.work

    def _try_all(self, steps: t.Sequence[Step], sites: t.Mapping[str, Site]) -> t.List[Step]:
        """Carry out *steps*; return those to be tried again."""
        again = []
        for step in steps:
            outcome = self._try(step, sites[step.table.database])
            if outcome is None:
                continue
            self._keep(outcome)
            if outcome.result in TRY_AGAIN:
                again.append(step)
        return again

    def _keep(self, outcome: Outcome) -> None:
        """Of several tries at one step, only the last counts."""
        place = self._places.setdefault(id(outcome.step), len(self.work.outcomes))
        self.work.outcomes[place : place + 1] = [outcome]

    def _try(self, step: Step, site: Site) -> t.Optional[Outcome]:
        index_bytes = site.index_bytes.get(step.table.oid, 0)
        predicted = self.pace.predict(step, index_bytes)
        # What is urgent is begun as long as there is time at all: every page that it freezes stays frozen.
        if not self.budget.fits(0.0 if step.is_urgent else predicted):
            self.work.postponed.append((step, predicted))
            return None
        desk = self._desk(site)
        if desk is None:
            return None
        timeout = self.budget.left()
        outcome = act.carry_out(desk.pair, desk.measuring, site.sight, step, max_block=self.max_block, timeout=timeout)
        if outcome.result not in (LOCKED, DENIED, OVER):
            self.pace.learn(step, index_bytes, outcome.seconds)
        return outcome

    def _desk(self, site: Site) -> t.Optional[Desk]:
        """The connections to the database of *site*, claimed for us; None when somebody else is at work there."""
        if site.name in self.work.refused:
            return None
        if self._open is None or self._open.database != site.name:
            # One database at a time: where we have a session, nobody can drop it or, of a template, make a copy.
            self._close()
            try:
                self._open = Desk(self, site)
            except MaintenanceError as error:
                self.work.refused[site.name] = error
                return None
            self._worked_in.add(site.name)
        return self._open

    def _close(self) -> None:
        desk, self._open = self._open, None
        if desk is not None:
            desk.close()

    def _tidy(self, site: Site) -> None:
        """Vacuum the system catalogs that the work before made dirty, and update the age of the database.

        Otherwise the next run, which has nothing to do, would write hint bits where it only reads.
        """
        desk = self._desk(site)
        if desk is None:
            return
        act.report_counters(desk.pair.work, site.sight.version)
        dirty = [table for table in measure_tables(desk.measuring, site.sight) if self._is_to_tidy(table)]
        # Statistics last: they are what everything else writes to.
        for table in sorted(dirty, key=lambda one: one.name == "pg_statistic"):
            step = Step(table, True, False, False, False, (MADE_DIRTY,), CATALOGS, 0.0)
            outcome = self._try(step, site)
            if outcome is not None and outcome.result == DONE:
                self.work.outcomes.append(outcome)
        act.update_database_age(desk.measuring, site.sight.version)

    def _is_to_tidy(self, table: Table) -> bool:
        if not (table.is_catalog and table.may_maintain and self.surveyor.is_chosen(table)):
            return False
        if table.confidence == "high":
            return table.dirty_pages > 0
        return table.pages > 0 and table.dead_rows + table.inserted_rows > 0


class Desk:
    """The connections to one database: a pair that works and watches, and one that measures."""

    def __init__(self, runner: Runner, site: Site) -> None:
        def open_one() -> t.Any:
            return session.open_session(runner.surveyor.params, site.name, purpose=PURPOSE)

        def prepare(connection: t.Any) -> None:
            session.claim(connection, PURPOSE)
            act.prepare(connection, runner.pace.throttle)

        self.database = site.name
        self.pair = Pair(open_one, prepare)
        self.measuring: t.Any = None
        try:
            self.measuring = open_one()
            self.pair.work  # noqa: B018 (opens it, and claims the database)
        except MaintenanceError:
            self.close()
            raise

    def close(self) -> None:
        self.pair.close()
        if self.measuring is not None:
            self.measuring.close()
