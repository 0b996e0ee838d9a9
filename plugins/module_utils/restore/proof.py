# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof of a backup: whether there is one that is enough, and how it is kept or taken back."""

from __future__ import annotations

import os
import platform
import typing as t
from datetime import datetime

from ..backup.repository import Backup, Repository, parse_time
from ..files import sha256_of
from ..quantities import human_seconds
from ..result import Part
from .live_cluster import Live

CLOCK_TOLERANCE = 300.0
TARGET = "the target "


class State(t.NamedTuple):
    """What there is to prove, and what is known already."""

    backup: Backup
    proof: t.Optional[t.Dict[str, t.Any]]
    live: Live
    leftovers: t.List[str]

    @property
    def proven(self) -> str:
        return f"proven on {self.proof['proven_at']}" if self.proof else "none"


def closeness(params: t.Mapping[str, t.Any]) -> list[str]:
    """What the options ask to look at, beyond what is always looked at."""
    names = [name for name in ("amcheck", "heap_all_indexed", "restore_dump", "restore_files") if params[name]]
    if params["target"] != "backup":
        names.append(f"{TARGET}{params['target']}")
    names += [f"assertion {one['name']} in {one['database']}" for one in params["assertions"]]
    return names + [f"files {one['name']}" for one in params["named_files"]]


def why_due(proof: t.Mapping[str, t.Any] | None, wanted: t.Sequence[str], interval: float, now: datetime) -> str:
    """Why the newest backup is to be proven now; empty when its proof is enough."""
    if proof is None:
        return "it was not proven yet"
    missing = [name for name in wanted if name not in proof["looked_at"]]
    if missing:
        return f"its proof did not look at {', '.join(missing)}"
    age = (now - parse_time(proof["proven_at"])).total_seconds()
    if age < -CLOCK_TOLERANCE:
        return "its proof is dated in the future, so a clock was changed"
    return f"its proof is {human_seconds(age)} old" if age >= interval else ""


def check_newest(state: State, repository: Repository, part: Part) -> None:
    """The newest backup is sound enough to be tried, and it is the live cluster's."""
    damaged = [entry for entry in repository.damaged() if entry.label > state.backup.label]
    part.require(
        f"newest backup of {repository.cluster}",
        not damaged,
        expected="a backup whose description is as it was written",
        observed="; ".join(f"{entry.label}: {entry.problem}" for entry in damaged) or state.backup.label,
        advice="Make a new full backup, and find out what damages the repository.",
    )
    recorded = str(state.backup.metadata["system_identifier"])
    if state.live.system_identifier:
        part.require(
            "newest backup is one of the live cluster",
            recorded == state.live.system_identifier,
            expected=f"the live system identifier {state.live.system_identifier}",
            observed=recorded,
            advice="Correct the login options, or repository and cluster: they name different clusters.",
        )


def check_whole(backup: Backup, part: Part) -> None:
    """What the backup should hold and does not: it is then no proven one, however well its databases do."""
    lacking = [f"{name}: {reason}" for name, reason in backup.lacks.items()]
    if lacking:
        part.require(
            "stores in the backup",
            False,
            expected="all that the activity backup is to save beside the databases",
            observed="; ".join(lacking),
            advice="Its databases were restored and compared, but it is not proven. See what kept the rest from being "
            "saved, and run the activity backup again.",
        )


def keep(state: State, repository: Repository, facts: dict[str, t.Any], part: Part) -> None:
    """Keep what *part* holds as the proof of the backup."""
    metrics = {name: metric["value"] for name, metric in part.metrics.items()}
    checks = [check["name"] for check in part.checks if check["status"] == "passed"]
    known = {**facts, "metrics": metrics, "checks": checks, "host": platform.node()}
    # That of a repository on another host is kept elsewhere here.
    path = os.path.realpath(repository.write_proof(state.backup, known))
    written = repository.proof(state.backup) or {}
    part.change("proof", state.backup.label, state.proven, f"proven on {written.get('proven_at')}")
    part.artifact(path, sha256_of(path), os.path.getsize(path))


def take_back(state: State, repository: Repository, part: Part) -> None:
    """Remove an older proof that what failed in *part* has disproven; a lack of room disproves nothing."""
    if state.proof and any(not check["name"].startswith("room ") for check in part.failures()):
        os.unlink(repository.proof_path(state.backup.label))
        part.change("proof", state.backup.label, state.proven, "disproven and removed")
