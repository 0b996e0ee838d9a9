# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read what was added to logs since the last time: through rotation, compression, truncation and reused inodes."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import importlib
import os
import re
import stat
import typing as t

BLOCK = 1 << 20
HEAD = 1024
SAMPLES = 3
MAX_SIBLINGS = 200
# To find all files as they are between two rotations.
ATTEMPTS = 10
SAMPLE_BYTES = 2000
_DECOMPRESSORS = {".gz": "gzip", ".xz": "lzma", ".bz2": "bz2"}
_COMPRESSED = (*_DECOMPRESSORS, ".zst", ".lz4", ".lzo", ".Z", ".zip")


class Position(t.NamedTuple):
    """How far a file was read. The hash of its first bytes tells it from another that got its inode or its name.

    ``log`` is the path that the log has while it is written to.
    """

    log: str
    device: int
    inode: int
    offset: int
    head_bytes: int
    head: str


class Finding(t.NamedTuple):
    """What was found in the new lines; ``gaps`` says what could not be read, and why."""

    matching: int
    samples: list[t.Any]
    bytes_read: int
    files: int
    first_run: bool
    gaps: list[str]
    positions: list[t.Any]


class File:
    """An open log; of a compressed one, its content."""

    def __init__(self, path: str) -> None:
        self.path = path
        descriptor = _open_safely(path)
        status = os.fstat(descriptor)
        self.device, self.inode, self.modified = status.st_dev, status.st_ino, status.st_mtime_ns
        raw = os.fdopen(descriptor, "rb", buffering=0)
        kind = _DECOMPRESSORS.get(os.path.splitext(path)[1])
        self.content: t.Any = importlib.import_module(kind).open(raw) if kind else raw
        self._raw = raw
        self.size: int | None = None if kind else status.st_size

    def close(self) -> None:
        self.content.close()
        self._raw.close()

    def head(self, length: int) -> tuple[int, str]:
        """Length and hash of the first *length* bytes, or of as many as there are."""
        self.content.seek(0)
        begin = self.content.read(length) if length else b""
        return len(begin), hashlib.sha256(begin).hexdigest()

    def begins_like(self, position: Position) -> bool:
        """Whether this is the content that *position* is in: as long, and with the same beginning."""
        if self.size is not None and self.size < position.offset:
            return False
        try:
            return self.head(position.head_bytes) == (position.head_bytes, position.head)
        except (OSError, EOFError, ValueError):  # a compressed file that is still being written
            return False

    def is_at(self, position: Position) -> bool:
        return (self.device, self.inode) == (position.device, position.inode) and self.begins_like(position)


class _Shelf:
    """The files that were opened, by names that a rotation may change at any time."""

    def __init__(self) -> None:
        self._files: list[File] = []

    def open(self, path: str) -> File:
        file = File(path)
        self._files.append(file)
        return file

    def rotated(self) -> bool:
        """Whether one of the files goes by another name now, so that one may have been opened twice or not at all."""
        return any(not _is_still(file) for file in self._files)

    def close(self) -> None:
        while self._files:
            self._files.pop().close()


def _is_still(file: File) -> bool:
    try:
        status = os.stat(file.path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) == (file.device, file.inode)


class _Piece(t.NamedTuple):
    file: File
    log: str
    start: int
    live: bool


def _open_safely(path: str) -> int:
    """Open the regular file *path*; a link only if it is root's or our own, so that nobody can show us another file."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        if os.lstat(path).st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "it is a link that another user made", path) from None
        descriptor = os.open(os.path.realpath(path), flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", path)
    return descriptor


def read_new_lines(
    pattern_of_paths: str,
    pattern: re.Pattern[bytes],
    old: t.Sequence[Position] | None,
    first_run_bytes: int,
    out_of_time: t.Callable[[], bool],
) -> Finding:
    """Count the lines that match *pattern* in the logs *pattern_of_paths*, from the positions *old* to their ends.

    Without *old* (the first run) only the last *first_run_bytes* of each log are read.
    """
    with contextlib.closing(_Shelf()) as shelf:
        for _attempt in range(ATTEMPTS):
            shelf.close()
            gaps: list[str] = []
            live = _open_all(sorted(glob.glob(pattern_of_paths)), gaps, shelf)
            pieces = _plan(live, old, first_run_bytes, gaps, shelf)
            if not shelf.rotated():
                break
        else:
            gaps.append(f"{pattern_of_paths}: rotated again and again while it was opened")
        if not live and not pieces and not gaps:
            gaps.append(f"no file matches {pattern_of_paths}")
        count, bytes_read, samples, positions = 0, 0, [], []
        for piece in pieces:
            lines = _Lines(pattern)
            end, finished = lines.read(piece.file.content, piece.start, not piece.live, out_of_time)
            count += lines.count
            samples += lines.samples
            bytes_read += end - piece.start
            if not finished:
                gaps.append(f"{piece.file.path} from byte {end} on (no time; the next run goes on there)")
            if piece.live or not finished:
                positions.append(_position(piece, end))
        return Finding(count, samples[-SAMPLES:], bytes_read, len(pieces), old is None, gaps, positions)


def _open_all(paths: t.Sequence[str], gaps: list[str], shelf: _Shelf) -> list[File]:
    """Those of *paths* that are logs; the others are gaps, except compressed ones, which nobody writes to any more."""
    files = []
    for path in paths:
        if path.endswith(_COMPRESSED) or os.path.isdir(path):
            continue
        try:
            files.append(shelf.open(path))
        except FileNotFoundError:
            continue
        except OSError as error:
            gaps.append(f"{path}: {error.strerror}")
    return files


def _plan(
    live: t.Sequence[File],
    old: t.Sequence[Position] | None,
    first_run_bytes: int,
    gaps: list[str],
    shelf: _Shelf,
) -> list[_Piece]:
    """What is to be read, from where on: the rests of rotated files first."""
    if old is None:
        return [_Piece(file, file.path, _line_start(file, (file.size or 0) - first_run_bytes), True) for file in live]
    starts: dict[str, int] = {}
    logs = {file.path: file.path for file in live}
    lost = []
    for position in old:
        file = next((file for file in live if file.path not in starts and file.is_at(position)), None)
        if file is None:
            lost.append(position)
        else:
            starts[file.path] = position.offset
    rotated: dict[str, _Piece] = {}
    for position in lost:
        for piece in _follow(position, live, gaps, shelf):
            if piece.file.path in logs:
                starts.setdefault(piece.file.path, piece.start)
            else:
                rotated.setdefault(piece.file.path, piece)
    return [*rotated.values(), *(_Piece(file, file.path, starts.get(file.path, 0), True) for file in live)]


def _follow(position: Position, live: t.Sequence[File], gaps: list[str], shelf: _Shelf) -> list[_Piece]:
    """The file that *position* is in under its new name, or a copy of it, and those rotated after it."""
    siblings = _siblings(position.log, shelf)
    found = next((file for file in siblings if file.is_at(position)), None)
    if found is None and position.head_bytes:
        # Renaming keeps the inode; copying and compressing do not, but they keep the content.
        others = [file for file in siblings if file.path != position.log]
        same_name = [file for file in siblings if file.path == position.log]
        found = next((file for file in [*others, *same_name] if file.begins_like(position)), None)
    if found is None:
        gaps.append(f"what was added to {position.log} before it was replaced (the rotated file is not beside it)")
        return []
    names = {file.path for file in live} | {position.log}
    later = [file for file in siblings if file.modified > found.modified and file.path not in names]
    later.sort(key=lambda file: file.modified)
    return [_Piece(found, position.log, position.offset, False), *(_Piece(f, position.log, 0, False) for f in later)]


def _siblings(log: str, shelf: _Shelf) -> list[File]:
    """The log and the files beside it that by their names are rotated from it, newest first.

    ``app.log`` → ``app.log.1``, ``app.log-20261121.gz``, ``app-20261121.log``
    """
    directory, name = os.path.split(log)
    stem, extension = os.path.splitext(name)
    packed = "|".join(re.escape(ending) for ending in _DECOMPRESSORS)
    names = re.compile(
        rf"{re.escape(name)}([-._](\d[\w.:-]*|old|bak)({packed})?)?"
        rf"|{re.escape(stem)}[-._]\d[\w.:-]*{re.escape(extension)}({packed})?"
    )
    entries = [entry for entry in os.scandir(directory or ".") if names.fullmatch(entry.name)]
    files = []
    for entry in sorted(entries, key=_modified, reverse=True)[:MAX_SIBLINGS]:
        known = not entry.name.endswith(_COMPRESSED) or entry.name.endswith(tuple(_DECOMPRESSORS))
        if known and entry.is_file(follow_symlinks=entry.name == name):
            with contextlib.suppress(OSError):
                files.append(shelf.open(os.path.join(directory, entry.name)))
    return files


def _modified(entry: os.DirEntry[str]) -> int:
    try:
        return int(entry.stat(follow_symlinks=False).st_mtime_ns)
    except OSError:
        return 0


def _line_start(file: File, wanted: int) -> int:
    """The first beginning of a line at or after *wanted*; *wanted* itself if there is none near."""
    if wanted <= 0:
        return 0
    file.content.seek(wanted - 1)
    end_of_line: int = file.content.read(BLOCK).find(b"\n")
    return wanted + max(end_of_line, 0)


def _position(piece: _Piece, end: int) -> Position:
    file = piece.file
    length, digest = file.head(HEAD)
    return Position(piece.log, file.device, file.inode, end, length, digest)


class _Lines:
    """Counts the lines that match, block by block, in bounded memory."""

    def __init__(self, pattern: re.Pattern[bytes]) -> None:
        self._pattern = pattern
        self.count = 0
        self.samples: list[bytes] = []

    def read(self, content: t.Any, start: int, take_last: bool, out_of_time: t.Callable[[], bool]) -> tuple[int, bool]:
        """Read *content* from *start*; return where the next reading starts, and whether the end was reached.

        A last line without its end is left for the next time, unless nothing more will come (*take_last*).
        """
        content.seek(start)
        offset, rest = start, b""
        while not out_of_time():
            block = content.read(BLOCK)
            if not block:
                if take_last:
                    self._add(rest)
                    offset += len(rest)
                return offset, True
            data = rest + block
            end = data.rfind(b"\n") + 1
            if not end and len(data) >= BLOCK:
                end = len(data)  # a line longer than a block (or a hole full of zeros) is taken in pieces
            self._add(data[:end])
            offset += end
            rest = data[end:]
        return offset, False

    def _add(self, data: bytes) -> None:
        position = 0
        while True:
            match = self._pattern.search(data, position)
            if match is None or match.start() >= len(data):
                return
            begin = data.rfind(b"\n", 0, match.start()) + 1
            end = data.find(b"\n", match.start())
            end = len(data) if end < 0 else end
            line = data[begin:end]
            # A match that needs the next line too is none.
            if match.end() <= end or self._pattern.search(line):
                self.count += 1
                if self.count <= SAMPLES:
                    self.samples.append(line[:SAMPLE_BYTES])
            position = end + 1
