# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mirror in a directory of this host: a mounted file system, a disk that is taken away."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import typing as t

from ..backup.reading import drop_cached
from ..files import sha256_of, sync_directory
from .destination import (
    DIRECTORY,
    Attempt,
    ChangedError,
    Connection,
    Entry,
    HarmedError,
    Outgoing,
    Pace,
    kind_of,
    parents,
)
from .names import INCOMING

_CHUNK = 1 << 20


class DirectoryConnection(Connection):
    """A mirror below the directory *root*, which must exist: an empty mount point is no mirror."""

    verifies_by = "read from its disk"

    def __init__(self, root: str, *, append_only: bool, pace: Pace) -> None:
        self.root = root
        self._append_only = append_only
        self._pace = pace
        os.close(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))

    def list(self) -> t.Dict[str, Entry]:
        found: t.Dict[str, Entry] = {}
        waiting = [""]
        while waiting:
            below = waiting.pop()
            with os.scandir(self._path(below)) as entries:
                for entry in entries:
                    name = f"{below}/{entry.name}" if below else entry.name
                    status = entry.stat(follow_symlinks=False)
                    found[name] = Entry(kind_of(status.st_mode), status.st_size)
                    if found[name].kind == DIRECTORY:
                        waiting.append(name)
        return found

    def send(
        self, files: t.Sequence[Outgoing], there: t.Mapping[str, Entry], done: t.Callable[[Outgoing], None]
    ) -> None:
        directories: t.Set[str] = set()
        for file in files:
            for parent in parents(file.name):
                if parent not in directories and parent not in there:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(self._path(parent), 0o700)
                directories.update((parent, os.path.dirname(parent)))
            self._send_one(file)
        for directory in directories:
            sync_directory(self._path(directory))
        for file in files:
            done(file)

    def _send_one(self, file: Outgoing) -> None:
        target = self._path(file.name)
        temporary = os.path.join(os.path.dirname(target), INCOMING + secrets.token_hex(8))
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:
                copy_checked(file, stream.write, self._pace)
                stream.flush()
                os.fsync(stream.fileno())
            if self._append_only:
                os.link(temporary, target, follow_symlinks=False)
                os.unlink(temporary)
            else:
                os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def hashes(self, names: t.Sequence[str], sizes: t.Mapping[str, int]) -> t.Iterator[t.Tuple[str, str]]:
        for name in names:
            with contextlib.suppress(OSError):
                drop_cached(self._path(name))
                yield name, sha256_of(self._path(name))

    def remove(self, names: t.Sequence[str]) -> None:
        for name in names:
            try:
                os.unlink(self._path(name))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.EPERM) or not os.path.isdir(self._path(name)):
                    raise
                with contextlib.suppress(OSError):  # it is not empty
                    os.rmdir(self._path(name))

    def fetch(self, names: t.Mapping[str, str], sizes: t.Mapping[str, int]) -> None:
        for name, path in names.items():
            source = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(source, "rb") as stream, os.fdopen(new_file(path), "wb") as target:
                for block in iter(lambda: stream.read(_CHUNK), b""):
                    self._pace.take(len(block))
                    target.write(block)

    def read(self, name: str) -> bytes:
        with os.fdopen(os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
            return stream.read()

    def attempts(self, name: str) -> t.List[Attempt]:
        path, moved = self._path(name), self._path(name + ".moved")
        directory = os.path.dirname(path)

        def write(flags: int) -> None:
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.write(descriptor, b"overwritten")
            finally:
                os.close(descriptor)

        def replace() -> None:
            other = path + ".other"
            with open(other, "wb"):
                os.replace(other, path)

        def move_directory() -> None:
            os.rename(directory, directory + ".moved")
            try:
                raise HarmedError
            finally:
                os.rename(directory + ".moved", directory)

        return [
            Attempt("rename its directory", move_directory),
            Attempt("rename", lambda: os.rename(path, moved)),
            Attempt("append", lambda: write(os.O_WRONLY | os.O_APPEND)),
            Attempt("overwrite", lambda: write(os.O_WRONLY)),
            Attempt("truncate", lambda: os.truncate(path, 0)),
            Attempt("replace by another file", replace),
            Attempt("delete", lambda: os.unlink(path)),
        ]

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else self.root


def copy_checked(file: Outgoing, write: t.Callable[[bytes], object], pace: Pace) -> None:
    """Give the content of *file* to *write*; raises ChangedError when it is not what its hash says."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(file.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb", buffering=0) as stream:
        for block in iter(lambda: stream.read(_CHUNK), b""):
            digest.update(block)
            pace.take(len(block))
            write(block)
    if digest.hexdigest() != file.sha256:
        raise ChangedError(file.path)


def new_file(path: str) -> int:
    """A new private file; whatever stands under its name already is refused."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
