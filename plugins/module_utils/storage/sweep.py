# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Passing over the directory of a cleanup rule: to rank its files, to see what goes, to remove it."""

from __future__ import annotations

import os
import stat
import typing as t

from ..open_files import InUse
from ..quantities import human_bytes
from .guard_rails import reason_against_content
from .rules import Limits, Ranking, Rule
from .safe_tree import Found, Samples, TreeWalk


class Sweep:
    """What one pass over a rule's directory found, and removed where it was told to."""

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self.due_files = self.due_directories = self.due_bytes = 0
        self.hard_links = 0
        self.due = Samples()
        self.in_use = Samples()
        self.foreign = Samples()
        self.problems = Samples()
        self.left_alone = Samples()

    def holdings(self) -> str:
        return f"{self.files} files, {human_bytes(self.bytes)}"

    def departures(self) -> str:
        directories = f" and {self.due_directories} directories" if self.due_directories else ""
        return f"{self.due_files} files{directories}, {human_bytes(self.due_bytes)}"


def walk_of(rule: Rule, descriptor: int) -> TreeWalk:
    return TreeWalk(descriptor, rule.path, recurse=rule.recurse, reason_to_keep_out=reason_against_content)


def concerns(rule: Rule, found: Found) -> bool:
    """Whether *found* is a file, or a link where links go too, that the rule is about."""
    kind = stat.S_IFMT(found.status.st_mode)
    return (kind == stat.S_IFREG or (kind == stat.S_IFLNK and rule.remove_links)) and rule.wanted(found.name)


def measure(rule: Rule, descriptor: int) -> Ranking | None:
    """The ages of the rule's files by rank, where it cannot be applied without them."""
    if not rule.ranks:
        return None
    ranking = Ranking(rule)
    for found in walk_of(rule, descriptor):
        if not found.is_directory and concerns(rule, found):
            ranking.add(found.status)
    return ranking


def sweep(rule: Rule, limits: Limits, descriptor: int, in_use: t.Callable[[], InUse], *, remove: bool) -> Sweep:
    """Pass once over the directory and remove what goes, each file judged by its state at that instant.

    Without *remove* the same pass measures: what would go, and after acting what is left. *in_use* is called, at the
    first thing that would go, for the files that processes have open.
    """
    done = Sweep()
    walk = walk_of(rule, descriptor)
    links_seen: dict[int, int] = {}
    for found in walk:
        if not goes(rule, limits, found, in_use, done):
            found.parent.kept += 1
            continue
        try:
            if remove and not found.remove():
                continue
        except OSError as error:
            found.parent.kept += 1
            if not found.is_directory:
                done.problems.add(found.path, error.strerror or str(error))
            continue
        note_departure(done, found, links_seen, remove)
    done.left_alone = walk.kept_out
    done.problems.extend(walk.problems)
    return done


def goes(rule: Rule, limits: Limits, found: Found, in_use: t.Callable[[], InUse], done: Sweep) -> bool:
    """Decide on one thing, and count it."""
    status = found.status
    if found.is_directory:
        empty = rule.remove_empty_directories and not found.left_in_it
        return empty and limits.lets_directory_go(status) and status not in in_use()
    if not concerns(rule, found):
        return False
    done.files += 1
    done.bytes += found.bytes_on_disk
    if not limits.lets_go(status):
        return False
    if os.geteuid() not in (0, status.st_uid):
        done.foreign.add(found.path)
        return False
    if status in in_use():
        done.in_use.add(found.path)
        return False
    return True


def note_departure(done: Sweep, found: Found, links_seen: dict[int, int], removed: bool) -> None:
    done.due.add(found.path)
    if found.is_directory:
        done.due_directories += 1
        return
    done.due_files += 1
    inode, names = found.status.st_ino, found.status.st_nlink
    if not removed:
        # As nothing goes now, the last of several names does not show as such by itself.
        names -= links_seen.get(inode, 0)
    if names > 1:
        links_seen[inode] = links_seen.get(inode, 0) + 1
        done.hard_links += 1
    else:
        done.hard_links -= links_seen.pop(inode, 0)
        done.due_bytes += found.bytes_on_disk
