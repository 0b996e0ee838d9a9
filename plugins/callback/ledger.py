# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: ledger
type: notification
short_description: Writes what activities showed to the ledger
version_added: "0.1.0"
author: The Wellkept team (@wellkept)
description:
  - Collects what the modules of an activity answered on a host into one result, validates it, and appends it to the
    ledger that the opening of the run named.
  - Each part is appended as it arrives, so that killing the controller loses no finished work.
requirements:
  - enabled by C(callbacks_enabled = wellkept.maintenance.ledger) in ansible.cfg; a run does not open without it
  - sqlalchemy and jsonschema on the control node
"""

import atexit
import os
from typing import TYPE_CHECKING, Any

from ansible.plugins.callback import CallbackBase
from ansible_collections.wellkept.maintenance.plugins.plugin_utils import interrupts
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.collector import Collector
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.open_ledger import open_ledger
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.presence import announce
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.task_results import (
    action_of,
    answer_of,
    host_of,
    task_of,
)

if TYPE_CHECKING:
    from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "wellkept.maintenance.ledger"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._collector = Collector()
        self._ledger: Ledger | None = None
        self._unwritten: list[dict[str, Any]] = []
        announce()
        interrupts.let_none_be_lost()

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._keep(self._collector.on_play_start(play.get_vars().get("maintenance_activity")))

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._keep(self._collector.finish())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._on_answer(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._on_answer(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._on_answer(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._on_answer(result, "unreachable")

    def _on_answer(self, result: Any, kind: str) -> None:
        host, task, answer = host_of(result), task_of(result).get_name(), answer_of(result)
        opened_before = self._collector.run is not None
        part = self._collector.on_answer(host, action_of(result), task, answer, kind=kind)
        run = self._collector.run
        if run is None:
            return
        if not opened_before:
            self._ledger = open_ledger(run["ledger"])
            atexit.register(self._end_if_still_open, run["id"], os.getpid())
        if part and self._ledger:
            self._ledger.append_part(run["id"], host, self._collector.activity, part)

    def _keep(self, documents: list[dict[str, Any]]) -> None:
        """Append *documents*, with those that could not be written before: what fails now is tried again."""
        self._unwritten += documents
        if self._unwritten and self._ledger:
            self._ledger.append_results(self._unwritten)
            self._unwritten = []

    def _end_if_still_open(self, run_id: str, pid: int) -> None:
        # Forked workers inherit exit handlers, and are not the ones to end the run.
        if self._ledger and os.getpid() == pid:
            self._ledger.end_run(run_id, "interrupted", "failed", "the playbook ended before the run was closed")
