# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look at a restored cluster from all sides: marker, rows, catalogs, structure, assertions, files and dumps."""

from __future__ import annotations

import os
import typing as t

from ..backup.repository import parse_time
from ..catalog import record
from ..errors import MaintenanceError
from ..result import Part
from . import content
from .assertions import check_assertions
from .catalog_checks import check_catalogs
from .file_rows import check_files
from .phases import beside, phase
from .scratch_cluster import ScratchCluster

if t.TYPE_CHECKING:
    from .flow import Plan


def examine(plan: Plan, cluster: ScratchCluster, part: Part) -> None:
    """Hold what *cluster* shows against what was recorded with the backup."""
    metadata = plan.backup.metadata
    recorded = metadata.get("fingerprints") or {}
    database = metadata["marker"]["database"]
    _require_ours(plan, cluster, part)

    def compare_rows(own: Part) -> None:
        with phase(own, "compare"):
            content.check_marker(cluster, metadata["marker"], own)
            if recorded:
                content.check_content(cluster, recorded, own)
            else:
                _say_not_compared(metadata, own)

    def compare_catalogs(own: Part) -> None:
        with phase(own, "catalogs"):
            check_catalogs(cluster, record.read(plan.backup.path(record.FILE)), database, own)
        # Only now: for pg_amcheck extensions are created, which nobody recorded.
        if plan.amcheck:
            with phase(own, "amcheck"):
                content.check_structure(cluster, plan.heap_all_indexed, own)

    beside(part, [compare_rows, compare_catalogs], give_up=cluster.stop)
    check_assertions(cluster, plan.assertions, parse_time(metadata["restore_point"]["time"]), part)
    if plan.stores or plan.files:
        with phase(part, "files"):
            check_files(plan.stores, plan.backup, plan.files, cluster, part)
    dumps = {name: plan.backup.path(facts["file"]) for name, facts in metadata["databases"].items()}
    if plan.restore_dump and dumps and recorded:
        with phase(part, "dump"):
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
