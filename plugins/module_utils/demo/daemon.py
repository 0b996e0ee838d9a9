# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that outlive the run that started them, known by a pid file and recognised by their command line."""

from __future__ import annotations

import os
import signal
import time
import typing as t

from ..errors import MaintenanceError


def running_pid(pid_file: str, argument: str) -> int:
    """The pid in the first line of *pid_file* if that process runs and has *argument* in its command line, else 0.

    After a crash or a restart of the machine the number may belong to somebody else's process: that one is not ours.
    """
    try:
        with open(pid_file, encoding="ascii", errors="replace") as stream:
            pid = int(stream.readline())
    except (FileNotFoundError, ValueError):
        return 0
    return pid if pid > 1 and argument in command_line(pid) else 0


def command_line(pid: int) -> list[str]:
    """The arguments of the process *pid*; [] when there is none (or only what is left of one)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return [os.fsdecode(argument) for argument in stream.read().split(b"\0")]
    except (FileNotFoundError, ProcessLookupError):
        return []


def stop(pid_file: str, argument: str, signals: t.Sequence[tuple[int, float]]) -> bool:
    """End *pid_file*'s process if it is ours, by *signals*, each with its seconds of patience; True if it ran."""
    pid = running_pid(pid_file, argument)
    if not pid:
        return False
    for number, patience in signals:
        if running_pid(pid_file, argument) == pid or argument in command_line(pid):
            os.kill(pid, number)
        if _wait_for_end(pid, argument, patience):
            return True
    raise MaintenanceError(
        "stop a server of the demo platform",
        where=f"process {pid}",
        expected=f"an end after {signal.Signals(signals[-1][0]).name}",
        observed="still running",
        advice="See what holds it (a disk that hangs, a debugger), then run this again.",
    )


def _wait_for_end(pid: int, argument: str, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while argument in command_line(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
