# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What PostgreSQL runs for each WAL segment: it keeps one in an archive, or fetches one from there.

Installed on the host as a file of its own, and run by the server's user:
``archive <archive> <compression> <path> <name>``, and ``fetch <identifier> <name> <path> <directory> ...``.
So it needs nothing but the standard library, and little of that: it is started anew for every segment.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import time
import zlib

SUFFIXES = {"none": "", "gzip": ".gz", "lz4": ".lz4", "zstd": ".zst"}
INCOMING = "incoming"

# What fetch ends with where a file is there but wrong: the server then stops, instead of taking it for the end of WAL.
STOP_RECOVERY = 126

_PROGRAMS = {"lz4": ("lz4", "-1"), "zstd": ("zstd", "-1")}
_CHUNK = 1 << 20
_GZIP = 31  # zlib's way to say: with the header and the checksum of gzip
_HEX = frozenset("0123456789ABCDEF")

# The first page of a segment: magic, flags, timeline, position, …, system identifier, size of a segment, of a page.
_HEADER = struct.Struct("=HHIQI4xQII")
_LONG_HEADER = 0x0002


class RefusedError(Exception):
    """Told to the server's log; PostgreSQL keeps the segment and tries again."""


def is_segment(name: str) -> bool:
    return len(name) == 24 and _HEX.issuperset(name)


def is_archived_name(name: str) -> bool:
    """A segment, what there was of one when a timeline ended, a backup's label, or a timeline's history."""
    stem, _dot, rest = name.partition(".")
    if rest == "history":
        return len(stem) == 8 and _HEX.issuperset(stem)
    offset, _dot, kind = rest.partition(".")
    return is_segment(stem) and (
        rest in ("", "partial") or (kind == "backup" and len(offset) == 8 and _HEX.issuperset(offset))
    )


def segment_problem(first_page: bytes, size: int, name: str, identifier: str) -> str:
    """Why this is not the segment *name*, whole, of the cluster *identifier* (any, when empty); else ""."""
    if len(first_page) < _HEADER.size:
        return "has %d bytes only" % size
    _magic, flags, timeline, position, _rest, cluster, segment_bytes, _page = _HEADER.unpack_from(first_page)
    valid_size = segment_bytes >= 1 << 20 and segment_bytes & (segment_bytes - 1) == 0
    if not flags & _LONG_HEADER or not valid_size:
        return "does not begin like a WAL segment"
    if identifier and str(cluster) != identifier:
        return "is of the cluster %d, not of %s" % (cluster, identifier)
    number = int(name[8:16], 16) * (0x100000000 // segment_bytes) + int(name[16:24], 16)
    if position != number * segment_bytes or timeline > int(name[:8], 16):
        return "has the content of another segment"
    if size != segment_bytes:
        return "has %d bytes instead of %d" % (size, segment_bytes)
    return ""


def open_directory(path: str, parent: int | None = None) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def open_plain(path: str, parent: int | None = None) -> int:
    """The plain file *path* for reading; raises OSError where it is a link, RefusedError where it is anything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError("%s is no plain file" % path)
    return descriptor


def read_all(descriptor: int) -> bytes:
    blocks: list[bytes] = []
    while True:
        block = os.read(descriptor, _CHUNK)
        if not block:
            return b"".join(blocks)
        blocks.append(block)


def write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def pack(content: bytes, compression: str, target: int) -> None:
    """Write *content*, compressed, to the open file *target*."""
    if compression == "none":
        write_all(target, content)
    elif compression == "gzip":
        packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
        write_all(target, packer.compress(content))
        write_all(target, packer.flush())
    else:
        _filter([*_PROGRAMS[compression], "-q", "-c"], content, target)


def unpack(descriptor: int, compression: str) -> bytes:
    """The content of the open file *descriptor*; raises RefusedError where it cannot be decompressed to its end."""
    if compression == "none":
        return read_all(descriptor)
    if compression == "gzip":
        unpacker = zlib.decompressobj(_GZIP)
        try:
            content = unpacker.decompress(read_all(descriptor))
        except zlib.error as error:
            raise RefusedError("cannot be decompressed: %s" % error) from None
        if not unpacker.eof or unpacker.unused_data:
            raise RefusedError("cannot be decompressed: it is cut short, or goes on after its end")
        return content
    return _filter([_PROGRAMS[compression][0], "-q", "-d", "-c"], None, descriptor)


def _filter(command: list[str], content: bytes | None, descriptor: int) -> bytes:
    """Run *command*: from *content* to *descriptor*, or, without content, from *descriptor* to what is returned."""
    inner, outer = os.pipe()
    ours, theirs = (outer, inner) if content is not None else (inner, outer)
    plug = (0, 1) if content is not None else (1, 0)
    actions = [(os.POSIX_SPAWN_DUP2, theirs, plug[0]), (os.POSIX_SPAWN_DUP2, descriptor, plug[1])]
    try:
        process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    except OSError as error:
        os.close(ours)
        raise RefusedError("%s: %s; install it" % (command[0], error.strerror)) from None
    finally:
        os.close(theirs)
    output = b""
    try:
        if content is None:
            output = read_all(ours)
        else:
            write_all(ours, content)
    except BrokenPipeError:
        pass  # its status says why
    finally:
        os.close(ours)
        _process, status = os.waitpid(process, 0)
    if status != 0:
        raise RefusedError("%s ended with %d: full disk, or damaged file" % (command[0], status))
    return output


def archive(directory: str, compression: str, path: str, name: str) -> str:
    """Keep the file *path* as *name* in the archive *directory*; returns when it is there for good."""
    source = open_plain(path)
    content = read_all(source)
    os.close(source)
    return archive_content(directory, compression, content, name, path)


def archive_content(directory: str, compression: str, content: bytes, name: str, path: str) -> str:
    """Keep *content*, which is that of *path*, as *name*: see :func:`archive`."""
    if not is_archived_name(name) or compression not in SUFFIXES:
        raise RefusedError("%s by %s: not a name or a compression that is known" % (name, compression))
    segment = is_segment(name[:24])
    identifier = os.path.basename(os.path.abspath(directory))
    if segment and not name.endswith(".backup"):
        problem = segment_problem(content[:64], len(content), name[:24], identifier)
        if problem:
            raise RefusedError("%s %s; it was not archived" % (path, problem))
    top = _own_directory(directory)
    timeline = _own_directory(name[:8], top)
    incoming = _own_directory(INCOMING, top)
    return _keep(timeline, incoming, name, compression if segment and "." not in name else "none", content)


def _own_directory(path: str, parent: int | None = None) -> int:
    """The directory *path*, made inside *parent* where it is missing; nobody but us may write to it."""
    if parent is not None:
        try:
            os.mkdir(path, 0o700, dir_fd=parent)
            os.fsync(parent)
        except FileExistsError:
            pass
    descriptor = open_directory(path, parent)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise RefusedError("%s must belong to uid %d, and to nobody else to write" % (path, os.geteuid()))
    return descriptor


def _keep(timeline: int, incoming: int, name: str, compression: str, content: bytes) -> str:
    """Write it under a name of its own, and rename it when it is complete.

    Who writes holds a lock on that file; so no other can rename in between, and what a killed process left is
    overwritten by the next try.
    """
    while True:
        if _is_there(timeline, name, content):
            return "was there already"
        temporary = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=incoming)
        try:
            fcntl.flock(temporary, fcntl.LOCK_EX)
            if not _still_named(temporary, name, incoming):
                continue  # another process has just archived it
            if _is_there(timeline, name, content):
                os.unlink(name, dir_fd=incoming)
                return "was there already"
            _write(temporary, compression, content)
            os.rename(name, name + SUFFIXES[compression], src_dir_fd=incoming, dst_dir_fd=timeline)
            os.fsync(timeline)
            return "archived"
        finally:
            os.close(temporary)


def _still_named(descriptor: int, name: str, directory: int) -> bool:
    try:
        named, opened = os.stat(name, dir_fd=directory, follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(opened.st_mode) or opened.st_nlink > 1:
        raise RefusedError("%s/%s is no plain file of our own" % (INCOMING, name))
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _write(descriptor: int, compression: str, content: bytes) -> None:
    os.ftruncate(descriptor, 0)
    pack(content, compression, descriptor)
    # Read back while the server still has the segment.
    os.lseek(descriptor, 0, os.SEEK_SET)
    if unpack(descriptor, compression) != content:
        raise RefusedError("what was written is not what was to be written")
    os.fsync(descriptor)


def _is_there(timeline: int, name: str, content: bytes) -> bool:
    """Whether the same content is archived already; raises RefusedError where another is."""
    for compression, suffix in SUFFIXES.items():
        try:
            descriptor = open_plain(name + suffix, timeline)
        except FileNotFoundError:
            continue
        try:
            if unpack(descriptor, compression) != content:
                raise RefusedError(
                    "the archive holds another content under the name %s already; nothing was overwritten. "
                    "Is a second cluster archiving here?" % name
                )
            # It may have been renamed by a process that died before this.
            os.fsync(descriptor)
            os.fsync(timeline)
        finally:
            os.close(descriptor)
        return True
    return False


def fetch(name: str, path: str, directories: list[str], identifier: str = "") -> str:
    """Copy the file *name* from the first of *directories* that holds a sound one to *path*; returns from where."""
    found, content = find(name, directories, identifier)
    place(path, content)
    return found


def find(name: str, directories: list[str], identifier: str = "") -> tuple[str, bytes]:
    """The path and the content of the file *name* in the first of *directories* that holds a sound one.

    Raises FileNotFoundError when none has it, RefusedError when what is there is not it.
    """
    if not is_archived_name(name):
        raise RefusedError("%s is no name of WAL" % name)
    problems = []
    for directory in directories:
        for parent in (os.path.join(directory, name[:8]), directory):
            for compression, suffix in SUFFIXES.items():
                found = os.path.join(parent, name + suffix)
                try:
                    return found, read_file(found, name, compression, identifier)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                except (RefusedError, OSError) as error:
                    problems.append("%s %s" % (found, error))
    if problems:
        raise RefusedError("; ".join(problems))
    raise FileNotFoundError(name)


def read_file(path: str, name: str, compression: str, identifier: str) -> bytes:
    """The content of the archived file *path*; raises RefusedError where it is not the file *name*."""
    descriptor = open_plain(path)
    try:
        content = unpack(descriptor, compression)
    finally:
        os.close(descriptor)
    problem = segment_problem(content[:64], len(content), name, identifier) if is_segment(name) else ""
    if problem:
        raise RefusedError(problem)
    return content


def place(path: str, content: bytes) -> None:
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        write_all(target, content)
    finally:
        os.close(target)


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    try:
        if len(arguments) == 5 and arguments[0] == "archive":
            archive(*arguments[1:])
            return 0
        if len(arguments) > 4 and arguments[0] == "fetch":
            identifier, name, path = arguments[1:4]
            found = fetch(name, path, arguments[4:], identifier)
            say("fetched %s in %.4f s" % (found, time.monotonic() - began))
            return 0
    except FileNotFoundError as error:
        if arguments[0] == "fetch" and error.filename is None:
            return 1  # how recovery learns that there is no more
        say("%s: %s" % (error.filename, error.strerror))
        return 1
    except OSError as error:
        say("%s: %s" % (error.filename or arguments[-1], error.strerror or error))
        return 1 if arguments[0] == "archive" else STOP_RECOVERY
    except RefusedError as error:
        say(str(error))
        return 1 if arguments[0] == "archive" else STOP_RECOVERY
    say("archive <archive> <compression> <path> <name>, or fetch <identifier> <name> <path> <directory> ...")
    return 1


def say(words: str) -> None:
    sys.stderr.write("wellkept: %s\n" % words)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
