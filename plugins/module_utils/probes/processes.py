# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of processes: those that must run, found by their command line or their pid file in /proc."""

from __future__ import annotations

import functools
import os
import re
import typing as t
from pathlib import Path

from ..result import Part
from .running import Probe, guarded

OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "pattern": {"type": "str", "default": ""},
    "pid_file": {"type": "path", "default": ""},
    "min_count": {"type": "int", "default": 1},
}


class Process(t.NamedTuple):
    """One process: its command line (of a kernel thread its name), its state and its parent."""

    pid: int
    command: str
    state: str
    parent: int


def probes(wanted: t.Sequence[dict[str, t.Any]]) -> list[Probe]:
    """One probe for all *wanted* processes, so that /proc is read once."""
    return [Probe("processes", lambda part: probe(wanted, part))] if wanted else []


def probe(wanted: t.Sequence[dict[str, t.Any]], part: Part) -> None:
    own = ourselves()
    running = [process for process in all_processes() if process.pid not in own]
    hidden = others_are_hidden()
    for options in wanted:
        guarded(Probe(f"process {options['name']}", functools.partial(decide, options, running, hidden)), part)


def all_processes(proc: str = "/proc") -> list[Process]:
    found = (read_process(proc, entry) for entry in os.listdir(proc) if entry.isdigit())
    return sorted(process for process in found if process is not None)


def read_process(proc: str, pid: str) -> Process | None:
    """The process *pid*; None when it has ended meanwhile."""
    try:
        name, _parenthesis, rest = Path(proc, pid, "stat").read_bytes().partition(b"(")[2].rpartition(b")")
        command = Path(proc, pid, "cmdline").read_bytes().replace(b"\0", b" ").strip()
    except OSError:
        return None
    fields = rest.split()
    words = (command or name).decode(errors="replace")
    return Process(int(pid), words, fields[0].decode(), int(fields[1]))


def ourselves() -> set[int]:
    """This process and its ancestors: the command lines by which Ansible got here may hold anything."""
    pids: set[int] = set()
    pid = os.getpid()
    while pid > 1 and pid not in pids:
        pids.add(pid)
        process = read_process("/proc", str(pid))
        pid = process.parent if process else 0
    return pids


def others_are_hidden() -> bool:
    """Whether /proc is mounted so (hidepid) that we see no processes but our own."""
    return not os.path.exists("/proc/1/stat")


def decide(options: dict[str, t.Any], running: t.Sequence[Process], hidden: bool, part: Part) -> None:
    """Count the processes that match *options* and are alive; a zombie is not."""
    name = f"process {options['name']}"
    if not options["pattern"] and not options["pid_file"]:
        raise ValueError("give pattern or pid_file")
    pattern = re.compile(options["pattern"])
    candidates = [process for process in running if pattern.search(process.command)]
    sought = f"match {options['pattern']!r}" if options["pattern"] else ""
    if options["pid_file"]:
        pid, trouble = pid_in(options["pid_file"])
        if trouble:
            advice = "Start the service, or correct pid_file."
            part.check(
                name, "failed", expected=f"a process named by {options['pid_file']}", observed=trouble, advice=advice
            )
            return
        candidates = [process for process in candidates if process.pid == pid]
        sought = " and ".join(filter(None, [f"have the pid {pid} of {options['pid_file']}", sought]))
    alive = [process for process in candidates if process.state not in ("Z", "X")]
    enough = len(alive) >= options["min_count"]
    dead = f", {len(candidates) - len(alive)} dead but not reaped" if len(candidates) > len(alive) else ""
    part.metric(f"process_count {options['name']}", len(alive), "count")
    part.check(
        name,
        "passed" if enough else "unknown" if hidden else "failed",
        expected=f"at least {options['min_count']} that {sought}",
        observed=f"{len(alive)}{dead}" + (" (processes of others are hidden by hidepid)" if hidden else ""),
        advice="Run the health check as root: /proc hides other users' processes."
        if hidden
        else "Start the service and see its log for why it ended.",
        evidence={"pids": [process.pid for process in alive[:10]]},
    )


def pid_in(path: str) -> tuple[int, str]:
    """The pid in the pid file *path*, or the reason why there is none."""
    try:
        with Path(path).open("rb") as stream:
            words = stream.read(100).split()
    except OSError as error:
        return 0, f"{path}: {error.strerror}"
    if not words or not words[0].isdigit():
        return 0, f"{path} holds no process id"
    return int(words[0]), ""
