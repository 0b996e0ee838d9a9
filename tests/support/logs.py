"""Logs for tests: policies on real files, and real processes that write them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.processes import find_program

from .modules import run_module

needs_logrotate = pytest.mark.skipif(
    find_program("logrotate") is None, reason="logrotate is missing: apt-get install logrotate"
)

# Writes a line every 5 ms; on HUP it opens its log anew, or ignores it, as the second argument says.
_WRITER = """
import os, signal, sys, time
path, manner, pid_file = sys.argv[1:]
flags = os.O_WRONLY | os.O_CREAT | (0 if manner == "overwrites" else os.O_APPEND)
log = os.open(path, flags, 0o644)
def reopen(*_):
    global log
    new = None if manner == "closes" else os.open(path, flags, 0o644)
    os.close(log)
    log = new
signal.signal(signal.SIGHUP, signal.SIG_IGN if manner == "ignores" else reopen)
with open(pid_file, "w") as stream:
    print(os.getpid(), file=stream)
number = 0
while True:
    if log is not None and manner != "silent":
        os.write(log, b"line %d\\n" % number)
    number += 1
    time.sleep(0.005)
"""


@contextlib.contextmanager
def writer(path: Path, manner: str = "reopens") -> Iterator[Path]:
    """A process that writes *path* while the block runs; yields the file with its process id."""
    pid_file = path.with_suffix(".pid")
    process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), manner, str(pid_file)])
    try:
        deadline = time.monotonic() + 60
        while not (pid_file.exists() and pid_file.read_text().endswith("\n") and path.exists()):
            assert time.monotonic() < deadline and process.poll() is None, "the writer did not start"
            time.sleep(0.01)
        yield pid_file
    finally:
        process.kill()
        process.wait()
        pid_file.unlink(missing_ok=True)


class Rotation:
    """A directory with logs, and the module run on it."""

    def __init__(self, directory: Path) -> None:
        self.logs = directory / "logs"
        self.logs.mkdir()
        self.state_dir = directory / "state"
        self.directory = self.state_dir / "log_rotation"
        self.state_file = self.directory / "state"

    def log(self, name: str, size: int = 5000) -> Path:
        path = self.logs / name
        path.write_bytes(b"a line\n" * (size // 7) + b"." * (size % 7))
        return path

    def run(self, *policies: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        return run_module("log_rotation", self.options(*policies, **options), check=check)

    def options(self, *policies: dict[str, Any], **options: Any) -> dict[str, Any]:
        stated = [self.policy(**policy) for policy in policies]
        usual = {"state_dir": str(self.state_dir), "system_config": "", "reopen_within": "1s"}
        return {**usual, "policies": stated, **options}

    def policy(self, **options: Any) -> dict[str, Any]:
        policy: dict[str, Any] = {"name": "app", "paths": [str(self.logs / "*.log")], **options}
        if "frequency" not in policy:
            policy.setdefault("max_bytes", "1KiB")
        return policy

    def date_of(self, path: Path, days_ago: float) -> None:
        """State that *path* was rotated last so many days ago."""
        moment = time.localtime(time.time() - days_ago * 86400)
        stamp = f"{moment.tm_year}-{moment.tm_mon}-{moment.tm_mday}-{moment.tm_hour}:0:0"
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = self.state_file.read_text() if self.state_file.exists() else "logrotate state -- version 2\n"
        self.state_file.write_text(text + f'"{path}" {stamp}\n')
        self.state_file.chmod(0o600)


def hup(pid_file: Path) -> list[dict[str, Any]]:
    return [{"signal": "HUP", "pid_file": str(pid_file)}]
