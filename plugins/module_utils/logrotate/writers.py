# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who writes to which log: to the live one, to one that was rotated, or to one that has no name any more."""

from __future__ import annotations

import os
import re
import time
import typing as t

from ..open_files import OpenFile, appends, open_files, unseen_processes
from .proof import Holder
from .survey import LogFile

_ROTATED = re.compile(r"(.+?)(?:\.\d+(?:\.gz)?)?", re.DOTALL)
_PAUSE_SECONDS = 0.1


def writers_now() -> list[OpenFile]:
    """Every regular file that a process has open for writing."""
    return [file for file in open_files() if file.writable]


def live_writers(files: t.Iterable[LogFile], opened: t.Iterable[OpenFile]) -> dict[str, list[OpenFile]]:
    """Those of *opened* that are live logs, by the log's path."""
    paths = {(file.device, file.inode): file.path for file in files}
    found: dict[str, list[OpenFile]] = {}
    for file in opened:
        path = paths.get((file.device, file.inode))
        if path:
            found.setdefault(path, []).append(file)
    return found


def holders(
    files: t.Sequence[LogFile], opened: t.Iterable[OpenFile], dates: t.Mapping[str, float], patience: float
) -> list[Holder]:
    """Those of *opened* that are rotated or removed siblings of *files*.

    A holder wrote after the rotation if the file changed more than *patience* seconds after its log's date in *dates*.
    """
    logs = {file.path for file in files}
    rotated = {(a.device, a.inode): file.path for file in files for a in file.archives}
    found: list[Holder] = []
    for file in opened:
        log = rotated.get((file.device, file.inode))
        if log is None and file.deleted:
            match = _ROTATED.fullmatch(file.path)
            log = match.group(1) if match and match.group(1) in logs else None
        if log is not None:
            found.append(Holder(file, log in dates and file.mtime > dates[log] + patience))
    return found


def lost_writers(
    before: t.Mapping[str, t.Sequence[OpenFile]], rotated: t.Mapping[str, LogFile], opened: t.Sequence[OpenFile]
) -> list[str]:
    """Writers of a log *before* it was rotated that have neither the old nor the new one open now, though they live.

    *rotated*: the new live logs by their paths.
    """
    now = {(file.pid, file.device, file.inode) for file in opened}
    lost: list[str] = []
    for path, new in rotated.items():
        for writer in before.get(path, ()):
            old_open = (writer.pid, writer.device, writer.inode) in now
            new_open = (writer.pid, new.device, new.inode) in now
            if not old_open and not new_open and os.path.isdir(f"/proc/{writer.pid}"):
                lost.append(f"{writer.comm} (pid {writer.pid}) of {path}")
    return lost


def not_appending(writers: t.Mapping[str, t.Sequence[OpenFile]]) -> list[OpenFile]:
    """Those who write a live log at a position of their own instead of its end."""
    return [file for files in writers.values() for file in files if appends(file) is False]


def blindness(files: t.Iterable[LogFile]) -> str:
    """Why writers of *files* may escape us; empty when they cannot.

    An ordinary user sees its own processes. Those are taken for the only writers of files that belong to it.
    """
    foreign = [file for file in files if file.owner != os.geteuid()]
    unseen = unseen_processes() if foreign else 0
    if not unseen:
        return ""
    return f"{unseen} processes of others cannot be seen, and {len(foreign)} of these logs belong to others"


def settle(look: t.Callable[[], bool], patience: float) -> None:
    """Call *look* until it says that all is well, or *patience* seconds have passed."""
    deadline = time.monotonic() + patience
    while not look() and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)
