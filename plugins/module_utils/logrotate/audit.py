# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which of the logs on a host a configuration rotates, and which grow without bound."""

from __future__ import annotations

import os
import typing as t

from ..open_files import OpenFile
from .memory import Seen
from .proof import Finding, coverage, removed_but_open
from .survey import LogFile, SystemRules, covered_by, logs_below, look

Identity = t.Tuple[int, int]


class Scope(t.NamedTuple):
    """What is audited: *roots*, logs by their *names*, without *ignore*; *growing_within* seconds count as now."""

    roots: t.Sequence[str]
    names: t.Sequence[str]
    ignore: t.Sequence[str]
    growing_within: float


class Audit(t.NamedTuple):
    """The findings for all roots, and the uncovered logs, whose sizes the next run wants to know."""

    findings: list[Finding]
    uncovered: list[LogFile]


def audit(
    scope: Scope,
    *,
    ours: t.Iterable[LogFile],
    system: SystemRules,
    opened: t.Sequence[OpenFile],
    earlier: Seen,
    now: float,
) -> Audit:
    """Look at every log below the roots; *ours* are our policies' logs, *opened* all files open for writing."""
    covered = {_identity(file): file.path for file in ours}
    others = {_identity(file) for file in map(look, covered_by(system.patterns)) if file}
    twice = sorted(path for identity, path in covered.items() if identity in others)
    result = Audit([], [])
    for root in scope.roots:
        if not os.path.isdir(root):
            finding = Finding(f"coverage of {root}", "unknown", "a directory", "there is none", "Correct audit_roots.")
            result.findings.append(finding)
            continue
        refused: list[str] = []
        logs = list(logs_below(root, scope.names, scope.ignore, refused))
        uncovered = [file for file in logs if _identity(file) not in covered and _identity(file) not in others]
        growing = [file.path for file in uncovered if _grows(file, scope.growing_within, earlier, now)]
        below = os.path.join(root, "")
        finding = coverage(
            root,
            seen=len(logs),
            growing=growing,
            resting=len(uncovered) - len(growing),
            unreadable=[*refused, *system.unreadable],
            twice=[path for path in twice if path.startswith(below)],
        )
        held = [file for file in opened if file.deleted and file.path.startswith(below)]
        result.findings.extend([finding, removed_but_open(root, held)])
        result.uncovered.extend(uncovered)
    return result


def _identity(file: LogFile) -> Identity:
    return file.device, file.inode


def _grows(file: LogFile, within: float, earlier: Seen, now: float) -> bool:
    base = earlier.get(file.path)
    larger = base is not None and base["inode"] == file.inode and file.size > base["size"]
    return larger or (file.size > 0 and now - file.mtime <= within)
