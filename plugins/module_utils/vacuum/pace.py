# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How long a step will take: first by cautious rates, then by what was measured on this very server."""

from __future__ import annotations

import typing as t

from .decide import Step

# Bytes a second on a modest server; what the first steps really take corrects them.
HEAP_RATE = 50e6
INDEX_RATE = 200e6
ANALYZE_RATE = 50e6
FIXED_SECONDS = 0.01
_ANALYZE_PAGES = 30000  # 300 × default_statistics_target
_LEARN_FROM = 0.5
_PAGE_COST = 22  # read and made dirty, in the units of vacuum_cost_limit


class Throttle(t.NamedTuple):
    """Cost-based delay: after work that costs *limit* units, sleep *delay_ms*; a delay of 0 means none."""

    delay_ms: float = 0.0
    limit: int = 200

    def seconds(self, pages: float) -> float:
        return pages * _PAGE_COST / self.limit * self.delay_ms / 1000 if self.delay_ms else 0.0


class Pace:
    """Predicts seconds, and learns from how long steps took."""

    def __init__(self, throttle: Throttle, block_size: int = 8192) -> None:
        self.throttle = throttle
        self.block_size = block_size
        self._predicted = 0.0
        self._taken = 0.0

    def predict(self, step: Step, index_bytes: int) -> float:
        """Seconds that *step* will take on a table whose indexes have *index_bytes*."""
        return round(self._raw(step, index_bytes) * self._factor(), 3)

    def learn(self, step: Step, index_bytes: int, seconds: float) -> None:
        self._predicted += self._raw(step, index_bytes)
        self._taken += seconds

    def _factor(self) -> float:
        if self._predicted < _LEARN_FROM:
            return 1.0
        return min(max(self._taken / self._predicted, 0.05), 20.0)

    def _raw(self, step: Step, index_bytes: int) -> float:
        table = step.table
        seconds = FIXED_SECONDS
        if step.vacuum:
            pages = table.unfrozen_pages if step.freeze else table.dirty_pages
            seconds += pages * self.block_size / HEAP_RATE + self.throttle.seconds(pages)
            if not step.failsafe:
                seconds += index_bytes / INDEX_RATE + self.throttle.seconds(index_bytes / self.block_size / 2)
        if step.analyze:
            pages = min(table.pages + table.pages_of_parts, _ANALYZE_PAGES)
            seconds += pages * self.block_size / ANALYZE_RATE
        return seconds
