# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The time that a run may take."""

from __future__ import annotations

import math
import time
import typing as t

from ..options import read_duration, refuse

BUDGET_OPTIONS: dict[str, dict[str, t.Any]] = {"time_budget": {"type": "str", "default": "0s"}}


class Budget:
    """*seconds* to spend from now on; 0 means that there is no limit."""

    def __init__(self, seconds: float, *, clock: t.Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._began = clock()

    def spent(self) -> float:
        return self._clock() - self._began

    def left(self) -> float:
        """Seconds that are left, 0 when none are; infinite when there is no limit."""
        return max(0.0, self.seconds - self.spent()) if self.seconds else math.inf

    def fits(self, seconds: float) -> bool:
        """Whether something that takes *seconds* can be finished in time; nothing is begun once the time is over."""
        return self.left() > 0 and seconds <= self.left()


def read_budget(params: t.Mapping[str, t.Any]) -> Budget:
    """The budget that the option ``time_budget`` in *params* gives; raises MaintenanceError when it is no duration."""
    return Budget(read_duration(params, "time_budget"))


def read_max_block(params: t.Mapping[str, t.Any]) -> float:
    """Seconds of the option ``max_block``: who works under a lock cannot promise that nobody waits at all."""
    seconds = read_duration(params, "max_block")
    if not seconds:
        refuse("max_block", expected="more than 0", observed="0", advice="Correct max_block: 1s, say.")
    return seconds
