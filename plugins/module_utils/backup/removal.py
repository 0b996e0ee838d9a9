# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes: backups that nobody needs any more, and what killed runs left."""

from __future__ import annotations

from ..errors import MaintenanceError, UnavailableError
from ..quantities import human_bytes
from ..result import Part
from . import findings
from .engine import Engine
from .planning import Policy, State, fates
from .stores.registry import clear_leftover
from .stores.store import Store


def expire(state: State, part: Part) -> None:
    decided = fates(state)
    for label, reason in decided.going.items():
        try:
            size = state.engine.expire(label, state.policy.stores)
        except MaintenanceError as error:
            findings.report_not_removed(label, error, part)
            continue
        part.change("backup", label, human_bytes(size), f"expired: {reason}")
    for store in state.policy.stores:
        _tidy(store, state, part)
    left = {backup.label for backup in state.engine.list()}
    findings.report_retention(part, decided, state.policy.rules, "went", failed=left & set(decided.going))


def _tidy(store: Store, state: State, part: Part) -> None:
    if store.name in state.unavailable:
        return
    try:
        store.tidy(state.engine.repository, part)
    except UnavailableError as error:
        findings.report_not_removed(f"what nobody needs in the store {store.name}", error, part)


def remove_leftovers(engine: Engine, policy: Policy, part: Part) -> None:
    """Remove what killed runs left."""
    repository = engine.repository
    names = repository.leftovers()
    for name in names:
        try:
            clear_leftover(repository, name, policy.stores)
            engine.clear_leftover(name.partition("-")[2])
        except MaintenanceError as error:
            findings.report_not_removed(name, error, part)
            continue
        size = repository.remove_leftover(name)
        part.change("leftover", name, human_bytes(size), "removed")
    part.require(
        "leftovers of killed runs",
        not repository.leftovers(),
        expected="none",
        observed=f"{len(names)} removed" if names else "none",
        advice=f"Remove them from {repository.directory} by hand.",
    )
