# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of logs: how many of the lines written since the last run match a pattern.

The logs are read in a process of its own, so that reading many megabytes slows none of the other probes down, and so
that a pattern that takes for ever, or a file on a server that does not answer, can be left behind.
"""

from __future__ import annotations

import functools
import json
import os
import re
import time
import typing as t

from ..files import read_json, write_atomically
from ..quantities import human_bytes, parse_size
from ..result import Part, limit_status
from .child import Child
from .log_reading import Finding, Position, read_new_lines
from .redaction import redact
from .running import Probe

OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "default": ""},
    "path": {"type": "str", "required": True},
    "pattern": {"type": "str", "required": True},
    "warn_count": {"type": "int", "default": 0},
    "fail_count": {"type": "int"},
    "first_run_bytes": {"type": "str", "default": "1MiB"},
}

FORMAT = 1
# Before the deadline of all probes, the reading stops by itself, to say how far it came, and then it is stopped: as
# shares of the time there is, and in seconds at most.
STOPS_BY_ITSELF = (0.2, 1.0)
IS_STOPPED = (0.1, 0.5)

Rule = t.Dict[str, t.Any]


def name_of(rule: Rule) -> str:
    return str(rule["name"] or rule["path"])


def check_name(rule: Rule) -> str:
    return f"error lines in {name_of(rule)}"


class Logs:
    """The reading of all logs in one run: from where the last run stopped to where this one does.

    Made before any thread is started: a process with threads must not fork.
    """

    def __init__(self, rules: t.Sequence[Rule], state_dir: str, deadline: float) -> None:
        self._rules = rules
        seconds = max(0.0, deadline - time.monotonic())
        self._end = deadline - min(IS_STOPPED[0] * seconds, IS_STOPPED[1])
        self._last_read = deadline - min(STOPS_BY_ITSELF[0] * seconds, STOPS_BY_ITSELF[1])
        self._path = os.path.join(state_dir, "health_check", "logs.json")
        self._old, self._trouble = remembered(self._path)
        self._new: dict[str, list[Position]] = {}
        self._child = Child(self._read, seconds) if rules else None

    def _read(self, emit: t.Callable[[t.Any], None]) -> None:
        """In the other process: read rule by rule, and tell the findings of each as soon as they are there."""
        for rule in self._rules:
            old = self._old.get(name_of(rule))
            try:
                pattern = re.compile(rule["pattern"].encode(), re.MULTILINE)
                first = parse_size(rule["first_run_bytes"])
                finding = read_new_lines(rule["path"], pattern, old, first, lambda: time.monotonic() > self._last_read)
            except Exception as error:  # whatever it is, the other logs are read
                emit({"name": name_of(rule), "error": redact(str(error))})
                continue
            samples = [redact(line.decode(errors="replace")) for line in finding.samples]
            positions = [list(position) for position in finding.positions]
            emit({"name": name_of(rule), "finding": list(finding._replace(samples=samples, positions=positions))})

    def probes(self) -> list[Probe]:
        return [Probe("logs", functools.partial(self._probe, self._child))] if self._child else []

    def _probe(self, child: Child, part: Part) -> None:
        if self._trouble:
            part.check(
                "memory of the logs read",
                "warned",
                expected=f"the positions of the last run in {self._path}",
                observed=self._trouble,
                advice="Nothing: the logs are read like on a first run, and the file is written anew.",
            )
        told = {answer["name"]: answer for answer in child.answers(self._end)}
        for rule in self._rules:
            answer = told.get(name_of(rule), {})
            if "finding" in answer:
                finding = Finding(*answer["finding"])
                decide(rule, finding, part)
                self._new[name_of(rule)] = [Position(*position) for position in finding.positions]
            else:
                undecided(rule, answer.get("error", ""), part)

    def remember(self, part: Part) -> None:
        """Keep how far this run came; what *part* does not tell of counts as not read."""
        if not self._rules:
            return
        told = {check["name"] for check in part.checks}
        kept = {}
        for rule in self._rules:
            name = name_of(rule)
            positions = self._new.get(name) if check_name(rule) in told else None
            positions = self._old.get(name) if positions is None else positions
            if positions is not None:
                kept[name] = [position._asdict() for position in positions]
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        write_atomically(self._path, json.dumps({"format": FORMAT, "rules": kept}).encode())


def remembered(path: str) -> tuple[dict[str, list[Position]], str]:
    """The positions of the last run by rule, and what was wrong with them, if anything."""
    try:
        document = read_json(path)
        if document is None:
            return {}, ""
        if document["format"] != FORMAT:
            return {}, f"format {document['format']}, not {FORMAT}"
        rules = document["rules"].items()
        return {name: [Position(**position) for position in positions] for name, positions in rules}, ""
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, redact(f"it cannot be read: {type(error).__name__}: {error}")


def decide(rule: Rule, finding: Finding, part: Part) -> None:
    """Count against limits; too few lines found in what could only be read in part proves nothing."""
    name = name_of(rule)
    status = limit_status(finding.matching, rule["warn_count"], rule["fail_count"])
    where = f"{human_bytes(finding.bytes_read)} of {finding.files} file{'' if finding.files == 1 else 's'}"
    observed = f"{finding.matching} in {where}" + (", on the first run the end only" if finding.first_run else "")
    advice = "Read the lines and remove their cause; samples are in the evidence."
    if finding.gaps:
        observed += f"; not read: {'; '.join(redact(gap) for gap in finding.gaps[:3])}"
        if status == "passed":
            status = "unknown"
            advice = "Correct the path or the rights, or run more often than the logs are rotated."
    beyond = "" if rule["fail_count"] is None else f" (fails above {rule['fail_count']})"
    part.metric(f"log_lines {name}", finding.matching, "count")
    part.check(
        check_name(rule),
        status,
        expected=f"at most {rule['warn_count']}{beyond} that match {rule['pattern']!r} since the last run",
        observed=observed,
        advice=advice,
        evidence={"path": rule["path"], "samples": finding.samples} if finding.samples else {"path": rule["path"]},
    )


def undecided(rule: Rule, error: str, part: Part) -> None:
    part.check(
        check_name(rule),
        "unknown",
        expected=f"at most {rule['warn_count']} that match {rule['pattern']!r} since the last run",
        observed=error or "not read within the time of the health check",
        advice="Correct path and pattern." if error else "Use a simpler pattern, or allow more time with timeout.",
    )
