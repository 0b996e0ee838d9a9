# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must hold before an activity may start: decided for all hosts at once, from the plan and the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import human_seconds
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import GOOD_OUTCOMES

from . import clock
from .plan import Entry, Plan
from .schedule import obstacle

ByHostAndActivity = Mapping[tuple[str, str], dict[str, Any]]


@dataclass(frozen=True)
class Decision:
    """Whether an activity may proceed on *host*; where it may not, the outcome to record and the reason."""

    host: str
    proceed: bool
    outcome: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Circumstances:
    """What gates look at. *this_run* and *evidence* hold result documents by (host, activity)."""

    now: datetime
    plan: Plan
    check_mode: bool
    approved_by: str
    this_run: ByHostAndActivity
    evidence: ByHostAndActivity
    unreachable: Mapping[str, str] = field(default_factory=dict)  # host → since when


def decide(entry: Entry, hosts: Iterable[str], circumstances: Circumstances) -> list[Decision]:
    """One decision for each of *hosts*: the first gate that is shut decides."""
    shut_for_all = _approval(entry, circumstances) or _calendar(entry, circumstances)
    return [_decide_for(entry, host, shut_for_all, circumstances) for host in hosts]


def _decide_for(entry: Entry, host: str, shut_for_all: str, circumstances: Circumstances) -> Decision:
    if host in circumstances.unreachable:
        since = circumstances.unreachable[host]
        return Decision(
            host, False, "failed", f"{host} has been unreachable since {since}; not tried again in this run"
        )
    reason = shut_for_all or _required_evidence(entry, host, circumstances)
    return Decision(host, False, "skipped", reason) if reason else Decision(host, True)


def _approval(entry: Entry, circumstances: Circumstances) -> str:
    if not entry.approval_required or circumstances.approved_by:
        return ""
    return f"{entry.activity} needs an approval: run it with -e approved_by=NAME -e change=NUMBER"


def _calendar(entry: Entry, circumstances: Circumstances) -> str:
    if not entry.disruptive or circumstances.check_mode:
        return ""
    return obstacle(circumstances.now, circumstances.plan.windows, circumstances.plan.freezes)


def _required_evidence(entry: Entry, host: str, circumstances: Circumstances) -> str:
    for name, max_age in entry.requires.items():
        for provider in _providers(name, host, circumstances.plan):
            reason = _lacking(name, provider, max_age, circumstances)
            if reason:
                return f"it requires {name}, and {reason}"
    return ""


def _providers(activity: str, host: str, plan: Plan) -> tuple[str, ...]:
    """Whose evidence counts for *host*: its own where it has the activity, else that of all hosts that have it."""
    hosts = plan.entries[activity].hosts
    return (host,) if host in hosts else hosts


def _lacking(activity: str, host: str, max_age: float, circumstances: Circumstances) -> str:
    """Why the evidence of *activity* on *host* is not good enough, in words; empty when it is."""
    here = circumstances.this_run.get((host, activity))
    if here is not None:
        outcome = here["data"]["outcome"]
        # A rehearsal stands on rehearsals: in check mode nothing better can be had.
        if outcome in GOOD_OUTCOMES and circumstances.check_mode:
            return ""
        if outcome not in (*GOOD_OUTCOMES, "skipped"):
            return f"it {outcome} on {host} in this run"
    proof = circumstances.evidence.get((host, activity))
    if proof is None:
        return f"the ledger has no good result of it for {host}"
    age = (circumstances.now - clock.from_text(proof["data"]["finished"])).total_seconds()
    if age > max_age:
        return f"the last good one on {host} is {human_seconds(age)} old (at most {human_seconds(max_age)})"
    return ""
