# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is due and what may go: decisions about backups, pure, so that they can be tried on any history."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta, timezone

from ..quantities import human_seconds


class Known(t.NamedTuple):
    """What the decisions need to know of a backup."""

    label: str
    type: str
    chain: tuple[str, ...]
    finished: datetime
    sound: bool = True
    proven: bool = False
    in_use: bool = False
    # Whether there is more that it should hold; and the stores that it holds nothing of.
    lacking: bool = False
    absent: tuple[str, ...] = ()


class Rules(t.NamedTuple):
    """What is kept: so many full backups, all that are young, and the newest of so many days, weeks and months.

    Days, weeks (from Monday) and months are those in which there are backups, in UTC.
    """

    keep_full: int
    keep_within: timedelta
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0

    def calendar(self) -> list[tuple[str, int, t.Callable[[datetime], str]]]:
        return [
            ("daily", self.keep_daily, lambda moment: f"{moment:%Y-%m-%d}"),
            ("weekly", self.keep_weekly, lambda moment: f"week {moment:%G-W%V}"),
            ("monthly", self.keep_monthly, lambda moment: f"{moment:%Y-%m}"),
        ]

    def in_words(self) -> str:
        kept = [f"keep_full {max(1, self.keep_full)}", f"keep_within {human_seconds(self.keep_within.total_seconds())}"]
        return ", ".join(kept + [f"keep_{name} {count}" for name, count, _period in self.calendar() if count])


class Decision(t.NamedTuple):
    """Whether a backup is due, of which type, on which parent, and why."""

    due: bool
    type: str
    parent: str
    why: str


# A backup from further in the future than this shows that a clock was changed.
CLOCK_TOLERANCE = timedelta(minutes=5)


def is_whole(backup: Known, by_label: t.Mapping[str, Known]) -> bool:
    """Whether the backup and all that it builds on is there and sound."""
    return all(member in by_label and by_label[member].sound for member in backup.chain)


def newest_whole(backups: t.Iterable[Known], *, lacking: bool = True) -> Known | None:
    """The newest backup that can be restored, as far as is known; without those *lacking* something, if told so."""
    by_label = {backup.label: backup for backup in backups}
    whole = [backup for backup in by_label.values() if is_whole(backup, by_label) and (lacking or not backup.lacking)]
    return max(whole, key=lambda backup: backup.finished, default=None)


def decide(
    backups: t.Sequence[Known],
    moment: datetime,
    *,
    interval: timedelta,
    full_every: timedelta,
    incremental_refused: str = "",
    unavailable: t.Container[str] = (),
) -> Decision:
    """Whether a backup is due at *moment*, and of which type.

    *incremental_refused* says why an incremental one is not possible at all on this server; empty when it is. One that
    has nothing of a store is not enough, unless that is still *unavailable*.
    """
    newest = newest_whole(backups)
    if newest is None:
        why = f"none of the {len(backups)} backups is sound" if backups else "there is no backup yet"
        return Decision(True, "full", "", why)
    age = moment - newest.finished
    to_be_had = [name for name in newest.absent if name not in unavailable]
    if -CLOCK_TOLERANCE <= age < interval and not to_be_had:
        return Decision(False, newest.type, "", f"{newest.label} is young enough")
    why_full = incremental_refused or _why_full(backups, newest, moment, full_every)
    if why_full:
        return Decision(True, "full", "", why_full)
    lacking = f", which lacks {', '.join(to_be_had)}" if to_be_had else ""
    return Decision(True, "incremental", newest.label, f"it builds on {newest.label}{lacking}")


def _why_full(backups: t.Sequence[Known], newest: Known, moment: datetime, full_every: timedelta) -> str:
    latest = max(backups, key=lambda backup: backup.finished)
    if newest.finished - moment > CLOCK_TOLERANCE:
        return f"{newest.label} is from the future: a clock was changed"
    if latest.label != newest.label:
        return f"{latest.label} or what it builds on is damaged"
    first = next(backup for backup in backups if backup.label == newest.chain[0])
    if moment - first.finished >= full_every:
        return f"the last full backup {first.label} is older than full_every"
    return ""


def reasons_to_stay(backups: t.Sequence[Known], moment: datetime, rules: Rules) -> dict[str, list[str]]:
    """Why each backup is kept; one without a reason may be removed.

    Whatever the rules say, these stay: the newest that can be restored, the newest of those that lack nothing, the
    newest proven one, what is in use, and all that a kept one builds on. Where nothing can be restored, nothing goes.
    One that lacks a store is kept as any other, but takes no other's place: the rules count without it, too.
    """
    by_label = {backup.label: backup for backup in backups}
    reasons: dict[str, list[str]] = {backup.label: [] for backup in backups}
    newest = newest_whole(backups)
    if newest is None:
        return {label: ["nothing can be restored, so nothing goes"] for label in reasons}
    reasons[newest.label].append("the newest that can be restored")
    _keep_lacking_nothing(backups, newest, reasons)
    for label in _newest_proven(by_label):
        reasons[label].append("the newest that a restore test proved")
    for backup in backups:
        if backup.in_use:
            reasons[backup.label].append("in use")
        if moment - backup.finished < rules.keep_within:
            reasons[backup.label].append(f"younger than {human_seconds(rules.keep_within.total_seconds())}")
    _count_full(backups, rules.keep_full, reasons)
    whole = sorted((b for b in backups if is_whole(b, by_label)), key=lambda b: b.finished, reverse=True)
    for name, count, period in rules.calendar():
        of_all = _newest_of_periods(whole, count, period)
        of_these = _newest_of_periods([b for b in whole if not b.lacking], count, period)
        for label, words in {**of_these, **of_all}.items():
            reasons[label].append(f"{name}: the newest of {words}" + ("" if label in of_all else " that lacks nothing"))
    for label in [label for label, found in reasons.items() if found]:
        for member in by_label[label].chain[:-1]:
            if member in reasons and not reasons[member]:
                reasons[member].append(f"{label} builds on it")
    return reasons


def _keep_lacking_nothing(backups: t.Sequence[Known], newest: Known, reasons: dict[str, list[str]]) -> None:
    """What the *newest* may lack, an older one has."""
    complete = newest_whole(backups, lacking=False)
    for backup in backups:
        if complete is None and not backup.lacking:
            reasons[backup.label].append("nothing that lacks nothing can be restored")
        elif backup == complete != newest:
            reasons[backup.label].append("the newest that lacks nothing")


def _count_full(backups: t.Sequence[Known], keep_full: int, reasons: dict[str, list[str]]) -> None:
    """Keep the newest sound full backups, and all that builds on them."""
    count = max(1, keep_full)
    fulls = sorted((b for b in backups if b.type == "full" and b.sound), key=lambda b: b.finished, reverse=True)
    complete = {backup.chain[0] for backup in backups if backup.sound and not backup.lacking}
    kept = {b.label for b in [*fulls[:count], *[b for b in fulls if b.label in complete][:count]]}
    for backup in backups:
        if backup.chain[0] in kept:
            what = "is" if backup.label in kept else "builds on"
            reasons[backup.label].append(f"{what} one of the newest {count} full ones")


def _newest_of_periods(whole: t.Iterable[Known], count: int, period: t.Callable[[datetime], str]) -> dict[str, str]:
    """The newest of each of the last *count* periods in which there are backups; *whole* is in order, newest first."""
    found: dict[str, str] = {}
    for backup in whole:
        words = period(backup.finished.astimezone(timezone.utc))
        if len(found) < count and words not in found.values():
            found[backup.label] = words
    return found


def expirable(backups: t.Sequence[Known], moment: datetime, rules: Rules) -> dict[str, str]:
    """The labels that may be removed, each with the reason, in an order in which no chain is ever cut below."""
    reasons = reasons_to_stay(backups, moment, rules)
    going = [backup for backup in backups if not reasons[backup.label]]
    # Longest chains first: what others build on goes last, so that being killed in between cuts no chain.
    going.sort(key=lambda backup: (-len(backup.chain), backup.finished))
    return {backup.label: f"no rule keeps it ({rules.in_words()})" for backup in going}


def _newest_proven(by_label: t.Mapping[str, Known]) -> set[str]:
    proven = [backup for backup in by_label.values() if backup.proven and is_whole(backup, by_label)]
    return {max(proven, key=lambda backup: backup.finished).label} if proven else set()


def shrunk(bytes_now: int, earlier: t.Sequence[int], ratio: float = 0.5) -> bool:
    """Whether *bytes_now* is suspiciously little against the newest of *earlier* (of the same type, newest last)."""
    return bool(earlier) and bytes_now < earlier[-1] * ratio
