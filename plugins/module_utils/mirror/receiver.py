# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The receiving end of an append-only mirror: an SFTP server that can add files, and neither change nor remove one.

Installed there as a file of its own, and run by sshd as the forced command of a key::

    restrict,command="/usr/bin/python3 -I -S /usr/local/lib/wellkept/receiver.py /srv/mirror" ssh-ed25519 AAAA…

OpenSSH's own server cannot do this: it can refuse to remove and to rename, but whoever may open a file for writing may
also overwrite one. Here a file is written under a name that begins with ``.incoming-`` and gets its own name by a
rename that replaces nothing; after that no request reaches it but those that read. Besides, it hashes files.
Nothing but the standard library is needed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shlex
import stat
import struct
import sys
import typing as t

INCOMING = b".incoming-"

_OK, _EOF, _NO_SUCH_FILE, _DENIED, _FAILURE, _BAD, _UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
_INIT, _VERSION, _OPEN, _CLOSE, _READ, _WRITE, _LSTAT, _FSTAT, _SETSTAT, _FSETSTAT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
_OPENDIR, _READDIR, _REMOVE, _MKDIR, _RMDIR, _REALPATH, _STAT, _RENAME, _READLINK, _SYMLINK = range(11, 21)
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED = 101, 102, 103, 104, 105, 200
_FOR_READING, _FOR_WRITING, _APPEND, _CREATE, _EXCLUSIVE = 1, 2, 4, 8, 32
_REFUSED = (_SETSTAT, _FSETSTAT, _RMDIR, _READLINK, _SYMLINK)
_MOST_BYTES, _LARGEST_PACKET, _AT_A_TIME, _MOST_HANDLES = 1 << 18, 1 << 19, 200, 1000


class DeniedError(Exception):
    """What an append-only account may not do."""


class Handle:
    """An open file, or a directory that is being listed."""

    def __init__(self, descriptor: int, entries: t.Optional[t.List[bytes]] = None) -> None:
        self.descriptor = descriptor
        self.entries = entries


class Receiver:
    """Serves one session; nothing outside *root* can be reached, and no link is followed."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._handles: t.Dict[bytes, Handle] = {}
        self._count = 0
        self._kinds: t.Dict[int, t.Callable[[bytes, "Reader"], bytes]] = {
            _OPEN: self._open, _CLOSE: self._close, _READ: self._read, _WRITE: self._write, _LSTAT: self._lstat,
            _STAT: self._lstat, _FSTAT: self._fstat, _OPENDIR: self._opendir, _READDIR: self._readdir,
            _REMOVE: self._remove, _MKDIR: self._mkdir, _REALPATH: self._realpath, _RENAME: self._rename,
            _EXTENDED: self._extended,
        }  # fmt: skip

    def serve(self, source: t.BinaryIO, target: t.BinaryIO) -> None:
        while True:
            head = source.read(4)
            if len(head) < 4:
                return
            length = struct.unpack(">I", head)[0]
            packet = source.read(length) if length <= _LARGEST_PACKET else b""
            if not packet or len(packet) < length:
                return
            answer = self.answer(packet[0], Reader(packet[1:]))
            target.write(struct.pack(">I", len(answer)) + answer)
            target.flush()

    def answer(self, kind: int, request: "Reader") -> bytes:
        if kind == _INIT:
            return bytes([_VERSION]) + struct.pack(">I", 3) + _string(b"fsync@openssh.com") + _string(b"1")
        number = request.take(4)
        try:
            if kind in _REFUSED:
                raise DeniedError
            if kind not in self._kinds:
                return _status(number, _UNSUPPORTED, "not served here")
            return self._kinds[kind](number, request)
        except DeniedError:
            return _status(number, _DENIED, "this account can only add files")
        except FileNotFoundError:
            return _status(number, _NO_SUCH_FILE, "no such file")
        except (OSError, KeyError, struct.error) as error:
            return _status(number, _FAILURE, getattr(error, "strerror", "") or "a wrong request")

    # -- what adds --

    def _open(self, number: bytes, request: "Reader") -> bytes:
        path, flags = request.string(), request.number()
        directory, name = self._parent(path)
        try:
            if flags & (_FOR_WRITING | _APPEND | _CREATE):
                wanted = _FOR_WRITING | _CREATE | _EXCLUSIVE
                if flags & wanted != wanted or not name.startswith(INCOMING):
                    raise DeniedError
                mode = os.O_RDWR | os.O_CREAT | os.O_EXCL
            else:
                mode = os.O_RDONLY | os.O_NONBLOCK
            descriptor = os.open(name, mode | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        finally:
            os.close(directory)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise DeniedError
        if mode & os.O_CREAT:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # so that nobody gives it its name while it can be written to
        return self._new_handle(number, Handle(descriptor))

    def _write(self, number: bytes, request: "Reader") -> bytes:
        handle, offset, content = self._handles[request.string()], request.long(), request.string()
        view = memoryview(content)
        while view:
            written = os.pwrite(handle.descriptor, view, offset)
            view, offset = view[written:], offset + written
        return _status(number, _OK)

    def _rename(self, number: bytes, request: "Reader") -> bytes:
        """Give what was written its name: where nothing has that name yet, and nobody can write to it any more."""
        old, new = self._parent(request.string()), self._parent(request.string())
        try:
            if not old[1].startswith(INCOMING) or new[1].startswith(INCOMING):
                raise DeniedError
            descriptor = os.open(old[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=old[0])
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.fchmod(descriptor, 0o400)
                os.fsync(descriptor)
                os.link(old[1], new[1], src_dir_fd=old[0], dst_dir_fd=new[0], follow_symlinks=False)
                os.unlink(old[1], dir_fd=old[0])
                os.fsync(new[0])
            finally:
                os.close(descriptor)
        finally:
            os.close(old[0])
            os.close(new[0])
        return _status(number, _OK)

    def _mkdir(self, number: bytes, request: "Reader") -> bytes:
        directory, name = self._parent(request.string())
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
            os.fsync(directory)
        finally:
            os.close(directory)
        return _status(number, _OK)

    def _remove(self, number: bytes, request: "Reader") -> bytes:
        """Remove what was never completed, and nothing else."""
        directory, name = self._parent(request.string())
        try:
            if not name.startswith(INCOMING) or not stat.S_ISREG(
                os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            ):
                raise DeniedError
            os.unlink(name, dir_fd=directory)
        finally:
            os.close(directory)
        return _status(number, _OK)

    def _extended(self, number: bytes, request: "Reader") -> bytes:
        if request.string() != b"fsync@openssh.com":
            raise DeniedError
        os.fsync(self._handles[request.string()].descriptor)
        return _status(number, _OK)

    # -- what reads --

    def _read(self, number: bytes, request: "Reader") -> bytes:
        handle, offset, size = self._handles[request.string()], request.long(), request.number()
        content = os.pread(handle.descriptor, min(size, _MOST_BYTES), offset)
        return bytes([_DATA]) + number + _string(content) if content else _status(number, _EOF)

    def _lstat(self, number: bytes, request: "Reader") -> bytes:
        directory, name = self._parent(request.string())
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False) if name else os.fstat(directory)
        finally:
            os.close(directory)
        return bytes([_ATTRS]) + number + _attributes(status)

    def _fstat(self, number: bytes, request: "Reader") -> bytes:
        return bytes([_ATTRS]) + number + _attributes(os.fstat(self._handles[request.string()].descriptor))

    def _opendir(self, number: bytes, request: "Reader") -> bytes:
        directory, name = self._parent(request.string())
        descriptor = directory
        if name:
            try:
                descriptor = _open_directory(name, directory)
            finally:
                os.close(directory)
        names = [os.fsencode(entry) for entry in os.listdir(descriptor)]
        return self._new_handle(number, Handle(descriptor, names))

    def _readdir(self, number: bytes, request: "Reader") -> bytes:
        handle = self._handles[request.string()]
        if handle.entries is None:
            raise DeniedError
        shown: t.List[bytes] = []
        while handle.entries and len(shown) < _AT_A_TIME:
            name = handle.entries.pop()
            try:
                status = os.stat(name, dir_fd=handle.descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue
            shown.append(_string(name) + _string(name) + _attributes(status))
        if not shown:
            return _status(number, _EOF)
        return bytes([_NAME]) + number + struct.pack(">I", len(shown)) + b"".join(shown)

    def _realpath(self, number: bytes, request: "Reader") -> bytes:
        path = b"/" + b"/".join(_parts(request.string()))
        nothing = struct.pack(">I", 0)
        return bytes([_NAME]) + number + struct.pack(">I", 1) + _string(path) + _string(path) + nothing

    def _close(self, number: bytes, request: "Reader") -> bytes:
        os.close(self._handles.pop(request.string()).descriptor)
        return _status(number, _OK)

    def hash_files(self, below: str, source: t.BinaryIO, target: t.BinaryIO) -> None:
        """Answer as ``sha256sum -z`` does, for the names in *source*, each ended by a zero byte, below *below*."""
        for name in source.read().split(b"\0"):
            if name:
                digest = self._hash(os.fsencode(below) + b"/" + name)
                if digest:
                    target.write(digest.encode() + b"  " + name + b"\0")
        target.flush()

    def _hash(self, path: bytes) -> str:
        digest = hashlib.sha256()
        try:
            directory, name = self._parent(path)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(name, flags, dir_fd=directory)
            finally:
                os.close(directory)
            with os.fdopen(descriptor, "rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    return ""
                for block in iter(lambda: stream.read(1 << 20), b""):
                    digest.update(block)
        except (OSError, DeniedError):
            return ""
        return digest.hexdigest()

    def _new_handle(self, number: bytes, handle: Handle) -> bytes:
        if len(self._handles) >= _MOST_HANDLES:
            os.close(handle.descriptor)
            raise OSError(errno.EMFILE, "too many open files")
        self._count += 1
        name = b"%d" % self._count
        self._handles[name] = handle
        return bytes([_HANDLE]) + number + _string(name)

    def _parent(self, path: bytes) -> t.Tuple[int, bytes]:
        """The directory of *path*, opened without following a link, and the name in it; b"" for the root itself."""
        parts = _parts(path)
        descriptor = os.dup(self._root)
        for part in parts[:-1]:
            try:
                deeper = _open_directory(part, descriptor)
            finally:
                os.close(descriptor)
            descriptor = deeper
        return descriptor, parts[-1] if parts else b""


class Reader:
    """Takes the fields of a request apart."""

    def __init__(self, packet: bytes) -> None:
        self._packet = packet
        self._at = 0

    def take(self, size: int) -> bytes:
        self._at += size
        if self._at > len(self._packet):
            raise struct.error
        return self._packet[self._at - size : self._at]

    def number(self) -> int:
        return int(struct.unpack(">I", self.take(4))[0])

    def long(self) -> int:
        return int(struct.unpack(">Q", self.take(8))[0])

    def string(self) -> bytes:
        return self.take(self.number())


def _parts(path: bytes) -> t.List[bytes]:
    """The names of which *path* consists; it always begins at the root, which has nothing above it."""
    found: t.List[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            del found[-1:]
        elif part not in (b"", b"."):
            found.append(part)
    return found


def _open_directory(name: bytes, parent: int) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _status(number: bytes, code: int, words: str = "") -> bytes:
    return bytes([_STATUS]) + number + struct.pack(">I", code) + _string(words.encode()) + _string(b"")


def _attributes(status: os.stat_result) -> bytes:
    """Size, owner, mode and times: flags 1, 2, 4 and 8."""
    times = (int(status.st_atime) & 0xFFFFFFFF, int(status.st_mtime) & 0xFFFFFFFF)
    return struct.pack(">IQIIIII", 15, status.st_size, status.st_uid, status.st_gid, status.st_mode, *times)


def main(arguments: t.List[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: receiver.py DIRECTORY, as the forced command of an SSH key\n")
        return 2
    os.umask(0o077)
    receiver = Receiver(arguments[0])
    command = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    source, target = sys.stdin.buffer, sys.stdout.buffer
    if command.endswith("xargs -0 -r sha256sum -z --"):
        receiver.hash_files(shlex.split(command)[2], source, target)
    elif "sftp" in command.rpartition("/")[2]:
        receiver.serve(source, target)
    else:
        sys.stderr.write("wellkept: this account can only add files, by SFTP\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
