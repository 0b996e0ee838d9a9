# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is due and what may go: decisions about backups, pure, so that they can be tried on any history."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta


class Known(t.NamedTuple):
    """What the decisions need to know of a backup."""

    label: str
    type: str
    chain: tuple[str, ...]
    finished: datetime
    sound: bool = True
    proven: bool = False
    in_use: bool = False


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


def newest_whole(backups: t.Iterable[Known]) -> Known | None:
    """The newest backup that can be restored, as far as is known."""
    by_label = {backup.label: backup for backup in backups}
    whole = [backup for backup in by_label.values() if is_whole(backup, by_label)]
    return max(whole, key=lambda backup: backup.finished, default=None)


def decide(
    backups: t.Sequence[Known],
    moment: datetime,
    *,
    interval: timedelta,
    full_every: timedelta,
    incremental_refused: str = "",
) -> Decision:
    """Whether a backup is due at *moment*, and of which type.

    *incremental_refused* says why an incremental one is not possible at all on this server; empty when it is.
    """
    newest = newest_whole(backups)
    if newest is None:
        why = f"none of the {len(backups)} backups is sound" if backups else "there is no backup yet"
        return Decision(True, "full", "", why)
    age = moment - newest.finished
    if -CLOCK_TOLERANCE <= age < interval:
        return Decision(False, newest.type, "", f"{newest.label} is young enough")
    why_full = incremental_refused or _why_full(backups, newest, moment, full_every)
    if why_full:
        return Decision(True, "full", "", why_full)
    return Decision(True, "incremental", newest.label, f"it builds on {newest.label}")


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


def expirable(
    backups: t.Sequence[Known], moment: datetime, *, keep_full: int, keep_within: timedelta
) -> dict[str, str]:
    """The labels that may be removed, each with the reason, in an order in which no chain is ever cut below.

    Kept are: the newest *keep_full* sound full backups with all that builds on them, everything younger than
    *keep_within*, the newest backup that can be restored, the newest proven one, what is in use, and whatever any of
    these builds on. Where nothing can be restored, nothing is removed.
    """
    by_label = {backup.label: backup for backup in backups}
    newest = newest_whole(backups)
    if newest is None:
        return {}
    kept = {newest.label}
    kept |= _newest_proven(by_label)
    kept |= {backup.label for backup in backups if backup.in_use}
    kept |= {backup.label for backup in backups if moment - backup.finished < keep_within}
    fulls = sorted((b for b in backups if b.type == "full" and b.sound), key=lambda b: b.finished, reverse=True)
    kept_fulls = {backup.label for backup in fulls[: max(1, keep_full)]}
    kept |= {backup.label for backup in backups if backup.chain[0] in kept_fulls}
    needed = {member for label in kept for member in by_label[label].chain}
    going = [backup for backup in backups if backup.label not in kept | needed]
    # Longest chains first: what others build on goes last, so that being killed in between cuts no chain.
    going.sort(key=lambda backup: (-len(backup.chain), backup.finished))
    return {
        backup.label: f"older than {keep_within.days} d and not of the newest {max(1, keep_full)} full ones"
        for backup in going
    }


def _newest_proven(by_label: t.Mapping[str, Known]) -> set[str]:
    proven = [backup for backup in by_label.values() if backup.proven and is_whole(backup, by_label)]
    return {max(proven, key=lambda backup: backup.finished).label} if proven else set()


def shrunk(bytes_now: int, earlier: t.Sequence[int], ratio: float = 0.5) -> bool:
    """Whether *bytes_now* is suspiciously little against the newest of *earlier* (of the same type, newest last)."""
    return bool(earlier) and bytes_now < earlier[-1] * ratio
