"""Gates: the first that is shut decides, and says why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.plugin_utils import clock
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.gates import Circumstances, decide
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.plan import build_plan

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
GROUPS = {"databases": ["db1", "db2"], "all": ["app1", "db1", "db2"]}
DEFAULTS: dict[str, dict[str, Any]] = {
    "backup": {"cadence": "daily", "hosts": "databases"},
    "patching": {"cadence": "weekly", "hosts": "all", "requires": {"backup": "24h"}},
}
PLAN = build_plan({}, [], [], resolve=lambda pattern: GROUPS[pattern], defaults=DEFAULTS)


def result(outcome: str, age: timedelta = timedelta(hours=1)) -> dict[str, Any]:
    return {"data": {"outcome": outcome, "finished": clock.to_text(NOW - age)}}


def reasons(**circumstances: Any) -> dict[str, str]:
    """Host → why patching may not start there; empty where it may."""
    basis: dict[str, Any] = {
        "now": NOW, "plan": PLAN, "check_mode": False, "approved_by": "", "this_run": {}, "evidence": {},
    }  # fmt: skip
    decisions = decide(PLAN.entries["patching"], GROUPS["all"], Circumstances(**{**basis, **circumstances}))
    return {decision.host: decision.reason for decision in decisions}


FRESH = {("db1", "backup"): result("passed"), ("db2", "backup"): result("warned")}


def test_fresh_evidence_of_all_databases_opens_the_gate_for_a_host_that_has_no_backup_of_its_own() -> None:
    assert reasons(evidence=FRESH) == {"app1": "", "db1": "", "db2": ""}


def test_missing_or_stale_evidence_shuts_it_for_that_host_and_for_those_that_depend_on_it() -> None:
    stale = {**FRESH, ("db2", "backup"): result("passed", timedelta(hours=25))}
    found = reasons(evidence=stale)
    assert found["db1"] == ""
    assert found["db2"] == "it requires backup, and the last good one on db2 is 1 d 1 h old (at most 1 d)"
    assert found["app1"] == found["db2"]
    assert "no good result" in reasons()["db1"]


def test_a_failure_in_this_run_counts_more_than_older_evidence() -> None:
    assert (
        "it failed on db1 in this run" in reasons(evidence=FRESH, this_run={("db1", "backup"): result("failed")})["db1"]
    )


def test_a_rehearsal_stands_on_the_rehearsal_of_what_it_requires() -> None:
    rehearsed = {("db1", "backup"): result("passed"), ("db2", "backup"): result("passed")}
    assert set(reasons(check_mode=True, this_run=rehearsed).values()) == {""}
    assert reasons(check_mode=False, this_run=rehearsed)["db1"], "only the ledger's evidence counts in earnest"


def test_an_unreachable_host_fails_without_being_tried_again() -> None:
    circumstances = Circumstances(NOW, PLAN, False, "", {}, FRESH, {"db1": "02:59"})
    decisions = decide(PLAN.entries["patching"], ["db1"], circumstances)
    assert [(one.proceed, one.outcome) for one in decisions] == [(False, "failed")]
    assert "02:59" in decisions[0].reason
