# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run of the mirror showed, as checks, metrics and changes of its result."""

from __future__ import annotations

import re
import time
import typing as t

from ..quantities import human_bytes, human_seconds
from ..result import Part
from .destinations import Destination
from .memory import Records
from .outcome import Outcome
from .sources import CORE, Found, moment_of

_MOST = 20
_CLOCK_TOLERANCE = 300


def report(
    destination: Destination,
    outcome: Outcome,
    found: t.Sequence[Found],
    part: Part,
    *,
    records: Records,
    max_age: float,
) -> None:
    """All about a run that came to its end."""
    _copy(destination, outcome, part)
    _strangers(destination, outcome, part)
    _reading(destination, outcome, records, part)
    _changed(destination, outcome, part)
    _age(destination, outcome, found, max_age, part)
    if destination.append_only:
        _append_only(destination, outcome, part)
    else:
        _removal(destination, outcome, part)
    _changes(destination, outcome, part)
    _metrics(destination, outcome, part)


def report_sources(found: t.Sequence[Found], part: Part) -> None:
    """What is here is told of once, not for each destination."""
    for source in found:
        files = sum(len(unit.items) for unit in source.units)
        part.require(
            f"source {source.source.name}",
            not source.problems,
            expected="nothing damaged in it: what is, is not mirrored, and what the mirror has of it is kept",
            observed=few(source.problems) if source.problems else f"{len(source.units)} units, {files} files",
            advice="See what backup_verification says, and make a new backup.",
        )


def announce(destination: Destination, outcome: Outcome, part: Part) -> None:
    """In check mode: what would be done."""
    decision = outcome.decision
    kind = f"mirror {destination.name}"
    for name, (count, size) in grouped(outcome.to_send).items():
        part.change(kind, name, "not there as it is here", f"{count} files, {human_bytes(size)} would be sent")
    for name, (count, _size) in grouped(dict.fromkeys(outcome.removal.names, 0)).items():
        part.change(kind, name, f"{count} files", "would be removed: it expired here")
    part.check(
        f"plan for the mirror {destination.name}",
        "failed" if outcome.removal.refused else "passed",
        expected="what is to be done is known, and nothing stands in its way",
        observed=outcome.removal.refused
        or f"{len(decision.send)} files to send, {len(outcome.removal.names)} to remove, "
        f"{len(outcome.problems)} not as they were sent",
        advice=_REMOVAL_ADVICE,
    )


def _copy(destination: Destination, outcome: Outcome, part: Part) -> None:
    problems = [f"{name} {words}" for name, words in sorted(outcome.problems.items())]
    repaired = f"; {len(outcome.repaired)} of them sent again, and sound now" if outcome.repaired else ""
    sound = f"{outcome.files} files, {human_bytes(outcome.bytes)}; {outcome.verified_files} of them verified now"
    how = f" ({outcome.verifies_by})" if outcome.verified_files else ""
    advice = "Find out who or what changes files there. "
    if destination.append_only:
        advice += "Nothing can be replaced from here: take away there what is wrong, and the next run sends it again."
    part.require(
        f"copy at {destination.name}",
        not problems and not outcome.waiting,
        expected="every file as it was sent, by its hash",
        observed=few(problems or [f"{n} is not there yet" for n in outcome.waiting]) + repaired
        if problems or outcome.waiting
        else sound + how,
        advice=advice,
    )


def _strangers(destination: Destination, outcome: Outcome, part: Part) -> None:
    strangers = outcome.decision.strangers
    part.require(
        f"nothing strange at {destination.name}",
        not strangers,
        expected="no file that was not sent from here",
        observed=few(strangers) if strangers else "none",
        advice="Find out who wrote it there, and take it away; it is never removed from here.",
    )


def _reading(destination: Destination, outcome: Outcome, records: Records, part: Part) -> None:
    unread = sum(1 for record in records.files.values() if not record.verified_at)
    part.check(
        f"every byte at {destination.name} read in time",
        "warned" if outcome.left_bytes else "passed",
        expected="all that is due is read there, within the budget",
        observed=f"{human_bytes(outcome.left_bytes)} left for the next run, {unread} files of it never read there"
        if outcome.left_bytes
        else f"{human_bytes(outcome.verified_bytes)} read now, the rest in time before",
        advice="Give it a larger read_budget, or a longer reread_within.",
    )


def _changed(destination: Destination, outcome: Outcome, part: Part) -> None:
    changed = outcome.decision.changed
    part.require(
        f"nothing was overwritten here that is at {destination.name}",
        not changed,
        expected="files that never change have here the content that was sent",
        observed=f"{few(changed)}: not sent, the mirror keeps what it has" if changed else "none has changed",
        advice="This is what damage looks like, and what encryption by an intruder does. The mirror has what was there "
        "before: playbooks/backup_fetch.yml fetches it. Where files change by design, name them in mutable.",
    )


def _age(destination: Destination, outcome: Outcome, found: t.Sequence[Found], max_age: float, part: Part) -> None:
    names = {f.source.name for f in found if f.source.kind == CORE}
    clusters = {name for name in outcome.backups if name.split("/")[0] in names}
    clusters |= {
        f"{f.source.name}/{unit.repository.cluster}"
        for f in found
        for unit in f.units
        if unit.backup and unit.repository
    }
    for name in names - {cluster.split("/")[0] for cluster in clusters}:
        clusters.add(f"{name}/*")
    for cluster in sorted(clusters):
        labels = outcome.backups.get(cluster, [])
        newest = max(labels, default="")
        age = time.time() - moment_of(newest) if newest else None
        future = age is not None and age < -_CLOCK_TOLERANCE
        part.require(
            f"age of the newest backup of {cluster} at {destination.name}",
            age is not None and not future and age <= max_age,
            expected=f"at most {human_seconds(max_age)}",
            observed="there is no complete backup"
            if age is None
            else f"{newest} is from the future: a clock was changed"
            if future
            else f"{newest} was begun {human_seconds(max(0.0, age))} ago; {len(labels)} complete backups",
            advice="See why no backup was made, or why the newest did not get there.",
        )
        if age is not None:
            part.metric(f"mirror_{metric_name(destination.name)}_age_seconds", round(age, 1), "seconds")


def _append_only(destination: Destination, outcome: Outcome, part: Part) -> None:
    proof = outcome.proof
    if proof is None:
        return
    part.require(
        f"the account at {destination.name} can only add",
        not proof.broken,
        expected="each of these refused: " + ", ".join(dict.fromkeys(proof.held + proof.broken)),
        observed=f"the account can delete or change what is there: {few(proof.broken)}"
        if proof.broken
        else "all refused, and the probes are as they were written",
        advice="Let its key run nothing but the receiver (role backup_mirror_account, docs/offsite.md).",
    )


_REMOVAL_ADVICE = (
    "Look at the sources first: this is what an intruder leaves. If it is meant to be so, run it once with "
    "-e backup_mirror_remove_at_most=100."
)


def _removal(destination: Destination, outcome: Outcome, part: Part) -> None:
    removal = outcome.removal
    kept = f"; kept, as the newest that was proven: {', '.join(removal.kept)}" if removal.kept else ""
    part.require(
        f"removals at {destination.name}",
        not removal.refused,
        expected="what expired here, within limits, after the newest backup there was found sound",
        observed=(f"nothing was removed: {removal.refused}" if removal.refused else f"{len(outcome.removed)} files")
        + kept,
        advice=_REMOVAL_ADVICE,
    )


def _changes(destination: Destination, outcome: Outcome, part: Part) -> None:
    """One line a backup, or a directory: a run sends thousands of files."""
    kind = f"mirror {destination.name}"
    for name, (count, size) in grouped(outcome.sent).items():
        part.change(kind, name, "not there as it is here", f"{count} files, {human_bytes(size)} sent")
    for name, (count, _size) in grouped(dict.fromkeys(outcome.removed, 0)).items():
        part.change(kind, name, f"{count} files", "removed: it expired here")


def grouped(files: t.Mapping[str, int]) -> t.Dict[str, t.Tuple[int, int]]:
    groups: t.Dict[str, t.Tuple[int, int]] = {}
    for name, size in files.items():
        if not name.startswith("."):
            group = "/".join(name.split("/")[:3]) if name.count("/") > 2 else name.rpartition("/")[0]
            count, total = groups.get(group, (0, 0))
            groups[group] = (count + 1, total + size)
    return groups


def _metrics(destination: Destination, outcome: Outcome, part: Part) -> None:
    name = f"mirror_{metric_name(destination.name)}"
    part.metric(f"{name}_files", outcome.files, "count")
    part.metric(f"{name}_bytes", outcome.bytes, "bytes")
    part.metric(f"{name}_sent_bytes", sum(outcome.sent.values()), "bytes")
    part.metric(f"{name}_verified_bytes", outcome.verified_bytes, "bytes")
    part.metric(f"{name}_waiting_files", len(outcome.waiting), "count")
    part.metric(f"{name}_seconds", round(outcome.seconds, 3), "seconds")


def metric_name(name: str) -> str:
    return re.sub(r"\W", "_", name)


def few(names: t.Sequence[str]) -> str:
    """The first of *names*, and how many more there are."""
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return "; ".join(names[:_MOST]) + more
