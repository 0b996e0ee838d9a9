# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What can be told of a repository as a whole, beside the bytes of its backups: pure, so that any state can be tried.

Each check is a function that says in words what is wrong, and nothing when all is well; CHECKS lists them.
"""

from __future__ import annotations

import statistics
import typing as t
from datetime import datetime, timedelta

from ..quantities import human_bytes, human_seconds
from .packed.unpacking import base_bytes
from .repository import Backup, Damaged, parse_time
from .retention import CLOCK_TOLERANCE

# Against how many earlier backups a size is held, and what part of their median is suspiciously little.
_TREND = 5
_LITTLE = 0.5
# Sizes below this go up and down by themselves.
_NEGLIGIBLE = 64 << 10


class Limits(t.NamedTuple):
    """How old things may be; 0 for a proof means that none is asked for."""

    max_age: timedelta
    proof_max_age: timedelta


class Facts(t.NamedTuple):
    """What was found in a repository."""

    backups: list[Backup]
    damaged: list[Damaged]
    # Labels of backups whose bytes are not as they were written, or that build on such.
    unsound: frozenset[str]
    proofs: dict[str, datetime]
    leftovers: list[str]
    strangers: list[str]
    readable: list[str]
    writable: list[str]
    limits: Limits
    now: datetime


class Check(t.NamedTuple):
    """A check by its name, what it asks for, what it is when it does not hold, and what is to be done then."""

    name: str
    look: t.Callable[[Facts], list[str]]
    found: str
    expected: str
    advice: str
    fine: t.Callable[[Facts], str]


def damaged_descriptions(facts: Facts) -> list[str]:
    return [f"{entry.label}: {entry.problem}" for entry in facts.damaged]


def broken_chains(facts: Facts) -> list[str]:
    """Backups that build on something that is not there, or that is not what they were built on."""
    by_label = {backup.label: backup for backup in facts.backups}
    return [f"{b.label}: {words}" for b in facts.backups for words in _broken(b, by_label)]


def _broken(backup: Backup, by_label: t.Mapping[str, Backup]) -> t.Iterator[str]:
    chain, metadata = backup.chain, backup.metadata
    missing = [label for label in chain if label not in by_label]
    if missing:
        yield f"it builds on {', '.join(missing)}, which is not there"
        return
    if not chain or chain[-1] != backup.label or by_label[chain[0]].type != "full":
        yield "its chain does not lead from a full backup to itself"
        return
    if len(chain) == 1:
        return
    parent = by_label[chain[-2]]
    if metadata["parent"] != parent.label or parent.chain != chain[:-1]:
        yield f"its chain and that of {parent.label} contradict each other"
    elif parent.metadata["system_identifier"] != metadata["system_identifier"]:
        yield f"{parent.label} is of another cluster"
    elif parent.finished > backup.finished:
        yield f"{parent.label}, which it builds on, is dated later"


def several_clusters(facts: Facts) -> list[str]:
    by_cluster: dict[str, list[str]] = {}
    for backup in facts.backups:
        by_cluster.setdefault(backup.metadata["system_identifier"], []).append(backup.label)
    if len(by_cluster) < 2:
        return []
    return [f"cluster {name}: {', '.join(labels)}" for name, labels in sorted(by_cluster.items())]


def dated_in_the_future(facts: Facts) -> list[str]:
    return [
        f"{backup.label} was finished at {backup.metadata['finished']}"
        for backup in facts.backups
        if backup.finished - facts.now > CLOCK_TOLERANCE
    ]


def newest_to_restore(facts: Facts) -> tuple[str, timedelta] | None:
    """The newest sound backup that is not from the future, and the age of the point that it restores to."""
    ages = [
        (facts.now - _restores_to(backup), backup.label)
        for backup in facts.backups
        if backup.label not in facts.unsound and backup.finished - facts.now <= CLOCK_TOLERANCE
    ]
    return (min(ages)[1], min(ages)[0]) if ages else None


def _restores_to(backup: Backup) -> datetime:
    moment = str(backup.metadata["restore_point"].get("time") or backup.metadata["started"])
    return parse_time(moment)


def too_old(facts: Facts) -> list[str]:
    newest = newest_to_restore(facts)
    if newest is None:
        return ["there is no backup that can be restored"]
    label, age = newest
    return [f"{_ago(age)} ({label})"] if age > facts.limits.max_age else []


def lacking_stores(facts: Facts) -> list[str]:
    """What the newest backup should hold but does not, as it could not be had when the backup was made."""
    newest = facts.backups[-1:]
    return [f"{b.label} lacks the store {name}: {why}" for b in newest for name, why in b.lacks.items()]


def suspiciously_small(facts: Facts) -> list[str]:
    """What is much smaller in the newest backup than the same was in earlier ones."""
    return shrunk_parts(facts.backups[-1], facts.backups[:-1]) if facts.backups else []


def shrunk_parts(newest: Backup, earlier: t.Sequence[Backup]) -> list[str]:
    """The parts of *newest* that are suspiciously small against *earlier* backups, oldest first.

    Dumps and files are whole in every backup; a base only says something among full ones.
    """
    before = [sizes_by_part(backup) for backup in earlier]
    problems = []
    for part, size in sizes_by_part(newest).items():
        trend = [sizes[part] for sizes in before if part in sizes][-_TREND:]
        usual = statistics.median(trend) if trend else 0
        if usual > _NEGLIGIBLE and size < usual * _LITTLE:
            problems.append(f"{part} of {newest.label}: {human_bytes(size)}, before {human_bytes(usual)}")
    return problems


def sizes_by_part(backup: Backup) -> dict[str, int]:
    """Sizes that can be compared with those of other backups."""
    metadata = backup.metadata
    sizes = {f"files of {source['source']}": int(source["bytes"]) for source in metadata["application_files"]}
    sizes.update({f"dump of {name}": int(facts["bytes"]) for name, facts in metadata["databases"].items()})
    for facts in metadata.get("stores", {}).values():
        sizes.update({words: int(size) for words, size in facts.get("sizes", {}).items()})
    if backup.type == "full":
        sizes["base"] = base_bytes(metadata)
    return sizes


def left_by_killed_runs(facts: Facts) -> list[str]:
    return list(facts.leftovers)


def strangers(facts: Facts) -> list[str]:
    return list(facts.strangers)


def not_proven_lately(facts: Facts) -> list[str]:
    """No restore test proved a backup for long; there is time for the first one."""
    limit = facts.limits.proof_max_age
    if not limit or not facts.backups:
        return []
    if not facts.proofs:
        oldest = facts.now - facts.backups[0].finished
        return [f"none was ever proven, the first is {_ago(oldest)} old"] if oldest > limit else []
    label, proven = max(facts.proofs.items(), key=lambda entry: entry[1])
    age = facts.now - proven
    if age < -CLOCK_TOLERANCE:
        return [f"the proof of {label} is dated in the future"]
    return [f"the last proof, of {label}, is {_ago(age)} old"] if age > limit else []


def readable_by_others(facts: Facts) -> list[str]:
    return list(facts.readable)


def writable_by_others(facts: Facts) -> list[str]:
    return list(facts.writable)


def _ago(age: timedelta) -> str:
    return human_seconds(max(0.0, age.total_seconds()))


def _age_in_words(facts: Facts) -> str:
    newest = newest_to_restore(facts)
    return f"{_ago(newest[1])} ({newest[0]})" if newest else "none"


def _proof_in_words(facts: Facts) -> str:
    if not facts.proofs:
        return "none yet"
    label, proven = max(facts.proofs.items(), key=lambda entry: entry[1])
    return f"{_ago(facts.now - proven)} ago ({label})"


def _count(facts: Facts) -> str:
    return f"{len(facts.backups)} backups"


def _none(_facts: Facts) -> str:
    return "none"


CHECKS: tuple[Check, ...] = (
    Check(
        "descriptions of backups",
        damaged_descriptions,
        "failed",
        "each backup described by a backup.json as it was written",
        "It cannot be restored. Remove it by hand when nobody needs it to find out what damages the repository.",
        _count,
    ),
    Check(
        "chains of backups",
        broken_chains,
        "failed",
        "all that a backup builds on, back to a full one",
        "It cannot be restored. Find out who removed or exchanged what it needs.",
        _count,
    ),
    Check(
        "backups of one cluster",
        several_clusters,
        "warned",
        "one system identifier in all of them",
        "Give the backups of each cluster a name of their own, by the option cluster of backup.",
        _count,
    ),
    Check(
        "dates of backups",
        dated_in_the_future,
        "warned",
        "none in the future",
        "A clock was changed: set it right, and make a new backup.",
        _count,
    ),
    Check(
        "age of the newest backup",
        too_old,
        "failed",
        "a backup that can be restored, to a point within max_age",
        "See why the activity backup made none since.",
        _age_in_words,
    ),
    Check(
        "stores in the newest backup",
        lacking_stores,
        "failed",
        "all that the activity backup is to save beside the databases",
        "See what kept it from being saved, and run the activity backup again.",
        _count,
    ),
    Check(
        "size of the newest backup",
        suspiciously_small,
        "warned",
        "not much smaller than earlier ones",
        "See whether something was dropped, deleted or left out.",
        _count,
    ),
    Check(
        "leftovers of killed runs",
        left_by_killed_runs,
        "warned",
        "none",
        "The next run of the activity backup removes them.",
        _none,
    ),
    Check(
        "strangers in the repository",
        strangers,
        "warned",
        "nothing but backups and what belongs to them",
        "Find out who put it there, and move it elsewhere.",
        _none,
    ),
    Check(
        "proof by a restore test",
        not_proven_lately,
        "warned",
        "one within proof_max_age",
        "See why the activity restore_test proved none since.",
        _proof_in_words,
    ),
    Check(
        "others cannot read the backups",
        readable_by_others,
        "warned",
        "files and directories that only their owner reaches",
        "Take the rights of group and others from the repository: chmod -R go= on it.",
        _none,
    ),
    Check(
        "others cannot write to the backups",
        writable_by_others,
        "failed",
        "files and directories of the repository's owner, that nobody else can write to",
        "Find out who had access, take the rights of group and others from it, and have it read again with full.",
        _none,
    ),
)
