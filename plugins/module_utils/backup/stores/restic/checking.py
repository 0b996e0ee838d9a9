# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Is a restic repository sound? Its structure each time, its packs in rotating parts, and our snapshots by their ids.

``restic check`` takes an exclusive lock, which would keep others from their backups for as long as it reads. So it is
asked without one first; only what it then complains of, which could be somebody else's prune, is looked at again alone.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import typing as t

from ....errors import MaintenanceError
from ....quantities import human_bytes, human_seconds
from ....result import Part
from ...access import exposed
from ...remembered import Parts, Remembered
from ...repository import bytes_used, now
from .program import LockedError, Restic
from .tagging import label_of

_SUCCESS = "no errors were found"
_PACK = re.compile(r"\b[0-9a-f]{64}\b")
# restic can read one of at most so many parts.
_MOST_PARTS = 256
_DEFAULT_PARTS = 30
_DAY = 86400.0
_SHOWN = 5
# What check says of its work, and of files that are merely not needed.
_NO_PROBLEM = re.compile(
    r"^(using temporary cache|create exclusive lock|load indexes|check all packs|check snapshots|read group|read all|"
    r"\[\d|no errors were found|\d+ additional files were found|This is non-critical|"
    r"pack [0-9a-f]+: not referenced in any index|Fatal: (repository contains errors|LoadIndex returned errors)|"
    r"the repository (contains|may contain)|unable to create temporary directory for cache|subprocess ssh: Warning)"
)

Facts = t.Mapping[str, t.Mapping[str, t.Any]]


class Looked(t.NamedTuple):
    """What reading parts of the packs showed."""

    problems: list[str]
    read: list[str]
    left: int
    bytes: int


def verify(
    restic: Restic, facts: Facts, remembered: Remembered, part: Part, *, quick: bool = False
) -> dict[str, list[str]]:
    """Verify what the backups with these *facts* (by label) have in the repository; returns their problems.

    *quick* looks at the snapshots alone.
    """
    where = restic.location.name
    try:
        identity = restic.identity()
        missing = _missing_snapshots(restic, facts, identity, remembered, part)
        if quick:
            return missing
        problems = structure_problems(restic)
    except MaintenanceError as error:
        report_not_opened(error, where, part)
        return {}
    memory = Parts(remembered.repository, "restic", identity)
    looked = Looked([], [], 0, 0) if problems else _read_parts(restic, memory, remembered)
    problems += looked.problems
    _report(restic, problems, facts, part)
    _report_reading(restic, looked, memory, remembered, part)
    _report_access(restic, part)
    _note(memory, problems, looked, remembered)
    return missing


def _missing_snapshots(
    restic: Restic, facts: Facts, identity: str, remembered: Remembered, part: Part
) -> dict[str, list[str]]:
    """Backups whose snapshot is not there, or not as it was; and snapshots of ours that no backup needs."""
    found = {snapshot["id"]: snapshot for snapshot in restic.snapshots()}
    missing = {}
    for label, one in facts.items():
        if one["repository_id"] != identity:
            missing[label] = [
                f"its files are in the restic repository {one['repository_id'][:16]}, this is {identity[:16]}"
            ]
        elif one["snapshot"] not in found or label_of(found[one["snapshot"]]) != label:
            missing[label] = [f"the restic snapshot {one['snapshot'][:8]} of its files is not there"]
    part.check(
        f"snapshots in {restic.location.name}",
        "failed" if missing else "passed",
        expected="the snapshot of each backup",
        observed="; ".join(f"{label}: {words[0]}" for label, words in missing.items()) or f"all {len(facts)}",
        advice="Somebody forgot them: the files of these backups are lost. Make a new backup, and find out who did.",
    )
    part.metric("restic_snapshots", len(facts) - len(missing), "count")
    needed = {one["snapshot"] for one in facts.values()}
    labels = {name: label_of(one, remembered.repository.cluster) for name, one in found.items() if name not in needed}
    strangers = [f"{label} ({name[:8]})" for name, label in labels.items() if _is_gone(remembered, label)]
    if strangers:
        part.check(
            f"snapshots without a backup in {restic.location.name}",
            "warned",
            expected="none that belongs to a backup which is no more",
            observed="; ".join(strangers[:_SHOWN]) + (f" … {len(strangers)} in all" if len(strangers) > _SHOWN else ""),
            advice="When the backup repository was not lost, and no other one uses the same cluster name, remove them "
            "by `restic forget`.",
        )
    return missing


def _is_gone(remembered: Remembered, label: str) -> bool:
    """Whether nothing of the backup *label* is left, so that no later run will care for it."""
    directory = remembered.repository.directory
    return bool(label) and not any(
        os.path.lexists(os.path.join(directory, prefix + label)) for prefix in ("", ".partial-", ".expired-")
    )


# -- restic's own verdict --


def structure_problems(restic: Restic) -> list[str]:
    """What ``restic check`` finds wrong with indexes, trees and the presence of packs."""
    return _check(restic)


def _check(restic: Restic, *arguments: str) -> list[str]:
    problems = _complaints(restic.check(*arguments, "--no-lock"))
    if not problems:
        return []
    try:
        return _complaints(restic.check(*arguments))
    except LockedError:
        return problems  # somebody is at work there, and it could be their doing: better told once too often


def _complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """What restic complains of; its success is believed only if it says so, and says nothing else."""
    lines = [line.strip() for line in (*done.stdout.splitlines(), *done.stderr.splitlines()) if line.strip()]
    complaints = [line for line in lines if not _NO_PROBLEM.search(line)]
    if done.returncode == 0 and _SUCCESS in lines and not complaints:
        return []
    return complaints or [f"restic check ended with {done.returncode} and did not say that no errors were found"]


def _read_parts(restic: Restic, memory: Parts, remembered: Remembered) -> Looked:
    """Read the parts of the packs that are due: what was never read first, then what was read longest ago."""
    # To read all now is no reason to read in other parts from tomorrow on.
    count = parts_for(remembered.within) if remembered.within else len(memory.read_at) or _DEFAULT_PARTS
    names = [f"{number}/{count}" for number in range(1, count + 1)]
    for name in set(memory.read_at) - set(names):
        del memory.read_at[name]
    due = [name for name in names if remembered.is_over(f"restic/{name}", memory.read_at.get(name, 0.0))]
    due.sort(key=lambda name: memory.read_at.get(name, 0.0))
    size = _size(restic) // count if due else 0
    at_once = len(due) == len(names) and not remembered.budget.limited
    looked = Looked([], [], 0, 0)
    for group in [due] if at_once else [[name] for name in due]:
        if not remembered.budget.take(size * len(group)):
            break
        problems = _check(restic, "--read-data" if at_once else f"--read-data-subset={group[0]}")
        looked.problems.extend(problems)
        looked.read.extend(group)
        for name in group:
            memory.read_at.pop(name, None)
            if not problems:
                memory.read_at[name] = round(remembered.now, 3)
    return looked._replace(left=len(due) - len(looked.read), bytes=size * len(looked.read))


def parts_for(within: float) -> int:
    """In how many parts packs are read: about one for each day of *within* seconds."""
    return min(_MOST_PARTS, max(1, math.ceil(within / _DAY)))


def _size(restic: Restic) -> int:
    if not restic.location.remote:
        return bytes_used(os.path.join(restic.location.path, "data"))
    stats = restic.json("measure the restic repository", "stats", "--mode", "raw-data", "--no-lock")
    return int(stats["total_size"])


# -- the report --


def report_not_opened(error: MaintenanceError, where: str, part: Part) -> None:
    """A repository that could not be looked at is no sound one."""
    observed = f"{error.what}: {error.observed}"
    part.check(f"restic repository {where}", "failed", expected=error.expected, observed=observed, advice=error.advice)


def _report(restic: Restic, problems: t.Sequence[str], facts: Facts, part: Part) -> None:
    touched = _touched(restic, problems, facts) if problems else []
    part.check(
        f"restic repository {restic.location.name}",
        "failed" if problems else "passed",
        expected="indexes, trees and packs that restic finds sound, by its words and its exit status",
        observed="; ".join(problems[:_SHOWN]) + (f" … {len(problems)} in all" if len(problems) > _SHOWN else "")
        if problems
        else _SUCCESS,
        advice="The files of these backups may not be restorable, nor those of new ones, which build on the same "
        "packs. Find out what damages the repository. Then, with restic 0.16 and later, `restic repair packs <id>`; "
        "with older ones move the damaged pack out of data/, and `restic rebuild-index`. The next backup saves what is "
        "lacking.",
        evidence={"problems": list(problems[:50]), "backups": touched} if problems else {},
    )


def _touched(restic: Restic, problems: t.Sequence[str], facts: Facts) -> list[str]:
    """The backups whose files are in the packs that *problems* name, as far as restic can tell; else all."""
    packs = sorted({pack for words in problems for pack in _PACK.findall(words)})
    everything = sorted(facts)
    if not packs:
        return everything
    try:
        found = restic.json(
            "find what is in damaged packs", "find", "--no-lock", *(w for p in packs for w in ("--pack", p))
        )
    except MaintenanceError:
        return everything
    snapshots = {entry.get("snapshot") for entry in found or ()}
    return sorted(label for label, one in facts.items() if one["snapshot"] in snapshots) or everything


def _report_reading(restic: Restic, looked: Looked, memory: Parts, remembered: Remembered, part: Part) -> None:
    oldest = min(memory.read_at.values(), default=0.0)
    age = max(0.0, remembered.now - oldest) if oldest else 0.0
    part.metric("restic_read_bytes", looked.bytes, "bytes")
    part.metric("restic_oldest_reading_seconds", round(age, 1), "seconds")
    part.check(
        f"packs read in {restic.location.name}",
        "warned" if looked.left or looked.problems else "passed",
        expected=f"all of them, at most {human_seconds(remembered.within)} ago",
        observed=f"{looked.left} parts are still to be read, the budget is spent"
        if looked.left
        else "not read as long as the repository is damaged"
        if looked.problems
        else f"{len(looked.read)} parts ({human_bytes(looked.bytes)}) now, the oldest reading {human_seconds(age)} ago",
        advice="Allow more by time_budget and read_budget, or a longer reread_within.",
    )


def _report_access(restic: Restic, part: Part) -> None:
    if restic.location.remote:
        return
    reach = exposed(restic.location.path, restic.location.path)
    part.check(
        f"rights in {restic.location.name}",
        "warned" if reach.writable else "passed",
        expected="files that nobody but their owner can write to",
        observed="; ".join(reach.writable[:_SHOWN]) or "nobody else can",
        advice="Take these rights back: whoever can write there can destroy all backups of the files.",
    )


def _note(memory: Parts, problems: t.Sequence[str], looked: Looked, remembered: Remembered) -> None:
    if problems:
        memory.facts["damage"] = {"found_at": now(), "problems": list(problems[:20])}
    elif not looked.left:
        memory.facts.pop("damage", None)
    try:
        memory.save()
    except OSError as error:
        remembered.problem = f"what was read by restic: {error.strerror or error}"


def report_noted_damage(memory: Parts, where: str, part: Part) -> None:
    """Tell, when a backup is made, that a verification found the repository damaged: what it adds may build on that."""
    damage = memory.facts.get("damage")
    if damage:
        part.check(
            f"restic repository {where}",
            "failed",
            expected="one that no verification found damaged",
            observed=f"{damage['problems'][0]} (found at {damage['found_at']})",
            advice="restic takes what it believes to have for saved: files of this backup may be in what is damaged. "
            "See the advice of backup_verification; a verification that finds it sound takes this back.",
        )
