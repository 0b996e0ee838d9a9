# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""restic as a program: its errors in words that help, its JSON, and the locks of ones that were killed.

The password goes from its file to restic: it is in no argument and in no environment. Nothing is believed for the exit
status alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
import typing as t
from datetime import datetime, timezone

from ....errors import MaintenanceError, UnavailableError
from ....processes import last_words, require_program, run
from ....ssh.errors import from_openssh
from ....ssh.openssh import command
from ...programs import guarded, program_failed
from .location import Location, refuse_key_file

# Every call but those that move data.
_SECONDS = 900.0
_SSH_SECONDS = 60.0
# How long to wait for another one's exclusive lock, and how often to look.
_LOCKED_SECONDS = 120.0
_LOCK_PAUSE = 2.0
# Below this age restic itself takes no lock of another host for stale, and refreshes its own far more often.
_STALE_SECONDS = 1800.0
# A process that began so much later than a lock was taken did not take it, even if the clock was set meanwhile.
_CLOCK_SECONDS = 60.0

_LOCKED = re.compile(r"repository is already locked|unable to create lock in backend")
_NO_REPOSITORY = re.compile(r"unable to open config file|repository does not exist|Is there a repository at")
_WRONG_KEY = re.compile(r"wrong password or no key found")
_DAMAGED_KEY = re.compile(r"config or key \w+ is damaged|invalid data returned|ciphertext verification failed")
_UNREACHABLE = re.compile(
    r"Host key verification failed|Permission denied \(|Connection (refused|closed|reset)|timed out|"
    r"unable to start the sftp session|ssh: |resolve hostname|connection lost|No route to host|kex_exchange"
)
# Not errors: what ssh and restic say to whom looks on.
_CHATTER = re.compile(r"^(subprocess ssh: Warning: Permanently added|unable to create temporary directory for cache)")


class NoRepositoryError(UnavailableError):
    """There is no repository where one should be."""


class LockedError(MaintenanceError):
    """Somebody else who is alive, or may be, holds the repository."""


class Lock(t.NamedTuple):
    """Who holds a repository."""

    id: str
    hostname: str
    pid: int
    exclusive: bool
    time: datetime

    def __str__(self) -> str:
        return f"process {self.pid} on {self.hostname} since {self.time:%Y-%m-%dT%H:%M:%SZ}"


class Restic:
    """The program, on one repository, with its key; its cache is private to us."""

    def __init__(self, location: Location, key_file: str, cache: str, *, long_timeout: float) -> None:
        program = require_program("restic", what="use the restic repository")
        refuse_key_file(key_file)
        self.location = location
        # For what moves or reads data.
        self.long_timeout = long_timeout
        self._prefix = [program, *location.arguments(), "--password-file", key_file, "--cache-dir", cache]
        self._cache = cache
        self._identity = ""

    # -- running it --

    def run(
        self, what: str, *arguments: str, accept: t.Container[int] = (0,), timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run restic with *arguments*; raises the MaintenanceError that fits what it said, with *what* was attempted.

        A lock of somebody who is dead is removed, and one of somebody else waited for.
        """
        deadline = time.monotonic() + _LOCKED_SECONDS
        while True:
            done = self._run(what, arguments, timeout or _SECONDS)
            if done.returncode in accept and not _LOCKED.search(done.stderr):
                return done
            error = self._error(what, done)
            if not isinstance(error, LockedError):
                raise error
            if not self.remove_dead_locks():
                if time.monotonic() > deadline:
                    raise error
                time.sleep(_LOCK_PAUSE)

    def _run(self, what: str, arguments: t.Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        os.makedirs(self._cache, mode=0o700, exist_ok=True)
        # What the environment says of some other repository is not for us; a line of progress a minute is enough.
        environment = {name: "" for name in os.environ if name.startswith("RESTIC_")}
        environment["RESTIC_PROGRESS_FPS"] = "0.016"
        whole = guarded([*self._prefix, *arguments])
        return run(whole, environment=environment, timeout=timeout, accept=range(-64, 256), what=what)

    def _error(self, what: str, done: subprocess.CompletedProcess[str]) -> MaintenanceError:
        said = "\n".join(line for line in (done.stderr or done.stdout).splitlines() if not _CHATTER.search(line))
        where = self.location.name
        if _LOCKED.search(said):
            return LockedError(
                what, where=where, expected="nobody else at work on the repository", observed=last_words(said),
                advice="Wait until that has ended; what died elsewhere goes by `restic unlock` there.",
            )  # fmt: skip
        not_opened = self._not_opened(what, said)
        if not_opened:
            return not_opened
        error = program_failed(what, done.returncode, said)
        if _DAMAGED_KEY.search(said):
            error.advice = (
                "The repository is damaged. Find out what damages it; `restic rebuild-index` makes a lost index anew, "
                "for the rest see restic's manual on troubleshooting."
            )
        error.where = where
        return error

    def _not_opened(self, what: str, said: str) -> MaintenanceError | None:
        """The error, if restic *said* that it could not even open the repository."""
        where = self.location.name
        if self.location.remote and _UNREACHABLE.search(said):
            login = self.location.remote._replace(purpose=what)
            return from_openssh(login, said + self._words_of_ssh(said))
        if _WRONG_KEY.search(said):
            return MaintenanceError(
                what, where=where, expected="a repository that the password in restic_key_file opens",
                observed=last_words(said),
                advice="Put the password that the repository was made with into restic_key_file; without it nothing in "
                "there can be read.",
            )  # fmt: skip
        if _NO_REPOSITORY.search(said):
            return NoRepositoryError(
                what, where=where, expected="a restic repository", observed=last_words(said),
                advice="Correct restic_repository, or mount what it lies on.",
            )  # fmt: skip
        return None

    def _words_of_ssh(self, said: str) -> str:
        """What ssh has against a connection; restic often ends before it has passed that on."""
        if "subprocess ssh: " in said or not self.location.remote:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            connect = guarded([*command(self.location.remote, "-s"), "sftp"])
            done = subprocess.run(
                connect, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SSH_SECONDS, check=False
            )
            return f"\n{done.stderr}" if done.returncode else ""
        return ""

    def json(self, what: str, *arguments: str) -> t.Any:
        """The JSON document that restic answers with."""
        done = self.run(what, *arguments, "--json")
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise MaintenanceError(
                what, where=self.location.name, expected="an answer in JSON", observed=last_words(done.stdout),
                advice="See whether this version of restic is newer than what this program knows.",
            ) from None  # fmt: skip

    # -- what is asked often --

    def identity(self) -> str:
        """The repository's own id, which it keeps for life; raises NoRepositoryError when there is none."""
        if not self._identity:
            self._identity = str(self.json("open the restic repository", "cat", "config", "--no-lock")["id"])
        return self._identity

    def snapshots(self, *arguments: str) -> list[dict[str, t.Any]]:
        """The snapshots that can be read; those of other people, too, unless *arguments* say otherwise."""
        found: list[dict[str, t.Any]] = self.json(
            "list the snapshots of the restic repository", "snapshots", *arguments
        )
        return found or []

    def check(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What ``restic check`` says, by its words and its exit status; raises only when it could not look."""
        what = "check the restic repository"
        done = self.run(what, "check", *arguments, accept=(0, 1), timeout=self.long_timeout)
        if done.returncode and (error := self._not_opened(what, done.stderr)):
            raise error
        return done

    def forget(self, ids: t.Sequence[str]) -> None:
        """Forget exactly the snapshots *ids*; those that are not there any more are no error."""
        if ids:
            self.run("forget snapshots of the restic repository", "forget", *ids)
        left = {snapshot["id"] for snapshot in self.snapshots()} & set(ids)
        if left:
            raise MaintenanceError(
                "forget snapshots of the restic repository", where=self.location.name, expected="none of them left",
                observed=", ".join(sorted(left)), advice="Look at the rights in the repository.",
            )  # fmt: skip

    # -- locks --

    def locks(self) -> list[Lock]:
        """Who holds the repository, as far as their locks can be read."""
        listed = self._run("list the locks", ("list", "locks", "--no-lock"), _SECONDS)
        found = []
        for name in re.findall(r"^[0-9a-f]{64}$", listed.stdout, re.MULTILINE):
            shown = self._run("read a lock", ("cat", "lock", name, "--no-lock"), _SECONDS)
            with contextlib.suppress(ValueError, KeyError, TypeError):
                lock = json.loads(shown.stdout)
                moment = datetime.strptime(lock["time"][:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
                found.append(Lock(name, lock["hostname"], int(lock["pid"]), bool(lock.get("exclusive")), moment))
        return found

    def remove_dead_locks(self) -> bool:
        """Remove what dead processes of this host left; returns whether there was any.

        restic's own ``unlock`` also removes what is merely old: it is asked only when all that is old is provably dead.
        """
        locks = self.locks()
        old = [lock for lock in locks if (datetime.now(timezone.utc) - lock.time).total_seconds() > _STALE_SECONDS]
        if not any(is_dead(lock) for lock in locks) or not all(is_dead(lock) for lock in old):
            return False
        self._run("remove the locks of dead processes", ("unlock",), _SECONDS)
        return len(self.locks()) < len(locks)


def is_dead(lock: Lock) -> bool:
    """Whether the holder is of this host and provably no more: no process has its number, or only a younger one."""
    if lock.hostname != socket.gethostname():
        return False
    try:
        began = _began(lock.pid)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, IndexError):
        return False
    return began > lock.time.timestamp() + _CLOCK_SECONDS


def _began(pid: int) -> float:
    """When the process *pid* began, in seconds since the epoch."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stream:
        ticks = int(stream.read().rpartition(")")[2].split()[19])
    with open("/proc/stat", encoding="ascii") as stream:
        booted = next(int(line.split()[1]) for line in stream if line.startswith("btime "))
    return booted + ticks / os.sysconf("SC_CLK_TCK")
