# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The live view of a run on a terminal: activities × hosts, a bar, and what is going on."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from .report.text import ASCII_SIGNS, SIGNS, counted, one_line, visible

STYLES = {
    "passed": "green", "warned": "yellow", "failed": "bold red", "skipped": "dim", "unknown": "magenta",
    "running": "bold cyan", "waiting": "dim",
}  # fmt: skip
TICK_SECONDS = 0.5


class LiveView:
    """Draws until ``stop()``; what others print meanwhile appears above it.

    Ansible forks while a thread of ours draws, and its display holds a lock while it prints. So no lock is shared with
    it (the terminal is opened anew), and no fork happens while something is half drawn.
    """

    def __init__(self, due: dict[str, list[str]], title: str, *, unicode: bool, colour: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self._cells = {(activity, host): "waiting" for activity, hosts in due.items() for host in hosts}
        self._title = title
        self._unicode = unicode
        self._began = time.monotonic()
        self._task, self._task_began = "", self._began
        self._lock = threading.RLock()
        self._stopped = threading.Event()
        self._owner = os.getpid()
        encoding = sys.stdout.encoding or "utf-8"
        self._terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=encoding, errors="replace")
        self._console = Console(file=self._terminal, force_terminal=True, no_color=not colour, highlight=False)
        self._live = Live(
            self,
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=True,
            redirect_stderr=sys.stderr.isatty(),
        )

    def start(self) -> None:
        sys.stdout.flush()
        self._live.start(refresh=True)
        # Killed, the terminal must not stay without its cursor.
        self._console.show_cursor(True)
        os.register_at_fork(
            before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
        )
        threading.Thread(target=self._tick, name="wellkept-progress", daemon=True).start()

    def stop(self) -> None:
        """Remove the view; what was printed above it remains. May be called twice, or from a forked worker."""
        if self._stopped.is_set() or os.getpid() != self._owner:
            return
        self._stopped.set()
        with self._lock:
            self._live.stop()
            self._terminal.flush()

    def update(self, activity: str, host: str, state: str) -> None:
        """*activity* on *host* is now ``running`` or has an outcome."""
        if (activity, host) in self._cells:
            self._cells[activity, host] = state

    def running(self, task: str) -> None:
        """*task* has begun."""
        self._task, self._task_began = one_line(visible(task, 200)), time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        with self._lock:
            if not self._stopped.is_set():
                self._live.refresh()

    def _tick(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            self.refresh()

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.text import Text

        width, height = console.size
        for line, style in self._lines(width - 1, height - 1):
            yield Text(fitted(line, width, unicode=self._unicode), style) if isinstance(line, str) else line

    def _lines(self, width: int, height: int) -> list[tuple[Any, str]]:
        done = sum(1 for state in self._cells.values() if state not in ("waiting", "running"))
        now = time.monotonic()
        foot: list[tuple[Any, str]] = [
            (progress_bar(done, len(self._cells), width, unicode=self._unicode), "cyan"),
            (f"{self._task} ({_clock(now - self._task_began)})" if self._task else " ", "dim"),
        ]
        head: list[tuple[Any, str]] = [(f"{self._title}, {_clock(now - self._began)}", "bold")]
        room = max(height - len(head) - len(foot) - 2, 1)
        return [*head, *((line, "") for line in self._rows(width, room)), *foot]

    def _rows(self, width: int, room: int) -> list[Any]:
        """One row for each activity; where they do not all fit, those that are over shrink into one line."""
        activities = list(dict.fromkeys(activity for activity, _host in self._cells))
        hidden = 0
        while len(activities) > room - bool(hidden) and activities:
            over = next((one for one in activities if self._is_over(one)), activities[-1])
            activities.remove(over)
            hidden += 1
        rows = _Grid(self._cells, activities, width, unicode=self._unicode).rows()
        return [*rows, f"and {counted(hidden, 'activity', 'activities')} more"] if hidden else rows

    def _is_over(self, activity: str) -> bool:
        return all(state not in ("waiting", "running") for key, state in self._cells.items() if key[0] == activity)


class _Grid:
    """Rows of states: in words where there is room, else as a strip of signs, else as numbers."""

    def __init__(self, cells: dict[tuple[str, str], str], activities: list[str], width: int, *, unicode: bool) -> None:
        self.cells = cells
        self.activities = activities
        self.width = width
        self.signs = {**(SIGNS if unicode else ASCII_SIGNS), "running": "»" if unicode else ">", "waiting": " "}
        self.strip = {**self.signs, "waiting": "·"} if unicode else {**_STRIP}
        self.hosts = list(dict.fromkeys(host for _activity, host in cells))
        self.name_width = max((len(activity) for activity in activities), default=0) + 2

    def rows(self) -> list[Any]:
        shown = [one_line(visible(host, 40)) for host in self.hosts]
        column = max([len("! warned"), len("» running"), *map(len, shown)], default=0) + 2
        if self.name_width + column * len(self.hosts) <= self.width:
            return [*self._header(shown, column), *(self._row(activity, column) for activity in self.activities)]
        if self.name_width + len(self.hosts) <= self.width:
            return [self._strip(activity) for activity in self.activities]
        return [self._numbers(activity) for activity in self.activities]

    def _start(self, activity: str) -> Any:
        from rich.text import Text

        return Text(activity.ljust(self.name_width), no_wrap=True, overflow="crop")

    def _header(self, hosts: list[str], column: int) -> list[Any]:
        row = self._start("")
        for host in hosts:
            row.append(host.ljust(column), "dim")
        return [row] if len(hosts) > 1 else []

    def _row(self, activity: str, column: int) -> Any:
        row = self._start(activity)
        for host in self.hosts:
            state = self.cells.get((activity, host), "")
            text = f"{self.signs[state]} {state}" if state else ""
            row.append(text.ljust(column), STYLES.get(state, ""))
        return row

    def _strip(self, activity: str) -> Any:
        row = self._start(activity)
        for host in self.hosts:
            state = self.cells.get((activity, host), "")
            row.append(self.strip[state][:1] if state else " ", STYLES.get(state, ""))
        return row

    def _numbers(self, activity: str) -> Any:
        row = self._start(activity)
        states = [state for key, state in self.cells.items() if key[0] == activity]
        for state in dict.fromkeys(["passed", *STYLES]):
            if state in states:
                row.append(f"{states.count(state)} {state}  ", STYLES[state])
        return row


_STRIP = {"passed": "+", "warned": "!", "failed": "X", "skipped": "-", "unknown": "?", "running": ">", "waiting": "."}


def progress_bar(done: int, total: int, width: int, *, unicode: bool) -> str:
    """``━━━━━━────  3 of 5``, at most *width* wide."""
    label = f"  {done} of {total}"
    length = min(max(width - len(label), 5), 60)
    full = round(length * done / total) if total else length
    filled, empty = ("━", "─") if unicode else ("#", "-")
    return filled * full + empty * (length - full) + label


def fitted(text: str, width: int, *, unicode: bool) -> str:
    """*text*, cut where it is wider than *width*."""
    end = "…" if unicode else "..."
    return text if len(text) < width else text[: max(width - 1 - len(end), 1)] + end


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
