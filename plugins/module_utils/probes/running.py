# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run probes side by side, each on its own: one that raises or hangs costs nothing but its own answer."""

from __future__ import annotations

import queue
import threading
import time
import typing as t

from ..errors import MaintenanceError
from ..quantities import human_seconds
from ..result import Part
from .redaction import redact

# Enough that slow endpoints do not add up, few enough that their handshakes do not slow each other down.
WORKERS = 16


class Probe(t.NamedTuple):
    """One probe: what it looks at ("HTTP endpoint shop") and the function that puts its checks into a Part."""

    name: str
    run: t.Callable[[Part], None]


class Running:
    """Probes at work in threads that end with the process, so that none which hangs can keep it."""

    def __init__(self, probes: t.Sequence[Probe], workers: int = WORKERS) -> None:
        self._began = time.monotonic()
        self._jobs = [(probe, Part(), threading.Event()) for probe in probes]
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(len(self._jobs)):
            self._waiting.put(number)
        for _worker in range(min(workers, len(self._jobs))):
            threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                probe, part, finished = self._jobs[self._waiting.get_nowait()]
            except queue.Empty:
                return
            guarded(probe, part)
            finished.set()

    def wait(self, deadline: float) -> bool:
        """Wait for all, at most until the monotonic time *deadline*; whether all have finished."""
        for _probe, _part, finished in self._jobs:
            finished.wait(max(0.0, deadline - time.monotonic()))
        return all(finished.is_set() for _probe, _part, finished in self._jobs)

    def collect(self, into: Part) -> None:
        """Add what was found, in the order of the probes; what has not finished is ``unknown``."""
        for probe, part, finished in self._jobs:
            done = finished.is_set()
            merge(part, into)
            if not done:
                not_finished(probe.name, time.monotonic() - self._began, into)


def guarded(probe: Probe, part: Part) -> None:
    """Run *probe*; an exception becomes a check of its own."""
    try:
        probe.run(part)
    except MaintenanceError as error:
        name = f"probe {probe.name}: {error.what}" if error.what else f"probe {probe.name}"
        part.check(name, "failed", expected=error.expected, observed=error.observed, advice=error.advice)
    except Exception as error:  # whatever it is, the other probes go on
        part.check(
            f"probe {probe.name}",
            "unknown",
            expected="a probe that can be carried out",
            observed=redact(f"{type(error).__name__}: {error}"),
            advice="Correct the options of this probe or the rights it lacks.",
        )


def merge(part: Part, into: Part) -> None:
    """Add the checks and metrics of *part* to *into*."""
    into.checks.extend(list(part.checks))
    into.metrics.update(dict(part.metrics))


def not_finished(name: str, seconds: float, into: Part) -> None:
    into.check(
        f"probe {name}",
        "unknown",
        expected="an end within the time of the health check",
        observed=f"not finished after {human_seconds(seconds)}",
        advice="See what it waits for, or allow more time with the option timeout.",
    )
