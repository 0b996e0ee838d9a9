# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rules of storage_cleanup: how they are read, and which files they let go. Nothing here touches a file."""

from __future__ import annotations

import fnmatch
import heapq
import os
import re
import typing as t

from ..named_options import read_named
from ..quantities import human_bytes, human_seconds, parse_duration, parse_size

# Without an age of its own, a rule leaves alone an empty directory that somebody may just have made.
_AGE_OF_EMPTY_DIRECTORY = 3600.0
_NANO = 10**9
# The clock that stamps files ticks more coarsely than the one that we read.
_TICK = 0.05

# Age, and the inode to tell files of the same age apart; hard links to one file share it, so they stay or go together.
Key = t.Tuple[int, int]


class Rule(t.NamedTuple):
    """One rule, its quantities in seconds and bytes; None where the operator set no limit."""

    name: str
    path: str
    wanted: t.Callable[[str], bool]
    older_than: float | None
    max_bytes: int | None
    max_files: int | None
    min_keep: int
    recurse: bool
    remove_empty_directories: bool
    remove_links: bool
    private: bool
    missing_ok: bool

    @property
    def ranks(self) -> bool:
        """Whether it must be known how files compare in age before any of them can be judged."""
        return self.max_bytes is not None or self.max_files is not None or self.min_keep > 0

    def __str__(self) -> str:
        limits = []
        if self.older_than is not None:
            limits.append(f"no file older than {human_seconds(self.older_than)}")
        if self.max_bytes is not None:
            limits.append(f"no more than {human_bytes(self.max_bytes)}")
        if self.max_files is not None:
            limits.append(f"no more than {self.max_files} files")
        return ", ".join(limits) + (f", but the newest {self.min_keep} in any case" if self.min_keep else "")


def key_of(status: os.stat_result) -> Key:
    return status.st_mtime_ns, status.st_ino


class Limits(t.NamedTuple):
    """What a rule comes down to at one moment: which files go."""

    before_ns: int | None
    up_to: Key | None
    protected_from: Key | None
    directories_before_ns: int
    unless_changed_since_ns: int | None = None

    def verifying(self, since: float) -> Limits:
        """The same for the pass after acting: what came or changed *since* (seconds since 1970) is not held against it.

        A file that is moved or copied in may be old by its modification time, never by its change time.
        """
        return self._replace(unless_changed_since_ns=int((since - _TICK) * _NANO))

    def _came_meanwhile(self, status: os.stat_result) -> bool:
        return self.unless_changed_since_ns is not None and status.st_ctime_ns > self.unless_changed_since_ns

    def lets_go(self, status: os.stat_result) -> bool:
        """Whether a wanted file with this *status* goes: when any criterion demands it and none protects it."""
        key = key_of(status)
        if (self.protected_from is not None and key >= self.protected_from) or self._came_meanwhile(status):
            return False
        if self.before_ns is not None and key[0] < self.before_ns:
            return True
        return self.up_to is not None and key <= self.up_to

    def lets_directory_go(self, status: os.stat_result) -> bool:
        return status.st_mtime_ns < self.directories_before_ns and not self._came_meanwhile(status)


class Ranking:
    """Finds in one pass up to which age the oldest files must go; remembers only those that may stay."""

    def __init__(self, rule: Rule) -> None:
        self.max_bytes = rule.max_bytes
        self.max_files = rule.max_files
        self.min_keep = rule.min_keep
        self.up_to: Key | None = None
        self._bytes = 0
        self._staying: list[tuple[Key, int]] = []
        self._newest: list[Key] = []

    def add(self, status: os.stat_result) -> None:
        key = key_of(status)
        if self.min_keep:
            if len(self._newest) < self.min_keep:
                heapq.heappush(self._newest, key)
            else:
                heapq.heappushpop(self._newest, key)
        if (self.max_bytes is None and self.max_files is None) or (self.up_to is not None and key <= self.up_to):
            return
        # A file with two names in the tree counts half for each: so it counts once.
        size = status.st_blocks * 512 // max(status.st_nlink, 1)
        heapq.heappush(self._staying, (key, size))
        self._bytes += size
        while self._staying and self._too_much():
            self.up_to, size = heapq.heappop(self._staying)
            self._bytes -= size

    def _too_much(self) -> bool:
        too_many = self.max_files is not None and len(self._staying) > self.max_files
        return too_many or (self.max_bytes is not None and self._bytes > self.max_bytes)

    @property
    def protected_from(self) -> Key | None:
        return self._newest[0] if self._newest else None


def decide(rule: Rule, now: float, ranking: Ranking | None) -> Limits:
    """What goes by *rule* at the time *now* (seconds since 1970), its files ranked where the rule needs that."""
    age_of_directories = _AGE_OF_EMPTY_DIRECTORY if rule.older_than is None else rule.older_than
    return Limits(
        before_ns=None if rule.older_than is None else int((now - rule.older_than) * _NANO),
        up_to=ranking.up_to if ranking else None,
        protected_from=ranking.protected_from if ranking else None,
        directories_before_ns=int((now - age_of_directories) * _NANO),
    )


def read_rules(options: t.Sequence[dict[str, t.Any]]) -> list[Rule]:
    """The rules that *options* describe; raises MaintenanceError that names all problems at once."""
    return read_named(
        "rule",
        options,
        _read_rule,
        expected="rules that say what goes",
        advice="Correct them in storage_cleanup_rules; nothing was removed.",
    )


def _read_rule(name: str, option: dict[str, t.Any]) -> Rule:
    if option["older_than"] is None and option["max_bytes"] is None and option["max_files"] is None:
        raise ValueError("it has no criterion; set older_than, max_bytes or max_files")
    for number in ("max_files", "min_keep"):
        if (option[number] or 0) < 0:
            raise ValueError(f"{number} is {option[number]}, which is less than 0")
    return Rule(
        name=name,
        path=option["path"],
        wanted=name_filter(option["patterns"], option["exclude"]),
        older_than=None if option["older_than"] is None else parse_duration(option["older_than"]),
        max_bytes=None if option["max_bytes"] is None else parse_size(option["max_bytes"]),
        max_files=option["max_files"],
        min_keep=option["min_keep"],
        recurse=option["recurse"],
        remove_empty_directories=option["remove_empty_directories"],
        remove_links=option["remove_links"],
        private=option["private"],
        missing_ok=option["missing_ok"],
    )


def name_filter(patterns: t.Sequence[str], exclude: t.Sequence[str]) -> t.Callable[[str], bool]:
    """A test of file names: matches one of *patterns* and none of *exclude*; raises ValueError for a useless glob."""
    for glob in (*patterns, *exclude):
        if not glob or "/" in glob:
            raise ValueError(
                f"the pattern {glob!r} can match no file name; patterns are compared with names, not paths"
            )
    if not patterns:
        raise ValueError("patterns is empty, so no file can match")
    wanted = _any_of(patterns)
    unwanted = _any_of(exclude) if exclude else None

    def matches(name: str) -> bool:
        return wanted(name) is not None and (unwanted is None or unwanted(name) is None)

    return matches


def _any_of(globs: t.Sequence[str]) -> t.Callable[[str], t.Any]:
    return re.compile("|".join(fnmatch.translate(glob) for glob in globs)).match
