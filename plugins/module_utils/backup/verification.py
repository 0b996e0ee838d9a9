# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a backup still as it was written? Every file is in its place, nothing else is, and every byte has its hash.

The base is read by pg_verifybackup against its manifest; everything else, that manifest included, against the SHA-256
in ``backup.json`` and ``files.json``, and ``backup.json`` against the hash that it holds of itself.
"""

from __future__ import annotations

import stat
import typing as t

from .contents import Look, Problem, differences, look_at
from .reading import BASE_VERSION, read_files
from .remembered import Readings, Remembered
from .repository import Backup
from .wal.positions import parse_segments

# In the manifest of the base, but pg_verifybackup does not look at them: a restore may rewrite them.
NOT_LOOKED_AT = ("postgresql.auto.conf", "recovery.signal", "standby.signal")


class Examined(t.NamedTuple):
    """What an examination showed, and how much it read."""

    problems: list[str]
    read_bytes: int
    # What is still to be read, because the budget was spent.
    left_bytes: int
    # Since when (seconds since the epoch) every byte was read at least once, of what is remembered; else 0.
    read_since: float


def examine(
    backup: Backup, bin_dir: str, *, quick: bool = False, remembered: Remembered | None = None, base: bool = True
) -> Examined:
    """What is wrong with *backup*.

    *quick* reads nothing but the manifests, and tells how much there would be to read. What is *remembered* and has not
    changed is not read; without *base* the content of the base is not, because it has just been.
    """
    look = look_at(backup)
    found = differences(look)
    readings = remembered.of(backup) if remembered else None
    due = _due(look, found, readings, base)
    if quick:
        return Examined(_words(found), 0, sum(look.expected[path].bytes for path in due), 0.0)
    try:
        outcome = read_files(look, due, bin_dir, remembered, readings)
        said = {problem.path for problem in found if problem.path}
        found += [problem for problem in outcome.problems if problem.path not in said]
        found += _unreadable_wal(look, bin_dir, due, found)
    finally:
        if readings:
            for problem in found:
                readings.forget(problem.path)
            if not look.problems:
                readings.keep_only(look.expected)
            readings.save(damaged=bool(found))
    since = readings.since() if readings and not outcome.left_bytes else 0.0
    return Examined(_words(found), outcome.bytes, outcome.left_bytes, since)


def _due(look: Look, found: t.Sequence[Problem], readings: Readings | None, base: bool) -> list[str]:
    """The files to read: what was never read comes first, then what was read longest ago."""
    wrong = {problem.path for problem in found}
    # Without this file, which says that it is a base, nothing else of it can be read.
    base = base and BASE_VERSION not in wrong
    due = [
        path
        for path, status in look.found.items()
        if path in look.expected
        and path not in wrong
        and stat.S_ISREG(status.st_mode)
        and (base or look.expected[path].sha256)
        and (readings is None or readings.is_due(path, status))
    ]
    return sorted(due, key=lambda path: (readings.read_at(path) if readings else 0.0, path))


def _unreadable_wal(look: Look, bin_dir: str, due: t.Sequence[str], found: t.Sequence[Problem]) -> list[Problem]:
    """Whether records can be read without a gap from the start of the backup to its restore point."""
    segments = [path for path in due if path.startswith("wal/")]
    if not segments or any("WAL segment" in problem.words or problem.path.startswith("wal/") for problem in found):
        return []
    metadata = look.backup.metadata
    start, end = metadata["start_lsn"], metadata["restore_point"]["lsn"]
    complaint = parse_segments(bin_dir, look.path("wal"), metadata["timeline"], start, end)
    return [Problem(segments[0], f"WAL from {start} to {end}: {complaint}")] if complaint else []


def _words(problems: t.Iterable[Problem]) -> list[str]:
    return [problem.words for problem in problems]
