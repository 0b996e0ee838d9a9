# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done with a destination: pure decisions about what is here, what is there, and what is known."""

from __future__ import annotations

import os
import re
import typing as t

from .destination import DIRECTORY, FILE, Entry, parents
from .memory import Record
from .names import INCOMING, OWN
from .sources import backup_of

# How rsync calls what it is writing.
_RSYNC_TEMPORARY = re.compile(r"\.(.+)\.[A-Za-z0-9]{6}")


class Wanted(t.NamedTuple):
    """A file that belongs into the mirror."""

    size: int
    sha256: str
    mutable: bool = False


class Decision(t.NamedTuple):
    """What is to be done; names in lists are sorted."""

    # To be sent, each with the reason.
    send: t.Dict[str, str]
    # There already, but nobody remembers that it was sent: its content decides.
    adopt: t.List[str]
    # There as it was sent, by its size.
    in_place: t.List[str]
    # What is wrong there: name and words.
    problems: t.Dict[str, str]
    # Has another content here than it had when it was sent, though it never changes.
    changed: t.List[str]
    # There, and not here any more.
    gone: t.List[str]
    strangers: t.List[str]
    leftovers: t.List[str]


def decide(
    wanted: t.Mapping[str, Wanted],
    there: t.Mapping[str, Entry],
    records: t.Mapping[str, Record],
    *,
    held: t.Sequence[str] = (),
    pending: t.Collection[str] = (),
    append_only: bool = False,
) -> Decision:
    """What to do so that all that is *wanted* is *there*; *held* begins the names of what is to stay in any case.

    What is *pending*, a run that was killed was about to send: a manifest may list it already.
    """
    decision = Decision({}, [], [], {}, [], [], [], [])
    for name in sorted(wanted):
        _decide_one(name, wanted[name], there, records.get(name), append_only=append_only, decision=decision)
        if name not in there and name in pending:
            decision.problems.pop(name, None)
    for name, record in sorted(records.items()):
        if name not in wanted and name not in there and append_only and not name.startswith(OWN):
            decision.problems[name] = f"is missing, though nothing can be removed there ({record.size} bytes)"
    for name, entry in sorted(there.items()):
        if entry.kind == DIRECTORY or name in wanted:
            continue
        if name in records or name in pending:
            if not name.startswith(OWN + "/"):
                _decide_gone(name, entry, records.get(name), decision, held=name.startswith(tuple(held)))
        elif is_leftover(name, wanted, records, pending):
            decision.leftovers.append(name)
        elif not name.startswith(OWN + "/"):
            decision.strangers.append(name)
    return decision


def _decide_one(
    name: str,
    wish: Wanted,
    there: t.Mapping[str, Entry],
    record: t.Optional[Record],
    *,
    append_only: bool,
    decision: Decision,
) -> None:
    entry = there.get(name)
    way = next((p for p in parents(name) if p in there and there[p].kind != DIRECTORY), "")
    changed = record is not None and record.sha256 != wish.sha256
    if way:
        decision.problems[name] = f"cannot be reached: {way} is a {there[way].kind} there, and no directory"
    elif changed and not wish.mutable:
        decision.changed.append(name)
    elif changed and append_only:
        decision.problems[name] = "is written anew here, which an append-only mirror cannot follow"
    elif changed:
        decision.send[name] = "changed here"
    elif entry is None:
        if record:
            decision.problems[name] = "is missing"
        decision.send[name] = "missing there" if record else "new"
    elif (entry.kind, entry.size) != (FILE, wish.size):
        decision.problems[name] = _differs(entry, wish.size)
        if not append_only and entry.kind != DIRECTORY:
            decision.send[name] = "differs there"
    elif record is None:
        decision.adopt.append(name)
    else:
        decision.in_place.append(name)


def _decide_gone(name: str, entry: Entry, record: t.Optional[Record], decision: Decision, *, held: bool) -> None:
    """What was sent, or was to be, and is not here any more."""
    if not held:
        decision.gone.append(name)
    if record and (entry.kind, entry.size) != (FILE, record.size):
        decision.problems[name] = _differs(entry, record.size)
    elif record:
        decision.in_place.append(name)


def _differs(entry: Entry, size: int) -> str:
    return f"is a {entry.kind}, and no file" if entry.kind != FILE else f"has {entry.size} bytes instead of {size}"


def is_leftover(name: str, *ours: t.Container[str]) -> bool:
    """Whether *name* is what a run that was killed had begun to write, of one of *ours* or of our own files."""
    if os.path.basename(name).startswith(INCOMING):
        return True
    whole = whole_name(name)
    return bool(whole) and (whole.startswith(OWN + "/") or any(whole in names for names in ours))


def whole_name(name: str) -> str:
    """What rsync gives to *name* when it has written all of it; "" when this is not how it calls what it writes."""
    directory, _slash, last = name.rpartition("/")
    match = _RSYNC_TEMPORARY.fullmatch(last)
    return os.path.join(directory, match[1]) if match else ""


class Removal(t.NamedTuple):
    """What may be removed there, in order, and why nothing may; *kept* are backups that stay nevertheless."""

    names: t.List[str]
    refused: str
    kept: t.List[str]


def decide_removal(
    gone: t.Sequence[str],
    records: t.Mapping[str, Record],
    there: t.Mapping[str, Entry],
    *,
    backups_here: t.Mapping[str, t.Collection[str]],
    proven: t.Mapping[str, t.Collection[str]],
    most_percent: float,
    obstacles: t.Sequence[str],
) -> Removal:
    """What of *gone* may be removed.

    Never what the newest proven backup consists of. Nothing at all where a cluster has no sound backup here any more,
    where more than *most_percent* of the files or bytes there would go, or where there are other *obstacles*.
    """
    going, kept = [], set()
    for name in gone:
        cluster, label = backup_of(name)
        if label in proven.get(f"{name.split('/')[0]}/{cluster}", ()):
            kept.add(f"{cluster}/{label}")
        else:
            going.append(name)
    if not going:
        return Removal([], "", sorted(kept))
    refused = "; ".join(obstacles) or _why_not(going, records, there, backups_here, most_percent)
    # The description first: what has none is no backup.
    going.sort(key=lambda name: (not name.endswith("/backup.json"), name))
    return Removal([] if refused else going, refused, sorted(kept))


def _why_not(
    going: t.Sequence[str],
    records: t.Mapping[str, Record],
    there: t.Mapping[str, Entry],
    backups_here: t.Mapping[str, t.Collection[str]],
    most_percent: float,
) -> str:
    for name in going:
        cluster, label = backup_of(name)
        where = f"{name.split('/')[0]}/{cluster}"
        if label and not backups_here.get(where):
            return f"no sound backup of {where} is left here"
    ours = [name for name in records if name in there and not name.startswith(OWN)]
    sizes = sum(records[name].size for name in ours)
    files_share = 100 * len(going) / max(1, len(ours))
    bytes_share = 100 * sum(records[name].size for name in going if name in records) / max(1, sizes)
    share = max(files_share, bytes_share)
    if share > most_percent:
        return f"{share:.0f} % of the mirror would vanish, at most {most_percent:g} % may"
    return ""
