# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does the WAL archive reach without a gap from each backup to now, on the right timeline, each segment as it was?"""

from __future__ import annotations

import os
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ...errors import MaintenanceError
from ..remembered import Remembered
from ..repository import Backup
from . import archive as wal_archive
from .archive import Lineage, Segment
from .positions import format_lsn, parse_lsn, segment_name
from .source import WalSource

# Under this name it is remembered which segments were read.
MEMORY = "wal_archive"
_READERS = 2


class Archived(t.NamedTuple):
    """What was found in the archive of a cluster."""

    segments: int
    bytes: int
    # Where the newest segment ends.
    end: str
    # Backups from whose start on all is there.
    covered: list[str]
    # Backups that were made before the archive began: only their own WAL can be replayed.
    older: list[str]
    # Backups on a timeline that was left before they were made.
    elsewhere: list[str]
    # Label → what is missing from its start on.
    gaps: dict[str, list[str]]
    # Why nothing can be said; empty when it can.
    problem: str


class Bytes(t.NamedTuple):
    """What reading the segments showed."""

    problems: list[str]
    read_bytes: int
    left_bytes: int


def continuity(source: WalSource, backups: t.Sequence[Backup]) -> Archived:
    """Whether *source* has all from the start of each of *backups*, which are of one cluster, to its newest segment."""
    present = source.archived()
    nothing = Archived(len(present), sum(segment.size for segment in present), "", [], [], [], {}, "")
    if not present:
        return nothing._replace(problem=f"there is no WAL of this cluster in {source.where}")
    newest = max(source.timelines())
    try:
        line = source.lineage(newest)
    except MaintenanceError as error:
        return nothing._replace(problem=f"{error.expected} is not there, which says how timeline {newest} came about")
    size = int(backups[-1].metadata["settings"]["wal_segment_size"])
    found = nothing._replace(end=format_lsn(max(wal_archive.end_of(segment.name, size) for segment in present)))
    # The server ends no base backup before its last segment is archived.
    end = max([parse_lsn(found.end), *(parse_lsn(b.metadata["stop_lsn"]) for b in backups if _is_on(b, line))])
    for backup in backups:
        missing = _missing(backup, present, line, end) if _is_on(backup, line) else None
        if missing is None:
            found.elsewhere.append(backup.label)
        elif not missing:
            found.covered.append(backup.label)
        elif _began_later(backup, missing, present) and not _was_archived(source, backup):
            found.older.append(backup.label)
        else:
            found.gaps[backup.label] = missing
    return found


def _missing(backup: Backup, present: t.Sequence[Segment], line: Lineage, end: int) -> list[str]:
    start, size = _start(backup)
    return wal_archive.continuity(present, start, end, line, size)


def _start(backup: Backup) -> tuple[int, int]:
    """Where the WAL of *backup* begins, and the size of a segment."""
    return parse_lsn(backup.metadata["start_lsn"]), int(backup.metadata["settings"]["wal_segment_size"])


def _is_on(backup: Backup, line: Lineage) -> bool:
    start, size = _start(backup)
    return wal_archive.timeline_at(line, start // size, size) == int(backup.metadata["timeline"])


def _began_later(backup: Backup, missing: t.Sequence[str], present: t.Sequence[Segment]) -> bool:
    """Whether all that is *missing* for *backup* lies before the oldest segment that there is."""
    start, size = _start(backup)
    oldest = min(wal_archive.end_of(segment.name, size) for segment in present) - size
    return oldest > start and len(missing) <= oldest // size - start // size


def _was_archived(source: WalSource, backup: Backup) -> bool:
    """Whether the server archived the label of *backup*: so the WAL from its start on was archived, too."""
    start, size = _start(backup)
    timeline = int(backup.metadata["timeline"])
    return source.has_label(f"{segment_name(timeline, start, size)}.{start % size:08X}.backup")


def read_segments(source: WalSource, identifier: str, remembered: Remembered) -> Bytes:
    """Read the segments of the cluster *identifier* that are due, the newest first; each tells whether it is whole."""
    readings = remembered.of(Backup(MEMORY, source.directory, {"sha256": identifier}))
    present = {os.path.relpath(segment.path, source.directory): segment for segment in source.archived()}
    seen = {path: source.look(segment) for path, segment in present.items()}
    looks = {path: look for path, look in seen.items() if look}
    due = [path for path in sorted(looks, reverse=True) if readings.is_due(path, looks[path])]

    def read(path: str) -> tuple[str, str | None]:
        if not remembered.budget.take(present[path].size):
            return path, None
        return path, source.problem_of(present[path])

    problems = source.oddities()
    done = left = 0
    pool = ThreadPoolExecutor(_READERS)
    try:
        for path, problem in pool.map(read, due):
            if problem is None:
                left += present[path].size
                continue
            done += present[path].size
            if problem and source.look(present[path]):
                problems.append(f"{path}: {problem}")
            elif not problem:
                readings.keep(path, looks[path])
    finally:
        pool.shutdown(cancel_futures=True)
        readings.keep_only(present)
        readings.save(damaged=bool(problems))
    return Bytes(problems, done, left)
