# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo platform's web application: install it, start and stop it, ask it how it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
import typing as t
import urllib.error
import urllib.request

from ..errors import MaintenanceError
from ..files import write_atomically
from ..processes import last_words
from . import daemon
from .layout import APPLICATION_ROLE, DATABASE, Layout

_START_PATIENCE = 20.0
# A proxy in the environment has no part in what stays on this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def configuration(layout: Layout, description: dict[str, t.Any]) -> bytes:
    document = {
        "port": description["application"]["port"],
        "database": {
            "host": description["postgresql"]["host"],
            "port": description["postgresql"]["port"],
            "dbname": DATABASE,
            "user": APPLICATION_ROLE,
            "password": layout.secret(APPLICATION_ROLE),
        },
        "log_directory": layout.application_log,
        "page_cache": layout.page_cache,
        "pid_file": layout.pid_file,
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def is_installed(layout: Layout, description: dict[str, t.Any], source: bytes) -> bool:
    """Whether the program and its configuration are those it should have."""
    try:
        with open(layout.program, "rb") as program, open(layout.configuration, "rb") as settings:
            return program.read() == source and settings.read() == configuration(layout, description)
    except FileNotFoundError:
        return False


def install(layout: Layout, description: dict[str, t.Any], source: bytes) -> None:
    """Put the program in place, and its configuration, which holds a password, where only the service reads it."""
    stop(layout)
    write_atomically(layout.program, source, mode=0o644)
    write_atomically(layout.configuration, configuration(layout, description))
    layout.give(layout.configuration)


def running_pid(layout: Layout) -> int:
    return daemon.running_pid(layout.pid_file, layout.program)


def start(layout: Layout, description: dict[str, t.Any]) -> None:
    """Start the application and wait until it is healthy."""
    layout.make_own(layout.run)
    # An anonymous file for what Python says before the application has its logs open; then it lets go of it.
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [*layout.prefix(), layout.python, "-I", "-B", layout.program, layout.configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words,
            start_new_session=True,
            cwd="/",
        )
        seen = _wait_for_health(layout, description, process)
        words.seek(0)
        said = words.read().decode(errors="replace")
    if seen:
        raise MaintenanceError(
            "start the demo platform's application",
            where=description["application"]["url"],
            expected="an answer with status ok",
            observed=seen if process.poll() is None else f"exit status {process.poll()}: {last_words(said, lines=2)}",
            advice=f"See {os.path.join(layout.application_log, 'error.log')}.",
        )


def _wait_for_health(layout: Layout, description: dict[str, t.Any], process: subprocess.Popen[bytes]) -> str:
    """What the application said instead of being healthy in time, or ""."""
    deadline = time.monotonic() + _START_PATIENCE
    seen = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        healthy, seen = health(description)
        if healthy and running_pid(layout) == process.pid:
            return ""
        time.sleep(0.05)
    return seen


def health(description: dict[str, t.Any]) -> tuple[bool, str]:
    """Whether /health says ok, and what it said."""
    try:
        with _DIRECT.open(description["application"]["url"] + "/health", timeout=5) as answer:
            return answer.status == 200, answer.read(2000).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        return False, f"{error.code}: {error.read(2000).decode(errors='replace').strip()}"
    except OSError as error:
        return False, str(error)


def stop(layout: Layout) -> bool:
    """Stop the application; True if it ran."""
    return daemon.stop(layout.pid_file, layout.program, [(signal.SIGTERM, 10), (signal.SIGKILL, 10)])
