# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of directories that are on another host: ``files`` walks them there, and sends what it finds over SSH.

Each frame of the stream is a letter, the length of what follows, and that. What arrives is hashed as it is written, and
held against what was hashed there while it was read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import typing as t

from ..errors import MaintenanceError
from ..ssh import errors, openssh
from ..ssh.login import Login
from . import files
from .database_host import login_of
from .files import Copied, Target
from .programs import guarded
from .wal.archiving import source as source_of

_WHAT = "copy files from the host of the cluster"
_ALL = r"(?s:.*)"
_LENGTH_BYTES = 8
_LONGEST_FRAME = 2 << 20

# Added to the source of ``files``, it is the program that runs there.
_SENDER = r"""

import json, re, sys

class Stream(Target):
    def __init__(self, only):
        self.out = sys.stdout.buffer
        self.only = re.compile(only)

    def wants(self, path):
        return bool(self.only.fullmatch(path))

    def send(self, letter, content):
        self.out.write(letter + len(content).to_bytes(8, "big") + content)

    def make_directory(self, path):
        self.send(b"D", os.fsencode(path))

    @contextlib.contextmanager
    def file(self, path):
        self.send(b"F", os.fsencode(path))
        yield lambda block: self.send(b"B", block)

    def forget(self, path):
        self.send(b"X", os.fsencode(path))

task, source, only = json.load(sys.stdin)
stream = Stream(only)
try:
    answer = copy_to(source, stream)._asdict() if task == "copy" else tree_bytes(source)
    stream.send(b"E", json.dumps(answer).encode())
except OSError as error:
    stream.send(b"R", json.dumps([error.errno, error.strerror, error.filename or source]).encode())
stream.out.flush()
"""


def trees_of(params: t.Mapping[str, t.Any]) -> t.Any:
    """What copies directories of the host that the cluster is on: the module ``files``, or RemoteFiles."""
    remote = login_of(params)
    return RemoteFiles(remote) if remote else files


class RemoteFiles:
    """What ``files`` offers, for directories on *remote*."""

    def __init__(self, remote: Login) -> None:
        self.remote = remote._replace(purpose=_WHAT)

    def tree_bytes(self, source: str) -> int:
        with self._asked("size", source) as frames:
            for letter, content in frames:
                if letter == b"E":
                    return int(json.loads(content))
        raise AssertionError("the stream ends by an answer, or raises")

    def copy_tree(self, source: str, target: str, only: str = _ALL) -> Copied:
        """Copy the directory *source* there to the new directory *target* here; raises OSError like the local copy.

        Of what is in it, those paths are copied that the pattern *only* matches, and their directories.
        """
        arrived = _Arrived(target)
        with contextlib.closing(arrived), self._asked("copy", source, only) as frames:
            for letter, content in frames:
                if letter == b"E":
                    copied = Copied(**json.loads(content))
                    arrived.require(copied)
                    return copied
                arrived.take(letter, content)
        raise AssertionError("the stream ends by an answer, or raises")

    @contextlib.contextmanager
    def _asked(self, task: str, source: str, only: str = _ALL) -> t.Iterator[t.Iterator[tuple[bytes, bytes]]]:
        program = source_of(files).decode() + _SENDER
        command = guarded([*openssh.command(self.remote), openssh.python_reading_program()])
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
            try:
                asking, answering = t.cast("t.IO[bytes]", process.stdin), t.cast("t.IO[bytes]", process.stdout)
                with contextlib.suppress(BrokenPipeError):  # its words say why
                    asking.write(openssh.framed(program) + json.dumps([task, source, only]).encode())
                    asking.close()
                yield self._frames(answering, said)
            finally:
                process.kill()
                process.wait()

    def _frames(self, stream: t.IO[bytes], said: t.IO[bytes]) -> t.Iterator[tuple[bytes, bytes]]:
        while True:
            letter, length = stream.read(1), stream.read(_LENGTH_BYTES)
            size = int.from_bytes(length, "big")
            if letter != b"E" and size > _LONGEST_FRAME:
                raise _wrong(f"a frame of {size} bytes; does a login script there write something?")
            content = stream.read(size) if len(length) == _LENGTH_BYTES else b""
            if len(length) < _LENGTH_BYTES or len(content) < size:
                said.seek(0)
                words = said.read().decode(errors="replace")
                raise errors.from_openssh(self.remote, words or "the connection was lost")
            if letter == b"R":
                number, words, name = json.loads(content)
                raise OSError(number, words, f"{self.remote.host}:{name}")
            yield letter, content


class _Arrived(Target):
    """What has come so far."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self.hashes: dict[str, tuple[int, str]] = {}
        self._open = contextlib.ExitStack()
        self._path = ""
        self._size = 0
        self._digest = hashlib.sha256()
        self._write: t.Callable[[bytes], t.Any] | None = None

    def take(self, letter: bytes, content: bytes) -> None:
        if letter == b"B" and self._write:
            self._write(content)
            self._digest.update(content)
            self._size += len(content)
            return
        self._finish()
        path = _inside(os.fsdecode(content))
        if letter == b"D":
            self.make_directory(path)
        elif letter == b"F":
            self._path, self._size, self._digest = path, 0, hashlib.sha256()
            self._write = self._open.enter_context(self.file(path))
        elif letter == b"X":
            self.forget(path)
            self.hashes.pop(path, None)
        else:
            raise _wrong(f"a frame {letter!r} that nobody knows")

    def require(self, copied: Copied) -> None:
        """Raise MaintenanceError unless what came is what was sent."""
        self._finish()
        sent = {e["path"]: (e["bytes"], e["sha256"]) for e in copied.entries if e["kind"] == "file"}
        if sent != self.hashes:
            differing = sorted(path for path in {*sent, *self.hashes} if sent.get(path) != self.hashes.get(path))
            raise _wrong(f"{len(differing)} files with another SHA-256 than was sent, {differing[0]!r} for one")

    def close(self) -> None:
        self._open.close()

    def _finish(self) -> None:
        self.close()
        if self._write:
            self.hashes[self._path] = self._size, self._digest.hexdigest()
        self._write = None


def _inside(path: str) -> str:
    """The relative *path*; raises MaintenanceError where it would lead out of the copy."""
    if path.startswith("/") or ".." in path.split("/"):
        raise _wrong(f"the path {path[:200]!r}, which leads elsewhere")
    return path


def _wrong(what: str) -> MaintenanceError:
    return MaintenanceError(
        _WHAT,
        expected="what was read there, byte for byte",
        observed=what,
        advice="Nothing of it was kept. Look at the memory of both hosts, and at who can change python3 there.",
    )
