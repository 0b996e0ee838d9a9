# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Giving the space back that forgotten snapshots took in a restic repository."""

from __future__ import annotations

import time

from ....errors import MaintenanceError
from ....processes import last_words
from ....result import Part
from ...remembered import Parts
from .program import LockedError, Restic

_NAME = "space in the restic repository"


def prune(restic: Restic, memory: Parts, part: Part) -> None:
    """Remove what no snapshot needs, whoever's; where somebody else is at work there, the next run tries again."""
    try:
        done = restic.run("prune the restic repository", "prune", timeout=restic.long_timeout)
    except LockedError as locked:
        part.check(
            _NAME, "passed", expected="what no snapshot needs removed, when nobody is at work there",
            observed=f"not now: {locked.observed}", advice=locked.advice,
        )  # fmt: skip
        return
    except MaintenanceError as error:
        part.check(_NAME, "failed", expected=error.expected, observed=error.observed, advice=error.advice)
        return
    finished = any(line.strip() == "done" for line in done.stdout.splitlines())
    part.check(
        _NAME,
        "passed" if finished else "failed",
        expected="what no snapshot needs removed",
        observed=last_words(done.stdout, 3),
        advice="Run restic prune by hand to see why.",
    )
    if finished:
        memory.facts.update(pruned_at=round(time.time(), 3), forgotten=False)
        memory.save()
        part.change("restic repository", restic.location.name, "with what forgotten snapshots left", "pruned")
