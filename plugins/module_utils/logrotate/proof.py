# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What was proven about a rotation. Pure: from the logs before and after to findings, one for each question asked."""

from __future__ import annotations

import time
import typing as t

from ..open_files import OpenFile, how_to_see_all
from ..quantities import human_bytes
from .config import Policy
from .output import printed
from .survey import Archive, LogFile

# Measured with 1,000 lines a second: lines lost between the copy and the truncation, by the size of the log.
COPY_TRUNCATE_LOSS = {"lines_per_second": 1000, "lost_lines_at_100_MB": 50, "lost_lines_at_500_MB": 280}

_NEXT = {
    "hourly": "within the next hour",
    "daily": "tomorrow",
    "weekly": "in seven days",
    "monthly": "in the next month",
    "yearly": "in the next year",
}
# A log is noted in the state file with its hour only, a rotation with its second.
_CLOCK_TOLERANCE = 5


class Finding(t.NamedTuple):
    """The answer to one question; becomes a check of the result."""

    name: str
    status: str
    expected: str
    observed: str
    advice: str = ""
    evidence: t.Dict[str, t.Any] = {}  # noqa: RUF012


def some(items: t.Sequence[str], limit: int = 5) -> str:
    """``["a", "b"]`` → ``a, b``; beyond *limit* the rest is counted."""
    shown = ", ".join(printed(item) for item in items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def files_found(policy: Policy, files: t.Sequence[LogFile], again: t.Sequence[str], twice: t.Sequence[str]) -> Finding:
    """Whether *policy* names logs that logrotate will rotate, each by this policy alone, and none rotated before.

    *again*: rotated files that the policy's own paths match; *twice*: logs that another policy names too.
    """
    name, expected = f"logs of {policy.name}", "logs that can be rotated, each named by one policy"
    refused = [file.path for file in files if file.is_link or file.links > 1]
    total = sum(file.size for file in files)
    if again:
        observed = f"the paths match files that were rotated before: {some(again)}"
        return Finding(name, "failed", expected, observed, "Narrow the paths, for instance to *.log: else those files "
                       "are rotated again and again.")  # fmt: skip
    if twice:
        observed = f"another policy names them too: {some(twice)}"
        return Finding(name, "failed", expected, observed, "Let one policy alone name each log.")
    if refused:
        observed = f"logrotate leaves links and files with several names alone: {some(refused)}"
        return Finding(name, "warned", expected, observed, "Name the real file, and remove further hard links.")
    if not files and not policy.missing_ok:
        observed = f"no file matches {some(policy.paths)}"
        return Finding(name, "failed", expected, observed, "Correct the paths, or set missing_ok.")
    observed = (
        f"{len(files)} log{'s' * (len(files) != 1)}, {human_bytes(total)}" if files else "none, which is in order"
    )
    return Finding(name, "passed", expected, observed)


def nothing_due(policy: Policy, files: t.Sequence[LogFile], noted: t.Sequence[str]) -> Finding:
    """What is said of a policy of which no log is due; *noted* are those whose schedule only starts now."""
    largest = max((file.size for file in files), default=0)
    observed = f"nothing due among {len(files)} logs; the largest has {human_bytes(largest)}"
    if noted and policy.frequency:
        observed = f"{len(noted)} new noted, first rotation due {_NEXT[policy.frequency]}; nothing due now"
    return Finding(f"rotation of {policy.name}", "passed", "every log that is due rotated", observed)


def rotation_problem(policy: Policy, before: LogFile, after: LogFile | None) -> str:
    """Why the rotation of one log is not proven; empty when it is."""
    if after is None:
        return "there is no new log"
    newest = next((archive for archive in after.archives if archive.number == 1), None)
    known = {archive.inode for archive in before.archives}
    if policy.copy_truncate:
        if after.inode != before.inode:
            return "it is another file, though copy_truncate keeps it"
        if after.size >= before.size:
            return f"it was not truncated: {human_bytes(after.size)}"
    elif after.inode == before.inode:
        return "it is still the same file"
    if newest is None:
        return "there is no rotated file beside it"
    if newest.compressed or policy.copy_truncate:
        return f"{newest.path} is from an earlier rotation" if newest.inode in known else ""
    if newest.inode != before.inode:
        return f"{newest.path} is not the log that was there before"
    return ""


def rotation(
    policy: Policy, due: t.Sequence[LogFile], after: t.Mapping[str, LogFile], shortened: t.Sequence[str]
) -> tuple[Finding, list[str]]:
    """Whether each of the *due* logs was rotated, and the paths of those that were not.

    *shortened* says which rotated files hold less than their log did.
    """
    problems = {file.path: rotation_problem(policy, file, after.get(file.path)) for file in due}
    unproven = [path for path, problem in problems.items() if problem]
    name, expected = f"rotation of {policy.name}", "every log that is due rotated, and no byte of it lost"
    evidence = {
        "rotated": [
            {
                "path": printed(file.path),
                "bytes_before": file.size,
                "bytes_after": after[file.path].size,
                "inode_before": file.inode,
                "inode_after": after[file.path].inode,
            }
            for file in due[:20]
            if file.path not in unproven
        ]
    }
    if unproven or shortened:
        words = [f"{path}: {problems[path]}" for path in unproven] + list(shortened)
        observed = f"{len(unproven) + len(shortened)} of {len(due)} not: {some(words, 3)}"
        advice = (
            "See the check of logrotate's run; the date of such a log was set back, so that the next run tries again."
        )
        return Finding(name, "failed", expected, observed, advice, evidence), unproven
    total = sum(file.size for file in due)
    observed = f"{len(due)} rotated, {human_bytes(total)}: {some([file.path for file in due], 3)}"
    return Finding(name, "passed", expected, observed, "", evidence), []


def sizes(policy: Policy, files: t.Sequence[LogFile]) -> Finding | None:
    """Whether every live log is below the policy's limit now; None when there is no limit."""
    if policy.max_bytes is None:
        return None
    limit = max(policy.max_bytes, 1)
    over = [f"{file.path} ({human_bytes(file.size)})" for file in files if file.size > limit]
    name, expected = f"size of logs of {policy.name}", f"at most {human_bytes(policy.max_bytes)}"
    if over:
        return Finding(
            name, "failed", expected, some(over), "See why the rotation did not take hold, or how fast it grows."
        )
    largest = max((file.size for file in files), default=0)
    return Finding(name, "passed", expected, f"largest {human_bytes(largest)}")


def last_rotations(policy: Policy, files: t.Sequence[LogFile], dates: t.Mapping[str, float]) -> Finding | None:
    """Whether the state file's dates are true: logrotate moves them on even when a rotation failed."""
    false: list[str] = []
    for file in files:
        date = dates.get(file.path)
        # A date on the full hour (local time) is the note of a new log, not a rotation.
        if date is None or time.localtime(date)[4:6] == (0, 0):
            continue
        if not any(archive.ctime >= date - _CLOCK_TOLERANCE for archive in file.archives):
            false.append(f"{file.path} at {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(date))}")
    name, expected = f"last rotations of {policy.name}", "a rotated file as young as the date in logrotate's state"
    if false:
        advice = (
            "Unless somebody removed the rotated files, those rotations failed: see the log's directory and its rights."
        )
        observed = f"the state claims rotations without a rotated file: {some(false, 3)}"
        return Finding(name, "warned", expected, observed, advice)
    return Finding(name, "passed", expected, f"true for {len(files)} logs") if files else None


def retention(policy: Policy, files: t.Sequence[LogFile]) -> Finding | None:
    """Whether no more rotated files are kept than the policy says; logrotate forgets those beyond a lowered limit."""
    if not files:
        return None
    surplus = [archive.path for file in files for archive in file.archives if archive.number > policy.keep]
    kept = sum(len(file.archives) for file in files)
    name, expected = f"rotated files of {policy.name}", f"at most {policy.keep} for each log"
    if surplus:
        advice = "logrotate does not remove files beyond a limit that was lowered: remove them, or raise keep."
        return Finding(name, "warned", expected, f"{len(surplus)} too many: {some(surplus)}", advice)
    return Finding(name, "passed", expected, f"{kept} kept for {len(files)} logs")


def archives_intact(policy: Policy, made: t.Sequence[Archive], faults: t.Sequence[str]) -> Finding | None:
    """Whether the files that were compressed just now can be read to their ends; *faults* says which cannot."""
    if not made:
        return None
    name, expected = f"compressed files of {policy.name}", "gzip files whose checksums hold"
    if faults:
        return Finding(
            name, "failed", expected, some(faults, 3), "Look for a full disk or a failing one; keep the file."
        )
    return Finding(name, "passed", expected, f"{len(made)} made and read to the end")


def postrotate(policy: Policy, statuses: t.Sequence[str], said: str, rotated: bool) -> Finding | None:
    """Whether the postrotate steps ran and succeeded; *statuses*: what their script left behind when it ran last."""
    if not policy.postrotate or not (statuses or rotated):
        return None
    name, expected = f"postrotate of {policy.name}", "steps that ran and ended with status 0"
    bad = [status for status in statuses if status != "0"]
    words = f": {said}" if said else ""
    if bad:
        advice = "Run the steps by hand; until they succeed the writers may go on in the rotated files."
        return Finding(name, "failed", expected, f"exit status {', '.join(sorted(set(bad)))}{words}", advice)
    if rotated and not statuses:
        return Finding(name, "failed", expected, "they never ran", "See the check of logrotate's run.")
    return Finding(name, "passed", expected, f"{len(statuses)} run{'s' * (len(statuses) != 1)}, status 0{words}")


class Holder(t.NamedTuple):
    """A process that has a rotated or removed log open for writing; ``wrote``: after the rotation, too."""

    file: OpenFile
    wrote: bool

    def __str__(self) -> str:
        what = "removed" if self.file.deleted else "rotated"
        did = "writes to" if self.wrote else "holds"
        return f"{printed(self.file.comm)} (pid {self.file.pid}) {did} the {what} {printed(self.file.path)}"


def writers(
    policy: Policy,
    files: t.Sequence[LogFile],
    *,
    open_now: int,
    holders: t.Sequence[Holder],
    lost: t.Sequence[str],
    blind: str,
) -> Finding:
    """Whether those who write the logs write to the live ones.

    *open_now*: how many processes have a live log open; *lost*: writers that closed the old log and opened no new one;
    *blind*: why other writers cannot be seen, or empty.
    """
    name, expected = f"writers of {policy.name}", "nobody has a rotated or removed log open for writing"
    if holders:
        told = bool(policy.postrotate)
        status = "failed" if told or any(holder.wrote for holder in holders) else "warned"
        advice = ("The writers were told and did not reopen: see how they want to be told (signal, pid file, reload)."
                  if told else "Add a postrotate step that makes the writer reopen its log.")  # fmt: skip
        freed = sum(holder.file.size for holder in holders if holder.file.deleted)
        evidence = {"held": [{"pid": h.file.pid, "process": printed(h.file.comm), "path": printed(h.file.path),
                              "deleted": h.file.deleted, "bytes": h.file.size} for h in holders[:20]],
                    "bytes_held_by_removed_logs": freed}  # fmt: skip
        return Finding(name, status, expected, some([str(holder) for holder in holders], 3), advice, evidence)
    if lost:
        advice = "See whether the writer may create its log (mode and owner in create), and whether it still logs."
        return Finding(name, "warned", expected, f"closed the old log and opened no new one: {some(lost, 3)}", advice)
    if blind:
        return Finding(name, "unknown", expected, blind, how_to_see_all())
    if not files:
        return Finding(name, "passed", expected, "there are no logs")
    return Finding(name, "passed", expected, f"none; {open_now} process{'es' * (open_now != 1)} with a live log open")


def copy_truncation(policy: Policy, not_appending: t.Sequence[OpenFile]) -> Finding | None:
    """What copy_truncate costs; *not_appending* are writers that would leave the truncated log full of NULs."""
    if not policy.copy_truncate:
        return None
    name, expected = f"copy_truncate of {policy.name}", "a rotation that loses no line"
    if not_appending:
        who = [f"{printed(file.comm)} (pid {file.pid}) in {printed(file.path)}" for file in not_appending]
        advice = "Open the log with O_APPEND (>> in a shell), or let the writer reopen it and drop copy_truncate."
        observed = f"written without O_APPEND, so that the log is filled with NULs up to its old size: {some(who, 3)}"
        return Finding(name, "failed", expected, observed, advice, dict(COPY_TRUNCATE_LOSS))
    observed = "lines written between copy and truncation are lost: at 1,000 lines/s about 50 at 100 MB, 280 at 500 MB"
    advice = "Let the writer reopen its log by a postrotate step, and drop copy_truncate: create loses none."
    return Finding(name, "warned", expected, observed, advice, dict(COPY_TRUNCATE_LOSS))


def coverage(
    root: str,
    *,
    seen: int,
    growing: t.Sequence[str],
    resting: int,
    unreadable: t.Sequence[str],
    twice: t.Sequence[str],
) -> Finding:
    """Whether every log below *root* that grows is covered by one configuration.

    *growing*, *resting*: uncovered logs that grow, and how many do not; *twice*: logs that ours and the distribution's
    logrotate both rotate; *unreadable*: what could not be looked at.
    """
    name, expected = f"coverage of {root}", "every log that grows rotated by one configuration"
    evidence = {
        "logs": seen,
        "uncovered_growing": [printed(path) for path in growing[:50]],
        "uncovered_resting": resting,
    }
    if growing:
        observed = f"{len(growing)} of {seen} logs grow{'s' * (len(growing) == 1)} without bound: {some(growing)}"
        return Finding(
            name, "warned", expected, observed, "Add a policy for them, or list them under ignore.", evidence
        )
    if twice:
        observed = f"rotated here and by the distribution's logrotate too: {some(twice)}"
        return Finding(name, "warned", expected, observed, "Remove them from one of the two configurations.", evidence)
    if unreadable:
        observed = f"{seen} logs seen, but these cannot be read: {some(unreadable)}"
        return Finding(name, "unknown", expected, observed, "Run as a user who may read them.", evidence)
    observed = f"{seen} logs seen" + (
        f"; {resting} are covered by nothing and do not grow" if resting else ", all covered"
    )
    return Finding(name, "passed", expected, observed, "", evidence)


def removed_but_open(root: str, holders: t.Sequence[OpenFile]) -> Finding:
    """Whether processes still write to removed logs below *root*."""
    name, expected = f"removed logs of {root}", "no process that can be seen writes to a removed log"
    if not holders:
        return Finding(name, "passed", expected, "none")
    held = sum(file.size for file in holders)
    who = [f"{printed(file.comm)} (pid {file.pid}): {printed(file.path)}" for file in holders]
    advice = "Restart or reload those processes; what they log is lost, and its space stays taken."
    return Finding(name, "warned", expected, f"{human_bytes(held)} held: {some(who)}", advice)
