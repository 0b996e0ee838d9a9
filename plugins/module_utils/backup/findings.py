# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a finished backup is reported as: its checks, metrics, change and artifact."""

from __future__ import annotations

import os
import typing as t

from ..errors import MaintenanceError
from ..files import sha256_of
from ..quantities import human_bytes, human_seconds
from ..result import Part
from .engine import Made, Seen, Verification
from .packed.unpacking import base_bytes
from .planning import Fates
from .repository import METADATA, Backup
from .retention import Rules, shrunk

# Names in a check's evidence; more of them help nobody.
_NAMED = 10


def report_created(part: Part, made: Made, max_block: float, seconds: float) -> None:
    """Record what making a backup showed."""
    backup, seen = made
    metadata, sizes = backup.metadata, backup.metadata["bytes_by_part"]
    part.require(
        "backup complete",
        True,
        expected="a backup under its final name",
        observed=f"{backup.label}, {human_bytes(metadata['bytes'])} in {human_seconds(seconds)}",
        chain=backup.chain,
    )
    part.require(
        "base backup verified",
        True,
        expected="pg_verifybackup finds every byte as its manifest says",
        observed=f"{human_bytes(sizes['base'])} verified",
    )
    part.require(
        "WAL continuous from start to restore point",
        True,
        expected=f"all segments and records from {metadata['start_lsn']} to {metadata['restore_point']['lsn']}",
        observed=f"all there, {human_bytes(sizes['wal'])}",
        restore_point=metadata["restore_point"],
    )
    if metadata["databases"]:
        part.require(
            "dumps hashed",
            True,
            expected="every database and the roles dumped, and hashed as they were written",
            observed=f"{len(metadata['databases'])} databases, {human_bytes(sizes['dump'])}",
        )
    for store in seen.stores:
        if store.name not in backup.absent:
            store.report(part)
    _report_point(part, made, max_block)
    _report_metrics(part, backup, seen, seconds)
    part.change("backup", backup.label, "absent", f"{backup.type}, {human_bytes(metadata['bytes'])}")
    path = backup.path(METADATA)
    part.artifact(path, sha256_of(path), metadata["bytes"])


def report_unavailable(name: str, error: MaintenanceError, part: Part) -> None:
    """A store that is wanted cannot be had now."""
    part.check(
        f"store {name}",
        "failed",
        expected="all that it holds saved with the backup",
        observed=error.in_short(),
        advice=f"{error.advice} The databases are backed up without it; older backups that have it stay.",
    )


def report_lacks(backup: Backup, told: t.Container[str], part: Part) -> None:
    """What *backup* lacks, except for stores of which that was *told* already."""
    for name, reason in backup.lacks.items():
        if name not in told:
            part.check(
                f"store {name}",
                "failed",
                expected="all that it holds saved with the backup",
                observed=f"it is not in {backup.label}: {reason}",
                advice="Run the activity backup again when it can be had. Older backups that have it stay.",
            )


def _report_point(part: Part, made: Made, max_block: float) -> None:
    point = made.seen.point
    if point is None:
        return
    part.check(
        "content can be compared",
        "unknown" if point.reason else "passed",
        expected="one point that base, WAL, dumps and fingerprints share",
        observed=point.reason or f"{point.name}, at try {point.tries}",
        advice="A restore test cannot compare content. Find a quieter time, or allow a longer max_block.",
        evidence={"lsn": point.lsn, "time": point.time, "not_compared": made.backup.metadata["not_compared"][:_NAMED]},
    )
    part.check(
        "writers blocked by the backup",
        "warned" if point.blocked_seconds > max_block + 0.5 else "passed",
        expected=f"no longer than {human_seconds(max_block)}",
        observed=human_seconds(point.blocked_seconds),
        advice="See what slows the server down.",
    )


def _report_metrics(part: Part, backup: Backup, seen: Seen, seconds: float) -> None:
    sizes = backup.metadata["bytes_by_part"]
    part.metric("backup_bytes", backup.metadata["bytes"], "bytes")
    for name, size in sizes.items():
        part.metric(f"{name}_bytes", size, "bytes")
    part.metric("backup_seconds", round(seconds, 3), "seconds")
    for phase in ("base", "dump", *(store.name for store in seen.stores)):
        if phase in seen.seconds:
            part.metric(f"{phase}_seconds", round(seen.seconds[phase], 3), "seconds")
    if seen.point:
        part.metric("writers_blocked_seconds", round(seen.point.blocked_seconds, 4), "seconds")
        part.metric("consistent_point_tries", seen.point.tries, "count")


def report_size(part: Part, backup: Backup, earlier: t.Sequence[Backup]) -> None:
    """A backup that is much smaller than the one before may lack something."""
    comparable = [other for other in earlier if other.type == backup.type and other.label != backup.label]
    if backup.type != "full" or not comparable:
        return  # an incremental one is as large as what changed
    size, *sizes = [base_bytes(one.metadata) + one.metadata["bytes_by_part"]["files"] for one in (backup, *comparable)]
    part.check(
        "size of the backup",
        "warned" if shrunk(size, sizes) else "passed",
        expected=f"not much smaller than the last full one ({human_bytes(sizes[-1])})",
        observed=human_bytes(size),
        advice="See whether something was dropped, deleted or left out of the list of directories.",
    )


def report_retention(part: Part, decided: Fates, rules: Rules, words: str, failed: t.Collection[str] = ()) -> None:
    """What goes, and why everything else stays."""
    part.require(
        "retention",
        not failed,
        expected=rules.in_words(),
        observed=f"{', '.join(sorted(failed))} could not be removed"
        if failed
        else f"{len(decided.staying)} backups stay, {len(decided.going)} {words}",
        advice="Look at the rights in the repository.",
        stay=decided.staying,
    )


def report_not_removed(name: str, error: MaintenanceError, part: Part) -> None:
    """What a backup holds outside of the repository could not be removed now; its directory stays until it can."""
    part.check(
        f"removal of {name}",
        "warned",
        expected="all of it gone, here and elsewhere",
        observed=f"{error.what} ({error.where}): {error.observed}",
        advice=f"{error.advice} The next run tries again.",
    )


def report_newest(part: Part, backup: Backup, verifications: t.Sequence[Verification], age: float) -> None:
    """Record that the newest backup is young enough, and what a look at it showed."""
    part.check(
        "age of the newest backup",
        "warned" if age < -300 else "passed",
        expected="younger than the interval",
        observed=f"{human_seconds(max(0.0, age))} ({backup.label})"
        if age >= -300
        else f"{backup.label} is from the future",
        advice="The clock of the host was changed: mend it, and make a new backup.",
    )
    problems = [problem for verification in verifications for problem in verification.problems]
    part.check(
        "newest backup in its place",
        "failed" if problems else "passed",
        expected="all files that a restore needs, with their sizes",
        observed="; ".join(problems[:5]) or f"{len(verifications)} in its chain, nothing missing",
        advice="Make a new full backup, and find out what damages the repository.",
    )
    verified = backup.metadata["verified"]
    part.require(
        "newest backup verified",
        True,
        expected="every byte read and verified when it was made",
        observed=f"on {verified['at']} by {verified['by']}",
    )


def report_space(part: Part, directory: str, needed: int, *, free: int, min_free: int) -> bool:
    """Whether there is room for a backup that needs *needed* bytes."""
    part.metric("repository_free_bytes", free, "bytes")
    return part.require(
        f"space in {os.path.abspath(directory)}",
        free - needed >= min_free,
        expected=f"{human_bytes(needed + min_free)}: {human_bytes(needed)} needed, {human_bytes(min_free)} left free",
        observed=f"{human_bytes(free)} free",
        advice="Give the repository more space, keep fewer backups, or lower min_free_bytes. Nothing was written.",
        needed_bytes=needed,
        free_bytes=free,
    )
