# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore one backup into a scratch cluster and hold it against what was recorded when it was made."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from ..backup.engine import Engine
from ..backup.repository import Backup, bytes_used, parse_time
from ..backup.stores.store import Store
from ..backup.wal.positions import parse_lsn
from ..catalog import record
from ..errors import MaintenanceError
from ..quantities import human_bytes, human_seconds
from ..result import Part
from . import content, replay
from .assertions import check_assertions
from .catalog_checks import check_catalogs
from .file_rows import check_files
from .live_cluster import Live
from .scratch_cluster import ScratchCluster
from .scratch_directory import scratch_directory
from .wal_range import WalRange

# Room for WAL that recovery recycles, for sorts and for the log.
_MARGIN_BYTES = 96 << 20


class Plan(t.NamedTuple):
    """What to restore, where, and how closely to look at it."""

    engine: Engine
    backup: Backup
    base: str
    bin_dir: str
    user: str
    live: Live
    login_user: str = "postgres"
    timeout: float = 14400
    amcheck: bool = True
    heap_all_indexed: bool = False
    restore_dump: bool = True
    assertions: t.Sequence[t.Mapping[str, t.Any]] = ()
    # What holds the application's directories in this backup, and the queries that name files in them.
    stores: t.Sequence[Store] = ()
    files: t.Sequence[t.Mapping[str, str]] = ()
    # What the options ask to look at, in the words of the proof.
    wanted: t.Sequence[str] = ()
    holder: t.Mapping[str, t.Any] = {}


def prove(plan: Plan, part: Part) -> float | None:
    """Verify, restore, compare and remove; returns the seconds that the restore took, None when there was none.

    What was found is recorded in *part*: the backup is proven when no check failed, and the content was compared.
    """
    with _phase(part, "verify"):
        sound = _verify(plan, part)
    if not sound or not _has_room(plan, part):
        return None
    with scratch_directory(plan.base, dict(plan.holder)) as directory:
        cluster = ScratchCluster(directory, plan.bin_dir, plan.user)
        try:
            seconds = _restore(plan, cluster, part)
            if seconds is not None:
                with _phase(part, "checks"):
                    _examine(plan, cluster, part)
        finally:
            cluster.stop()
    part.require(
        "removal of the scratch cluster",
        not os.path.lexists(directory),
        expected="nothing left of it",
        observed="its server has ended and its directory is gone",
    )
    return seconds


@contextlib.contextmanager
def _phase(part: Part, name: str) -> t.Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        part.metric(f"{name}_seconds", round(time.monotonic() - began, 3), "seconds")


def _verify(plan: Plan, part: Part) -> bool:
    """Every byte that the restore needs is as it was written."""
    found = plan.engine.verify_chain(plan.backup.label)
    problems = [f"{one.label}: {problem}" for one in found for problem in one.problems]
    read = sum(one.bytes for one in found)
    part.metric("verified_bytes", read, "bytes")
    sound = part.require(
        "bytes of the newest backup",
        not problems,
        expected="every file as it was written",
        observed="; ".join(problems[:5]) or f"{human_bytes(read)} in {len(found)} backup(s), all as written",
        advice="Do not rely on this backup; the next run of the activity backup makes a new full one in its place. "
        "Find out what damages the repository.",
        problems=problems[:50],
    )
    for one in found:
        plan.engine.repository.note_damage(one.label, one.problems)
    return sound


def bytes_needed(plan: Plan) -> int:
    """An upper bound of what the scratch cluster takes."""
    base = plan.engine.restored_bytes(plan.backup)
    files = sum(entry["bytes"] for entry in plan.backup.metadata["application_files"]) if plan.stores else 0
    return base * (2 if plan.restore_dump else 1) + 2 * _wal(plan).own_bytes + files + _MARGIN_BYTES


def _has_room(plan: Plan, part: Part) -> bool:
    status = os.statvfs(plan.base)
    free, needed = status.f_bavail * status.f_frsize, bytes_needed(plan)
    return part.require(
        f"room for the restore in {plan.base}",
        free >= needed,
        expected=f"at least {human_bytes(needed)} free",
        observed=f"{human_bytes(free)} free",
        advice="Free space there, or set scratch_dir to a larger file system; restore_dump: false halves the need "
        "of databases, restore_files: false does without that of files.",
    )


def _restore(plan: Plan, cluster: ScratchCluster, part: Part) -> float | None:
    """Lay down the files and replay the WAL to the restore point; returns the seconds until the server answered."""
    metadata = plan.backup.metadata
    began = time.monotonic()
    with _phase(part, "restore"):
        spent = replay.lay_down(plan.engine, plan.backup, _wal(plan).source, cluster)
    _require_identity(plan, cluster)
    _refuse_new_tablespaces(plan)
    name = metadata["restore_point"]["name"]
    libraries = str(metadata["settings"].get("shared_preload_libraries") or "")
    told = {"recovery_target_name": name, **replay.TIMED_LOG, **replay.as_before(metadata)}
    cluster.configure(int(metadata["server_version"]), libraries, told)
    refused = _start(plan, cluster)
    seconds = time.monotonic() - began
    spent["replay"] = replay.read_log(cluster.read_log()).seconds.get("replay", 0.0)
    # What remains is what it took to come up, before and after the replay.
    replay.record_seconds({**spent, "start": max(0.0, seconds - sum(spent.values()))}, part)
    part.metric("restored_bytes", bytes_used(cluster.data), "bytes")
    stopped = cluster.stopped_at_target()
    reached = part.require(
        "recovery to the restore point",
        not refused and f'restore point "{name}"' in stopped,
        expected=f"a server that accepts connections after recovery has stopped at the restore point {name}",
        observed=refused or f"{stopped or cluster.last_words()}, after {human_seconds(seconds)}",
        advice="The server's last words say what the backup lacks; make a new full backup if it is damaged.",
    )
    if not reached:
        return None
    cluster.find_superuser((plan.login_user, "postgres"), metadata["marker"]["database"])
    return seconds


def _start(plan: Plan, cluster: ScratchCluster) -> str:
    """Start the server; returns why it did not come up, or ""."""
    try:
        cluster.start(plan.timeout)
    except MaintenanceError as error:
        return error.observed
    return ""


def _require_identity(plan: Plan, cluster: ScratchCluster) -> None:
    """Before anything is started: the files are those of the cluster that was backed up."""
    expected = str(plan.backup.metadata["system_identifier"])
    found = cluster.control_data().get("Database system identifier", "none")
    if found != expected:
        raise MaintenanceError(
            "restore the files of the right cluster",
            where=plan.backup.directory,
            expected=f"the system identifier {expected} that the backup recorded",
            observed=found,
            advice="The files in this backup are another cluster's: find out how they came there.",
        )


def _refuse_new_tablespaces(plan: Plan) -> None:
    """Replaying CREATE TABLESPACE would write to the place that the live cluster uses."""
    found = _wal(plan).new_tablespace(until=parse_lsn(plan.backup.metadata["restore_point"]["lsn"]))
    if found:
        raise MaintenanceError(
            "keep the restored cluster to itself",
            where=plan.backup.directory,
            expected="no tablespace outside of the data directory that was created while the backup was made",
            observed=found[-200:],
            advice="Make another backup, then run this again.",
        )


def _wal(plan: Plan) -> WalRange:
    return WalRange(plan.backup, plan.engine.wal_of(plan.backup), plan.bin_dir)


def _examine(plan: Plan, cluster: ScratchCluster, part: Part) -> None:
    metadata = plan.backup.metadata
    recorded = metadata.get("fingerprints") or {}
    _require_ours(plan, cluster, part)
    with _phase(part, "compare"):
        content.check_marker(cluster, metadata["marker"], part)
        if recorded:
            content.check_content(cluster, recorded, part)
        else:
            _say_not_compared(metadata, part)
        catalog = record.read(plan.backup.path(record.FILE))
        check_catalogs(cluster, catalog, metadata["marker"]["database"], part)
    if plan.amcheck:
        with _phase(part, "amcheck"):
            content.check_structure(cluster, plan.heap_all_indexed, part)
    check_assertions(cluster, plan.assertions, parse_time(metadata["restore_point"]["time"]), part)
    if plan.stores or plan.files:
        with _phase(part, "files"):
            check_files(plan.stores, plan.backup, plan.files, cluster, part)
    dumps = {name: plan.backup.path(facts["file"]) for name, facts in metadata["databases"].items()}
    if plan.restore_dump and dumps and recorded:
        with _phase(part, "dump"):
            content.check_dumps(cluster, dumps, recorded, part)


def _require_ours(plan: Plan, cluster: ScratchCluster, part: Part) -> None:
    """After the start: the server that answers is the one that we started, and not the live one."""
    database = plan.backup.metadata["marker"]["database"]
    reason = cluster.reason_not_ours(plan.live.data_directory, database)
    name = "scratch cluster is not the live one"
    expected = "a server of our own on files of our own"
    if reason:
        raise MaintenanceError(
            name, expected=expected, observed=reason, advice="Nothing was written to it; look at scratch_dir."
        )
    ours = f"our server works on {os.path.basename(cluster.directory)}"
    if plan.live.problem:
        part.check(
            name,
            "unknown",
            expected=expected,
            observed=f"{ours}, but the live server could not be asked for its own: {plan.live.problem}",
            advice="Start the live server or correct the login options, so that both can be compared.",
        )
        return
    part.require(name, True, expected=expected, observed=f"{ours}, the live one on {plan.live.data_directory}")


def _say_not_compared(metadata: t.Mapping[str, t.Any], part: Part) -> None:
    part.check(
        "content of the restored databases",
        "unknown",
        expected="fingerprints that were recorded with the backup",
        observed="; ".join(sorted({entry["reason"] for entry in metadata["not_compared"]})) or "there are none",
        advice="Make a backup at a quieter time, or allow writers to be held up for longer (max_block of backup).",
    )
