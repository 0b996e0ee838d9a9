# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the WAL is that a restore reads: each engine has a source of its own; those who restore know no more of it."""

from __future__ import annotations

import abc
import os
import shlex
import stat
import typing as t

from ...errors import MaintenanceError
from ..reading import drop_cached
from ..remembered import Look
from . import archive as wal_archive
from . import archiving, wal_helper
from .archive import Lineage, Segment
from .positions import SEGMENT_NAME

if t.TYPE_CHECKING:
    from ...restore.scratch_cluster import ScratchCluster


class WalSource(abc.ABC):
    """The WAL of one cluster, as far as it was kept."""

    # Where it is, in words for errors.
    where: str
    # Where the archive is that the paths of its segments are told from.
    directory: str

    @abc.abstractmethod
    def archived(self) -> list[Segment]:
        """The segments that the server archived, ordered by name."""

    @abc.abstractmethod
    def names(self) -> set[str]:
        """The names of all segments that can be fetched."""

    @abc.abstractmethod
    def timelines(self) -> list[int]:
        """The timelines of which something was archived, oldest first."""

    @abc.abstractmethod
    def lineage(self, timeline: int) -> Lineage:
        """How *timeline* came about; raises MaintenanceError when its history is not there."""

    @abc.abstractmethod
    def has_label(self, prefix: str) -> bool:
        """Whether the server archived the label of a backup: a file whose name begins with *prefix*."""

    @abc.abstractmethod
    def fetch(self, name: str, path: str) -> None:
        """Write the segment *name*, whole and of this cluster, to *path*; raises MaintenanceError when it cannot."""

    @abc.abstractmethod
    def look(self, segment: Segment) -> Look | None:
        """How the file of *segment* looks from outside, so that a change shows; None when it is gone, or no file."""

    @abc.abstractmethod
    def problem_of(self, segment: Segment) -> str:
        """What is wrong with the archived *segment*, read in full; empty when it is as it was archived."""

    @abc.abstractmethod
    def oddities(self) -> list[str]:
        """What is in the archive that should not be, in words."""

    @abc.abstractmethod
    def provide(self, cluster: ScratchCluster) -> None:
        """Prepare *cluster* to fetch from here while it recovers."""


class Directories(WalSource):
    """The archive *directory* of a cluster (none when empty), and the WAL that came with backups, in *beside*."""

    def __init__(self, directory: str, beside: t.Sequence[str], identifier: str) -> None:
        self.directory = directory
        self.beside = list(beside)
        self.identifier = identifier
        self.directories = [*([directory] if directory else []), *beside]
        self.where = ", ".join(self.directories)

    def archived(self) -> list[Segment]:
        return wal_archive.segments(self.directory) if self.directory else []

    def names(self) -> set[str]:
        found = {segment.name for segment in self.archived()}
        return found.union(*({name for name in os.listdir(d) if SEGMENT_NAME.fullmatch(name)} for d in self.beside))

    def timelines(self) -> list[int]:
        return wal_archive.timelines(self.directory) if self.directory else []

    def lineage(self, timeline: int) -> Lineage:
        return wal_archive.lineage(self.directories, timeline)

    def has_label(self, prefix: str) -> bool:
        try:
            names = os.listdir(os.path.join(self.directory, prefix[:8]))
        except OSError:
            return False
        return any(name.startswith(prefix) for name in names)

    def fetch(self, name: str, path: str) -> None:
        try:
            wal_helper.fetch(name, path, self.directories, self.identifier)
        except (FileNotFoundError, wal_helper.RefusedError) as error:
            raise not_fetched(name, self.where, str(error)) from None

    def look(self, segment: Segment) -> Look | None:
        try:
            status = os.lstat(segment.path)
        except FileNotFoundError:
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def problem_of(self, segment: Segment) -> str:
        drop_cached(segment.path)
        return wal_archive.problem_of(segment, self.identifier)

    def oddities(self) -> list[str]:
        links = [s.path for s in self.archived() if os.path.lexists(s.path) and not self.look(s)]
        return [f"{os.path.relpath(path, self.directory)} is no plain file" for path in links]

    def provide(self, cluster: ScratchCluster) -> None:
        """Fetch from the archive first: the last segment beside a backup may have been cut where the backup ended."""
        cluster.take_wal(self.beside[0])
        cluster.write("wal_helper.py", archiving.source().decode())
        words = [archiving.python(), "-I", "-S", "../wal_helper.py", "fetch", self.identifier]
        places = [*([self.directory] if self.directory else []), "../wal"]
        command = [*map(_quoted, words), '"%f"', '"%p"', *map(_quoted, places)]
        cluster.fetch_wal_by(" ".join(command), reads=self.directory if os.path.isdir(self.directory) else "")


def not_fetched(name: str, where: str, observed: str) -> MaintenanceError:
    return MaintenanceError(
        f"read the WAL segment {name}",
        where=where,
        expected="the segment as it was archived",
        observed=observed,
        advice="Restore to a point before it, or look for a copy of this segment elsewhere (a standby, an "
        "off-site copy); then make a new full backup.",
    )


def _quoted(word: str) -> str:
    return shlex.quote(word).replace("%", "%%")
