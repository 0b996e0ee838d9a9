# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A restore test that goes on from the backup to a point in time, by the WAL archive."""

from __future__ import annotations

import os
import time
import typing as t
from contextlib import nullcontext
from datetime import datetime

from ..backup.engine import Engine
from ..backup.repository import parse_time
from ..backup.wal.archive import directory_of
from ..errors import MaintenanceError
from ..options import reading
from ..quantities import human_bytes
from ..result import Part
from . import content, replay
from .aim import Aim, take_aim
from .assertions import check_assertions
from .flow import Plan
from .proof import State
from .scratch_cluster import ScratchCluster
from .scratch_directory import scratch_directory
from .targets import Target, parse


def read_target(text: str) -> Target:
    """The option ``target``; raises MaintenanceError where it names nothing that a test can prove."""
    with reading("target", expected="a point to restore to"):
        target = parse(text)
        if target.kind == "immediate":
            raise ValueError("immediate has no row that must be there, so it proves nothing; use backup")
    return target


class Beyond:
    """The target beyond the newest backup, with the WAL archive that leads there; with ``backup`` there is none."""

    def __init__(self, params: t.Mapping[str, t.Any], engine: Engine, state: State) -> None:
        self.target = read_target(params["target"])
        self.engine = engine
        self.repository = engine.repository
        self.identifier = str(state.backup.metadata["system_identifier"])
        self.archive = directory_of(params["wal_archive"], self.identifier) if params["wal_archive"] else ""

    def aim(self, bin_dir: str) -> Aim:
        """The backup that leads to the target, and its WAL."""
        backups = [one for one in self.engine.list() if str(one.metadata["system_identifier"]) == self.identifier]
        return take_aim(self.target, backups, self.engine, archive=self.archive, bin_dir=bin_dir)

    def newest_commit(self, bin_dir: str) -> datetime | None:
        """When the last commit was made that the WAL archive leads to, where that is the target."""
        newest = self.aim(bin_dir).newest if self.target.kind == "newest" else None
        return newest.time if newest else None

    def prove(self, plan: Plan, part: Part) -> float | None:
        """Restore to the target; gives the seconds that it took, or None where it was not reached."""
        if self.target.kind == "backup":
            return None
        try:
            aim = self.aim(plan.bin_dir)
            other = aim.backup != plan.backup
            with self.repository.in_use(aim.backup.label, dict(plan.holder)) if other else nullcontext():
                seconds = prove_target(plan, aim, part)
        except MaintenanceError as error:
            part.require(
                f"restore to the target {self.target.kind}",
                False,
                expected=error.expected,
                observed=f"{error.what}: {error.observed}",
                advice=error.advice,
            )
            return None
        return None if part.failures() else seconds


def prove_target(plan: Plan, aim: Aim, part: Part) -> float | None:
    """Restore to the target in a scratch cluster, look at it and remove it; returns the seconds until it answered."""
    replay.refuse_new_tablespaces(aim)
    if not _has_room(plan, aim, part):
        return None
    with scratch_directory(plan.base, dict(plan.holder)) as directory:
        cluster = ScratchCluster(directory, plan.bin_dir, plan.user)
        try:
            seconds = replay.lay_down(plan.engine, aim.backup, aim.wal.source, cluster)
            replay.configure(aim, cluster)
            recovered = replay.start(aim, cluster, plan.timeout, part)
            if recovered is None:
                return None
            seconds.update(recovered.seconds)
            began = time.monotonic()
            database = aim.backup.metadata["marker"]["database"]
            cluster.find_superuser((plan.login_user, "postgres"), database)
            reason = cluster.reason_not_ours(plan.live.data_directory, database)
            if reason:
                raise MaintenanceError(
                    "scratch cluster is not the live one",
                    expected="a server of our own on files of our own",
                    observed=reason,
                    advice="Nothing was written to it; look at scratch_dir.",
                )
            replay.check_markers(aim, recovered, cluster, part)
            moment = recovered.time or parse_time(aim.backup.metadata["restore_point"]["time"])
            check_assertions(cluster, plan.assertions, moment, part, where=", at the target,")
            if plan.amcheck:
                _check_structure(plan, cluster, part)
            seconds["checks"] = time.monotonic() - began
        finally:
            cluster.stop()
    return replay.record_seconds(seconds, part, prefix="target_")


def _check_structure(plan: Plan, cluster: ScratchCluster, part: Part) -> None:
    own = Part()
    content.check_structure(cluster, plan.heap_all_indexed, own)
    for check in own.checks:
        part.checks.append({**check, "name": f"{check['name']}, at the target"})


def _has_room(plan: Plan, aim: Aim, part: Part) -> bool:
    status = os.statvfs(plan.base)
    free, needed = status.f_bavail * status.f_frsize, replay.bytes_needed(aim, plan.engine)
    return part.require(
        f"room for the restore to the target in {plan.base}",
        free >= needed,
        expected=f"at least {human_bytes(needed)} free",
        observed=f"{human_bytes(free)} free",
        advice="Free space there, or set scratch_dir to a larger file system.",
    )
