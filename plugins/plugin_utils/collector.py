# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns what Ansible reports to a callback into results: one for each host and activity, complete by the next play."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.result import PART_KEYS

from . import clock
from .results import Gathered, failed_check, is_part, part_of, result_document

COLLECTION = "wellkept.maintenance."
OPEN_ACTION = f"{COLLECTION}run_open"
GATE_ACTION = f"{COLLECTION}activity_gate"
CLOSE_ACTION = f"{COLLECTION}run_close"


@dataclass
class Collector:
    """Feed it plays and answers of tasks in the order of their arrival.

    ``run`` is what run_open answered (None until then), ``activity`` the one that the current play carries out.
    """

    run: dict[str, Any] | None = None
    due: dict[str, list[str]] = field(default_factory=dict)
    activity: str = ""
    _gathered: dict[str, Gathered] = field(default_factory=dict)  # of the current play, by host

    def on_play_start(self, activity: str | None) -> list[dict[str, Any]]:
        """A play begins that carries out *activity* (None: no activity). Returns the results of the play before."""
        finished = self.finish()
        self.activity = activity or ""
        return finished

    def on_answer(
        self, host: str, action: str, task: str, answer: dict[str, Any], *, kind: str
    ) -> dict[str, Any] | None:
        """A task answered; *kind* is ok, failed, skipped or unreachable, and ignored for a failure that is ignored.

        Returns the part of a result that the answer was, or was turned into; None when it was neither.
        """
        if action == OPEN_ACTION and kind == "ok":
            self.run, self.due = answer["maintenance_run"], answer["due"]
        if not self.activity or self.run is None:
            return None
        if action == GATE_ACTION:
            self._on_gate(answer, kind)
            return None
        gathered = self._for_host(host)
        part = _part_from(host, gathered.activity, task, answer, kind)
        if part:
            gathered.parts.append(part)
        gathered.changed = gathered.changed or bool(answer.get("changed"))
        return part

    def finish(self) -> list[dict[str, Any]]:
        """The result documents of the current play, which is over."""
        if self.run is None:
            return []
        finished = clock.to_text(clock.now())
        documents = [
            result_document(gathered, self.run, finished, self.run["source"]) for gathered in self._gathered.values()
        ]
        self._gathered = {}
        self.activity = ""
        return documents

    def outcome_so_far(self, host: str) -> Gathered | None:
        """What has been gathered on *host* in the current play."""
        return self._gathered.get(host)

    def _for_host(self, host: str) -> Gathered:
        if host not in self._gathered:
            team = (self.run or {"teams": {}})["teams"].get(self.activity, "")
            self._gathered[host] = Gathered(host, self.activity, team, clock.to_text(clock.now()))
        return self._gathered[host]

    def _on_gate(self, answer: dict[str, Any], kind: str) -> None:
        if kind == "failed":
            for host in self.due.get(self.activity, []):
                self._decide(host, "failed", _words(answer))
        for decision in answer.get("decisions", []):
            self._decide(decision["host"], decision["outcome"], decision["reason"])

    def _decide(self, host: str, outcome: str, reason: str) -> None:
        gathered = self._for_host(host)
        gathered.decided_outcome, gathered.reason = outcome, reason


def _part_from(host: str, activity: str, task: str, answer: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The part that *answer* is; a failure that is none becomes a part with one failed check."""
    if is_part(answer):
        kept = {key: answer[key] for key in PART_KEYS}
        kept.update({key: answer[key] for key in ("skip_reason", "module_seconds") if key in answer})
        if kind == "failed" and not any(check.get("status") == "failed" for check in kept["checks"]):
            kept["checks"] = [*kept["checks"], _task_failed(activity, task, answer)]
        return kept
    if kind == "unreachable":
        other = (answer.get("_ansible_delegated_vars") or {}).get("ansible_delegated_host")
        check = failed_check(
            f"{other} can be reached" if other and other != host else "the host can be reached",
            expected="a connection",
            observed=_words(answer),
            advice="Check the host, the network and the SSH key; then run the activity again.",
        )
    elif kind == "failed":
        check = _task_failed(activity, task, answer)
    else:
        return None
    part = part_of(check)
    if kind == "unreachable":
        part["unreachable"] = True
    return part


def _task_failed(activity: str, task: str, answer: dict[str, Any]) -> dict[str, Any]:
    return failed_check(
        f"{activity}: {task.rpartition(' : ')[2]}",
        expected="the task to succeed",
        observed=_words(answer),
        advice="The message says what the task lacked; -vvv shows more.",
    )


def _words(answer: dict[str, Any]) -> str:
    """What a failed task said: its message, and the end of a traceback where a module died."""
    said = [str(answer.get("msg") or "no message")]
    for key in ("exception", "module_stderr", "module_stdout"):
        if answer.get(key) and answer[key] != "(traceback unavailable)":
            said.append(" | ".join(str(answer[key]).strip().splitlines()[-2:]))
            break
    return "; ".join(said)[:1000]
