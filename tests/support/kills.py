"""Campaigns of kills: a module's process, its backend or the whole server, in every phase of the work."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from .database import (
    assert_nothing_left_behind,
    assert_nothing_lost,
    assert_same,
    content,
    kill_postmaster,
    left_behind,
    wait_until_up,
)
from .nursery import Nursery, Run
from .postgresql import PostgresServer
from .waiting import wait_until

Kill = Callable[["KillSite", Run, random.Random], bool]


class KillSite:
    """A database with something to do in it, and the module that does it; the kind of work is a subclass's."""

    database = "campus"
    # The phases that last, as the column ``phase`` of *progress* has them. Others, passed in less than a millisecond,
    # are met by the kills that come at any time.
    phases: tuple[str, ...]
    progress: str

    def __init__(self, server: PostgresServer, modules: Nursery, state_dir: Path, schema: str) -> None:
        self.server = server
        self.modules = modules
        self.state_dir = state_dir
        self.options: dict[str, Any] = {
            **server.login(),
            "state_dir": str(state_dir),
            "databases": [self.database],
            "tables": ["public.*"],
        }
        server.sql(f"CREATE DATABASE {self.database}")
        for extension in ("amcheck", "pgstattuple", "pg_visibility"):
            server.sql(f"CREATE EXTENSION {extension}", self.database)
        server.sql(schema, self.database)
        self.content = content(server, self.database)
        self.seconds = 0.0

    def slow_run(self) -> AbstractContextManager[Run]:
        """A run that has something to do and does it slowly."""
        raise NotImplementedError

    def whole_run(self) -> dict[str, Any]:
        """A run at full speed, to its end."""
        return self.modules.run(self.options)

    def assert_finished(self, shown: dict[str, Any]) -> None:
        """After a whole run: all is done."""
        assert not shown["failed"], shown["msg"]

    def campaign(self, kill: Kill, kills: int, seed: int) -> None:
        """Kill *kills* runs, now and then let one go to its end, and look what is there each time."""
        chance = random.Random(seed)
        # Half of them in the phases that last, the same number in each; half anywhere.
        each = -(-kills // 2 // len(self.phases))
        plan = [*self.phases] * each
        plan += [""] * (kills - len(plan))
        chance.shuffle(plan)
        self._measure()
        met: Counter[str] = Counter()
        for number, phase in enumerate(plan, 1):
            met[self._kill_once(kill, phase, chance)] += 1
            # The server ends what a killed client had begun within half a second or so.
            wait_until(lambda: not left_behind(self.server, self.state_dir))
            assert_nothing_lost(self.content, content(self.server, self.database))
            if chance.random() < 0.3 or number == len(plan):
                self.assert_finished(self.whole_run())
                assert_nothing_left_behind(self.server, self.state_dir)
                assert_same(self.content, content(self.server, self.database))
        print(f"{met.total()} kills: {dict(met)}")
        assert met.total() >= kills
        assert all(met[phase] >= each for phase in self.phases)

    def _measure(self) -> None:
        """How long a slow run takes now."""
        began = time.monotonic()
        with self.slow_run() as run:
            shown = json.loads(run.end())
        assert not shown.get("failed"), shown.get("msg")
        self.seconds = time.monotonic() - began

    def _kill_once(self, kill: Kill, phase: str, chance: random.Random) -> str:
        """Kill a run in *phase*, or anywhere if that is empty; returns the phase that was seen just before."""
        for attempt in range(1, 21):
            with self.slow_run() as run:
                try:
                    seen = self._wait_for(run, phase, self.seconds * chance.random() / attempt)
                    met = not run.ended and (not phase or seen == phase) and kill(self, run, chance)
                    output = run.end()
                finally:
                    run.kill()
                wait_until_up(self.server)
            if met:
                assert not output or json.loads(output)["checks"] is not None, output
                return seen
        raise AssertionError(f"no run was ever seen {phase or 'at work'}")

    def _wait_for(self, run: Run, phase: str, seconds: float) -> str:
        end = time.monotonic() + seconds
        with self.server.connect(self.database) as connection:
            while not run.ended:
                row = connection.execute(f"SELECT phase FROM {self.progress}").fetchone()  # type: ignore[call-overload]
                seen = str(row[0]) if row else ""
                if seen == phase if phase else time.monotonic() > end:
                    return seen
                time.sleep(0.002)
        return ""


def kill_module(_site: KillSite, run: Run, _chance: random.Random) -> bool:
    run.kill()
    return True


def kill_backend(site: KillSite, _run: Run, chance: random.Random) -> bool:
    """The server process that is at work; if none is, any that serves the module."""
    ours = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'wellkept%'"
    found = site.server.sql(f"SELECT pid FROM {site.progress}") or site.server.sql(ours)
    if not found:
        return False
    try:
        os.kill(chance.choice(found)[0], signal.SIGKILL)
    except ProcessLookupError:  # it has just ended by itself
        return False
    return True


def kill_server(site: KillSite, _run: Run, _chance: random.Random) -> bool:
    kill_postmaster(site.server)
    site.server.start()
    return True


KILLERS = (kill_module, kill_backend, kill_server)
