# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A PostgreSQL cluster that is started on restored files for one test, and cannot touch anything but itself.

It has its own configuration, a socket in a private directory and no port; it archives nothing, replicates nothing, and
runs no background worker of an extension that might act by itself. The server dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
import typing as t

from .. import postgresql
from ..backup.programs import workers
from ..errors import MaintenanceError
from ..processes import as_user, find_program, last_words, run
from .scratch_directory import same_directory, short_socket_directory

# Libraries that only watch or check. With any other one, no background worker at all is allowed to start: a scheduler
# (pg_cron ...) would run the jobs of the live cluster a second time.
PASSIVE_LIBRARIES = frozenset(
    ("auth_delay", "auto_explain", "passwordcheck", "pg_hint_plan", "pg_qualstats", "pg_stat_kcache",
     "pg_stat_statements", "pg_wait_sampling", "pgaudit", "plpgsql", "set_user")
)  # fmt: skip

# Settings of pg_control that recovery and prepared transactions need at least as large as they were.
_FROM_CONTROL = {
    "max_prepared_xacts setting": "max_prepared_transactions",
    "max_locks_per_xact setting": "max_locks_per_transaction",
}

_WAL_FILE = re.compile(r"[0-9A-F]{24}(\.partial)?|[0-9A-F]{8}\.history")

_PAUSED = "pausing at the end of recovery"

# Programs must not be caught in what roles or databases set for their sessions (ALTER ROLE ... SET).
_TOOL_OPTIONS = "-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off -c row_security=off"


class ScratchCluster:
    """The cluster in the private directory *directory*; its files are laid down in ``data`` and its WAL in ``wal``.

    *user* is whom the server runs as when we are root; a *lasting* server outlives us.
    """

    def __init__(self, directory: str, bin_dir: str, user: str, *, lasting: bool = False) -> None:
        self.directory = directory
        self.bin_dir = bin_dir
        self.user = user
        self.lasting = lasting
        self.data = os.path.join(directory, "data")
        self.wal = os.path.join(directory, "wal")
        self.log = os.path.join(directory, "server.log")
        self.socket_directory = ""
        self.superuser = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._fetching: dict[str, str] = {}
        self._environment: dict[str, str] = {}
        self._reads: list[str] = []

    def fetch_wal_by(
        self, restore_command: str, environment: t.Mapping[str, str] | None = None, reads: str = ""
    ) -> None:
        """Let recovery fetch WAL by *restore_command*, which finds secrets in its *environment*.

        It reads in the directory *reads*, wherever that is.
        """
        self._fetching = {"restore_command": restore_command}
        self._environment = dict(environment or {})
        self._reads = [reads] if reads else []

    def take_wal(self, source: str) -> None:
        """Make the segments in the backup's directory *source* available to recovery."""
        if os.geteuid() != 0:
            os.symlink(source, self.wal)
            return
        # The server's user cannot read the repository, and its owner must not change: so copies.
        os.mkdir(self.wal, 0o700)
        for name in os.listdir(source):
            if _WAL_FILE.fullmatch(name):
                shutil.copyfile(os.path.join(source, name), os.path.join(self.wal, name), follow_symlinks=False)

    def control_data(self) -> dict[str, str]:
        """What pg_controldata says of the restored files."""
        said = run([os.path.join(self.bin_dir, "pg_controldata"), "-D", self.data], timeout=60).stdout
        return {
            name.strip(): value.strip() for name, _colon, value in (line.partition(":") for line in said.splitlines())
        }

    def configure(self, version: int, libraries: str, target: t.Mapping[str, str]) -> None:
        """Write the server's configuration; recovery stops at *target* (``{"recovery_target_name": ...}``)."""
        self._refuse_ways_out()
        self.socket_directory = short_socket_directory(self.directory)
        settings = {
            **scratch_settings(version, libraries, self.control_data()),
            **self._fetching,
            **target,
            "hba_file": os.path.join(self.directory, "hba.conf"),
            "ident_file": os.path.join(self.directory, "ident.conf"),
            "unix_socket_directories": self.socket_directory,
            "cluster_name": os.path.basename(self.directory).replace("-", "_"),
        }
        # Only a member of the directory can reach the socket: its owner, and root.
        self.write("hba.conf", "local all all trust\n")
        self.write("ident.conf", "")
        self.write("postgresql.conf", configuration(settings))
        # Read after our own file and stronger than it: what ALTER SYSTEM left on the live side must not count.
        for name in ("postgresql.auto.conf", "recovery.signal", "standby.signal", "postmaster.pid", "postmaster.opts"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.data, name))
        self.write("data/postgresql.auto.conf", "")
        self.write("data/recovery.signal", "")
        os.chmod(self.data, 0o700)

    def start(self, timeout: float) -> None:
        """Start the server and wait until recovery has ended and it accepts connections."""
        self.write("server.log", "")
        hand_over(self.user, self.socket_directory, self.directory)
        command = [
            *self._prefix(), os.path.join(self.bin_dir, "postgres"), "-D", self.data,
            "-c", f"config_file={os.path.join(self.directory, 'postgresql.conf')}",
        ]  # fmt: skip
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self.process = process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                cwd=self.directory,
                env={**os.environ, "LC_ALL": "C", "TZ": "UTC", **self._environment},
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self._wait_until_ready(process, time.monotonic() + timeout)

    def stop(self) -> None:
        """End the server at once: its files are thrown away."""
        if self.process is None:
            return
        for number in (signal.SIGQUIT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
                break

    def stop_cleanly(self, seconds: float) -> None:
        """End the server after a checkpoint: its files are kept."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise self._not_up("it did not end when told to") from None
            self.process = None

    def connect(self, dbname: str) -> t.Any:
        """A connection as a superuser, free of what roles and databases set for their sessions."""
        connection = postgresql.connect(self.login(), dbname, application_name="wellkept restore test")
        postgresql.query(connection, "SET ROLE NONE")
        postgresql.query(connection, "SET default_transaction_read_only = off")
        return connection

    def login(self) -> dict[str, t.Any]:
        """The login options of this server."""
        return {
            "login_unix_socket": self.socket_directory,
            "login_port": 5432,
            "login_user": self.superuser,
            "login_password": "",
            "login_db": "postgres",
        }

    def find_superuser(self, candidates: t.Iterable[str], dbname: str) -> None:
        """Find out, by the first of *candidates* that exists, who is superuser of the restored cluster."""
        error = None
        for name in dict.fromkeys(candidates):
            self.superuser = name
            try:
                with contextlib.closing(postgresql.connect(self.login(), dbname)) as connection:
                    found = postgresql.value(
                        connection, "SELECT rolname FROM pg_roles WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1"
                    )
            except MaintenanceError as refused:
                error = refused
                continue
            if found:
                self.superuser = str(found)
                return
        raise error or MaintenanceError(
            "log in to the restored cluster",
            expected="a superuser that may log in",
            observed="there is none",
            advice="Give one role SUPERUSER and LOGIN.",
        )

    def run_tool(self, program: str, *arguments: str, **options: t.Any) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's client programs against this server; it dies with us."""
        environment = {
            "PGHOST": self.socket_directory,
            "PGPORT": "5432",
            "PGUSER": self.superuser,
            "PGOPTIONS": _TOOL_OPTIONS,
            "PGPASSFILE": os.path.join(self.directory, "no-password"),
        }
        command = [*dying_with_us([], "KILL"), os.path.join(self.bin_dir, program), *arguments]
        return run(command, environment=environment, what=options.pop("what", f"run {program}"), **options)

    def reason_not_ours(self, live_data: str, dbname: str) -> str:
        """Why the server behind our socket may not be the one we started on our files; empty when it is."""
        with contextlib.closing(self.connect(dbname)) as connection:
            data = str(postgresql.value(connection, "SHOW data_directory"))
        if not same_directory(data, self.data):
            return f"the server works on {data}"
        if live_data and same_directory(data, live_data):
            return f"the server works on the live data directory {live_data}"
        pid = first_line(os.path.join(self.data, "postmaster.pid"))
        ours = str(self.process.pid) if self.process else "(none)"
        if pid != ours:
            return f"process {pid} holds the data directory, not our process {ours}"
        if live_data and pid == first_line(os.path.join(live_data, "postmaster.pid")):
            return f"process {pid} is the live server"
        return ""

    def last_words(self, lines: int = 6) -> str:
        """The last lines of the server's log."""
        return last_words(self.read_log(), lines)

    def stopped_at_target(self) -> str:
        """The line of the server's log which says where recovery stopped, or ""."""
        found = re.findall(r"recovery stopping .*", self.read_log())
        return found[-1] if found else ""

    def read_log(self) -> str:
        try:
            descriptor = os.open(self.log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        state = os.path.join(self.data, "postmaster.pid")
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise self._not_up(f"it ended with status {process.returncode}")
            # A lasting server is one that waits at its target; it accepts connections before that.
            if first_line(state, 7) == "ready" and (not self.lasting or _PAUSED in self.read_log()):
                return
            time.sleep(0.01)
        raise self._not_up("it was still in recovery when the time was up")

    def _not_up(self, observed: str) -> MaintenanceError:
        return MaintenanceError(
            "start the restored cluster and replay its WAL to the target",
            where=self.data,
            expected="a server that accepts connections",
            observed=f"{observed}; its log ends: {self.last_words()}",
            advice="The server's last words say what the backup lacks; make a new full backup if it is damaged.",
        )

    def _refuse_ways_out(self) -> None:
        """Refuse restored files of which one leads out of the scratch directory, to the live cluster perhaps."""
        inside = os.path.realpath(self.directory) + "/"
        for parent, directories, names in os.walk(self.data):
            for name in (*directories, *names):
                path = os.path.join(parent, name)
                if os.path.islink(path) and not os.path.realpath(path).startswith(inside):
                    raise _leads_out(path, os.readlink(path))
        table_spaces = os.path.join(self.data, "tablespace_map")
        if os.path.lexists(table_spaces) and os.path.getsize(table_spaces):
            raise _leads_out(table_spaces, "the places of the live cluster's tablespaces")

    def write(self, name: str, content: str) -> None:
        path = os.path.join(self.directory, name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(content)

    def _prefix(self) -> list[str]:
        # Whichever of them is harder to reach says what the server's user needs.
        prefix = max((as_user(self.user, place) for place in (self.bin_dir, self.directory, *self._reads)), key=len)
        return prefix if self.lasting else dying_with_us(prefix)


def hand_over(user: str, *directories: str) -> None:
    """Give all files to the *user* that the server runs as; from here on we write nothing there any more."""
    if os.geteuid() != 0:
        return
    account = pwd.getpwnam(user)
    for top in dict.fromkeys(directories):
        for _parent, below, names, descriptor in os.fwalk(top, topdown=False):
            for name in (*below, *names):
                os.chown(name, account.pw_uid, account.pw_gid, dir_fd=descriptor, follow_symlinks=False)
        os.chown(top, account.pw_uid, account.pw_gid, follow_symlinks=False)


def dying_with_us(prefix: list[str], by_signal: str = "QUIT") -> list[str]:
    """*prefix* (of :func:`as_user`) and that the kernel ends the program by *by_signal* when our process dies."""
    if prefix:
        return [*prefix[:-1], f"--pdeathsig={by_signal}", "--"]
    return ["setpriv", f"--pdeathsig={by_signal}", "--"] if find_program("setpriv") else []


def scratch_settings(version: int, libraries: str, control: t.Mapping[str, str]) -> dict[str, str]:
    """The settings of a scratch server of *version* on files that *control* (of pg_controldata) describes."""
    names = [name.strip() for name in libraries.split(",") if name.strip()]
    passive = all(name.strip('"') in PASSIVE_LIBRARIES for name in names)
    settings = {
        "listen_addresses": "",
        "port": "5432",
        "unix_socket_permissions": "0700",
        "restore_command": 'test -f "../wal/%f" && cp "../wal/%f" "%p"',
        "recovery_target_action": "promote",
        "recovery_target_timeline": "current",
        "hot_standby": "off",
        "primary_conninfo": "",
        "archive_mode": "off",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        # Subscriptions of the live cluster would move its publishers on.
        "max_logical_replication_workers": "0",
        "max_worker_processes": "8" if passive else "0",
        # Nobody else uses this server: let a large table be read by all processors.
        "max_parallel_workers_per_gather": str(workers()),
        "shared_preload_libraries": ",".join(names),
        "autovacuum": "off",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "shared_buffers": "128MB",
        "huge_pages": "off",
        "maintenance_work_mem": "128MB",
        "max_connections": "30",
        "max_wal_size": "8GB",
        "checkpoint_timeout": "1d",
        "ssl": "off",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_min_error_statement": "panic",
        "lc_messages": "C",
        "restart_after_crash": "off",
    }
    for described, name in _FROM_CONTROL.items():
        settings[name] = str(max(int(control.get(described, 0)), 128 if "locks" in name else 0))
    if version >= 150000:
        settings["log_startup_progress_interval"] = "10s"
    if version >= 170000:
        settings["event_triggers"] = "off"  # those on login are the application's code
    return settings


def configuration(settings: t.Mapping[str, str]) -> str:
    """*settings* as the lines of a postgresql.conf."""
    lines = []
    for name, value in settings.items():
        if "\n" in value or "\0" in value:
            raise ValueError(f"the value of {name} cannot be written to a configuration file: {value!r}")
        escaped = value.replace("\\", "\\\\").replace("'", "''")
        lines.append(f"{name} = '{escaped}'\n")
    return "".join(lines)


def first_line(path: str, number: int = 0) -> str:
    """Line *number* of the file *path* without its blanks; empty when there is none, or we may not read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
            return stream.read(8192).splitlines()[number].strip()
    except (OSError, IndexError):
        return ""


def _leads_out(path: str, target: str) -> MaintenanceError:
    return MaintenanceError(
        "keep the restored cluster to itself",
        where=path,
        expected="restored files that lead nowhere outside of the scratch directory",
        observed=f"it leads to {target}",
        advice="Tablespaces of the live cluster must be mapped when it is restored; do not start these files by hand.",
    )
