# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL's programs as an engine runs them: they die with us, and what they write is hashed on its way."""

from __future__ import annotations

import ctypes
import hashlib
import io
import os
import re
import signal
import subprocess
import tempfile
import typing as t

from ..errors import MaintenanceError
from ..processes import find_program, last_words, run

_CHUNK = 1 << 20
# More workers gain little: the disk is the limit then.
_MOST_WORKERS = 4

# What a program says when the disk is full, in the words of the system or of PostgreSQL.
_DISK_FULL = re.compile(r"[Nn]o space left on device|Disk quota exceeded|File too large|SIGXFSZ")


def workers(jobs: int = 0) -> int:
    """How many to work at a time: *jobs*, or where it is 0 what the processors that we may use can bear."""
    return jobs or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


def guarded(command: t.Sequence[str]) -> list[str]:
    """*command*, so that the kernel kills it when the thread that started it dies: nothing outlives the module."""
    setpriv = find_program("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--", *command] if setpriv else list(command)


def run_program(
    command: t.Sequence[str], environment: t.Mapping[str, str], timeout: float | None, what: str
) -> subprocess.CompletedProcess[str]:
    """Run *command* to its end; the error of a full disk says what to do about it."""
    done = run(guarded(command), environment=environment, timeout=timeout, accept=range(-64, 256), what=what)
    if done.returncode != 0:
        raise program_failed(what, done.returncode, done.stderr or done.stdout)
    return done


def program_failed(what: str, status: int, said: str) -> MaintenanceError:
    """The error for a program that ended with *status*."""
    advice = "The program's own message says what it lacked."
    if status < 0:
        said += f"\nended by {signal.Signals(-status).name}"
    if _DISK_FULL.search(said):
        advice = "Free space where the repository is, or give it more; earlier backups are untouched."
    elif "no pg_hba.conf entry for replication" in said:
        advice = "Allow replication connections of this user in pg_hba.conf of the server."
    return MaintenanceError(
        what, expected="exit status 0", observed=f"exit status {status}: {last_words(said)}", advice=advice
    )


class Written(t.NamedTuple):
    """A file that a program wrote: its hash was taken from what came out of the program, not read back."""

    sha256: str
    bytes: int


def write_output(command: t.Sequence[str], path: str, environment: t.Mapping[str, str], what: str) -> Written:
    """Write what *command* writes to its standard output to the new file *path*, hashed on its way."""
    digest = hashlib.sha256()
    size = 0
    with tempfile.TemporaryFile() as complaints, new_file(path) as stream:
        with subprocess.Popen(
            guarded(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env={**os.environ, "LC_ALL": "C", **environment},
        ) as process:
            output = t.cast(io.BufferedReader, process.stdout)
            try:
                for block in iter(lambda: output.read1(_CHUNK), b""):
                    digest.update(block)
                    stream.write(block)
                    size += len(block)
            except BaseException:
                process.kill()
                raise
        complaints.seek(0)
        said = complaints.read().decode(errors="replace")
    if process.returncode != 0:
        raise program_failed(what, process.returncode, said)
    return Written(digest.hexdigest(), size)


def new_file(path: str) -> t.BinaryIO:
    """The new and private file *path*, to be written."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def sync_file_system(path: str) -> None:
    """Make everything that was written to the file system of *path* durable; raises OSError when that fails."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(descriptor)
