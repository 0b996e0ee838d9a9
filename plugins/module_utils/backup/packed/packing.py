# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write a base as compressed archives: a stream of files is cut into parts of about half a gibibyte.

Each part is a tar archive that anybody can unpack (``zstd -dc base/*.tar.zst | tar -x --ignore-zeros``), compressed by
a program beside us, and its SHA-256 is taken of what came out of that program, not read back. Parts, not one archive:
so they are unpacked and verified by several at a time, and what is damaged is known to the part.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import typing as t

from ...errors import MaintenanceError
from ..contents import BASE_MANIFEST
from ..programs import Written, guarded, new_file, program_failed
from .compression import Compression, packer

PART_BYTES = 512 << 20
_CHUNK = 1 << 20
_WHAT = "compress the base backup"
_MANIFEST = os.path.basename(BASE_MANIFEST)


class Archive(t.NamedTuple):
    """A part of the base: its path in the backup, what was written, what is in it, and how much that is unpacked."""

    path: str
    written: Written
    members: list[str]
    bytes: int


class Packed(t.NamedTuple):
    """A base in archives; its directories are none of theirs."""

    archives: list[Archive]
    directories: list[str]
    directory_mode: int


class _Compressor:
    """The program that writes one archive."""

    def __init__(self, command: t.Sequence[str], path: str) -> None:
        self.path = path
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed in finish()
        self._process = subprocess.Popen(
            guarded(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "LC_ALL": "C"},
        )
        self._stdin = t.cast(io.BufferedWriter, self._process.stdin)
        self._digest = hashlib.sha256()
        self._size = 0
        self._error: BaseException | None = None
        self._writer = threading.Thread(target=self._write, name=f"write {os.path.basename(path)}")
        self._writer.start()

    def _write(self) -> None:
        """What comes out of the program, hashed on its way to the disk."""
        output = t.cast(io.BufferedReader, self._process.stdout)
        try:
            with new_file(self.path) as stream:
                for block in iter(lambda: output.read1(_CHUNK), b""):
                    self._digest.update(block)
                    stream.write(block)
                    self._size += len(block)
        except BaseException as error:
            self._error = error
            self._process.kill()

    def write(self, block: bytes) -> None:
        try:
            self._stdin.write(block)
        except BrokenPipeError:
            self.finish()
            raise program_failed(_WHAT, 0, "it ended before its input did") from None

    def end_input(self) -> None:
        """Nothing more comes: let it finish while we do something else."""
        with contextlib.suppress(BrokenPipeError):  # it has failed, and finish() tells why
            self._stdin.close()

    def finish(self) -> Written:
        """Wait for its end; raises MaintenanceError when it failed, and the OSError of a full disk."""
        try:
            self.end_input()
            self._writer.join()
            status = self._process.wait()
            self._said.seek(0)
            said = self._said.read().decode(errors="replace")
        finally:
            self.kill()
        if self._error:
            raise self._error
        if status != 0:
            raise program_failed(_WHAT, status, said)
        return Written(self._digest.hexdigest(), self._size)

    def kill(self) -> None:
        """End it if it still runs, and free what is ours."""
        self._process.kill()
        self._process.wait()
        self.end_input()
        self._writer.join()
        t.cast(io.BufferedReader, self._process.stdout).close()
        self._said.close()


class _Part:
    """An archive that is being written."""

    def __init__(self, path: str, compressor: _Compressor) -> None:
        self.path = path
        self.compressor = compressor
        self.members: list[str] = []
        self.bytes = 0

    def add(self, member: tarfile.TarInfo, content: t.IO[bytes]) -> None:
        self.compressor.write(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        left = member.size
        while left:
            block = content.read(min(left, _CHUNK))
            if not block:
                raise tarfile.ReadError(f"{member.name} ends {left} bytes early")
            self.compressor.write(block)
            left -= len(block)
        self.compressor.write(bytes(-member.size % tarfile.BLOCKSIZE))
        self.members.append(member.name)
        self.bytes += member.size

    def end_input(self) -> None:
        self.compressor.write(bytes(2 * tarfile.BLOCKSIZE))
        self.compressor.end_input()

    def finish(self) -> Archive:
        return Archive(self.path, self.compressor.finish(), self.members, self.bytes)


class Packing:
    """The archives of one base, in the making; to be used as a context."""

    def __init__(self, backup: str, compression: Compression, jobs: int) -> None:
        self._backup = backup
        self._suffix = f".tar{compression.suffix}"
        self._command = packer(compression, jobs)
        self._part: _Part | None = None
        # The one before, whose program may still have to compress the last of it.
        self._ending: _Part | None = None
        self._archives: list[Archive] = []
        self.directories: list[str] = []
        self.directory_mode = 0o700

    def __enter__(self) -> Packing:
        os.mkdir(os.path.join(self._backup, "base"), 0o700)
        return self

    def __exit__(self, *_error: object) -> None:
        for part in (self._part, self._ending):
            if part:
                part.compressor.kill()

    def add(self, member: tarfile.TarInfo, content: t.IO[bytes] | None) -> None:
        """Take the next of the base: a directory, a file, or the manifest, which stays as it is."""
        if member.isdir():
            self.directories.append(member.name)
            self.directory_mode = member.mode & 0o777
        elif member.isreg() and content:
            if member.name == _MANIFEST:
                with new_file(os.path.join(self._backup, BASE_MANIFEST)) as stream:
                    shutil.copyfileobj(content, stream, _CHUNK)
                return
            self._current().add(member, content)
        else:
            raise MaintenanceError(
                _WHAT,
                where=member.name,
                expected="files and directories alone",
                observed=f"an entry of the type {member.type!r}",
                advice="Move what is linked into the data directory, or set compression to none.",
            )

    def _current(self) -> _Part:
        if self._part and self._part.bytes >= PART_BYTES:
            self._turn()
        if not self._part:
            number = len(self._archives) + bool(self._ending)
            path = f"base/{number:04}{self._suffix}"
            self._part = _Part(path, _Compressor(self._command, os.path.join(self._backup, path)))
        return self._part

    def _turn(self) -> None:
        """Let the program of this part come to its end while the next one begins."""
        if self._part:
            self._part.end_input()
        if self._ending:
            self._archives.append(self._ending.finish())
        self._ending, self._part = self._part, None

    def finish(self) -> Packed:
        """Wait until all is written."""
        while self._part or self._ending:
            self._turn()
        return Packed(self._archives, self.directories, self.directory_mode)
