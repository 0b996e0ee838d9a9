# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look at a policy's logs after a run, and find what was proven about them."""

from __future__ import annotations

import typing as t

from ..open_files import OpenFile
from . import proof, runner, survey, writers
from .config import Policy
from .options import Settings
from .proof import Finding
from .survey import Archive, LogFile


class Rotated(t.NamedTuple):
    """The findings about due logs, the logs whose rotation was proven, and the paths of those where it was not."""

    findings: list[Finding]
    proven: list[LogFile]
    unproven: list[str]


def rotation(policy: Policy, due: t.Sequence[LogFile], files: t.Sequence[LogFile], noted: t.Sequence[str]) -> Rotated:
    """Prove the rotation of the logs that were *due*; *files* are the live ones now."""
    if not due:
        return Rotated([proof.nothing_due(policy, files, noted)], [], [])
    after = {file.path: file for file in files}
    made, faults, shortened = _rotated_files(policy, due, after)
    verdict, unproven = proof.rotation(policy, due, after, shortened)
    intact = proof.archives_intact(policy, made, faults)
    proven = [file for file in due if file.path not in unproven]
    return Rotated([verdict, *([intact] if intact else [])], proven, unproven)


def condition(
    policy: Policy, place: runner.Place, files: t.Sequence[LogFile], dates: t.Mapping[str, float], rotated: bool
) -> list[Finding]:
    """What holds of the logs whether or not something was rotated just now."""
    statuses, said = runner.traces_of(place, policy)
    found = [
        proof.postrotate(policy, statuses, said, rotated),
        proof.sizes(policy, files),
        proof.last_rotations(policy, files, dates),
        proof.retention(policy, files),
    ]
    return [finding for finding in found if finding]


def writing(
    policy: Policy,
    settings: Settings,
    before: t.Mapping[str, t.Sequence[OpenFile]],
    proven: t.Sequence[LogFile],
    dates: t.Mapping[str, float],
) -> list[Finding]:
    """Who writes to which log, once writers that were told had time to reopen; *before*: writers of the live logs."""
    held: list[proof.Holder] = []
    lost: list[str] = []
    current: dict[str, list[OpenFile]] = {}
    files: list[LogFile] = []

    def look() -> bool:
        opened = writers.writers_now()
        files[:] = survey.survey([policy])[policy.name]
        live = {file.path: file for file in files}
        held[:] = writers.holders(files, opened, dates, settings.reopen_within)
        new = {file.path: live[file.path] for file in proven if file.path in live and not policy.copy_truncate}
        lost[:] = writers.lost_writers(before, new, opened)
        current.clear()
        current.update(writers.live_writers(files, opened))
        return not held and not lost

    writers.settle(look, settings.reopen_within if proven and policy.postrotate else 0)
    open_now = len({file.pid for found in current.values() for file in found})
    blind = writers.blindness(files)
    found = [proof.writers(policy, files, open_now=open_now, holders=held, lost=lost, blind=blind)]
    loss = proof.copy_truncation(policy, writers.not_appending(current) if policy.copy_truncate else [])
    return found + ([loss] if loss else [])


def _rotated_files(
    policy: Policy, due: t.Sequence[LogFile], after: t.Mapping[str, LogFile]
) -> tuple[list[Archive], list[str], list[str]]:
    """Of the rotated files: those compressed just now, the faulty ones, and those that hold less than their log did."""
    made: list[Archive] = []
    faults: list[str] = []
    shortened: list[str] = []
    for before in due:
        now = after.get(before.path)
        known = {archive.inode for archive in before.archives}
        for archive in now.archives if now else ():
            if archive.inode in known and archive.compressed:
                continue
            size = archive.size
            if archive.compressed:
                made.append(archive)
                fault, size = survey.fault_of_gzip(archive.path)
                faults += [f"{archive.path}: {fault}"] if fault else []
            if archive.number == 1 and size < before.size:
                shortened.append(f"{archive.path} holds {size} bytes of {before.size}")
    return made, faults, shortened
