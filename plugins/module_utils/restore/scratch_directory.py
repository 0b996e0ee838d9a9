# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A directory for a cluster that lives for one test: where it may be, and that it is gone afterwards, come what may.

Beside ``wellkept-scratch-<random>`` lies ``wellkept-scratch-<random>.lock``, held as long as its run lives. What a
killed run leaves has a lock that is free: the next run ends its server, if one still runs, and removes it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import secrets
import select
import shutil
import signal
import stat
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..backup.programs import workers
from ..errors import MaintenanceError
from ..files import write_atomically
from ..lock import exclusive, is_free
from ..result import Part

PREFIX = "wellkept-scratch-"
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{12}}")
# Names a scratch Redis server, as postmaster.pid does one of PostgreSQL.
REDIS_PID = "redis.pid"
_SERVERS = re.compile(r"(postgres|(redis|valkey)-(server|check-rdb))( |$)")
_SOCKET_NOTE = "socket_directory"
_SOCKET_PREFIX = "wellkept-socket-"
_SYSTEM_TREES = ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr")
_SECONDS_TO_END = 15.0


def prepare_base(base: str, live: t.Iterable[str], *, create: bool = True) -> None:
    """Create *base*, private to us, when it is not there; raise MaintenanceError when nothing must be written there.

    Refused are links, system directories, what others can write to, the inside of any PostgreSQL data directory, and
    what is, holds or lies inside one of the *live* cluster's directories.
    """
    reason = _reason_against(base) or _reason_of_live(base, live)
    if not reason and create:
        with _told(base):
            os.makedirs(base, mode=0o700, exist_ok=True)
    if not reason and os.path.lexists(base):
        reason = _reason_against_owner(base)
    if reason:
        raise MaintenanceError(
            "use the scratch directory",
            where=base,
            expected="a directory of our own, that nobody else can write to, outside of system and data directories",
            observed=reason,
            advice="Set scratch_dir to another directory; it is created when it does not exist.",
        )


def _reason_of_live(base: str, live: t.Iterable[str]) -> str:
    for directory in live:
        how = overlap(base, directory)
        if how:
            return f"it {how} the live cluster's directory {directory}".replace("it is the", "it is itself the")
    return ""


def _reason_against(base: str) -> str:
    if not os.path.isabs(base):
        return "it is not an absolute path"
    if os.path.islink(base):
        return f"it is a symbolic link to {os.readlink(base)}"
    real = os.path.realpath(base)
    if real.count("/") < 2:
        return "it is not at least two levels below the root"
    tree = next((tree for tree in _SYSTEM_TREES if f"{real}/".startswith(f"{tree}/")), "")
    if tree:
        return f"it belongs to the system directory {tree}"
    for directory in (real, *ancestors(real)):
        if os.path.exists(os.path.join(directory, "PG_VERSION")):
            return f"{directory} is a PostgreSQL data directory"
    return ""


def _reason_against_owner(base: str) -> str:
    status = os.stat(base, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return "it is not a directory"
    if status.st_uid != os.geteuid():
        return f"it belongs to the user with the id {status.st_uid}, not to us"
    if status.st_mode & 0o022:
        return f"others can write to it (mode {stat.S_IMODE(status.st_mode):o})"
    for directory in ancestors(os.path.realpath(base)):
        mode = os.stat(directory).st_mode
        if mode & 0o022 and not mode & stat.S_ISVTX:
            return f"others can write to {directory} above it (mode {stat.S_IMODE(mode):o})"
    return ""


def ancestors(path: str) -> list[str]:
    """``/a/b/c`` → ``["/a/b", "/a", "/"]``."""
    found = []
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        found.append(path)
    return found


def overlap(base: str, live: str) -> str:
    """How *base* and the *live* directory overlap ("is", "lies inside", "contains"); empty when they do not.

    Decided by device and inode, so that no link, mount or spelling hides it.
    """
    live_identity = _identity(live)
    if live_identity is None:
        return ""
    real = os.path.realpath(base)
    if _identity(real) == live_identity:
        return "is"
    if any(_identity(directory) == live_identity for directory in ancestors(real)):
        return "lies inside"
    base_identity = _identity(real)
    if base_identity and any(_identity(above) == base_identity for above in ancestors(os.path.realpath(live))):
        return "contains"
    return ""


def same_directory(one: str, other: str) -> bool:
    """Whether both paths lead to one and the same existing directory."""
    return _identity(one) is not None and _identity(one) == _identity(other)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def scratch_directory(base: str, holder: dict[str, t.Any]) -> t.Iterator[str]:
    """Path of a new private directory in *base* that is removed, with its lock, when the block ends."""
    path = os.path.join(base, PREFIX + secrets.token_hex(6))
    with exclusive(f"{path}.lock", holder, "a scratch cluster"):
        try:
            os.mkdir(path, 0o700)
            yield path
        finally:
            _remove(path)


def short_socket_directory(scratch: str) -> str:
    """A private directory for the socket: in *scratch*, or in /tmp where that path is too long for a socket (107)."""
    inside = os.path.join(scratch, "socket")
    if len(os.fsencode(f"{inside}/.s.PGSQL.5432.lock")) <= 107:
        os.mkdir(inside, 0o700)
        return inside
    # Noted before it exists, so that whoever cleans up after us knows it; mkdir refuses a name that somebody took.
    outside = f"/tmp/{_SOCKET_PREFIX}{secrets.token_hex(8)}"  # noqa: S108
    write_atomically(os.path.join(scratch, _SOCKET_NOTE), outside.encode())
    os.mkdir(outside, 0o700)
    return outside


def leftovers(base: str) -> list[str]:
    """The scratch directories in *base* whose runs died, and the locks that lie alone."""
    try:
        names = sorted(os.listdir(base))
    except FileNotFoundError:
        return []
    found = {name[: -len(".lock")] if name.endswith(".lock") else name for name in names}
    return [name for name in sorted(found) if _NAME.fullmatch(name) and is_free(os.path.join(base, f"{name}.lock"))]


def remove_leftover(base: str, name: str) -> str:
    """End the server of the leftover *name* in *base* if it still runs, remove all of it, and say what was done."""
    path = os.path.join(base, name)
    if os.path.islink(path):
        os.unlink(path)
        return "removed a link of that name"
    ended = end_server_of(os.path.join(path, "data"))
    _remove(path)
    return f"ended its server (process {ended}) and removed it" if ended else "removed"


def clean_up(base: str, names: t.Iterable[str], check_mode: bool, part: Part) -> None:
    """Remove the leftovers *names* of killed runs, and record it."""
    done = []
    for name in names:
        words = "would be removed" if check_mode else remove_leftover(base, name)
        part.change("scratch cluster", name, "left by a run that died", words)
        done.append(f"{name}: {words}")
    part.require(
        f"leftovers of earlier restore tests in {base}",
        True,
        expected="none, or their removal",
        observed="; ".join(done) or "none",
    )


def end_server_of(data: str, signals: t.Sequence[signal.Signals] = (signal.SIGQUIT, signal.SIGKILL)) -> int:
    """End the server that runs on *data*, if its file there names a process that really does; its id, or 0."""
    pid = _noted_pid(data, "postmaster.pid") or _noted_pid(data, REDIS_PID)
    try:
        process = os.pidfd_open(pid)
    except (OSError, ValueError):
        return 0
    try:
        # The process is held by its descriptor: from here on its number cannot mean another one.
        if not _works_in(pid, data):
            return 0
        for number in signals:
            signal.pidfd_send_signal(process, number)
            if select.select([process], [], [], _SECONDS_TO_END)[0]:
                return pid
    except ProcessLookupError:
        return pid
    finally:
        os.close(process)
    raise MaintenanceError(
        "end the server of a scratch cluster",
        where=data,
        expected="its end",
        observed=f"process {pid} still runs",
        advice=f"Find out what process {pid} waits for; it may hang on a file system.",
    )


def _noted_pid(data: str, name: str) -> int:
    """The process that the first line of the file *name* in *data* names; 0 when there is none."""
    try:
        descriptor = os.open(os.path.join(data, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
            return int(stream.readline())
    except (OSError, ValueError):
        return 0


def _works_in(pid: int, data: str) -> bool:
    try:
        program = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return False
    return _SERVERS.match(program) is not None and same_directory(f"/proc/{pid}/cwd", data)


def _remove(path: str) -> None:
    """Remove the scratch directory *path*, its socket directory and, last, its lock."""
    outside = _noted_socket_directory(path)
    for directory in (outside, path):
        for _attempt in range(20):
            if not directory or not os.path.lexists(directory):
                break
            # A program that is just dying may still add a file: try again.
            _unlink_files(directory)
            shutil.rmtree(directory, ignore_errors=True)
            if os.path.lexists(directory):
                _open_up(directory)
                time.sleep(0.25)
    if os.path.lexists(path):
        raise MaintenanceError(
            "remove the scratch cluster",
            where=path,
            expected="its end",
            observed="it cannot be removed",
            advice="Look at its permissions and its file system, and remove it by hand.",
        )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{path}.lock")


def _unlink_files(directory: str) -> None:
    """Remove the files in *directory*, several at a time: to free the pages of large ones takes its time."""
    with ThreadPoolExecutor(workers()) as pool:
        # By descriptors, so that no directory that somebody exchanges for a link leads out of here.
        for _parent, _below, names, descriptor in os.fwalk(directory):
            for _removed in pool.map(functools.partial(_unlink, descriptor=descriptor), names):
                pass


def _unlink(name: str, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=descriptor)


def _open_up(directory: str) -> None:
    """Restored directories may be closed to writing, to their owner too."""
    for parent, directories, _names in os.walk(directory):
        for path in (parent, *(os.path.join(parent, name) for name in directories)):
            with contextlib.suppress(OSError):
                if not os.path.islink(path):
                    os.chmod(path, 0o700)


def _noted_socket_directory(path: str) -> str:
    """The socket directory outside of *path* that was noted there, if it is really one of ours."""
    try:
        descriptor = os.open(os.path.join(path, _SOCKET_NOTE), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as stream:
            outside = stream.read(4096)
        owner = os.lstat(path).st_uid
        status = os.lstat(outside)
    except (OSError, ValueError):
        return ""
    ours = re.fullmatch(rf"/tmp/{_SOCKET_PREFIX}[0-9a-f]{{16}}", outside)  # noqa: S108
    return outside if ours and stat.S_ISDIR(status.st_mode) and status.st_uid in (owner, os.geteuid()) else ""


@contextlib.contextmanager
def _told(base: str) -> t.Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MaintenanceError(
            "create the scratch directory",
            where=base,
            expected="the right to create it",
            observed=error.strerror or str(error),
            advice="Set scratch_dir to a place that we may write to.",
        ) from None
