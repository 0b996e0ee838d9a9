# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Shows how a maintenance run goes, and what it found, to a person
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - On a terminal, shows activities and hosts with their outcomes while the run goes on.
  - Elsewhere, prints one line for each activity on a host when it is finished.
  - In the end, prints the table of outcomes, each check that did not pass with what to do, and where the report is.
  - With C(-v) and above it is the same as P(ansible.builtin.default#callback).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
options:
  live:
    description:
      - Whether a terminal shows the live view. Without it, a terminal gets the same lines as a log.
    type: bool
    default: true
    env:
      - name: WELLKEPT_LIVE
    ini:
      - key: live
        section: wellkept
requirements:
  - rich on the control node, for the live view
"""

import atexit
import os
import shutil
import sys
from typing import Any

from ansible import constants as settings
from ansible import context
from ansible.plugins.callback.default import CallbackModule as DefaultCallback
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import outcome_of
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.collector import (
    CLOSE_ACTION,
    GATE_ACTION,
    OPEN_ACTION,
    Collector,
)
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.progress_fallback import or_default
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.progress_text import Line, Teller, words_of_failure
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.results import is_part
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.task_results import (
    action_of,
    answer_of,
    host_of,
    task_of,
)

COLOURS = {
    "passed": settings.COLOR_OK,
    "warned": settings.COLOR_WARN,
    "failed": settings.COLOR_ERROR,
    "skipped": settings.COLOR_SKIP,
    "unknown": settings.COLOR_WARN,
    "changed": settings.COLOR_CHANGED,
}
CHECK_MODE = "Check mode: nothing is changed, and what this run shows is no evidence."
INTERACTIVE = {"pause", "ansible.builtin.pause", "ansible.legacy.pause"}


class CallbackModule(DefaultCallback):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "wellkept.maintenance.progress"

    def __init__(self) -> None:
        super().__init__()
        self.as_default = self._display.verbosity > 0
        self._tell = Teller(sys.stdout.encoding or "ascii", _width())
        self._collector = Collector()
        self._results: list[dict[str, Any]] = []
        self._summary: dict[str, Any] | None = None
        self._live: Any = None
        self._paused = False

    # What Ansible reports

    @or_default
    def v2_playbook_on_start(self, playbook: Any) -> None:
        if context.CLIARGS.get("check"):
            self._say(CHECK_MODE, "warned")

    @or_default
    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play
        self._keep(self._collector.on_play_start(play.get_vars().get("maintenance_activity")))

    @or_default
    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._on_task(task, "TASK")

    @or_default
    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._on_task(task, "RUNNING HANDLER")

    @or_default
    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        activity, name = self._collector.activity, host.get_name()
        if self._live and activity and task.action != GATE_ACTION:
            gathered = self._collector.outcome_so_far(name)
            if not gathered or not (gathered.parts or gathered.decided_outcome):
                self._live.update(activity, name, "running")

    @or_default
    def v2_runner_on_ok(self, result: Any) -> None:
        answer = answer_of(result)
        self._tell_warnings(result)
        part = self._collect(result, answer, "ok")
        if not part:
            self._tell_answer(result, answer)

    @or_default
    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        answer = answer_of(result)
        known = (
            is_part(answer) or "problems" in answer or "maintenance_summary" in answer or "maintenance_text" in answer
        )
        if known:
            answer.pop("exception", None)  # it would only repeat the message, with the place in the playbook
        told = self._tell_warnings(result)
        self._collect(result, answer, "ignored" if ignore_errors else "failed")
        if is_part(answer) and self._collector.activity:
            return  # told in the activity's line, and in the end
        self._tell_failure(result, answer, ignored=ignore_errors, told=told)

    @or_default
    def v2_runner_on_skipped(self, result: Any) -> None:
        self._tell_warnings(result)
        self._collect(result, answer_of(result), "skipped")

    @or_default
    def v2_runner_on_unreachable(self, result: Any) -> None:
        answer = answer_of(result)
        part = self._collect(result, answer, "unreachable")
        if part:
            answer.pop("exception", None)  # the activity's line and the summary say it
        self._tell_warnings(result)
        if not part:
            self._say(
                f"{self._tell.signs['failed']} {host_of(result)} cannot be reached: {answer.get('msg', '')}", "failed"
            )

    @or_default
    def v2_runner_item_on_ok(self, result: Any) -> None:
        self._tell_warnings(result)

    @or_default
    def v2_runner_item_on_skipped(self, result: Any) -> None:
        self._tell_warnings(result)

    @or_default
    def v2_runner_item_on_failed(self, result: Any) -> None:
        told = self._tell_warnings(result)
        answer = answer_of(result)
        self._tell_failure(result, answer, item=str(self._get_item_label(answer)), told=told)

    @or_default
    def v2_runner_retry(self, result: Any) -> None:
        answer = answer_of(result)
        left = answer.get("retries", 0) - answer.get("attempts", 0)
        self._say(
            f"{host_of(result)}: {task_of(result).get_name()}: trying again, at most {left} more times", "skipped"
        )

    @or_default
    def v2_on_file_diff(self, result: Any) -> None:
        answer = answer_of(result)
        several = answer.get("results") if task_of(result).loop else None
        diffs = [one["diff"] for one in several or [answer] if one.get("diff") and one.get("changed")]
        if diffs:
            task = task_of(result).get_name().rpartition(" : ")[2]
            would = "would change" if context.CLIARGS.get("check") else "changed"
            self._say(f"{host_of(result)}: {task}: {would}", "changed")
        for diff in [one for many in diffs for one in (many if isinstance(many, list) else [many])]:
            short = self._tell.short_change(diff)
            if short:
                self._lines(short)
            else:
                self._display.display(self._get_diff(diff))

    @or_default
    def v2_playbook_on_no_hosts_matched(self) -> None:
        # An activity that is due nowhere has no hosts; "!all" has none on purpose, as in open.yml.
        pattern = self._play.hosts if self._play else "the pattern"
        shown = pattern if isinstance(pattern, str) else ", ".join(map(str, pattern))
        if not self._collector.run and not self._collector.activity and shown != "!all":
            self._say(f"No host matches {shown}: nothing done.", "skipped")

    @or_default
    def v2_playbook_on_no_hosts_remaining(self) -> None:
        self._say("No host is left to go on with.", "failed")

    @or_default
    def v2_playbook_on_include(self, included_file: Any) -> None:
        pass

    @or_default
    def v2_runner_on_async_poll(self, result: Any) -> None:
        pass

    @or_default
    def v2_runner_on_async_ok(self, result: Any) -> None:
        pass

    @or_default
    def v2_playbook_on_vars_prompt(self, *arguments: Any, **options: Any) -> None:
        self._close_live()

    @or_default
    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._keep(self._collector.finish())
        self._close_live()
        self._lines(self._tell.summary(self._results))
        if self._summary:
            self._lines(self._tell.closing(self._summary))
        else:
            self._recap(stats)
            if self._collector.run:
                self._say("The run did not reach its end: there is no verdict and no report of it.", "failed")
        if stats.custom and self.get_option("show_custom_stats"):
            self._say(f"Custom stats: {self._dump_results(stats.custom)}")
        if context.CLIARGS.get("check"):
            self._say(CHECK_MODE, "warned")
        sys.stdout.flush()

    # What is made of it

    def _tell_warnings(self, result: Any) -> bool:
        """Ansible's own words for warnings, deprecations and errors; returns whether there was an error among them."""
        answer = answer_of(result)
        error = bool(answer.get("exception"))
        if hasattr(self, "_handle_warnings_and_exception"):
            self._handle_warnings_and_exception(result)
        else:  # ansible-core 2.18
            self._handle_exception(answer)
            self._handle_warnings(answer)
        return error

    def _collect(self, result: Any, answer: dict[str, Any], kind: str) -> dict[str, Any] | None:
        host, action = host_of(result), action_of(result)
        part = self._collector.on_answer(host, action, task_of(result).get_name(), answer, kind=kind)
        if action == OPEN_ACTION and kind == "ok":
            self._lines(self._tell.opening(self._collector.run or {}, self._collector.due))
            self._lines(self._tell.interrupted(answer.get("interrupted", [])))
            self._open_live()
        if action == CLOSE_ACTION and "maintenance_summary" in answer:
            self._summary = answer["maintenance_summary"]
        if self._live and self._collector.activity:
            self._show_states(host, action, answer)
        return part

    def _show_states(self, host: str, action: str, answer: dict[str, Any]) -> None:
        hosts = [one["host"] for one in answer.get("decisions", [])] if action == GATE_ACTION else [host]
        for name in hosts:
            gathered = self._collector.outcome_so_far(name)
            if not gathered:
                continue
            checks = [check for part in gathered.parts for check in part.get("checks", [])]
            skipped = "skipped" if any(part.get("skip_reason") for part in gathered.parts) else ""
            state = gathered.decided_outcome or (outcome_of(checks) if checks else skipped)
            if state:
                self._live.update(self._collector.activity, name, state)
        self._live.refresh()

    def _keep(self, documents: list[dict[str, Any]]) -> None:
        """Tell the results of the play that is over."""
        for document in documents:
            data = document["data"]
            self._results.append(data)
            if self._live:
                self._live.update(data["activity"], data["host"], data["outcome"])
            if not self._live or data["outcome"] != "passed":
                self._say(self._tell.tick(data), data["outcome"])
        if self._live:
            self._live.refresh()

    def _on_task(self, task: Any, prefix: str) -> None:
        # Ansible's own output needs these, should it have to take over.
        self._task_type_cache[task._uuid] = prefix
        self._last_task_name = task.get_name().strip()
        if self._live and task.action in INTERACTIVE:
            self._close_live()
            self._paused = True
        elif self._paused:
            self._paused = False
            self._open_live()
        if self._live:
            activity = f"{self._collector.activity}: " if self._collector.activity else ""
            self._live.running(self._tell.line(f"{activity}{task.get_name().rpartition(' : ')[2]}"))

    def _tell_answer(self, result: Any, answer: dict[str, Any]) -> None:
        """What a task that carries out no activity has to say."""
        if "maintenance_text" in answer:
            self._say_page(answer["maintenance_text"])
        elif answer.get("_ansible_verbose_always") or task_of(result).action in settings._ACTION_DEBUG:
            self._clean_results(answer, task_of(result).action)
            said = answer.get("msg")
            self._say_as_it_is(said if isinstance(said, str) else self._dump_results(answer))
        elif answer.get("changed") and not (self._collector.activity and is_part(answer)):
            self._say(f"{host_of(result)}: {task_of(result).get_name().rpartition(' : ')[2]}: changed", "changed")

    def _tell_failure(
        self, result: Any, answer: dict[str, Any], *, item: str = "", ignored: bool = False, told: bool = False
    ) -> None:
        if "maintenance_summary" in answer:
            return  # told in the end
        if "maintenance_text" in answer:
            self._say_page(answer["maintenance_text"])
        sign, task = self._tell.signs["failed"], task_of(result).get_name().rpartition(" : ")[2]
        if answer.get("problems"):
            first, *more = str(answer.get("msg") or "failed").splitlines()
            self._say(f"{sign} {first}" if more else f"{sign} {task} failed", "failed")
            for problem in answer["problems"]:
                self._say_as_it_is(f"  - {problem}", "failed")
            return
        self._say(
            f"{sign} {host_of(result)}: {task}{f' ({item})' if item else ''} failed{', ignored' if ignored else ''}",
            "failed",
        )
        for text in words_of_failure(answer) or ([] if told else [self._dump_results(answer)]):
            self._say_as_it_is("\n".join(f"    {line}" for line in str(text).splitlines()), "failed")

    def _recap(self, stats: Any) -> None:
        """For playbooks that are no run: one line a host."""
        self._lines([self._tell.recap(host, stats.summarize(host)) for host in sorted(stats.processed)])

    # How it gets onto the screen

    def _say(self, text: str, status: str = "") -> None:
        self._display.display(self._tell.line(text), color=COLOURS.get(status))
        self._flush()

    def _say_as_it_is(self, text: str, status: str = "") -> None:
        self._display.display(self._tell.clean(text), color=COLOURS.get(status))
        self._flush()

    def _say_page(self, text: str) -> None:
        self._display.display(self._tell.page(text))
        self._flush()

    def _lines(self, lines: list[Line]) -> None:
        for text, status in lines:
            self._display.display(text, color=COLOURS.get(status))
        self._flush()

    def _flush(self) -> None:
        # Ansible leaves it to the end; whoever follows a log wants to see each line when it is written.
        if not self._live:
            sys.stdout.flush()

    def _open_live(self) -> None:
        run = self._collector.run
        if not run or not self._collector.due or not self._wants_live():
            return
        try:
            from ansible_collections.wellkept.maintenance.plugins.plugin_utils.progress_live import LiveView

            title = f"{run['cadence'].replace('_', ' ')} run{', check mode' if run['check_mode'] else ''}"
            live = LiveView(self._collector.due, title, unicode=self._tell.unicode, colour=not settings.ANSIBLE_NOCOLOR)
            live.start()
        except ImportError:
            self._display.warning("The live view needs rich: pip install rich. Going on with plain lines.")
            return
        self._live = live
        for data in self._results:
            live.update(data["activity"], data["host"], data["outcome"])
        atexit.register(live.stop)

    def _wants_live(self) -> bool:
        return bool(self.get_option("live") and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb")

    def _close_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def give_up(self, why: str) -> None:
        """Leave the rest to Ansible's own output, and lose nothing of what is known."""
        self.as_default = True
        try:
            self._close_live()
        finally:
            self._display.warning(f"The progress view failed; Ansible's own output takes over.\n{why}")


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or 100)
