# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The WAL archive of a cluster: what is in it, on which timelines, and whether a range of it is without a gap.

``<wal_archive>/<system_identifier>/<timeline, 8 hex digits>/<segment>[.gz|.lz4|.zst]``, and beside the segments the
histories of timelines and the labels of backups. The server writes to it, by ``wal_helper``.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import typing as t

from ...errors import MaintenanceError
from . import wal_helper
from .positions import SEGMENT_NAME, parse_lsn, segment_name

_TIMELINE = re.compile(r"[0-9A-F]{8}")
_HISTORY_LINE = re.compile(r"^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)", re.MULTILINE)
_COMPRESSIONS = {suffix: name for name, suffix in wal_helper.SUFFIXES.items()}

# Timelines, oldest first, each with the position at which it was left for the next; None for the last.
Lineage = t.List[t.Tuple[int, t.Optional[int]]]


class Segment(t.NamedTuple):
    """A file of the archive that holds a whole segment; ``size`` is what it takes on the disk."""

    name: str
    size: int
    path: str
    compression: str


class Reach(t.NamedTuple):
    """How far WAL goes on without a gap: ``end`` is where the last segment ends, ``missing`` the name of the next."""

    end: int
    names: t.List[str]
    missing: str


def directory_of(archive: str, system_identifier: str) -> str:
    """Where the WAL of one cluster is in the *archive* of all."""
    return os.path.join(os.path.abspath(archive), system_identifier)


def segments(directory: str) -> list[Segment]:
    """The segments in the archive *directory* of one cluster, ordered by name; [] when there is no such directory."""
    found = []
    for timeline in _timeline_directories(directory):
        for entry in _entries(os.path.join(directory, timeline)):
            stem, suffix = os.path.splitext(entry.name)
            if SEGMENT_NAME.fullmatch(stem) and stem.startswith(timeline) and suffix in _COMPRESSIONS:
                with contextlib.suppress(FileNotFoundError):
                    size = entry.stat(follow_symlinks=False).st_size
                    found.append(Segment(stem, size, entry.path, _COMPRESSIONS[suffix]))
    return sorted(found)


def timelines(directory: str) -> list[int]:
    """The timelines of which there is a history or a segment, oldest first."""
    return [int(name, 16) for name in _timeline_directories(directory)]


def lineage(directories: t.Sequence[str], timeline: int) -> Lineage:
    """How the *timeline* came about, by its history in one of *directories* (archives, or plain ones as ``wal/`` is).

    Raises MaintenanceError when it has a history, by its number, that is nowhere.
    """
    if timeline == 1:
        return [(1, None)]
    name = f"{timeline:08X}.history"
    for directory in directories:
        for path in (os.path.join(directory, name[:8], name), os.path.join(directory, name)):
            try:
                text = wal_helper.read_file(path, name, "none", "").decode("utf-8", "replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
            return read_history(text, timeline)
    raise no_history(timeline, ", ".join(directories))


def read_history(text: str, timeline: int) -> Lineage:
    """The lineage of *timeline* in the *text* of its history."""
    return [*((int(tli), parse_lsn(lsn)) for tli, lsn in _HISTORY_LINE.findall(text)), (timeline, None)]


def no_history(timeline: int, where: str) -> MaintenanceError:
    name = f"{timeline:08X}.history"
    return MaintenanceError(
        f"read the history of timeline {timeline}",
        where=where,
        expected=name,
        observed="it is not there",
        advice=f"Copy {name} from pg_wal of the server, or restore to an earlier timeline.",
    )


def timeline_at(line: Lineage, number: int, segment_bytes: int) -> int:
    """The timeline whose file of the segment *number* recovery reads: the newest that has begun by then."""
    chosen, begin = line[0][0], 0
    for timeline, left_at in line:
        if begin // segment_bytes <= number:
            chosen = timeline
        if left_at is not None:
            begin = left_at
    return chosen


def needed(line: Lineage, start: int, end: int, segment_bytes: int) -> list[str]:
    """Names of the segments from the position *start* to the byte before *end*, each on its timeline."""
    return [
        segment_name(timeline_at(line, number, segment_bytes), number * segment_bytes, segment_bytes)
        for number in range(start // segment_bytes, max(start, end - 1) // segment_bytes + 1)
    ]


def continuity(
    present: t.Iterable[Segment], start: int, end: int | None, line: Lineage, segment_bytes: int
) -> list[str]:
    """What is missing or of a wrong size from *start* to *end* (None: to the newest segment there is), in words."""
    by_name = {segment.name: segment for segment in present}
    if end is None:
        end = max((end_of(name, segment_bytes) for name in by_name if _is_on(line, name, segment_bytes)), default=start)
    problems = []
    for name in needed(line, start, end, segment_bytes):
        segment = by_name.get(name)
        if segment is None:
            problems.append(f"WAL segment {name} is missing")
        elif segment.compression == "none" and segment.size != segment_bytes:
            problems.append(f"WAL segment {name} has {segment.size} bytes instead of {segment_bytes}")
        elif segment.size == 0:
            problems.append(f"WAL segment {name} is empty")
    return problems


def reach(present: t.Iterable[str], start: int, line: Lineage, segment_bytes: int) -> Reach:
    """How far the names *present* go on without a gap from *start* along the timelines of *line*."""
    names = set(present)
    found: list[str] = []
    number = start // segment_bytes
    while True:
        name = segment_name(timeline_at(line, number, segment_bytes), number * segment_bytes, segment_bytes)
        if name not in names:
            break
        found.append(name)
        number += 1
    # A segment in which a timeline was left is archived on the next one when that has filled it. Until then an older
    # timeline's own segment, if it was archived, leads to where the line went another way.
    begin, end = number * segment_bytes, (number + 1) * segment_bytes
    for timeline, left in reversed(line):
        end = end if left is None else min(end, left)
        older = segment_name(timeline, begin, segment_bytes)
        if max(begin, start) < end < begin + segment_bytes and older in names:
            return Reach(end, [*found, older], name)
    return Reach(number * segment_bytes, found, name)


def later_than_gap(present: t.Iterable[str], gap: Reach, line: Lineage, segment_bytes: int) -> list[str]:
    """The segments on *line* that lie behind the first gap: what they hold cannot be reached."""
    return sorted(
        name for name in present if end_of(name, segment_bytes) > gap.end and _is_on(line, name, segment_bytes)
    )


def _is_on(line: Lineage, name: str, segment_bytes: int) -> bool:
    number = end_of(name, segment_bytes) // segment_bytes - 1
    return int(name[:8], 16) == timeline_at(line, number, segment_bytes)


def end_of(name: str, segment_bytes: int) -> int:
    """The position at which the segment *name* ends."""
    number = int(name[8:16], 16) * (0x100000000 // segment_bytes) + int(name[16:24], 16)
    return (number + 1) * segment_bytes


def problem_of(segment: Segment, system_identifier: str) -> str:
    """What is wrong with the archived file, read in full; empty when it is the segment of that name and cluster."""
    try:
        wal_helper.read_file(segment.path, segment.name, segment.compression, system_identifier)
    except wal_helper.RefusedError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def dispensable(directory: str, oldest_needed: str) -> list[str]:
    """Paths below *directory* that no backup needs whose WAL begins with the segment *oldest_needed*, oldest first.

    On every timeline alike, as the number of a segment only grows; the histories of timelines stay.
    """
    found = []
    for timeline in _timeline_directories(directory):
        for name in (entry.name for entry in _entries(os.path.join(directory, timeline))):
            stem = name.partition(".")[0]
            if SEGMENT_NAME.fullmatch(stem) and stem[8:] < oldest_needed[8:] and _is_ours(name):
                found.append((stem[8:], os.path.join(timeline, name)))
    return [path for _number, path in sorted(found)]


def remove(directory: str, paths: t.Iterable[str]) -> tuple[int, int]:
    """Remove *paths* (``<timeline>/<name>``) below *directory*; returns how many and their bytes.

    Whoever can write to the archive cannot lead us elsewhere: no link is followed.
    """
    count = size = 0
    top = wal_helper.open_directory(directory)
    opened: dict[str, int] = {}
    try:
        for path in paths:
            timeline, name = path.split("/")
            if timeline not in opened:
                opened[timeline] = wal_helper.open_directory(timeline, top)
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=opened[timeline], follow_symlinks=False)
                os.unlink(name, dir_fd=opened[timeline])
                count, size = count + 1, size + status.st_size
        for descriptor in opened.values():
            os.fsync(descriptor)
    finally:
        for descriptor in (*opened.values(), top):
            os.close(descriptor)
    return count, size


def _is_ours(name: str) -> bool:
    stem, suffix = os.path.splitext(name)
    return wal_helper.is_archived_name(name) or (suffix in _COMPRESSIONS and wal_helper.is_archived_name(stem))


def _timeline_directories(directory: str) -> list[str]:
    found = (entry for entry in _entries(directory) if _TIMELINE.fullmatch(entry.name))
    return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """What is in *directory*, no link to one; [] when it is not there."""
    try:
        if not stat.S_ISDIR(os.lstat(directory).st_mode):
            return []
        with os.scandir(directory) as found:
            return sorted(found, key=lambda entry: entry.name)
    except FileNotFoundError:
        return []
