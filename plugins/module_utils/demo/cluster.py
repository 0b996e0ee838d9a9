# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo platform's PostgreSQL: create the cluster, configure it, start and stop its server."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import typing as t

from ..errors import MaintenanceError
from ..files import write_atomically
from ..postgresql import connect
from ..processes import last_words, run
from . import daemon
from .layout import Layout

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "wal_level": "replica",
    "archive_mode": "on",
    "summarize_wal": "on",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "maintenance_work_mem": "64MB",
    "min_wal_size": "32MB",
    "max_wal_size": "128MB",
    # What the maintenance does, and nothing else, is to be seen in the demo.
    "autovacuum_naptime": "1d",
    "shared_preload_libraries": "pg_stat_statements",
    "track_io_timing": "on",
    "client_connection_check_interval": "500ms",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "on",
    "log_filename": "postgresql.log",
    "log_file_mode": "0644",
    "log_rotation_age": "0",
    "log_rotation_size": "0",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
_START_PATIENCE = 60.0


def is_created(layout: Layout) -> bool:
    """Whether initdb and the configuration were finished; a mark is removed as the last step."""
    data = layout.data
    return os.path.exists(os.path.join(data, "PG_VERSION")) and not os.path.exists(_mark(layout))


def create(layout: Layout) -> None:
    """A new cluster with data checksums, where everybody needs a password."""
    layout.make_own(layout.postgresql, 0o700)
    shutil.rmtree(layout.data, ignore_errors=True)
    write_atomically(_mark(layout), b"")
    password_file = os.path.join(layout.postgresql, "password")
    write_atomically(password_file, layout.secret("postgresql").encode())
    layout.give(password_file)
    try:
        run(
            [
                *layout.prefix(), os.path.join(layout.bin_dir, "initdb"), "--pgdata", layout.data,
                "--username=postgres", "--auth=scram-sha-256", f"--pwfile={password_file}", "--data-checksums",
                "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync",
            ],
            timeout=120,
            what="create the demo platform's PostgreSQL cluster",
            cwd=layout.postgresql,
        )  # fmt: skip
    finally:
        os.unlink(password_file)
    with open(os.path.join(layout.data, "postgresql.conf"), "a", encoding="utf-8") as stream:
        stream.write("include = 'demo.conf'\n")
    os.unlink(_mark(layout))


def _mark(layout: Layout) -> str:
    return os.path.join(layout.postgresql, "unfinished")


def configuration(layout: Layout, port: int) -> str:
    """The text of demo.conf, which postgresql.conf includes."""
    settings = {
        **_SETTINGS,
        "port": str(port),
        "unix_socket_directories": _list_item(layout.socket_directory(port)),
        "log_directory": layout.postgresql_log,
    }
    return "".join(f"{name} = {_quoted(value)}\n" for name, value in sorted(settings.items()))


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _list_item(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if path else ""


def is_configured(layout: Layout, port: int) -> bool:
    try:
        with open(os.path.join(layout.data, "demo.conf"), encoding="utf-8") as stream:
            return stream.read() == configuration(layout, port)
    except FileNotFoundError:
        return False


def configure(layout: Layout, port: int) -> None:
    path = os.path.join(layout.data, "demo.conf")
    write_atomically(path, configuration(layout, port).encode())
    layout.give(path)


def running_pid(layout: Layout) -> int:
    return daemon.running_pid(_pid_file(layout), layout.data)


def _pid_file(layout: Layout) -> str:
    return os.path.join(layout.data, "postmaster.pid")


def start(layout: Layout, login: t.Mapping[str, t.Any]) -> None:
    """Start the server and wait until it answers; after a crash its old backends may need a moment to go."""
    for directory in (layout.run, layout.postgresql_log):
        layout.make_own(directory)
    deadline = time.monotonic() + _START_PATIENCE
    while not _try_to_start(layout):
        if time.monotonic() > deadline:
            raise MaintenanceError(
                "start the demo platform's PostgreSQL",
                where=layout.data,
                expected="a server that starts",
                observed=_last_log_lines(layout),
                advice=f"See the log in {layout.postgresql_log}; make demo-clean removes the platform for a new start.",
            )
        time.sleep(0.5)
    connect(login).close()


def _try_to_start(layout: Layout) -> bool:
    # Not captured: the server would hold the pipe open for as long as it runs.
    started = subprocess.run(
        [
            *layout.prefix(), os.path.join(layout.bin_dir, "pg_ctl"), "start", "--wait",
            f"--timeout={_START_PATIENCE:.0f}", "--pgdata", layout.data, "--silent",
            "--log", os.path.join(layout.postgresql_log, "startup.log"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=layout.postgresql,
        check=False,
    )  # fmt: skip
    return started.returncode == 0


def _last_log_lines(layout: Layout) -> str:
    for name in ("postgresql.log", "startup.log"):
        try:
            with open(os.path.join(layout.postgresql_log, name), encoding="utf-8", errors="replace") as stream:
                return last_words(stream.read()[-4000:], lines=3)
        except FileNotFoundError:
            continue
    return "no word in its log"


def stop(layout: Layout) -> bool:
    """Stop the server, first politely (fast shutdown), then without mercy; True if it ran."""
    return daemon.stop(
        _pid_file(layout), layout.data, [(signal.SIGINT, 30), (signal.SIGQUIT, 10), (signal.SIGKILL, 10)]
    )
