# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore one backup into a scratch cluster and hold it against what was recorded when it was made."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

from ..backup.engine import Engine, Verification
from ..backup.repository import Backup, bytes_used
from ..backup.stores.store import Store
from ..backup.wal.positions import parse_lsn
from ..errors import MaintenanceError
from ..quantities import human_bytes, human_seconds
from ..result import Part
from . import replay
from .examination import examine
from .live_cluster import Live
from .phases import phase
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
    if not _may_begin(plan, part):
        return None
    seconds = None
    with contextlib.ExitStack() as stack, scratch_directory(plan.base, dict(plan.holder)) as directory:
        cluster = ScratchCluster(directory, plan.bin_dir, plan.user)
        try:
            spent = _lay_down(plan, cluster, part)
            seconds = None if spent is None else _recover(plan, cluster, spent, part)
            if seconds is not None:
                with phase(part, "checks"):
                    examine(plan, cluster, part)
        finally:
            stack.enter_context(phase(part, "removal"))
            cluster.stop()
    part.require(
        "removal of the scratch cluster",
        not os.path.lexists(directory),
        expected="nothing left of it",
        observed="its server has ended and its directory is gone",
    )
    return seconds


def _may_begin(plan: Plan, part: Part) -> bool:
    """Whether the backup looks whole from outside, and there is room for it; if not, all that is wrong is recorded."""
    problem: MaintenanceError | None = None
    looked_at = plan.engine.verify_chain(plan.backup.label, quick=True)
    try:
        if all(one.sound for one in looked_at) and _has_room(plan, part):
            return True
    except MaintenanceError as error:
        problem = error
    found = _verify(plan, part)
    if _judge(plan, looked_at if all(one.sound for one in found) else found, part) and problem:
        raise problem
    return False


def _lay_down(plan: Plan, cluster: ScratchCluster, part: Part) -> dict[str, float] | None:
    """Lay down the files while every byte of the backup is verified; None when one is not as it was written.

    Nothing is started before that is known. The disk is read once: what one reads the other finds in memory.
    """
    own = Part()
    spent: dict[str, float] = {}
    problem: Exception | None = None
    with ThreadPoolExecutor(1) as pool:
        verifying = pool.submit(_verify, plan, own)
        try:
            with phase(own, "restore"):
                spent = replay.lay_down(plan.engine, plan.backup, _wal(plan).source, cluster)
        except (MaintenanceError, OSError) as error:
            problem = error
        found = verifying.result()
    part.metrics["verify_seconds"] = own.metrics["verify_seconds"]
    if not _judge(plan, found, part):
        return None
    if problem:
        raise problem
    part.metrics["restore_seconds"] = own.metrics["restore_seconds"]
    return spent


def _verify(plan: Plan, part: Part) -> list[Verification]:
    with phase(part, "verify"):
        return plan.engine.verify_chain(plan.backup.label)


def _judge(plan: Plan, found: t.Sequence[Verification], part: Part) -> bool:
    """Every byte that the restore needs is as it was written."""
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


def _recover(plan: Plan, cluster: ScratchCluster, spent: dict[str, float], part: Part) -> float | None:
    """Replay the WAL to the restore point; returns the seconds that it took, and was *spent* before, until the server
    answered."""
    metadata = plan.backup.metadata
    began = time.monotonic() - sum(spent.values())
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
