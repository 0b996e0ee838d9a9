# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Taking a snapshot of directories, and our own list of exactly what is in it."""

from __future__ import annotations

import json
import os
import socket
import typing as t

from ....errors import MaintenanceError
from ...contents import shown
from ..application_files import Manifest
from .checking import structure_problems
from .listing import Listed, list_directories, mark_changing
from .program import Restic

_SOME_UNREADABLE = 3
_WHAT = "save the files by restic"


class Taken(t.NamedTuple):
    """A snapshot, by its full id, and what is wrong with it."""

    snapshot: str
    listed: Listed
    data_added: int
    problems: list[str]


def save(restic: Restic, directories: t.Sequence[str], marks: t.Sequence[str], earlier: Manifest) -> Taken:
    """A snapshot of *directories* with the tags *marks*, listed.

    What changed while restic read is read again by a second, quick snapshot in place of the first.
    """
    listed = list_directories(directories, earlier)
    first = _Snapshot(restic, directories, marks)
    after = list_directories(directories, listed.manifest)
    last, added = first, first.data_added
    if any(listed.differences(after).values()):
        last = _Snapshot(restic, directories, marks)
        added += last.data_added
        restic.forget([first.id])
        listed, after = after, list_directories(directories, after.manifest)
    changed = listed.differences(after)
    for copied in listed.copies:
        changed[copied.source].update(copied.changing)
        files = {entry["path"] for entry in copied.entries if entry["kind"] == "file"}
        copied.changing[:] = sorted(changed[copied.source] & files & after.paths(copied.source))
    mark_changing(listed.manifest, changed)
    problems = [*_unexplained(last.errors, listed, changed), *structure_problems(restic)]
    return Taken(last.id, listed, added, problems)


class _Snapshot:
    """One run of ``restic backup``."""

    def __init__(self, restic: Restic, directories: t.Sequence[str], marks: t.Sequence[str]) -> None:
        done = restic.run(
            _WHAT, "backup", "--json", "--one-file-system", "--host", socket.gethostname(),
            *(word for mark in marks for word in ("--tag", mark)), "--", *directories,
            accept=(0, _SOME_UNREADABLE), timeout=restic.long_timeout,
        )  # fmt: skip
        said = [_parsed(line) for line in (*done.stdout.splitlines(), *done.stderr.splitlines())]
        summary = next((words for words in said if words.get("message_type") == "summary"), None)
        said_id = str((summary or {}).get("snapshot_id") or "none")
        ours = [one for one in restic.snapshots() if set(marks) <= set(one.get("tags") or ())]
        made = [one for one in ours if one["id"].startswith(said_id)]
        if summary is None or len(made) != 1:
            raise MaintenanceError(
                _WHAT, where=restic.location.name, expected="the new snapshot that restic names",
                observed=f"{len(made)} such snapshots, and it said: {summary}", advice="Run restic by hand to see why.",
            )  # fmt: skip
        self.id = str(made[0]["id"])
        self.data_added = int(summary.get("data_added_packed") or summary.get("data_added") or 0)
        self.errors = [words for words in said if words.get("message_type") == "error"]
        if done.returncode == _SOME_UNREADABLE and not self.errors:
            self.errors = [{"item": "", "error": {"message": "restic says that it could not read all, not what"}}]


def _parsed(line: str) -> dict[str, t.Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _unexplained(
    errors: t.Sequence[t.Mapping[str, t.Any]], listed: Listed, changed: t.Mapping[str, t.Collection[str]]
) -> list[str]:
    """What restic could not read, except for what vanished or changed meanwhile, and what our own list tells of."""
    explained = set()
    for copied in listed.copies:
        for path in (*copied.unreadable, *changed[copied.source]):
            explained.add(shown(os.path.normpath(os.path.join(copied.source, path))))
    problems = []
    for words in errors:
        item = str(words.get("item") or "")
        if item and (item in explained or not os.path.lexists(item)):
            continue
        error = words.get("error") or {}
        problems.append(f"restic could not read {item or 'something'}: {error.get('message') or error}")
    return problems
