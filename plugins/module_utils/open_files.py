# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which files processes have open, read from /proc; so also files that have been removed and still take space."""

from __future__ import annotations

import contextlib
import os
import pathlib
import stat
import typing as t

_DELETED = " (deleted)"

# Device and inode.
Identity = t.Tuple[int, int]


class OpenFile(t.NamedTuple):
    """A regular file that a process has open. ``deleted``: it has no name any more; ``path`` is then its last one."""

    pid: int
    comm: str
    path: str
    inode: int
    device: int
    deleted: bool
    descriptor: int
    writable: bool
    size: int
    mtime: float


def open_files(proc: str = "/proc") -> t.Iterator[OpenFile]:
    """Every regular file that a process has open, as far as we may look: an ordinary user sees only its own processes.

    Processes and descriptors that go away meanwhile are left out. Our own process is left out too.
    """
    for entry in os.listdir(proc):
        if _concerns_us(entry):
            yield from _files_of(os.path.join(proc, entry), int(entry))


def unseen_processes(proc: str = "/proc") -> int:
    """How many processes there are into whose open files we may not look."""
    return sum(1 for entry in os.listdir(proc) if _concerns_us(entry) and _hidden(f"{proc}/{entry}/fd"))


def how_to_see_all() -> str:
    """What the operator has to do so that no process hides its open files from us."""
    if os.geteuid() != 0:
        return "Run with `become: true`, so that every process can be seen."
    return "Give this root the capability CAP_SYS_PTRACE: without it /proc hides what other users have open."


def appends(file: OpenFile, proc: str = "/proc") -> bool | None:
    """Whether *file* was opened with O_APPEND; None when its process has closed it meanwhile."""
    try:
        with pathlib.Path(f"{proc}/{file.pid}/fdinfo/{file.descriptor}").open(encoding="ascii") as stream:
            for line in stream:
                if line.startswith("flags:"):
                    return bool(int(line.split()[1], 8) & os.O_APPEND)
    except OSError:
        return None
    return None


def _concerns_us(entry: str) -> bool:
    """Whether *entry* of /proc is a process that may have files of an application open.

    Not we ourselves, and not init: it opens none, and a container may shield it even from root.
    """
    return entry.isdigit() and int(entry) not in (1, os.getpid())


def _files_of(process: str, pid: int) -> t.Iterator[OpenFile]:
    try:
        descriptors = os.listdir(process + "/fd")
    except OSError:
        return
    comm = ""
    for descriptor in descriptors:
        link = f"{process}/fd/{descriptor}"
        try:
            path = os.readlink(link)
            if not path.startswith("/") or path.startswith(("/dev/", "/proc/", "/sys/")):
                continue
            status = os.stat(link)
            if not stat.S_ISREG(status.st_mode):
                continue
            writable = bool(os.lstat(link).st_mode & stat.S_IWUSR)
        except OSError:
            continue
        comm = comm or _comm(process)
        deleted = status.st_nlink == 0
        if deleted and path.endswith(_DELETED):
            path = path[: -len(_DELETED)]
        yield OpenFile(
            pid, comm, path, status.st_ino, status.st_dev, deleted, int(descriptor), writable, status.st_size,
            status.st_mtime,
        )  # fmt: skip


def _hidden(descriptors: str) -> bool:
    try:
        for name in os.listdir(descriptors):
            with contextlib.suppress(FileNotFoundError):
                os.readlink(f"{descriptors}/{name}")
                return False
    except PermissionError:
        return True
    except OSError:
        return False  # It ended meanwhile.
    return False


def _comm(process: str) -> str:
    try:
        with pathlib.Path(process + "/comm").open("rb") as stream:
            return stream.read().decode("utf-8", "replace").strip() or "?"
    except OSError:
        return "?"


class InUse:
    """What the processes on this host had open, or worked in, at one moment.

    ``unseen`` counts the processes whose files we may not see: those of other users, unless we are root.
    """

    def __init__(self, identities: frozenset[Identity], unseen: int) -> None:
        self.identities = identities
        self.unseen = unseen

    def __contains__(self, status: object) -> bool:
        return isinstance(status, os.stat_result) and (status.st_dev, status.st_ino) in self.identities


def files_in_use(proc: str = "/proc") -> InUse:
    """Look once through the descriptors, working and root directories of all processes but this one."""
    identities: set[Identity] = set()
    unseen = 0
    for name in os.listdir(proc):
        if _concerns_us(name):
            try:
                identities.update(_of_process(f"{proc}/{name}"))
            except PermissionError:
                unseen += 1
            except OSError:
                continue  # It ended meanwhile.
    return InUse(frozenset(identities), unseen)


def _of_process(process: str) -> t.Iterator[Identity]:
    for link in (f"{process}/cwd", f"{process}/root", *_descriptors(f"{process}/fd")):
        # A kernel thread has no directories; a descriptor may be closed as we look.
        with contextlib.suppress(FileNotFoundError):
            # By the kernel's own reference, which holds in other mount namespaces (containers) too.
            status = os.stat(link)
            yield status.st_dev, status.st_ino


def _descriptors(directory: str) -> t.Iterator[str]:
    with os.scandir(directory) as listing:
        for entry in listing:
            yield entry.path
