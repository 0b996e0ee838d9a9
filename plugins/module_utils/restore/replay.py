# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lay a backup down in a scratch cluster, replay WAL to a point in time, and see that it is that point."""

from __future__ import annotations

import contextlib
import os
import re
import time
import typing as t
from datetime import datetime, timezone

from .. import postgresql
from ..backup.engine import Engine
from ..backup.repository import Backup
from ..backup.wal.source import WalSource
from ..errors import MaintenanceError
from ..quantities import human_seconds
from ..result import Part
from .aim import Aim
from .scratch_cluster import ScratchCluster
from .targets import is_reached, settings

# Twice max_wal_size: what is replayed is removed only at restartpoints.
_WAL_AT_MOST = 2 << 30
_MARGIN_BYTES = 96 << 20

# So that the log says when recovery began and ended: see :func:`read_log`.
TIMED_LOG = {"log_line_prefix": "%m [%p] ", "log_timezone": "UTC", "timezone": "UTC"}
# What of a restore counts as its time: until the server answers.
_COUNTED = ("fetch", "unpack", "replay", "start")
_FETCHED = re.compile(r"wellkept: fetched \S+ in (\d+\.\d+) s")
_STAMP = r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC .*"
_LAST = re.compile(r"last completed transaction was at log time (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?)\+00")
_ADVICE = (
    (r"recovery ended before configured recovery target", "WAL up to the target is missing or damaged: look which "
     "segment came last, look for the next one elsewhere, or choose an earlier target."),
    (r"wellkept: .*(bytes instead of|cannot be decompressed|content of another|is of the cluster)", "A segment in the "
     "archive is damaged or not this cluster's: replace it by a copy, or choose a target before it."),
    (r"requested recovery stop point is before consistent", "Choose a later target, or an older backup."),
    (r"requested timeline .* is not a child", "Name another timeline: this backup does not lead to that one."),
)  # fmt: skip


class Recovered(t.NamedTuple):
    """Where recovery ended, by the server's own words."""

    lsn: str
    timeline: str
    time: t.Optional[datetime]
    seconds: t.Dict[str, float]

    @property
    def words(self) -> str:
        moment = f", last commit {self.time.isoformat()}" if self.time else ""
        return f"timeline {self.timeline or 'unchanged'}, WAL position {self.lsn or 'unknown'}{moment}"


def lay_down(engine: Engine, backup: Backup, wal: WalSource, cluster: ScratchCluster) -> dict[str, float]:
    """The files and the WAL of the backup in the cluster's directories; returns seconds by phase."""
    began = time.monotonic()
    os.mkdir(cluster.data, 0o700)
    engine.restore(backup.label, cluster.data)
    middle = time.monotonic()
    wal.provide(cluster)
    laid, provided = middle - began, time.monotonic() - middle
    if len(backup.chain) > 1:
        return {"fetch": provided, "unpack": laid}
    return {"fetch": laid + provided, "unpack": 0.0}


def as_before(metadata: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Settings without which a server refuses files that the live one has made."""
    inside = metadata["settings"].get("allow_in_place_tablespaces") == "on"
    return {"allow_in_place_tablespaces": "on"} if inside else {}


def configure(aim: Aim, cluster: ScratchCluster, **others: str) -> None:
    """Tell the server where to stop."""
    metadata = aim.backup.metadata
    found = cluster.control_data().get("Database system identifier", "none")
    if found != aim.wal.identifier:
        raise MaintenanceError(
            "restore the files of the right cluster",
            where=aim.backup.directory,
            expected=f"the system identifier {aim.wal.identifier} that the backup recorded",
            observed=found,
            advice="The files in this backup are another cluster's: find out how they came there.",
        )
    libraries = str(metadata["settings"].get("shared_preload_libraries") or "")
    told = {
        **as_before(metadata),
        **settings(aim.target),
        "recovery_target_timeline": str(aim.wal.timeline),
        # So that restartpoints remove what was replayed: there may be far more WAL than room.
        "max_wal_size": "1GB",
        **TIMED_LOG,
        **others,
    }
    cluster.configure(int(metadata["server_version"]), libraries, told)


def refuse_new_tablespaces(aim: Aim) -> None:
    """Replaying CREATE TABLESPACE would write to the place that the live cluster uses."""
    found = aim.wal.new_tablespace()
    if found:
        raise MaintenanceError(
            "keep the restored cluster to itself",
            where=aim.backup.directory,
            expected="no tablespace outside of the data directory that was created since the backup",
            observed=found[:200],
            advice="Such tablespaces are not supported: restore to a point before it was created.",
        )


def bytes_needed(aim: Aim, engine: Engine) -> int:
    """An upper bound of what the restored cluster takes while it is recovered."""
    replayed = min(len(aim.wal.reach.names) * aim.wal.segment_bytes, _WAL_AT_MOST)
    return engine.restored_bytes(aim.backup) + replayed + aim.wal.own_bytes + _MARGIN_BYTES


def start(aim: Aim, cluster: ScratchCluster, timeout: float, part: Part) -> Recovered | None:
    """Start the server, and see that recovery stopped at the target; None when it did not."""
    refused = ""
    try:
        cluster.start(timeout)
    except MaintenanceError as error:
        refused = error.observed
    log = cluster.read_log()
    stopped = cluster.stopped_at_target()
    recovered = read_log(log)
    if aim.target.kind == "newest" and aim.newest:
        # The server does not count the transaction that it stops after.
        recovered = recovered._replace(time=aim.newest.time)
    reached = part.require(
        f"recovery to the target {aim.target.kind}",
        not refused and is_reached(aim.target, stopped),
        expected=f"a server that accepts connections after recovery has stopped at {aim.words}",
        observed=refused or f"{stopped or cluster.last_words()}; {recovered.words}",
        advice=advice_for(log),
    )
    return recovered if reached else None


def advice_for(log: str) -> str:
    for pattern, words in _ADVICE:
        if re.search(pattern, log):
            return words
    return "The server's last words say what is lacking."


def read_log(log: str) -> Recovered:
    """Where recovery ended, and how long its phases took, from the server's log."""
    stamps = [_moment(log, words) for words in ("starting PostgreSQL", "redo done at", "database system is ready")]
    seconds = {"wal_fetch": sum(float(number) for number in _FETCHED.findall(log))}
    for name, first, last in (("replay", stamps[0], stamps[1]), ("start", stamps[1], stamps[2])):
        if first and last:
            seconds[name] = (last - first).total_seconds()
    position = re.search(r"redo done at ([0-9A-F]+/[0-9A-F]+)", log)
    timeline = re.search(r"selected new timeline ID: (\d+)", log)
    last_commit = _LAST.search(log)
    return Recovered(
        position.group(1) if position else "",
        timeline.group(1) if timeline else "",
        _parsed(last_commit.group(1)) if last_commit else None,
        seconds,
    )


def _moment(log: str, words: str) -> datetime | None:
    found = re.search(_STAMP + re.escape(words), log, re.MULTILINE)
    return _parsed(found.group(1)) if found else None


def _parsed(text: str) -> datetime:
    form = "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S"
    return datetime.strptime(text, form).replace(tzinfo=timezone.utc)


def check_markers(aim: Aim, recovered: Recovered, cluster: ScratchCluster, part: Part) -> None:
    """Rows that were written before the target must be there, and rows of later must not."""
    required = aim.required()
    known = {marker.id for marker in required}
    late = [m for m in aim.markers if m.id not in known and recovered.time and m.created > recovered.time]
    database = aim.backup.metadata["marker"]["database"]
    try:
        with contextlib.closing(cluster.connect(database)) as connection:
            present = {str(r["id"]) for r in postgresql.query(connection, "SELECT id FROM wellkept.backup_marker")}
        problem = ""
    except MaintenanceError as error:
        present, problem = set(), error.observed
    missing = [marker for marker in required if marker.database == database and marker.id not in present]
    surplus = [marker for marker in late if marker.database == database and marker.id in present]
    found = [f"the row of {marker.time.isoformat()} is missing" for marker in missing[:3]]
    found += [f"the row of {marker.created.isoformat()} is there, though it is later" for marker in surplus[:3]]
    part.require(
        "marker rows at the target",
        bool(required) and not missing and not surplus and not problem,
        expected=f"{len(required)} rows that were written before it, and none of {len(late)} later ones",
        observed=problem or "; ".join(found) or f"{len(required)} there, none of the later ones",
        advice="What was restored is not what was at that point: WAL is missing or another cluster's. Do not rely on "
        "it; restore to an earlier point and compare.",
    )


def record_seconds(seconds: t.Mapping[str, float], part: Part, prefix: str = "") -> float:
    """A metric for each phase; returns the seconds from the first byte to a server that answers."""
    for name, spent in seconds.items():
        part.metric(f"{prefix}{name}_seconds", round(spent, 3), "seconds")
    return sum(spent for name, spent in seconds.items() if name in _COUNTED)


def describe_seconds(metrics: t.Mapping[str, t.Mapping[str, t.Any]], prefix: str = "") -> str:
    """Where the time of a restore went, by the *metrics* of its phases."""
    found = {name: metrics.get(f"{prefix}{name}_seconds") for name in (*_COUNTED, "checks")}
    if "repository_fetch_seconds" in metrics:
        found = {"fetch from the other host": metrics["repository_fetch_seconds"], **found}
    return ", ".join(f"{name} {human_seconds(metric['value'])}" for name, metric in found.items() if metric)
