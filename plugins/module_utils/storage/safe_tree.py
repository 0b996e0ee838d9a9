# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Walk and remove trees that somebody else may be changing, without ever touching anything outside of them.

A tree is held by descriptors from its root down: names are only ever looked up in a directory that is held open, and
never through a link. So a directory that is exchanged for a link while we are at work leads nowhere.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import stat
import typing as t

_HELD_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ON_THE_WAY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

# One descriptor is held for each level; a process may usually have 1024.
DEEPEST = 256
SAMPLES = 20


class LinkInPathError(Exception):
    """A component of a path is a symbolic link; ``component`` is the path up to it and including it."""

    def __init__(self, component: str) -> None:
        super().__init__(component)
        self.component = component


class Directory:
    """One directory of a walk, held open; ``kept`` counts what stays in it, which its visitor increases."""

    __slots__ = ("descriptor", "kept", "name", "path", "status", "subdirectories")

    def __init__(self, descriptor: int, name: str, path: str) -> None:
        self.descriptor = descriptor
        self.name = name
        self.path = path
        self.status = os.fstat(descriptor)
        self.subdirectories: list[str] | None = None
        self.kept = 0


class Found(t.NamedTuple):
    """One entry of a directory; a subdirectory comes after all that it holds, with its status of before."""

    parent: Directory
    name: str
    status: os.stat_result
    left_in_it: int = 0

    @property
    def path(self) -> str:
        return f"{self.parent.path}/{self.name}"

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def bytes_on_disk(self) -> int:
        return self.status.st_blocks * _BLOCK

    def bytes_freed(self) -> int:
        """What its removal gives back: nothing as long as another hard link keeps the file."""
        return self.bytes_on_disk if self.status.st_nlink == 1 else 0

    def remove(self) -> bool:
        """Remove this entry, a subdirectory only when it is empty; False when it had vanished already."""
        try:
            if self.is_directory:
                os.rmdir(self.name, dir_fd=self.parent.descriptor)
            else:
                os.unlink(self.name, dir_fd=self.parent.descriptor)
        except FileNotFoundError:
            return False
        return True


class Samples:
    """How many things there were, and the first few of them, fit to be shown."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, path: str, why: str = "") -> None:
        self.count += 1
        if len(self.first) < SAMPLES:
            self.first.append(f"{shown_name(path)}: {why}" if why else shown_name(path))

    def extend(self, others: Samples) -> None:
        self.count += others.count
        self.first = (self.first + others.first)[:SAMPLES]

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        some = "; ".join(self.first[:3])
        return f"{some} and {self.count - 3} more" if self.count > 3 else some


def shown_name(path: str) -> str:
    r"""*path* as text that can be shown anywhere: bytes that are no UTF-8 and control characters as ``\xff``."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return _CONTROL.sub(lambda match: f"\\x{ord(match.group()):02x}", text)


@contextlib.contextmanager
def opened_way(path: str) -> t.Iterator[list[int]]:
    """Descriptors of every directory on the absolute *path*, from the root's to its own, held while the block runs.

    Only the last can be listed. Raises LinkInPathError when a component is a link, and OSError, with the path up to the
    component concerned as its ``filename``, when one is missing or cannot be entered.
    """
    way = [os.open("/", _ON_THE_WAY)]
    names = [name for name in path.split("/") if name]
    try:
        for depth, name in enumerate(names, start=1):
            flags = _HELD_OPEN if depth == len(names) else _ON_THE_WAY
            way.append(_step(way[-1], name, flags, "/" + "/".join(names[:depth])))
        yield way
    finally:
        for descriptor in way:
            os.close(descriptor)


def _step(directory: int, name: str, flags: int, shown: str) -> int:
    try:
        return os.open(name, flags, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(directory, name):
            raise LinkInPathError(shown) from None
        error.filename = shown
        raise


def _is_link(directory: int, name: str) -> bool:
    with contextlib.suppress(OSError):
        return stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    return False


def no_reason(_directory: Directory) -> str:
    return ""


class TreeWalk:
    """Iterate over what is below the open directory *descriptor*, in constant memory for each directory's files.

    Yields files, links and the like as they are read, and each subdirectory after its content. Directories on other
    file systems, those for which *reason_to_keep_out* has an answer, and those that are too deep are not entered but
    noted in ``kept_out``; what could not be read is in ``problems``; what vanished meanwhile is passed over.
    """

    def __init__(
        self,
        descriptor: int,
        path: str,
        *,
        recurse: bool = True,
        reason_to_keep_out: t.Callable[[Directory], str] = no_reason,
    ) -> None:
        self.root = descriptor
        self.path = "/" + "/".join(name for name in path.split("/") if name not in ("", "."))
        self.recurse = recurse
        self.reason_to_keep_out = reason_to_keep_out
        self.problems = Samples()
        self.kept_out = Samples()
        self._mounts = mounts_below(self.path) if recurse else frozenset()

    def __iter__(self) -> t.Iterator[Found]:
        way = [Directory(os.open(".", _HELD_OPEN, dir_fd=self.root), "", self.path)]
        try:
            while way:
                here = way[-1]
                if here.subdirectories is None:
                    here.subdirectories = []
                    try:
                        with os.scandir(here.descriptor) as listing:
                            for entry in listing:
                                if entry.is_dir(follow_symlinks=False):
                                    here.subdirectories.append(entry.name)
                                    continue
                                try:
                                    status = entry.stat(follow_symlinks=False)
                                except FileNotFoundError:
                                    continue
                                yield Found(here, entry.name, status)
                    except OSError as error:
                        self.problems.add(here.path, error.strerror or str(error))
                        here.kept += 1
                elif here.subdirectories:
                    below = self._enter(here, here.subdirectories.pop(), len(way))
                    if below:
                        way.append(below)
                else:
                    way.pop()
                    os.close(here.descriptor)
                    if way:
                        yield Found(way[-1], here.name, here.status, here.kept)
        finally:
            for directory in way:
                os.close(directory.descriptor)

    def _enter(self, parent: Directory, name: str, depth: int) -> Directory | None:
        path = f"{parent.path}/{name}"
        if not self.recurse:
            parent.kept += 1
            return None
        try:
            directory = Directory(os.open(name, _HELD_OPEN, dir_fd=parent.descriptor), name, path)
        except FileNotFoundError:
            return None
        except OSError as error:
            parent.kept += 1
            # A directory that turned into a link or a file since it was listed is none of ours any more.
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                self.problems.add(path, error.strerror or str(error))
            return None
        why = self._reason_against(directory, parent, depth)
        if why:
            os.close(directory.descriptor)
            parent.kept += 1
            self.kept_out.add(path, why)
            return None
        return directory

    def _reason_against(self, directory: Directory, parent: Directory, depth: int) -> str:
        if directory.status.st_dev != parent.status.st_dev or directory.path in self._mounts:
            return "is on another file system or mounted there"
        if depth >= DEEPEST:
            return f"is more than {DEEPEST} levels deep"
        return self.reason_to_keep_out(directory)


class Removed:
    """What a removal did."""

    def __init__(self) -> None:
        self.files = 0
        self.directories = 0
        self.bytes = 0
        self.problems = Samples()


def remove_tree(parent: int, name: str, path: str) -> Removed:
    """Remove the directory *name* in the open directory *parent* with all it holds; *path* is how it is shown.

    What cannot be removed is told in ``problems`` and does not keep the rest from going.
    """
    removed = Removed()
    try:
        root = os.open(name, _HELD_OPEN, dir_fd=parent)
    except FileNotFoundError:
        return removed
    try:
        walk = TreeWalk(root, path)
        for found in walk:
            _remove(found, removed)
    finally:
        os.close(root)
    removed.problems.extend(walk.problems)
    removed.problems.extend(walk.kept_out)
    if not removed.problems:
        os.rmdir(name, dir_fd=parent)
        removed.directories += 1
    return removed


def _remove(found: Found, removed: Removed) -> None:
    if found.is_directory and found.left_in_it:
        found.parent.kept += 1
        return
    try:
        if not found.remove():
            return
    except OSError as error:
        found.parent.kept += 1
        removed.problems.add(found.path, error.strerror or str(error))
        return
    if found.is_directory:
        removed.directories += 1
    else:
        removed.files += 1
        removed.bytes += found.bytes_freed()


def mounts_below(path: str) -> frozenset[str]:
    """The mount points below *path*: a directory mounted from the same file system has the same device number."""
    try:
        return parse_mounts_below(pathlib.Path("/proc/self/mountinfo").read_bytes(), path)
    except OSError:
        return frozenset()


def parse_mounts_below(mountinfo: bytes, path: str) -> frozenset[str]:
    """Mount points below *path* in the text of ``/proc/self/mountinfo``, where a space is written ``\\040``."""
    points = set()
    for line in mountinfo.splitlines():
        fields = line.split(b" ")
        if len(fields) > 4:
            points.add(os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code.group(1), 8)]), fields[4])))
    return frozenset(point for point in points if point.startswith(f"{path}/"))
