# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make the backup that is due, tell what would be made, or what shows that none is due."""

from __future__ import annotations

import time
import typing as t
from datetime import datetime, timezone

from ..errors import MaintenanceError
from ..quantities import human_bytes
from ..result import Part
from . import findings
from .engine import IncrementalRefusedError
from .planning import State, choose, fates, holder, order_for, predicted_bytes
from .repository import Backup
from .retention import Decision, Known


def tell_unavailable(unavailable: t.Mapping[str, MaintenanceError], part: Part) -> None:
    for name, error in unavailable.items():
        findings.report_unavailable(name, error, part)


def act(params: dict[str, t.Any], state: State, decision: Decision, part: Part) -> Backup | None:
    """Make the backup that is due; where an incremental one is refused, a full one. None when there is no room."""
    engine, policy = state.engine, state.policy
    began = time.monotonic()
    order = order_for(decision, state)
    if not _has_room(state, predicted_bytes(state, order), part):
        return None
    part.require(
        "type of the backup", True, expected="incremental where possible", observed=f"{decision.type}: {decision.why}"
    )
    earlier = engine.list()
    try:
        made = engine.create(params, order, holder(params))
    except IncrementalRefusedError as refused:
        part.check(
            "incremental backup",
            "warned",
            expected=f"one that builds on {order.parent}",
            observed=refused.observed,
            advice="A full one was made instead. Look at summarize_wal and wal_summary_keep_time.",
        )
        full = order._replace(type="full", parent="")
        made = engine.create(params, full, holder(params))
    findings.report_created(part, made, policy.max_block, time.monotonic() - began)
    findings.report_lacks(made.backup, {*state.unavailable, *made.backup.metadata["stores"]}, part)
    findings.report_size(part, made.backup, earlier)
    return made.backup


def announce(state: State, part: Part) -> None:
    """Check mode: record what would be done."""
    for name in state.leftovers:
        part.change("leftover", name, "present", "would be removed")
    decision = choose(state)
    if decision.due:
        needed = predicted_bytes(state, order_for(decision, state))
        _has_room(state, needed, part)
        words = f"{decision.type}, about {human_bytes(needed)} ({decision.why})"
        part.change("backup", f"new backup of {state.engine.repository.cluster}", "absent", words)
        for store in order_for(decision, state).stores:
            store.foretell(state.engine.repository, part)
        chain = (*next((b.chain for b in state.known if b.label == decision.parent), ()), "new")
        expected = Known("new", decision.type, chain, datetime.now(timezone.utc))
        state = state._replace(known=[*state.known, expected])
    else:
        report_newest(state, part)
    decided = fates(state, look=False)
    for label, reason in decided.going.items():
        part.change("backup", label, "present", f"would expire: {reason}")
    findings.report_retention(part, decided, state.policy.rules, "would go")


def report_newest(state: State, part: Part) -> None:
    """Nothing is due: say what shows that."""
    engine = state.engine
    newest = max(state.known, key=lambda backup: backup.finished)
    verifications = engine.verify_chain(newest.label, quick=True)
    age = (datetime.now(timezone.utc) - newest.finished).total_seconds()
    backup = engine.repository.backup(newest.label)
    findings.report_newest(part, backup, verifications, age)
    findings.report_lacks(backup, state.unavailable, part)
    part.metric("repository_free_bytes", engine.repository.free_bytes(), "bytes")


def _has_room(state: State, needed: int, part: Part) -> bool:
    repository = state.engine.repository
    return findings.report_space(
        part, repository.directory, needed, free=repository.free_bytes(), min_free=state.policy.min_free
    )
