# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cache directory that is held open, and what is in it."""

from __future__ import annotations

import typing as t

from ..quantities import human_bytes, human_seconds
from ..storage.safe_tree import Found, TreeWalk


class Held(t.NamedTuple):
    """A cache's directory and its parent, open since the guard rails let it pass."""

    parent: int
    descriptor: int
    path: str

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent_path(self) -> str:
        return self.path.rstrip("/").rpartition("/")[0] or "/"


class Contents(t.NamedTuple):
    """Number and size on disk of a cache's files, and when the oldest was modified (seconds since 1970)."""

    files: int = 0
    bytes: int = 0
    oldest: float | None = None

    def with_file(self, found: Found) -> Contents:
        modified = found.status.st_mtime
        oldest = modified if self.oldest is None else min(self.oldest, modified)
        return Contents(self.files + 1, self.bytes + found.bytes_on_disk // max(found.status.st_nlink, 1), oldest)

    def described(self, now: float) -> str:
        if self.oldest is None:
            return "empty"
        age = human_seconds(max(0.0, now - self.oldest))
        return f"{self.files} files, {human_bytes(self.bytes)}, the oldest of {age} ago"


def contents_of(held: Held, counts: t.Callable[[Found], bool]) -> Contents:
    """Sum up the files in *held* for which *counts* holds."""
    contents = Contents()
    for found in TreeWalk(held.descriptor, held.path):
        if not found.is_directory and counts(found):
            contents = contents.with_file(found)
    return contents
