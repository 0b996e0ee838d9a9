# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the operator reads in a terminal or a log: one line for each activity on a host, and the summary of a run."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import human_seconds

from .report.text import ASCII_SIGNS, SIGNS, counted, enumeration, one_line, seconds_taken, visible
from .report.view import SEVERITY, todo

# A table with more rows than this no longer fits what a person looks at.
MOST_ROWS = 25

Line = tuple[str, str]  # text, and the status that gives it its colour ("" for none)


class Teller:
    """Words a run for a terminal of *width* columns, with signs that *encoding* can hold."""

    def __init__(self, encoding: str, width: int) -> None:
        self.unicode = "utf" in encoding.lower()
        self.encoding = encoding
        self.width = max(width, 40)
        self.signs = SIGNS if self.unicode else ASCII_SIGNS

    def clean(self, text: str) -> str:
        """*text* as this terminal can show it; line breaks remain."""
        shown = visible(str(text))
        return shown if self.unicode else shown.encode(self.encoding, "replace").decode(self.encoding)

    def page(self, text: str) -> str:
        """*text* of ours, such as a table, which is as long as it has to be: only its lines are cut."""
        return "\n".join(self.clean(line) for line in str(text).split("\n"))

    def line(self, text: str) -> str:
        return one_line(self.clean(text))

    def tick(self, data: dict[str, Any]) -> str:
        """The line of one result: ``✓ learn1 backup passed 8 checks, 4.1 s, 2 changes``."""
        outcome = data["outcome"]
        head = f"{self.signs[outcome]} {data['host']} {data['activity']} {outcome}"
        tallied = [counted(len(data["checks"]), "check")] if data["checks"] else []
        tallied += [human_seconds(seconds_taken(data))] if data["checks"] and seconds_taken(data) else []
        if data["changes"]:
            would = "would make " if data["run"]["check_mode"] else ""
            tallied.append(f"{would}{counted(len(data['changes']), 'change')}")
        return self.line(f"{head} {', '.join(tallied)}".rstrip() + self._why(data))

    def _why(self, data: dict[str, Any]) -> str:
        if data["outcome"] == "skipped":
            return f": {data['reason']}"
        bad = sorted(
            (check for check in data["checks"] if check["status"] != "passed"),
            key=lambda check: SEVERITY.index(check["status"]),
        )
        if not bad:
            return ""
        first = bad[0]
        more = f"; and {len(bad) - 1} more" if len(bad) > 1 else ""
        return f": {visible(first['name'], 120)}: {visible(first['observed'], 200)}{more}"

    def short_change(self, diff: dict[str, Any]) -> list[Line]:
        """A diff of one line against one line: ``    session files: 211 files → 200 files``; of more, nothing."""
        before, after = (str(diff.get(side, "")).strip() for side in ("before", "after"))
        if "before_header" not in diff or not before or not after or "\n" in before + after:
            return []
        arrow = "→" if self.unicode else "->"
        return self._indented(f"{diff['before_header']}: {before} {arrow} {after}")

    def opening(self, run: dict[str, Any], due: dict[str, list[str]]) -> list[Line]:
        """What is said when a run opens."""
        hosts = {host for where in due.values() for host in where}
        if not due:
            what = "nothing is due"
        else:
            what = f"{counted(len(due), 'activity', 'activities')} due on {counted(len(hosts), 'host')}"
        return [(self.line(f"{run['cadence'].capitalize().replace('_', ' ')} run {run['id']}: {what}"), "")]

    def interrupted(self, runs: list[dict[str, Any]]) -> list[Line]:
        """Of each earlier run that died: when it began, and what it did not get to."""
        lines: list[Line] = []
        for run in runs:
            lost = [f"{one['activity']} on {one['host']}" for one in run["missing"]]
            more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
            left = f"it left undone: {', '.join(lost[:3])}{more}" if lost else "all its results are recorded"
            words = f"{self.signs['warned']} The run of {run['started']} died before its end; {left}"
            lines.append((self.line(words), "warned"))
        return lines

    def summary(self, results: list[dict[str, Any]]) -> list[Line]:
        """The table of outcomes, then what has not passed, in words."""
        if not results:
            return []
        hosts = list(dict.fromkeys(data["host"] for data in results))
        activities = list(dict.fromkeys(data["activity"] for data in results))
        table = self._grid(results, hosts, activities)
        if len(table) > MOST_ROWS or any(len(text) > self.width for text, _status in table):
            table = self._by_activity(results, activities)
        return [("", ""), *table, *self._findings(results)]

    def _grid(self, results: list[dict[str, Any]], hosts: list[str], activities: list[str]) -> list[Line]:
        """Hosts × activities."""
        at = {(data["host"], data["activity"]): data["outcome"] for data in results}
        rows = [["", *activities]]
        for host in hosts:
            outcomes = [at.get((host, activity)) for activity in activities]
            rows.append([self.line(host), *(f"{self.signs[one]} {one}" if one else "" for one in outcomes)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        worst = [""] + [_worst([at[key] for key in at if key[0] == host]) for host in hosts]
        return list(zip(lines, worst, strict=True))

    def _by_activity(self, results: list[dict[str, Any]], activities: list[str]) -> list[Line]:
        """Each activity with how many hosts passed, and the names of the others: for a fleet or a narrow terminal."""
        lines: list[Line] = []
        longest = max(len(activity) for activity in activities)
        for activity in activities:
            own = [data for data in results if data["activity"] == activity]
            counts = Counter(data["outcome"] for data in own)
            parts = []
            for outcome in [one for one in reversed(SEVERITY) if counts[one]]:
                names = [self.line(data["host"]) for data in own if data["outcome"] == outcome]
                where = f" ({enumeration(names, 3)})" if outcome != "passed" else ""
                parts.append(f"{self.signs[outcome]} {counts[outcome]} {outcome}{where}")
            text = f"{activity.ljust(longest)}  {'  '.join(parts)}"
            hanging = textwrap.wrap(text, self.width, subsequent_indent=" " * (longest + 2), break_long_words=False)
            lines += [(one, _worst(list(counts))) for one in hanging]
        return lines

    def _findings(self, results: list[dict[str, Any]]) -> list[Line]:
        """Each check that has not passed, with what was found, what was expected and what to do."""
        lines: list[Line] = []
        for entry in todo([{**data, "anchor": ""} for data in results]):
            status = entry["status"]
            lines += [("", ""), (self.line(f"{self.signs[status]} {entry['activity']}: {entry['name']}"), status)]
            for place in entry["where"][:MOST_ROWS]:
                lines += self._indented(f"{place['host']}: {place['observed']} (expected {place['expected']})")
            if len(entry["where"]) > MOST_ROWS:
                lines += self._indented(f"and {len(entry['where']) - MOST_ROWS} more hosts: see the report")
            if entry["advice"]:
                lines += self._indented(f"To do: {entry['advice']}")
        for (activity, reason), hosts in _skipped(results).items():
            where = enumeration([self.line(host) for host in hosts], 5)
            lines += [("", ""), (self.line(f"{self.signs['skipped']} {activity} skipped on {where}"), "skipped")]
            lines += self._indented(reason)
        return lines

    def closing(self, summary: dict[str, Any]) -> list[Line]:
        """What run_close said: verdict, what has no result, where the report is."""
        verdict = str(summary.get("verdict", "failed"))
        text = f"{self.signs.get(verdict, '')} The run {verdict if verdict != 'warned' else 'passed with warnings'}."
        told = textwrap.wrap(self.line(f"{text} {summary.get('message', '')}"), self.width, break_on_hyphens=False)
        lines = [("", ""), *((line, verdict) for line in told)]
        for lost in (summary.get("missing") or [])[:MOST_ROWS]:
            lines += self._indented(f"no result: {lost['activity']} on {lost['host']}")
        report = (summary.get("reports") or {}).get("html")
        return [*lines, (self.clean(f"Report: {report}"), "")] if report else lines

    def recap(self, host: str, counts: dict[str, int]) -> Line:
        """What Ansible counted on *host*, without the zeros: ``✓ learn1: 8 ok, 2 changed``."""
        names = {"failures": "failed"}
        told = [f"{number} {names.get(name, name)}" for name, number in counts.items() if number and name != "skipped"]
        status = "failed" if counts.get("failures") or counts.get("unreachable") else "passed"
        return self.line(f"{self.signs[status]} {host}: {', '.join(told) or 'nothing done'}"), status

    def _indented(self, text: str) -> list[Line]:
        shown = textwrap.wrap(self.line(text), self.width - 4, break_on_hyphens=False)
        return [(f"    {line}", "") for line in shown]


def _skipped(results: list[dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """The hosts on which an activity was skipped for the same reason."""
    hosts: dict[tuple[str, str], list[str]] = {}
    for data in results:
        if data["outcome"] == "skipped":
            hosts.setdefault((data["activity"], data["reason"]), []).append(data["host"])
    return hosts


def _worst(outcomes: list[str]) -> str:
    return min(outcomes, key=SEVERITY.index, default="")


def words_of_failure(answer: dict[str, Any]) -> list[str]:
    """Everything that a failed task said, once."""
    said: list[str] = []
    for key in ("msg", "stderr", "module_stderr", "stdout", "module_stdout"):
        text = answer.get(key)
        text = text if isinstance(text, str) else str(text) if text else ""
        if text.strip() and not any(text.strip() in earlier for earlier in said):
            said.append(text.strip())
    if answer.get("rc"):
        said.append(f"exit status {answer['rc']}")
    return said
