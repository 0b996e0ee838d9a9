# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The logs as they are on disk: those that policies name, their rotated siblings, and those that nothing covers."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import os
import pathlib
import re
import stat
import typing as t
import zlib

from .config import Policy, as_glob, patterns_of

_ARCHIVE = re.compile(r"(.+)\.(\d+)(\.gz)?", re.DOTALL)
_TABOO = re.compile(r".*(?:\.rpm(?:orig|save|new)|\.dpkg-\S+|\.bak|\.disabled|\.cfsaved|\.ucf-\S+|,v|~)")
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Archive:
    """A rotated sibling of a log: ``access.log.2.gz`` has number 2."""

    path: str
    number: int
    compressed: bool
    inode: int
    device: int
    size: int
    mtime: float
    ctime: float


@dataclasses.dataclass(frozen=True)
class LogFile:
    """A live log; ``archives`` are its rotated siblings, newest first."""

    path: str
    inode: int
    device: int
    size: int
    mtime: float
    owner: int
    links: int
    is_link: bool
    archives: tuple[Archive, ...] = ()


Logs = t.Dict[str, t.List[LogFile]]


def survey(policies: t.Sequence[Policy]) -> Logs:
    """The live logs that each policy names, by the policy's name."""
    siblings = Siblings()
    return {policy.name: _matching(policy, siblings) for policy in policies}


class Siblings:
    """The rotated files of logs; each directory is read once."""

    def __init__(self) -> None:
        self._directories: dict[str, dict[str, list[Archive]]] = {}

    def of(self, path: str) -> tuple[Archive, ...]:
        directory, name = os.path.split(path)
        if directory not in self._directories:
            self._directories[directory] = self._read(directory)
        return tuple(sorted(self._directories[directory].get(name, ()), key=lambda archive: archive.number))

    @staticmethod
    def _read(directory: str) -> dict[str, list[Archive]]:
        found: dict[str, list[Archive]] = {}
        with os.scandir(directory) as entries:
            for entry in entries:
                match = _ARCHIVE.fullmatch(entry.name)
                if not match or not entry.is_file(follow_symlinks=False):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                archive = Archive(
                    entry.path, int(match.group(2)), bool(match.group(3)), status.st_ino, status.st_dev, status.st_size,
                    status.st_mtime, status.st_ctime,
                )  # fmt: skip
                found.setdefault(match.group(1), []).append(archive)
        return found


def rotated_again(policy: Policy, files: t.Sequence[LogFile]) -> list[str]:
    """Rotated files that *policy* itself names as logs, so that they are rotated on and on (``app.log.1.1.1``)."""
    paths = {file.path for file in files}
    matched = ((path, _ARCHIVE.fullmatch(path)) for path in sorted(paths))
    return [path for path, match in matched if match and match.group(1) in paths]


def named_twice(logs: Logs) -> dict[str, list[str]]:
    """Logs that more than one policy names, with the policies' names."""
    owners: dict[str, list[str]] = {}
    for name, files in logs.items():
        for file in files:
            owners.setdefault(file.path, []).append(name)
    return {path: names for path, names in owners.items() if len(names) > 1}


def fault_of_gzip(path: str) -> tuple[str, int]:
    """What is wrong with the gzip file *path* (empty: nothing, its checksum holds) and how many bytes it holds."""
    size = 0
    decompressor = zlib.decompressobj(wbits=31)
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        try:
            for block in iter(lambda: stream.read(_CHUNK), b""):
                data = block
                while data and not decompressor.eof:
                    size += len(decompressor.decompress(data, _CHUNK))
                    data = decompressor.unconsumed_tail
        except zlib.error as error:
            return str(error), size
    return ("" if decompressor.eof else "it ends too early"), size


class SystemRules(t.NamedTuple):
    """What the distribution's logrotate covers: the patterns it names, and the files that could not be read."""

    patterns: list[str]
    unreadable: list[str]


def system_rules(path: str) -> SystemRules:
    """The patterns that the logrotate configuration *path* and what it includes name."""
    rules = SystemRules([], [])
    if path and os.path.exists(path):
        _collect(path, rules, depth=0)
    return rules


def covered_by(patterns: t.Iterable[str]) -> set[str]:
    """The paths of existing files that *patterns* name."""
    return {path for pattern in patterns for path in glob.glob(as_glob(pattern))}


def logs_below(root: str, names: t.Sequence[str], ignore: t.Sequence[str], refused: list[str]) -> t.Iterator[LogFile]:
    """Regular files below *root* that are logs by their name; links are not followed.

    *ignore* are patterns of whole paths in which ``*`` crosses slashes; a directory that matches is not entered.
    Directories that we may not list are added to *refused*.
    """
    wanted = _any_of(names)
    ignored = _any_of(ignore)
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError:
            refused.append(directory)
            continue
        for entry in entries:
            if ignored.match(entry.path):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif wanted.match(entry.name) and entry.is_file(follow_symlinks=False):
                file = look(entry.path)
                if file:
                    yield file


def _any_of(patterns: t.Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)")


def look(path: str, siblings: Siblings | None = None) -> LogFile | None:
    """The log *path* as it is now; None when there is no such file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    is_link = stat.S_ISLNK(status.st_mode)
    if not is_link and not stat.S_ISREG(status.st_mode):
        return None
    archives = siblings.of(path) if siblings else ()
    return LogFile(
        path, status.st_ino, status.st_dev, status.st_size, status.st_mtime, status.st_uid, status.st_nlink, is_link,
        archives,
    )  # fmt: skip


def _matching(policy: Policy, siblings: Siblings) -> list[LogFile]:
    paths = sorted({path for pattern in policy.paths for path in glob.glob(as_glob(pattern))})
    return [file for file in (look(path, siblings) for path in paths) if file]


def _collect(path: str, rules: SystemRules, depth: int) -> None:
    try:
        if os.path.isdir(path):
            names = sorted(name for name in os.listdir(path) if not _TABOO.fullmatch(name))
            for name in names:
                inside = os.path.join(path, name)
                if os.path.isfile(inside):
                    _collect(inside, rules, depth)
            return
        with pathlib.Path(path).open(encoding="utf-8", errors="surrogateescape") as stream:
            text = stream.read()
    except OSError:
        rules.unreadable.append(path)
        return
    rules.patterns.extend(patterns_of(text))
    if depth < 3:
        for included in re.findall(r"^\s*include\s+(\S+)", text, flags=re.MULTILINE):
            _collect(included.strip("\"'"), rules, depth + 1)
