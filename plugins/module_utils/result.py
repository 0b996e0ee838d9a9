# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The shape of what an activity shows: checks, metrics, changes, artifacts, and the outcome that follows from them.

A module builds one :class:`Part`; the ledger callback joins the parts of one host and activity into a result.
Described by ``schemas/result.v1.json``.
"""

from __future__ import annotations

import typing as t

STATUSES = ("passed", "warned", "failed", "unknown")
OUTCOMES = ("passed", "warned", "failed", "skipped")

# What is evidence that an activity was done: a warning is a remark, not a refusal.
GOOD_OUTCOMES = ("passed", "warned")

PART_KEYS = ("checks", "metrics", "changes", "artifacts")

Check = t.Dict[str, t.Any]


def outcome_of(checks: t.Sequence[Check]) -> str:
    """The outcome that follows from *checks*: failed, warned or passed.

    No checks at all is ``failed``: what was not checked is not done. ``unknown`` is never ``passed``.
    """
    statuses = {check["status"] for check in checks}
    if not statuses or "failed" in statuses:
        return "failed"
    if statuses & {"warned", "unknown"}:
        return "warned"
    return "passed"


def describe(check: Check) -> str:
    """One line a person understands: name, observed, expected and, when something is to be done, the advice."""
    line = f"{check['name']}: {check['observed']} (expected {check['expected']})"
    if check["status"] != "passed" and check.get("advice"):
        line += f". {check['advice']}"
    return line


def limit_status(value: float, warn: float | None, fail: float | None) -> str:
    """Compare *value* with limits above which it warns or fails; ``None`` means that there is no such limit."""
    if fail is not None and value > fail:
        return "failed"
    if warn is not None and value > warn:
        return "warned"
    return "passed"


class Part:
    """What one module execution contributes to a result."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.metrics: dict[str, dict[str, t.Any]] = {}
        self.changes: list[dict[str, t.Any]] = []
        self.artifacts: list[dict[str, t.Any]] = []
        self.skip_reason = ""

    def check(
        self,
        name: str,
        status: str,
        *,
        expected: t.Any,
        observed: t.Any,
        advice: str = "",
        evidence: dict[str, t.Any] | None = None,
    ) -> str:
        """Record one verification and return its status.

        *name* says what was verified and on what ("disk use of /var"). *advice* says what to do when the status is not
        ``passed``. *evidence* holds JSON values that support the verdict; never a secret.
        """
        if status not in STATUSES:
            raise ValueError(f"status of check {name!r} must be one of {STATUSES}, not {status!r}")
        self.checks.append(
            {
                "name": name,
                "status": status,
                "expected": str(expected),
                "observed": str(observed),
                "advice": advice,
                "evidence": evidence or {},
            }
        )
        return status

    def require(
        self, name: str, passed: bool, *, expected: t.Any, observed: t.Any, advice: str = "", **evidence: t.Any
    ) -> bool:
        """Record a verification that either passes or fails; returns *passed*."""
        status = "passed" if passed else "failed"
        self.check(name, status, expected=expected, observed=observed, advice=advice, evidence=evidence)
        return passed

    def metric(self, name: str, value: float, unit: str) -> None:
        """Record a measured number; *unit* is ``bytes``, ``seconds``, ``count``, ``ratio`` or another SI name."""
        self.metrics[name] = {"value": value, "unit": unit}

    def change(self, kind: str, name: str, before: t.Any, after: t.Any) -> None:
        """Record that the thing *name* of *kind* is different now; in check mode, that it would be."""
        self.changes.append({"kind": kind, "name": name, "before": before, "after": after})

    def artifact(self, path: str, sha256: str, size_bytes: int) -> None:
        """Record a file that the activity made."""
        self.artifacts.append({"path": path, "sha256": sha256, "bytes": size_bytes})

    def skip(self, reason: str) -> None:
        """Say why the activity cannot be carried out here at all; it counts as skipped unless a check was recorded."""
        self.skip_reason = reason

    @property
    def changed(self) -> bool:
        return bool(self.changes)

    def failures(self) -> list[Check]:
        return [check for check in self.checks if check["status"] == "failed"]

    def as_dict(self) -> dict[str, t.Any]:
        """``{checks, metrics, changes, artifacts}`` and, where something was skipped, ``skip_reason``."""
        shown = {key: getattr(self, key) for key in PART_KEYS}
        if self.skip_reason:
            shown["skip_reason"] = self.skip_reason
        return shown
