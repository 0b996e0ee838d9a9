# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The WAL archive of a cluster in pgBackRest's repository, read file by file, each against the hash in its name.

It is listed and read without a data directory of PostgreSQL, so that it can be when there is none any more.
"""

from __future__ import annotations

import bz2
import functools
import hashlib
import os
import re
import shlex
import tempfile
import typing as t

from ... import processes
from ...errors import MaintenanceError, MissingToolError
from ..wal import archive as wal_archive
from ..wal import wal_helper
from ..wal.archive import Lineage, Segment
from ..wal.source import WalSource, not_fetched
from .tool import Listed, Tool

if t.TYPE_CHECKING:
    from ...restore.scratch_cluster import ScratchCluster

_SEGMENT = re.compile(r"[0-9A-F]{16}/([0-9A-F]{24})-([0-9a-f]{40})(\.\w+)?")
_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_COMPRESSIONS = {"": "none", ".gz": "gzip", ".lz4": "lz4", ".zst": "zstd"}
# pgBackRest brings these with it; we use their programs.
_PROGRAMS = ("lz4", "zstd")


class PgbackrestWal(WalSource):
    """What the stanza archived under *archive_id* (``15-1``) of the cluster *identifier*."""

    def __init__(self, tool: Tool, archive_id: str, identifier: str, *, encrypted: bool) -> None:
        self.tool = tool
        self.identifier = identifier
        self.encrypted = encrypted
        self.path = self.directory = f"archive/{tool.access.stanza}/{archive_id}"
        self.where = f"{self.path} of pgBackRest's repository"

    @functools.cached_property
    def files(self) -> dict[str, Listed]:
        """The files of the archive, by their paths below it, as they were when first asked for."""
        return self.tool.files(self.path)

    def forget(self) -> None:
        """Look anew when asked the next time."""
        self.__dict__.pop("files", None)

    @property
    def _segments(self) -> dict[str, list[str]]:
        """The paths of each segment: more than one is one too many."""
        found: dict[str, list[str]] = {}
        for path in self.files:
            match = _SEGMENT.fullmatch(path)
            if match:
                found.setdefault(match.group(1), []).append(path)
        return found

    def duplicates(self) -> list[str]:
        """Segments that were archived twice with different content: nobody can say which one is right."""
        return sorted(name for name, paths in self._segments.items() if len(paths) > 1)

    def archived(self) -> list[Segment]:
        # Where it is encrypted or compressed, its size says nothing.
        return sorted(
            Segment(name, self.files[paths[0]].bytes, f"{self.path}/{paths[0]}", self._compression(paths[0]))
            for name, paths in self._segments.items()
        )

    def _compression(self, path: str) -> str:
        suffix = os.path.splitext(path)[1]
        return "encrypted" if self.encrypted and not suffix else _COMPRESSIONS.get(suffix, suffix)

    def names(self) -> set[str]:
        return set(self._segments)

    def timelines(self) -> list[int]:
        found = {int(name[:8], 16) for name in self._segments}
        found |= {int(name[:8], 16) for name in self.files if _HISTORY.fullmatch(name)}
        return sorted(found)

    def lineage(self, timeline: int) -> Lineage:
        if timeline == 1:
            return [(1, None)]
        name = f"{timeline:08X}.history"
        if name not in self.files:
            raise wal_archive.no_history(timeline, self.where)
        with tempfile.TemporaryFile() as stream:
            self.tool.read(f"{self.path}/{name}", stream)
            stream.seek(0)
            return wal_archive.read_history(stream.read().decode("utf-8", "replace"), timeline)

    def has_label(self, prefix: str) -> bool:
        return any(path.startswith(f"{prefix[:16]}/{prefix}") for path in self.files)

    def fetch(self, name: str, path: str) -> None:
        paths = self._segments.get(name)
        if not paths:
            raise not_fetched(name, self.where, "it is not there")
        try:
            wal_helper.place(path, self._read(name, paths[0]))
        except wal_helper.RefusedError as error:
            raise not_fetched(name, self.where, str(error)) from None

    def _read(self, name: str, path: str) -> bytes:
        """The content of the segment *name*; raises RefusedError when it is not as it was archived."""
        found = _SEGMENT.fullmatch(path)
        with tempfile.TemporaryFile() as stream:
            self.tool.read(f"{self.path}/{path}", stream)
            stream.seek(0)
            content = _unpack(stream, (found.group(3) if found else "") or "")
        if found and hashlib.sha1(content).hexdigest() != found.group(2):  # noqa: S324 (pgBackRest's own choice)
            raise wal_helper.RefusedError("has another content than was archived (its SHA-1 differs)")
        problem = wal_helper.segment_problem(content[:64], len(content), name, self.identifier)
        if problem:
            raise wal_helper.RefusedError(problem)
        return content

    def look(self, segment: Segment) -> Listed | None:
        return self.files.get(segment.path[len(self.path) + 1 :])

    def problem_of(self, segment: Segment) -> str:
        try:
            self._read(segment.name, segment.path[len(self.path) + 1 :])
        except wal_helper.RefusedError as error:
            return str(error)
        except MissingToolError:
            raise
        except MaintenanceError as error:
            return error.observed
        return ""

    def oddities(self) -> list[str]:
        found = [f"{name} was archived twice, with different content" for name in self.duplicates()]
        return found + [f"{path} is empty" for path, listed in self.files.items() if not listed.bytes]

    def provide(self, cluster: ScratchCluster) -> None:
        """By ``archive-get``, which the server runs with the key in its environment, and never asynchronously: that
        would go by the directories of the live server."""
        access = self.tool.access
        words = [
            self.tool.program, f"--config={access.config}", f"--stanza={access.stanza}", f"--pg1-path={cluster.data}",
            "--no-archive-async", "archive-get",
        ]  # fmt: skip
        command = [shlex.quote(word).replace("%", "%%") for word in words]
        cluster.fetch_wal_by(" ".join([*command, '"%f"', '"%p"']), self.tool.environment)


def _unpack(stream: t.IO[bytes], suffix: str) -> bytes:
    if suffix == ".bz2":
        try:
            return bz2.decompress(stream.read())
        except (OSError, ValueError, EOFError) as error:
            raise wal_helper.RefusedError(f"it cannot be decompressed: {error}") from None
    if suffix not in _COMPRESSIONS:
        raise MaintenanceError(
            "read archived WAL", expected="a known compression", observed=suffix, advice="Use gz, bz2, lz4 or zst."
        )
    require_program(_COMPRESSIONS[suffix])
    return wal_helper.unpack(stream.fileno(), _COMPRESSIONS[suffix])


def require_program(compression: str) -> None:
    """Raise MissingToolError where the program of *compression* is missing, so that this looks like no damage."""
    if compression in _PROGRAMS:
        processes.require_program(compression, what=f"read WAL that is compressed by {compression}")
