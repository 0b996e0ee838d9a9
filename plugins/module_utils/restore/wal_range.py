# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The WAL that there is for one backup, in its own directory and in the archive: how far it goes, and what is in it."""

from __future__ import annotations

import os
import re
import tempfile
import typing as t
from datetime import datetime, timezone

from ..backup.repository import Backup
from ..backup.wal import archive as wal_archive
from ..backup.wal.archive import Lineage, Reach
from ..backup.wal.positions import parse_lsn
from ..backup.wal.source import WalSource
from ..errors import MaintenanceError
from ..processes import run

# Segments that are read at a time: each that is compressed is unpacked beside.
_AT_A_TIME = 8
_RECORD = re.compile(r"tx:\s+(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev \S+, desc: (.*)")
_COMMIT = re.compile(r"COMMIT(?:_PREPARED)?\s.*?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC")


class Commit(t.NamedTuple):
    """The commit record at ``lsn``."""

    lsn: str
    time: datetime


class WalRange:
    """WAL from the start of *backup* on, along the timelines that lead to *timeline* (0: the newest that it can reach).

    *source* has the WAL that came with the backup, and what was archived.
    """

    def __init__(self, backup: Backup, source: WalSource, bin_dir: str, timeline: int = 0) -> None:
        self.backup = backup
        self.source = source
        self.bin_dir = bin_dir
        self.identifier = str(backup.metadata["system_identifier"])
        self.segment_bytes = int(backup.metadata["settings"]["wal_segment_size"])
        self.start = parse_lsn(backup.metadata["start_lsn"])
        self.consistent = parse_lsn(backup.metadata["stop_lsn"])
        self.line = self._lineage(timeline)
        self.timeline = self.line[-1][0]
        self.present = source.names()
        self.reach: Reach = wal_archive.reach(self.present, self.start, self.line, self.segment_bytes)
        self.behind_gap = wal_archive.later_than_gap(self.present, self.reach, self.line, self.segment_bytes)

    def _lineage(self, timeline: int) -> Lineage:
        own = int(self.backup.metadata["timeline"])
        known = [timeline] if timeline else reversed(self.source.timelines())
        for candidate in known:
            line = self.source.lineage(candidate)
            if any(tli == own and (left is None or left >= self.consistent) for tli, left in line):
                return line
        if timeline:
            raise MaintenanceError(
                f"restore {self.backup.label} along timeline {timeline}",
                expected="a timeline that the backup's own leads to",
                observed=f"the backup is on timeline {own}, which that one left earlier or never had",
                advice="Name another timeline, or another backup.",
            )
        return self.source.lineage(own)

    @property
    def own_bytes(self) -> int:
        """Bytes of the segments from the start of the backup to its restore point."""
        return self._count_to(parse_lsn(self.backup.metadata["restore_point"]["lsn"])) * self.segment_bytes

    def _count_to(self, position: int) -> int:
        """How many segments there are from the start to the byte before *position*."""
        return max(position - 1, self.start) // self.segment_bytes - self.start // self.segment_bytes + 1

    def newest_commit(self) -> Commit | None:
        """The last commit that can be reached without a gap."""
        for xid_lsn_words in self._records("Transaction", self.reach.names):
            found = _COMMIT.search(xid_lsn_words[2])
            if found:
                moment = datetime.strptime(found.group(1), "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=timezone.utc)
                return Commit(xid_lsn_words[1], moment)
        return None

    def find_commit(self, xid: str) -> str:
        """Where the transaction *xid* was committed, as a position; empty when it was not, as far as there is WAL."""
        for number, lsn, words in self._records("Transaction", self._from_consistent()):
            if number == xid and words.startswith("COMMIT"):
                return lsn
        return ""

    def find_point(self, name: str) -> str:
        """Where the restore point *name* is, as a position; empty when it is not in this WAL."""
        for _xid, lsn, words in self._records("XLOG", self._from_consistent()):
            if words.startswith("RESTORE_POINT ") and words[len("RESTORE_POINT ") :].strip() == name:
                return lsn
        return ""

    def new_tablespace(self, until: int = 0) -> str:
        """A tablespace outside of the data directory that was created in this WAL, up to the position *until* if given;
        empty when there is none."""
        count = self._count_to(until) if until else None
        for _xid, _lsn, words in self._records("Tablespace", self.reach.names[:count]):
            if re.match(r'CREATE \d+ "/', words):
                return words
        return ""

    def _from_consistent(self) -> list[str]:
        first = self.consistent // self.segment_bytes - self.start // self.segment_bytes
        return self.reach.names[max(0, first - 1) :]

    def _records(self, manager: str, names: t.Sequence[str]) -> t.Iterator[tuple[str, str, str]]:
        """Transaction, position and words of the records of one resource *manager* in *names*, the newest first."""
        for end in range(len(names), 0, -_AT_A_TIME):
            # One more than is needed, for the record that goes on in it.
            chunk = list(names[max(0, end - _AT_A_TIME) : end + 1])
            found = self._read(manager, chunk)
            yield from sorted(found, key=lambda record: parse_lsn(record[1]), reverse=True)

    def _read(self, manager: str, chunk: list[str]) -> set[tuple[str, str, str]]:
        found = set()
        with tempfile.TemporaryDirectory(prefix="wellkept-wal-") as directory:
            for name in chunk:
                self.source.fetch(name, os.path.join(directory, name))
            # By timeline: pg_waldump goes along one only.
            for timeline in sorted({name[:8] for name in chunk}):
                ours = [name for name in chunk if name[:8] == timeline]
                command = [
                    os.path.join(self.bin_dir, "pg_waldump"), f"--path={directory}", f"--rmgr={manager}",
                    ours[0], ours[-1],
                ]  # fmt: skip
                # It ends with 1 where the WAL ends within a record, as it does at the end of what was archived.
                said = run(command, accept=(0, 1), environment={"TZ": "UTC"}, what="read WAL with pg_waldump").stdout
                found |= set(_RECORD.findall(said))
        # A segment of a timeline that was left in it may go on beyond that.
        return {record for record in found if parse_lsn(record[1]) < self.reach.end}
