# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Before anything is written: which backup leads to a target, by which WAL, and what must be there afterwards."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ..backup.engine import Engine
from ..backup.repository import Backup, parse_time
from ..backup.wal.markers import Marker, markers
from ..backup.wal.positions import format_lsn, parse_lsn
from ..errors import MaintenanceError
from .targets import Target
from .wal_range import Commit, WalRange

# Only the newest hundred rows are kept in the database.
_LOOKED_FOR = 50


class Aim(t.NamedTuple):
    """A target that can be reached, as far as can be told: from ``backup``, by ``wal``."""

    target: Target
    backup: Backup
    wal: WalRange
    position: int
    newest: t.Optional[Commit]
    markers: t.List[Marker]

    @property
    def words(self) -> str:
        return str(self.target) + (f" (WAL position {format_lsn(self.position)})" if self.position else "")

    def required(self) -> list[Marker]:
        """Markers whose rows must be there once the target is reached."""
        found = [marker for marker in self.markers if self._is_before(marker)]
        return found[-_LOOKED_FOR:]

    def _is_before(self, marker: Marker) -> bool:
        if not is_on_line(marker, self.wal):
            return False
        if self.target.kind == "time":
            return marker.time <= self.target.time
        if self.target.kind == "newest":
            return marker.lsn <= self.wal.reach.end  # the last commit is its row's, or later
        return marker.lsn <= (self.position or self.wal.consistent)


def is_on_line(marker: Marker, wal: WalRange) -> bool:
    """Whether the marker was written on the timelines that lead to where *wal* goes."""
    return any(timeline == marker.timeline and (left is None or marker.lsn <= left) for timeline, left in wal.line)


def take_aim(
    target: Target,
    backups: t.Sequence[Backup],
    engine: Engine,
    *,
    archive: str,
    bin_dir: str,
    timeline: int = 0,
) -> Aim:
    """The newest of *backups*, made by *engine*, from which *target* can be reached; raises MaintenanceError that says
    why none can be. *archive* is the WAL archive, for an engine that has none of its own."""
    refusals = []
    for backup in reversed(backups):
        wal = WalRange(backup, engine.wal_of(backup, archive), bin_dir, timeline)
        noted = markers(engine.repository, wal.identifier)
        try:
            return _aim_from(target, backup, wal, noted)
        except TooEarlyError as error:
            refusals.append(f"{backup.label}: {error}")
    raise MaintenanceError(
        f"restore to {target}",
        where=engine.repository.directory,
        expected="a backup that was finished before that point",
        observed="; ".join(refusals[:3]) or "there is no backup",
        advice="Choose a later point; the one of the oldest backup is the earliest that can be restored.",
    )


class TooEarlyError(Exception):
    """The target lies before the end of this backup: an older one may do."""


def _aim_from(target: Target, backup: Backup, wal: WalRange, noted: list[Marker]) -> Aim:
    if target.kind in ("backup", "immediate"):
        point = backup.metadata["restore_point"]
        value, position = (point["name"], parse_lsn(point["lsn"])) if target.kind == "backup" else ("", 0)
        return Aim(Target(target.kind, value), backup, wal, position, None, noted)
    if target.kind == "lsn":
        _refuse_early(target.lsn, wal)
        if target.lsn >= wal.reach.end:
            raise _beyond(target, wal, f"the WAL goes on without a gap until {format_lsn(wal.reach.end)}")
        return Aim(target, backup, wal, target.lsn, None, noted)
    if target.kind == "time" and target.time < parse_time(backup.metadata["restore_point"]["time"]):
        raise TooEarlyError(f"it ends at {backup.metadata['restore_point']['time']}")
    if target.kind in ("time", "newest"):
        return _aim_by_newest(target, backup, wal, noted)
    found = wal.find_point(target.value) if target.kind == "name" else wal.find_commit(target.value)
    if not found:
        raise TooEarlyError(f"it is not in the WAL from there until {format_lsn(wal.reach.end)}")
    _refuse_early(parse_lsn(found), wal)
    return Aim(target, backup, wal, parse_lsn(found), None, noted)


def _refuse_early(position: int, wal: WalRange) -> None:
    if position < wal.consistent:
        raise TooEarlyError(f"it ends at {format_lsn(wal.consistent)}")


def _aim_by_newest(target: Target, backup: Backup, wal: WalRange, noted: list[Marker]) -> Aim:
    newest = wal.newest_commit()
    if newest is None:
        raise _beyond(target, wal, "there is no commit in it")
    if target.kind == "newest":
        _refuse_lost(wal, noted)
        return Aim(Target("newest", newest.lsn), backup, wal, parse_lsn(newest.lsn), newest, noted)
    if target.time >= newest.time:
        raise _beyond(target, wal, f"the newest commit that can be reached is of {newest.time.isoformat()}")
    return Aim(target, backup, wal, 0, newest, noted)


def _refuse_lost(wal: WalRange, noted: list[Marker]) -> None:
    """``newest`` must not mean less than is known to have been written, nor end silently at a gap."""
    ours = [marker for marker in noted if is_on_line(marker, wal)]
    beyond = [marker for marker in ours if marker.lsn > wal.reach.end]
    if not wal.behind_gap and not beyond:
        return
    what = [f"{len(wal.behind_gap)} segments lie behind it, up to {wal.behind_gap[-1]}"] if wal.behind_gap else []
    what += [f"the row of {beyond[-1].time.isoformat()} was written at {format_lsn(beyond[-1].lsn)}"] if beyond else []
    raise MaintenanceError(
        "restore to the newest point",
        where=wal.source.where,
        expected="WAL without a gap from the backup to what was written last",
        observed=f"{wal.reach.missing} is missing; {'; '.join(what)}",
        advice=f"Look for {wal.reach.missing} elsewhere (pg_wal of the server, a standby, an off-site copy) and put it "
        f"into the archive. Without it, lsn:{format_lsn(wal.reach.end - 1)} is the last point to restore to; make a "
        "new full backup.",
    )


def _beyond(target: Target, wal: WalRange, why: str) -> MaintenanceError:
    gap = f"; {wal.reach.missing} is missing" if wal.behind_gap else ""
    return MaintenanceError(
        f"restore to {target}",
        where=wal.source.where,
        expected="a point within the WAL that there is",
        observed=f"{why}{gap}",
        advice="Choose an earlier point, or newest; or bring the missing WAL into the archive.",
    )


def lag(aim: Aim, moment: datetime) -> float | None:
    """Seconds between what would be restored last and *moment* (RPO), where the target is the newest point."""
    return (moment - aim.newest.time).total_seconds() if aim.target.kind == "newest" and aim.newest else None
