# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How fast an application answers, to be compared before and after something was done to it."""

from __future__ import annotations

import statistics
import time
import typing as t

from ..probes.http import NoAnswerError, ask, plain_headers, tls_context
from ..probes.redaction import redact

TIMES = 5


class Latency(t.NamedTuple):
    """The answers of one address: how long each took, or in words what was wrong with the first bad one."""

    url: str
    seconds: list[float]
    trouble: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def latency_of(url: str, statuses: t.Container[int], timeout: float, times: int = TIMES) -> Latency:
    """Ask for *url* as many *times*, one after the other, and stop at the first answer that is not good."""
    seconds: list[float] = []
    for _time in range(times):
        began = time.monotonic()
        try:
            status = _status_of(url, began + timeout)
        except NoAnswerError as error:
            return Latency(redact(url), seconds, error.words)
        if status not in statuses:
            return Latency(redact(url), seconds, f"status {status}")
        seconds.append(time.monotonic() - began)
    return Latency(redact(url), seconds)


def _status_of(url: str, deadline: float) -> int:
    context = tls_context(True, "") if url.lower().startswith("https:") else None
    return ask(url, "", plain_headers(), context, deadline).status


def allowed_seconds(baseline: float, max_ratio: float, min_allowed: float) -> float:
    """How long an answer may take after a change when it took *baseline* seconds before."""
    return max(baseline * max_ratio, min_allowed)
