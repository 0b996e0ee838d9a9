# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application that a cache belongs to: whether it answers before, and as fast afterwards."""

from __future__ import annotations

import typing as t

from ..quantities import human_seconds
from ..result import Part
from .latency import Latency, allowed_seconds, latency_of
from .wishes import Cache

_WARM_UP_STATUSES = range(200, 400)
_WARM_UP_SECONDS = 30.0


class Application:
    """What answers at the addresses of a cache's probe."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.probe: dict[str, t.Any] = cache.probe or {}
        self.baseline: list[Latency] = []

    def answers_before(self, part: Part) -> bool:
        """Measure the baseline; whether the application answers, so that its cache may be cleared."""
        self.baseline = self._ask()
        if not self.baseline:
            return True
        bad = _troubles(self.baseline)
        if not bad:
            part.metric(f"baseline_latency_of_{self.cache.slug}", _slowest(self.baseline), "seconds")
        return part.require(
            f"cache {self.cache.name}: the application answers before",
            not bad,
            expected=f"status {' or '.join(map(str, self.probe['status']))} from {len(self.baseline)} addresses",
            observed="; ".join(bad) or f"all answer, the slowest in {human_seconds(_slowest(self.baseline))}",
            advice="Bring the application back first: its cache was left as it is, for it may be all that still works.",
        )

    def verify(self, part: Part) -> None:
        """See that the application answers: once cold, then, warmed up, by the median about as fast as before."""
        name = f"cache {self.cache.name}: the application still answers as fast"
        cold = self._ask(times=1)
        self._warm_up(part)
        if not self.baseline:
            advice = "Give the cache a `probe` with the addresses that tell."
            part.check(name, "unknown", expected="good answers", observed="no address to ask", advice=advice)
            return
        after = self._ask()
        bad = _troubles([*cold, *after])
        if not bad:
            part.metric(f"cold_latency_of_{self.cache.slug}", _slowest(cold), "seconds")
            part.metric(f"latency_of_{self.cache.slug}", _slowest(after), "seconds")
            bad = self._slower(after)
        part.require(
            name,
            not bad,
            expected=f"at most {self.probe['max_latency_ratio']:g} times the latency of before, or "
            f"{human_seconds(self.probe['min_allowed_seconds'])}",
            observed="; ".join(bad) or f"all answer, the slowest in {human_seconds(_slowest(after))}",
            advice="See what the application has to compute anew, and list it in `warm_up_urls`.",
            before={latency.url: round(latency.median, 4) for latency in self.baseline},
            after={latency.url: round(latency.median, 4) for latency in after if latency.seconds},
        )

    def _ask(self, **options: int) -> list[Latency]:
        return [
            latency_of(url, self.probe["status"], self.probe["timeout_seconds"], **options)
            for url in self.cache.probe_urls
        ]

    def _slower(self, after: list[Latency]) -> list[str]:
        words = []
        for before, now in zip(self.baseline, after):  # noqa: B905 (Python 3.9 knows no strict)
            allowed = allowed_seconds(before.median, self.probe["max_latency_ratio"], self.probe["min_allowed_seconds"])
            if now.median > allowed:
                took, was, limit = (human_seconds(seconds) for seconds in (now.median, before.median, allowed))
                words.append(f"{now.url}: {took}, before {was}, allowed {limit}")
        return words

    def _warm_up(self, part: Part) -> None:
        """Ask for the listed addresses, so that the application fills its cache before users wait for it."""
        if not self.cache.warm_up_urls:
            return
        answers = [latency_of(url, _WARM_UP_STATUSES, _WARM_UP_SECONDS, times=1) for url in self.cache.warm_up_urls]
        bad = _troubles(answers)
        part.require(
            f"cache {self.cache.name}: warmed up",
            not bad,
            expected=f"a status of 2xx or 3xx from {len(answers)} addresses",
            observed="; ".join(bad) or f"all answered, the slowest in {human_seconds(_slowest(answers))}",
            advice="Correct warm_up_urls, or see the application's own log.",
        )


def _troubles(latencies: list[Latency]) -> list[str]:
    return [f"{latency.url}: {latency.trouble}" for latency in latencies if latency.trouble]


def _slowest(latencies: list[Latency]) -> float:
    return max(latency.median for latency in latencies)
