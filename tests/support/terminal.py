"""Programs on a pseudo-terminal, and what a person would see on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b.|[\r\n]|[^\x1b\r\n]+")


@dataclass
class Screen:
    """The lines that a terminal of *columns* shows after the control sequences that Rich and Ansible use."""

    columns: int
    lines: list[str] = field(default_factory=lambda: [""])
    row: int = 0
    column: int = 0
    cursor_shown: bool = True

    def feed(self, text: str) -> None:
        for token in _TOKEN.finditer(text):
            if token.group().startswith("\x1b["):
                self._control(token[1], token[2])
            elif token.group() == "\r":
                self.column = 0
            elif token.group() == "\n":
                self._down()
            elif not token.group().startswith("\x1b"):
                for character in token.group():
                    self._put(character)

    def _control(self, argument: str, letter: str) -> None:
        if letter == "A":
            self.row = max(self.row - int(argument or 1), 0)
        elif letter == "K":
            kept = "" if argument == "2" else self.lines[self.row][: self.column]
            self.lines[self.row] = kept
        elif argument == "?25":
            self.cursor_shown = letter == "h"

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")

    def _put(self, character: str) -> None:
        if self.column == self.columns:
            self._down()
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


def _own_terminal() -> None:
    """In the program, before it starts: without a controlling terminal nobody could be asked anything."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A program that believes to talk to a person; stderr goes to the same terminal."""

    def __init__(self, command: list[str], *, cwd: Path, env: dict[str, str], columns: int, rows: int = 30) -> None:
        self.columns = columns
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            command, cwd=cwd, env={**env, "TERM": "xterm-256color"}, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_own_terminal,  # noqa: PLW1509
        )  # fmt: skip
        os.close(slave)
        self._output = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                block = os.read(self._master, 65536)
            except OSError:
                return
            if not block:
                return
            self._output += block

    @property
    def output(self) -> str:
        return self._output.decode("utf-8", errors="replace")

    def wait_for(self, text: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, f"{text!r} did not appear in {self.output[-2000:]!r}"
            assert self.process.poll() is None or text in self.output, (
                f"ended without {text!r}: {self.output[-2000:]!r}"
            )
            time.sleep(0.05)

    def interrupt(self, number: signal.Signals) -> None:
        """Send a signal to the program and all of its children, as a terminal's keyboard does."""
        os.killpg(self.process.pid, number)

    def finish(self, seconds: float = 240) -> tuple[int, Screen]:
        """Wait for the end; returns the exit status and the screen."""
        status = self.process.wait(seconds)
        self._reader.join(5)
        os.close(self._master)
        return status, self.screen()

    def screen(self) -> Screen:
        screen = Screen(self.columns)
        screen.feed(self.output)
        return screen
