# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors that an activity raises when it cannot go on."""

from __future__ import annotations


class MaintenanceError(Exception):
    """Something stands in the way of an activity, told so that an operator can act on it.

    Args:
        what: what was attempted, as a short phrase ("take the lock of backup").
        expected: what should have been the case.
        observed: what was the case instead.
        advice: what to do next.
        where: the path, host or object concerned; empty when ``what`` already names it.
    """

    def __init__(self, what: str, *, expected: str, observed: str, advice: str, where: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.expected = expected
        self.observed = observed
        self.advice = advice

    def in_short(self) -> str:
        """What was attempted where, and what was observed; not what to do about it."""
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}{place}: {self.observed}"

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}{place}: expected {self.expected}; observed {self.observed}. {self.advice}"


class MissingToolError(MaintenanceError):
    """A program or library that is not installed on the host; ``advice`` holds the command that installs it."""


class UnavailableError(MaintenanceError):
    """A part of the work cannot be had now: it is down, or lets nobody in. What does not need it can go on."""

    @classmethod
    def of(cls, error: MaintenanceError) -> UnavailableError:
        """The same *error* as one of this kind."""
        return cls(error.what, where=error.where, expected=error.expected, observed=error.observed, advice=error.advice)
