# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a verification of a repository is reported as: its checks and metrics."""

from __future__ import annotations

import typing as t

from ..quantities import human_bytes, human_seconds
from ..result import Part
from . import audit
from .engine import Verification
from .remembered import Remembered
from .wal.verification import Archived, Bytes


def report_bytes(found: t.Mapping[str, Verification], rehearsal: bool, part: Part) -> None:
    """What is damaged is a check of its own; all that is sound is one."""
    for label, verification in found.items():
        if not verification.sound:
            part.require(
                f"bytes of {label}",
                False,
                expected="every file in its place, nothing else, and every byte as it was written",
                observed="; ".join(verification.problems[:5]),
                advice="Do not rely on this backup; the next run of the activity backup makes a new full one in its "
                "place. Find out what damages the repository, then remove this one by hand.",
                problems=verification.problems[:50],
                found=len(verification.problems),
            )
    total = sum(verification.bytes for verification in found.values())
    read = sum(verification.read_bytes for verification in found.values())
    left = sum(verification.left_bytes for verification in found.values())
    part.metric("verification_seconds", round(sum(v.seconds for v in found.values()), 3), "seconds")
    part.metric("backups", len(found), "count")
    part.metric("verified_bytes", total - left, "bytes")
    part.metric("read_bytes", read, "bytes")
    part.metric("unread_bytes", left, "bytes")
    if not found or not all(verification.sound for verification in found.values()):
        return
    if rehearsal:
        part.require(
            "names and sizes of the backups",
            True,
            expected="every file in its place, with its size",
            observed=f"{len(found)} backups, {human_bytes(total)}, of which {human_bytes(left)} would be read",
        )
        return
    part.require(
        "bytes of the backups",
        True,
        expected="every byte as it was written",
        observed=f"{len(found)} backups, {human_bytes(total)}, {human_bytes(read)} of it read now and the rest "
        + ("not yet, or unchanged since it was" if left else "unchanged since it was"),
        labels=sorted(found),
    )


def report_reading(
    found: t.Mapping[str, Verification], remembered: Remembered, reread_within: float, part: Part
) -> None:
    """How far the reading came, and how long ago the oldest was."""
    left = {label: verification.left_bytes for label, verification in found.items() if verification.left_bytes}
    oldest = min((v.read_since for v in found.values() if v.read_since), default=0.0)
    age = max(0.0, remembered.now - oldest) if oldest else 0.0
    part.metric("oldest_reading_seconds", round(age, 1), "seconds")
    part.check(
        "every byte read within reread_within",
        "warned" if left else "passed",
        expected=f"all of it, at most {human_seconds(reread_within)} ago",
        observed=f"{human_bytes(sum(left.values()))} in {len(left)} backups are still to be read, the budget is spent"
        if left
        else f"the oldest reading is {human_seconds(age)} old",
        advice="Allow more by time_budget and read_budget, or a longer reread_within.",
        evidence={"left_bytes": left},
    )
    if remembered.problem:
        part.check(
            "readings remembered",
            "warned",
            expected="what was read is remembered, so that it is not read again each day",
            observed=remembered.problem,
            advice="Give the repository space; until then more is read than is needed.",
        )


def report_audit(facts: audit.Facts, part: Part) -> None:
    for check in audit.CHECKS:
        problems = check.look(facts)
        part.check(
            check.name,
            check.found if problems else "passed",
            expected=check.expected,
            observed="; ".join(problems[:5]) + (" …" if len(problems) > 5 else "") if problems else check.fine(facts),
            advice=check.advice,
            evidence={"problems": problems[:50]} if problems else {},
        )
    newest = audit.newest_to_restore(facts)
    if newest:
        part.metric("newest_backup_age_seconds", round(newest[1].total_seconds(), 1), "seconds")


def report_archive(found: Archived, part: Part, newest: str) -> None:
    """How far the WAL archive reaches from each backup; each that has a gap is a check of its own."""
    part.metric("wal_archive_bytes", found.bytes, "bytes")
    expected = "all WAL from the start of each backup to the newest segment, on the right timeline"
    for label, missing in found.gaps.items():
        part.require(
            f"WAL archive from {label} on",
            False,
            expected=expected,
            observed="; ".join(missing[:5]) + (f" … {len(missing)} in all" if len(missing) > 5 else ""),
            advice="No point behind the gap can be restored from this backup. Make a new backup now, and find out who "
            "removes WAL from the archive.",
            missing=missing[:50],
        )
    if found.problem:
        part.require("WAL archive", False, expected=expected, observed=found.problem, advice="See archive_command.")
        return
    if found.gaps:
        return
    words = [f"{len(found.covered)} backups to {found.end}, {found.segments} segments, {human_bytes(found.bytes)}"]
    if found.older:
        words.append(f"{len(found.older)} are older than the archive")
    if found.elsewhere:
        words.append(f"{len(found.elsewhere)} on a timeline that was left")
    part.check(
        "WAL archive",
        "passed" if newest in found.covered else "warned",
        expected=expected,
        observed="; ".join(words),
        advice="Make a new backup, so that points after it can be restored.",
        evidence={"covered": found.covered, "older": found.older, "elsewhere": found.elsewhere},
    )


def report_archived_bytes(found: Bytes, part: Part) -> None:
    part.metric("wal_read_bytes", found.read_bytes, "bytes")
    left = f", {human_bytes(found.left_bytes)} still to be read" if found.left_bytes else ""
    part.check(
        "bytes of the WAL archive",
        "failed" if found.problems else "warned" if found.left_bytes else "passed",
        expected="every segment whole, and of this cluster",
        observed="; ".join(found.problems[:5]) or f"{human_bytes(found.read_bytes)} read now{left}",
        advice="No point behind a damaged segment can be restored. Make a new backup now, and find out what damages it."
        if found.problems
        else "Allow more by time_budget and read_budget.",
        evidence={"problems": found.problems[:50]} if found.problems else {},
    )
